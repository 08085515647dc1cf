"""Models that come with the package: a name in, a location out."""

from __future__ import annotations

from sedflow_dist.flow import shipped
from storage_schemas.backend.location import Location

names = shipped.names


def model(name_or_url: str) -> Location:
    """Return where a model is: one that comes with the package by its name, any other by its path or URL."""
    return Location.parse(shipped.resolve(name_or_url))
