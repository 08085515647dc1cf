"""What astropy writes beside the columns of Parquet and HDF5, as YAML: their units, and which column is the mask of which."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import yaml

from storage_schemas.backend.printable import shortened


def read(text: bytes | str, title: str, key: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return units by column, and columns of masks by the column that they are of; ``key`` is where the text stands.

    Raises:
        ValueError: it is not what astropy writes.
    """
    try:
        content = _Plain(text).get_single_data()
        columns = [column for column in content["datatype"] if isinstance(column, dict)]
        pairs = [(column.get("name"), column.get("unit")) for column in columns]
        found = {name: unit for name, unit in pairs if isinstance(name, str) and isinstance(unit, str)}
        return found, dict(_masks(content.get("meta")))
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{title}: its metadata {key}, which say what its columns are, cannot be read: {shortened(error)}"
        ) from error


def over(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return a mask (row,) or (row, entry) as one of the values' shape."""
    flat = np.ma.filled(mask, True).astype(bool)
    return np.broadcast_to(flat.reshape(flat.shape + (1,) * (values.ndim - flat.ndim)), values.shape)


class _Plain(yaml.SafeLoader):
    """YAML in which every tag is a plain mapping, list or text: no object is made, and no mapping is merged into another."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave ``<<`` a key as any: astropy writes none, and merges of merges double."""


def _any_tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return str(node.value)


_Plain.add_multi_constructor("", _any_tag)
_Plain.add_multi_constructor("!", _any_tag)


def _masks(meta: Any, seen: set[int] | None = None) -> Iterator[tuple[str, str]]:
    """Pairs of a column and the column that is its mask, wherever they stand in astropy's metadata.

    What stands there many times, by YAML's aliases, is looked at once.
    """
    seen = set() if seen is None else seen
    if isinstance(meta, dict | list | tuple):
        if id(meta) in seen:
            return
        seen.add(id(meta))
    if isinstance(meta, dict):
        data, mask = ((meta.get(key) or {}) for key in ("data", "mask"))
        names = [one.get("name") if isinstance(one, dict) else None for one in (data, mask)]
        if isinstance(names[0], str) and isinstance(names[1], str):
            yield names[0], names[1]
        meta = list(meta.values())
    if isinstance(meta, list | tuple):
        for part in meta:
            yield from _masks(part, seen)
