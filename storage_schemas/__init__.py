"""What every store looks like, and how to create, open and publish it."""

from storage_schemas.catalog import open_catalog
from storage_schemas.storage import Location

__all__ = ["Location", "open_catalog"]
