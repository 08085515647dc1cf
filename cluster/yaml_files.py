"""YAML as people mean it: the core schema of YAML 1.2, in which `on`, `no` and 12:30 are words; a key stands once.

PyYAML reads YAML 1.1, where a join's ``on:`` is the key True, a column NO is False, and a walltime of 01:00:00 is 3600.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

_CORE = "tag:yaml.org,2002:"
#: Plain words that are no text, and the characters that they can begin with: YAML 1.2.2, section 10.3.2, and its merge key.
_WORDS = {
    "merge": (r"<<", "<"),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Leading zeros make no octal number: identifiers have them."""
        text = str(self.construct_scalar(node))
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML takes for something else than text."""

    yaml_implicit_resolvers = {first: list(words) for first, words in yaml.SafeDumper.yaml_implicit_resolvers.items()}


for _name, (_pattern, _first) in _WORDS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{_CORE}{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor(f"{_CORE}int", _Loader.construct_yaml_int)


def dump(content: Any, **layout: Any) -> str:
    """Return YAML that `read` reads as it was; ``layout`` as of PyYAML."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, **layout))


def read(file: Path) -> Any:
    """Read a YAML file.

    Raises:
        ValueError: it is none, or a key stands twice in one section.
    """
    try:
        loader = _Loader(file.read_text())
        try:
            node = loader.get_single_node()
            _refuse_twins(loader, node, file)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not YAML: {_without_content(error)}") from None


def _refuse_twins(loader: _Loader, document: yaml.Node | None, file: Path) -> None:
    """Raise ValueError where a key stands twice in a mapping: YAML forbids it, and the loader would take the last."""
    todo, seen = [document], set[int]()
    while todo:
        node = todo.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):  # an anchored node is looked at once
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
            continue
        lines: dict[Any, int] = {}
        for key, value in node.value:
            todo += (key, value)
            if isinstance(key, yaml.ScalarNode):
                merge = key.tag == "tag:yaml.org,2002:merge"
                name, line = key.value if merge else loader.construct_object(key), key.start_mark.line + 1
                if name in lines:
                    raise ValueError(
                        f"{file} has the key {key.value!r:.100} twice in one section, in lines {lines[name]} and {line}: "
                        "remove one of them"
                    )
                lines[name] = line


def _without_content(error: Exception) -> str:
    """Say what is wrong with YAML, and where, without a word of what stands there: it may be a secret."""
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
    return where + re.sub(r"(['\"])(?!<)[^'\"]{2,}\1", "...", str(said))
