"""Where stores live: a local folder or an object store behind one URL.

In: ``path`` or ``s3://bucket/prefix``, and options. Out: Zarr stores, Icechunk storage, single objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import icechunk
import obstore
import zarr
from icechunk import RepositoryConfig
from obstore.store import LocalStore, ObjectStore, S3Store
from zarr.storage import ObjectStore as ZarrObjectStore

from storage_schemas.backend import credentials, redirects
from storage_schemas.backend.arrays import check_version
from storage_schemas.backend.faults import PAUSES, is_broken_connection, is_cut_off, patiently
from storage_schemas.backend.redaction import without_credentials, without_secrets

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config
    from zarr.core.buffer import Buffer


_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_HALF_A_SCHEME = re.compile(r"(s3a?|gs|file|https?):(/|$)")  # pathlib makes one slash of two
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.\-_\[\]:]+(/[A-Za-z0-9._\-/]*)?")
_CREDENTIALS = "they are taken from the environment, AWS's files, or the role of a machine or pod, never from a URL"
#: What lies in a store beside its arrays: the lease of who writes it (`lease`), working files (`ours`).
LOCK, WORKING = BESIDE = ("sedflow.lock", "sedflow.working")


class _ZarrStore(ZarrObjectStore):
    """Repeats requests whose connection broke where obstore does not, as they are no plain reads and writes.

    Zarr creates with them what is not there, and deletes chunks that hold fill values only: both may happen twice. What lies
    in a store beside its arrays (`BESIDE`) is hidden from Zarr, which would take it for an array.
    """

    async def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        async for name in super().list_dir(prefix):
            if name not in BESIDE:
                yield name

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        await self._repeated(super().set_if_not_exists, key, value)

    async def delete(self, key: str) -> None:
        await self._repeated(super().delete, key)

    async def delete_dir(self, prefix: str) -> None:
        await self._repeated(super().delete_dir, prefix)

    async def _repeated(self, request: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        for pause in PAUSES:
            try:
                return await request(*arguments)
            except obstore.exceptions.GenericError as error:
                if not is_broken_connection(error):
                    raise
                await asyncio.sleep(pause)
        return await request(*arguments)


@dataclass(frozen=True)
class Location:
    """A place for stores: ``url`` is an absolute local path or ``s3://bucket/prefix``.

    ``endpoint`` and ``region`` point at an S3 service other than AWS's default (``AWS_ENDPOINT_URL`` works as well, where a
    location is parsed: workers are told). A request that fails in a way that may pass (5xx, throttling, a lost connection, no
    answer for ``timeout`` seconds) is made ``tries`` times, with growing pauses.
    """

    url: str
    endpoint: str | None = None
    region: str | None = None
    tries: int = 10
    timeout: float = 60.0

    @classmethod
    def parse(
        cls, url: str | os.PathLike[str], endpoint: str | None = None, region: str | None = None, tries: int = 10,
        timeout: float = 60.0,
    ) -> Location:  # fmt: skip
        """Check a URL and make local paths absolute.

        Raises:
            ValueError: the URL has a scheme other than ``s3`` and ``file``, names no bucket, climbs out of its folder, or holds
                credentials, which are not repeated in the message.
        """
        text = os.fspath(url)
        if "://" not in text:
            if _HALF_A_SCHEME.match(text):
                raise ValueError(f"cannot store at {text!r}: a URL has two slashes, as s3://bucket/prefix; a folder of that "
                                 f"name is ./{text}")  # fmt: skip
            return cls(str(Path(text).expanduser().resolve()))
        scheme, _, rest = text.partition("://")
        if scheme == "file":
            return cls(str(Path(rest).resolve()))
        bucket, *folders = rest.rstrip("/").split("/")
        if without_credentials(text) != text:
            raise ValueError(f"{without_secrets(text)} holds credentials; {_CREDENTIALS}")
        if scheme != "s3" or not _BUCKET.fullmatch(bucket) or not {"", ".", ".."}.isdisjoint(folders):
            raise ValueError(f"cannot store at {text!r}; allowed are a local path and s3://bucket/prefix")
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            check_endpoint(endpoint)
        region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return cls(text.rstrip("/"), endpoint, region, tries, timeout)

    def __truediv__(self, name: str) -> Self:
        return self.at(f"{self.url}/{name}")

    def at(self, url: str) -> Self:
        """Return another place in the same storage."""
        return replace(self, url=url)

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
            self.refuse_redirects()
            config |= {"endpoint": self.endpoint, "virtual_hosted_style_request": False}
        client: dict[str, Any] = {
            "allow_http": self._insecure, "read_timeout": timedelta(seconds=self.timeout),
            "timeout": timedelta(seconds=20 * self.timeout),  # of a whole request, which may be large
            **redirects.client_options(self.endpoint),
        }  # fmt: skip
        return S3Store(
            bucket, prefix=prefix or None, config=config, retry_config={"max_retries": self.tries - 1},
            credential_provider=credentials.for_obstore, client_options=cast("ClientConfig", client),
        )  # fmt: skip

    def refuse_redirects(self) -> None:
        """Raise PermissionError where the endpoint sends requests on to another server, which credentials must not reach."""
        if self.endpoint:
            redirects.refuse(self.endpoint, self._bucket_and_prefix[0])

    def zarr(self, read_only: bool = False) -> ZarrObjectStore:
        """Return a Zarr store rooted here."""
        return _ZarrStore(self.objects(), read_only=read_only)

    def icechunk(self) -> icechunk.Storage:
        """Return Icechunk storage rooted here."""
        if self.is_local:
            return icechunk.local_filesystem_storage(self.url)
        bucket, prefix = self._bucket_and_prefix
        return icechunk.s3_storage(
            bucket=bucket, prefix=prefix, region=self.region, endpoint_url=self.endpoint, allow_http=self._insecure,
            force_path_style=self.endpoint is not None, get_credentials=credentials.for_icechunk,
            network_stream_timeout_seconds=max(int(self.timeout), 1),
        )  # fmt: skip

    def icechunk_config(self) -> RepositoryConfig:
        """Return how Icechunk repeats requests here."""
        retries = icechunk.StorageRetriesSettings(max_tries=self.tries, initial_backoff_ms=100, max_backoff_ms=15_000)
        return RepositoryConfig(storage=icechunk.StorageSettings(retries=retries))

    # -- single objects -------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether anything is stored below this place."""
        if self.is_local:
            path = Path(self.url)
            return path.is_dir() and any(path.iterdir())
        return patiently(lambda: next(self.list(), None) is not None, is_cut_off)

    def require(self) -> None:
        """Raise FileNotFoundError where a local folder does not exist: looking for a store must not make one."""
        if self.is_local and not Path(self.url).is_dir():
            raise FileNotFoundError(f"no folder {self.url}")

    def put(self, name: str, data: bytes) -> None:
        """Write one object below this place, atomically."""
        obstore.put(self.objects(), name, data)

    def get(self, name: str, largest: int | None = None) -> bytes:
        """Read one object below this place.

        Raises:
            FileNotFoundError: there is none; names it.
            ValueError: it has more bytes than ``largest``, or is a link to what is not ours; not read.
        """
        self.require()
        if self.is_local:
            _refuse_link(Path(self.url), name)
        try:
            found = obstore.get(self.objects(), name)
            if largest is not None and found.meta["size"] > largest:
                raise ValueError(
                    f"{self.url}/{name} has {found.meta['size']:,} bytes, and at most {largest:,} are read"
                )
            return bytes(found.bytes())
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no object {self.url}/{name}") from error

    def has(self, name: str) -> bool:
        """Whether there is an object of that name below this place."""
        if self.is_local:
            if not Path(self.url).is_dir():
                return False
            _refuse_link(Path(self.url), name)
        try:
            obstore.head(self.objects(), name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of all objects below this place."""
        if self.is_local and not Path(self.url).is_dir():
            return
        for page in self.objects().list(prefix or None):
            for meta in page:
                yield meta["path"]

    def remove(self, prefix: str = "") -> None:
        """Delete every object below this place whose name starts with ``prefix``; of a local link, the link alone."""
        path = Path(self.url)
        if self.is_local and not prefix:
            if path.is_symlink():
                path.unlink()
            elif path.is_dir():
                shutil.rmtree(path)
        elif names := patiently(lambda: [name for name in self.list() if name.startswith(prefix)], is_cut_off):
            _delete(self.objects(), names)

    def remove_object(self, name: str) -> None:
        """Delete one object below this place, if it is there; where a connection breaks, again."""
        with contextlib.suppress(FileNotFoundError):  # a folder says so, a bucket does not
            _delete(self.objects(), name)


def _refuse_link(folder: Path, name: str) -> None:
    """Raise ValueError where a part of ``name`` is a symbolic link: what it leads to is not ours to read, or to quote."""
    path = folder
    for part in Path(name).parts:
        path /= part
        if path.is_symlink():
            raise ValueError(
                f"{path} is a symbolic link; within a store links are not followed. Put the file itself there"
            )


def _delete(store: ObjectStore, names: str | Sequence[str]) -> None:
    """Delete objects; obstore does so by POST and would not repeat one whose connection broke."""
    patiently(lambda: obstore.delete(store, names), is_broken_connection)


def check_endpoint(url: str) -> None:
    """Raise ValueError unless ``url`` is that of an S3 service: http(s)://host:port, without credentials."""
    if without_credentials(url) != url:
        raise ValueError(f"the endpoint {without_secrets(url)} holds credentials; {_CREDENTIALS}")
    if not _ENDPOINT.fullmatch(url):
        raise ValueError(f"the endpoint {url!r} is none; allowed are http://host:port and https://host:port")


def open_group(location: Location, kind: str, mode: Literal["r", "r+"] = "r") -> zarr.Group:
    """Open a store of ours read-only (``r``) or for filling (``r+``), and check what it says it is.

    Raises:
        FileNotFoundError: nothing there, or a group that was never finished.
        ValueError: it is another kind of store, or of another version; says what was found.
    """
    try:
        location.require()
        group = zarr.open_group(location.zarr(read_only=mode == "r"), mode=mode, zarr_format=3)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no {kind} store at {location}") from error
    except ValueError as error:  # an array, for example
        raise ValueError(f"{location} holds no {kind} store: {error}") from error
    found = group.attrs.get("sedflow_kind")
    if found is None:
        raise FileNotFoundError(f"no {kind} store at {location}: a Zarr group that is not ours, or was never finished")
    if found != kind:
        raise ValueError(f"{location} holds a {found} store; expected a {kind} store")
    check_version(group.attrs.get("sedflow_version"), f"the {kind} store {location}")
    return group
