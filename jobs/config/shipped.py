"""Models that come with the package: a name in, a location out."""

from __future__ import annotations

from pathlib import Path

from storage_schemas.backend.location import Location

_FOLDER = Path(__file__).parents[1] / "models"


def names() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(path.name for path in _FOLDER.iterdir())


def model(name_or_url: str) -> Location:
    """Return where a model is: one that comes with the package by its name, any other by its path or URL."""
    shipped = name_or_url in names() and not Path(name_or_url).exists()
    return Location.parse(str(_FOLDER / name_or_url) if shipped else name_or_url)
