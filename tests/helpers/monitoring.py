"""The files of deploy/monitoring, and the metrics that they ask for."""

import json
import re

import yaml
from paths import ROOT

FOLDER = ROOT / "deploy" / "monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
ALERTS = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
EXPRESSIONS = [*QUERIES, *(rule["expr"] for rule in ALERTS)]
NAME = re.compile(r"\b(?:sedflow|dask|ray)_[a-z0-9_]+\b")


def names(expressions, prefix):
    return {name for text in expressions for name in NAME.findall(text) if name.startswith(prefix)}
