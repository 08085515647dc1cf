"""Models that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parents[1] / "models"


def names() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(path.name for path in _FOLDER.iterdir())


def resolve(name_or_url: str) -> str:
    """Return the folder of a model that comes with the package; anything else, a folder of that name too, as it is."""
    return str(_FOLDER / name_or_url) if name_or_url in names() and not Path(name_or_url).exists() else name_or_url
