"""What every store looks like, and how to create, open and publish it."""

from storage_schemas.backend.location import Location
from storage_schemas.catalog.schema import open_catalog

__all__ = ["Location", "open_catalog"]
