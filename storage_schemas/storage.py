"""Where stores live: a local folder or an object store behind one URL.

In: ``path`` or ``s3://bucket/prefix``, and options. Out: Zarr stores, Icechunk storage, single objects. Credentials come from
the storage libraries' own chains (environment, instance roles), never from here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import icechunk
import obstore
import zarr
from obstore.store import LocalStore, ObjectStore, S3Store
from zarr.storage import ObjectStore as ZarrObjectStore

if TYPE_CHECKING:
    from obstore.store import RetryConfig, S3Config

_RETRIES: RetryConfig = {"max_retries": 8}


@dataclass(frozen=True)
class Location:
    """A place for stores: ``url`` is an absolute local path or ``s3://bucket/prefix``.

    ``endpoint`` and ``region`` point at an S3 service other than AWS's default (``AWS_ENDPOINT_URL`` works as well).
    """

    url: str
    endpoint: str | None = None
    region: str | None = None

    @classmethod
    def parse(cls, url: str | os.PathLike[str], endpoint: str | None = None, region: str | None = None) -> Location:
        """Check a URL and make local paths absolute.

        Raises:
            ValueError: the URL has a scheme other than ``s3`` or names no bucket.
        """
        text = os.fspath(url)
        if "://" not in text:
            return cls(str(Path(text).expanduser().resolve()))
        scheme, _, rest = text.partition("://")
        if scheme == "file":
            return cls(str(Path(rest).resolve()))
        if scheme != "s3" or not rest.split("/")[0]:
            raise ValueError(f"cannot store at {text!r}; allowed are a local path and s3://bucket/prefix")
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return cls(text.rstrip("/"), endpoint, region)

    def __truediv__(self, name: str) -> Location:
        return Location(f"{self.url}/{name}", self.endpoint, self.region)

    def __str__(self) -> str:
        return self.url

    @property
    def is_local(self) -> bool:
        """Whether this is a folder of this machine."""
        return "://" not in self.url

    @property
    def _bucket_and_prefix(self) -> tuple[str, str]:
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        return bucket, prefix

    @property
    def _insecure(self) -> bool:
        return bool(self.endpoint and self.endpoint.startswith("http://"))

    def objects(self) -> ObjectStore:
        """Return an obstore store rooted here; a local folder is made."""
        if self.is_local:
            return LocalStore(self.url, mkdir=True)
        bucket, prefix = self._bucket_and_prefix
        config: S3Config = {"region": self.region}  # type: ignore[typeddict-item]
        if self.endpoint:
            config |= {"endpoint": self.endpoint, "virtual_hosted_style_request": False}
        return S3Store(
            bucket, prefix=prefix or None, config=config, client_options={"allow_http": self._insecure},
            retry_config=_RETRIES,
        )  # fmt: skip

    def zarr(self, read_only: bool = False) -> ZarrObjectStore:
        """Return a Zarr store rooted here."""
        return ZarrObjectStore(self.objects(), read_only=read_only)

    def icechunk(self) -> icechunk.Storage:
        """Return Icechunk storage rooted here."""
        if self.is_local:
            return icechunk.local_filesystem_storage(self.url)
        bucket, prefix = self._bucket_and_prefix
        return icechunk.s3_storage(
            bucket=bucket, prefix=prefix, region=self.region, endpoint_url=self.endpoint, allow_http=self._insecure,
            force_path_style=self.endpoint is not None, from_env=True,
        )  # fmt: skip

    # -- single objects -------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether anything is stored below this place."""
        if self.is_local:
            path = Path(self.url)
            return path.is_dir() and any(path.iterdir())
        return next(self.list(), None) is not None

    def require(self) -> None:
        """Raise FileNotFoundError where a local folder does not exist: looking for a store must not make one."""
        if self.is_local and not Path(self.url).is_dir():
            raise FileNotFoundError(f"no folder {self.url}")

    def put(self, name: str, data: bytes) -> None:
        """Write one object below this place, atomically."""
        obstore.put(self.objects(), name, data)

    def get(self, name: str) -> bytes:
        """Read one object below this place.

        Raises:
            FileNotFoundError: there is none; names it.
        """
        self.require()
        try:
            return bytes(obstore.get(self.objects(), name).bytes())
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no object {self.url}/{name}") from error

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of all objects below this place."""
        if self.is_local and not Path(self.url).is_dir():
            return
        for page in self.objects().list(prefix or None):
            for meta in page:
                yield meta["path"]

    def remove(self, prefix: str = "") -> None:
        """Delete every object below this place whose name starts with ``prefix``."""
        if names := [name for name in self.list() if name.startswith(prefix)]:
            obstore.delete(self.objects(), names)
        if self.is_local and not prefix and Path(self.url).is_dir():
            shutil.rmtree(self.url)  # its folders


def open_group(location: Location, kind: str, mode: Literal["r", "r+"] = "r") -> zarr.Group:
    """Open a store of ours read-only (``r``) or for filling (``r+``), and check what it says it is.

    Raises:
        FileNotFoundError: nothing there, or a group that was never finished.
        ValueError: it is another kind of store; says what was found.
    """
    try:
        location.require()
        group = zarr.open_group(location.zarr(read_only=mode == "r"), mode=mode, zarr_format=3)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no {kind} store at {location}") from error
    found = group.attrs.get("sedflow_kind")
    if found is None:
        raise FileNotFoundError(f"no {kind} store at {location}: a Zarr group that is not ours, or was never finished")
    if found != kind:
        raise ValueError(f"{location} holds a {found} store; expected a {kind} store")
    return group
