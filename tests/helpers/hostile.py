"""A run whose texts are hostile, wherever others write them: names, identifiers, bands, meanings, models; with a validation."""

from types import SimpleNamespace

import made_catalog
import numpy as np

from jobs.config.run_file import RunFile
from storage_schemas import validation

N, SHARD = 3000, 512
SCRIPT = "</script><script>document.title='caught'</script><img src=x onerror=alert(1)>"
HOSTILE = {
    "script": SCRIPT, "template": "{{ 7 * 191 }}{% raw %}${7*191}", "right to left": "abc\u202edcba\u2066x",
    "long": "10kB" * 2500, "formula": "$$\\href{javascript:alert(1)}{x}$$",
}  # fmt: skip


def run(root):
    """Fill a catalog and a validation store in an empty place."""
    texts = list(HOSTILE.values())
    ids = np.array([texts[i % len(texts)] for i in range(N)], np.dtypes.StringDType())
    none = np.zeros(N, bool)
    made_catalog.publish(
        root / "catalog", N, SHARD, False, more_ids={f"ID {SCRIPT}": ("str", ids, none), "{{ 7 * 191 }}": ("str", ids, none)},
        labels=("u", SCRIPT, HOSTILE["formula"], "{{ 7 * 191 }}", "z"), model=SCRIPT,
        meanings=[f"{meaning}{SCRIPT}" for meaning in made_catalog.MEANINGS],
    )  # fmt: skip
    _validate(root / "validation", 300)
    settings = RunFile.model_validate({
        "name": f"run {SCRIPT} {HOSTILE['template']}", "root": root.url, "input": "galaxies.fits", "survey": "sdss", "seed": 7,
    })  # fmt: skip
    return SimpleNamespace(run=settings, catalog=root / "catalog")


def _validate(where, n):
    rng = np.random.default_rng(1)
    shapes = {"galaxy": n, "param": 3, "band": 5}
    values = {
        spec.name: rng.random([shapes[dim] for dim in spec.dims]).astype(spec.dtype) for spec in validation.ARRAYS
    }
    values["complete"] = np.ones(n, bool)
    validation.write(where, values, ["log_mstar", SCRIPT, "{{ 7 * 191 }}"], list("ugriz"), {"model": SCRIPT})
