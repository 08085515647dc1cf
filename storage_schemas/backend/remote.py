"""Inputs from anywhere, by fsspec: S3 through s3fs, and what other packages of fsspec reach. Read, or written as whole files.

Stores of ours do not lie here: they need conditional writes, which obstore and Icechunk have (`location`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import fsspec

from storage_schemas.backend import credentials
from storage_schemas.backend.location import Location
from storage_schemas.backend.redaction import without_secrets

if TYPE_CHECKING:
    from zarr.storage import StoreLike

#: Schemes of URLs, and the package beside fsspec that reads them; others, such as those that lead to another URL, are refused.
PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "http": "aiohttp", "https": "aiohttp", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs",
    "abfss": "adlfs", "az": "adlfs", "hf": "huggingface_hub", "webdav": "webdav4", "sftp": "paramiko", "ftp": "fsspec",
    "root": "fsspec-xrootd", "oss": "ossfs",
}  # fmt: skip
_WEB = ("http", "https")
_FOLDERS = ("", ".zarr", ".hats")  # endings of what holds files
#: What servers say of a file that changes when the file does.
_STATE = (
    "size", "ETag", "etag", "LastModified", "Last-Modified", "last_modified", "Content-MD5", "Digest", "md5Hash", "mtime",
    "modify", "generation", "updated",
)  # fmt: skip
_READ_AHEAD_BYTES = 1 << 20
#: A server that sends files only whole is read so; more is refused.
_MOST_WHOLE_BYTES = 512 << 20


@dataclass(frozen=True)
class Remote(Location):
    """A place that fsspec reads: a `Location`, but for what only stores need."""

    anon: bool = False
    requester_pays: bool = False
    profile: str | None = None

    @classmethod
    def of(cls, location: Location) -> Remote:
        """Return the place that fsspec reads at a location in a bucket."""
        return location if isinstance(location, cls) else cls(**vars(location))

    @property
    def scheme(self) -> str:
        """The URL's."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part of the URL, without what a web server is asked for beside it (``?download=1``)."""
        return _plain(self.url)

    @property
    def is_web(self) -> bool:
        """Whether this is a page of a web server, to which nothing is written."""
        return self.scheme in _WEB

    def options(self) -> dict[str, Any]:
        """Return the options of fsspec's file system for this place.

        Raises:
            PermissionError: credentials are needed, and there are none; or the endpoint sends requests on to another server.
        """
        if self.scheme != "s3":
            return {"use_listings_cache": False}
        config = {
            "read_timeout": self.timeout, "connect_timeout": min(self.timeout, 20.0),
            "retries": {"max_attempts": max(self.tries - 1, 0), "mode": "standard"},
            "request_checksum_calculation": "when_required", "response_checksum_validation": "when_required",
        }  # fmt: skip
        found: dict[str, Any] = {
            "anon": self.anon, "requester_pays": self.requester_pays, "client_kwargs": {"region_name": self.region},
            "config_kwargs": config, "use_listings_cache": False,
        }  # fmt: skip
        if self.endpoint:
            self.refuse_redirects()
            found["endpoint_url"], config["s3"] = self.endpoint, {"addressing_style": "path"}
        if not self.anon:
            credentials.require(self.profile)
        if self.profile and not self.anon:
            found["profile"] = self.profile
        return found

    def files(self) -> Any:
        """Return fsspec's file system for this place.

        Raises:
            ValueError: the package that reads such URLs is not installed; names it.
        """
        try:
            return fsspec.filesystem(self.scheme, **self.options())
        except ImportError as error:
            package = PACKAGES[self.scheme]
            raise ValueError(
                f"{self.url}: {self.scheme}:// needs the package {package}: pip install {package}"
            ) from error
        except ValueError as error:
            raise ValueError(f"{self.url}: {error}") from None

    # -- what inputs are asked for --------------------------------------------------------------------------------------

    def info(self) -> Mapping[str, Any]:
        """Return what the server says of a file.

        Raises:
            FileNotFoundError, OSError: there is none; it cannot be reached, or not with these credentials.
        """
        with self._explained():
            return self.files().info(self.url)

    def state(self) -> Sequence[str]:
        """Return a line for this file, or each file below this place, that changes when the file does; none: nothing there."""
        with self._explained():
            files = self.files()
            try:
                found = {self.url: files.info(self.url)}
            except FileNotFoundError:
                found = {}
            if not found or found[self.url].get("type") == "directory":
                found = files.find(self.url, detail=True)
        return sorted(
            f"{name} {[(key, str(about[key])) for key in _STATE if key in about]}" for name, about in found.items()
        )

    def exists(self) -> bool:
        """Whether a file is here, or below."""
        with self._explained():
            return self.files().exists(self.url)

    def is_file(self) -> bool:
        """Whether this is a file, as far as one may look; a web server answers for folders as well: the name's ending tells."""
        if self.is_web:
            return self.name != self.url.rpartition("/")[2] or Path(self.name).suffix.lower() not in _FOLDERS
        try:
            return self.info().get("type") == "file"
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False

    def has(self, name: str) -> bool:
        """Whether there is a file of that name below this place, as far as one may look."""
        if self.is_web and self.is_file():
            return False
        try:
            return (self / name).info().get("type") == "file"
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return False

    def get(self, name: str, largest: int | None = None) -> bytes:
        """Read one file below this place; as of a `Location`."""
        with (self / name).open() as file:
            content = file.read() if largest is None else file.read(largest + 1)
        if largest is not None and len(content) > largest:
            raise ValueError(f"{self.url}/{name} has more than {largest:,} bytes, and at most as many are read")
        return content

    def list(self, prefix: str = "") -> Iterator[str]:
        """Yield the names of all files below this place that start with ``prefix``."""
        with self._explained():
            files = self.files()
            root = files._strip_protocol(self.url).rstrip("/")
            found = files.find(self.url)
        names = (str(path)[len(root) + 1 :] for path in found if str(path).startswith(f"{root}/"))
        yield from (name for name in names if name.startswith(prefix))

    def matching(self) -> Sequence[str]:
        """Return the URLs of files that this place's pattern matches, sorted; ``*`` and ``?`` stand for no ``/``."""
        pattern = self.url
        while "**" in pattern:
            pattern = pattern.replace("**", "*")
        with self._explained():
            files = self.files()
            found = files.glob(pattern, detail=True)
        return sorted(str(files.unstrip_protocol(path)) for path, about in found.items() if about["type"] == "file")

    def open(self) -> io.BufferedReader:
        """Open a file for reading and seeking.

        Raises:
            FileNotFoundError, OSError: as `info`.
            ValueError: the server sends it only whole, and it is large.
        """
        with self._explained():
            file = self.files().open(self.url, "rb", cache_type="none")
            if file.seekable():
                return io.BufferedReader(_Parts(file, self), _READ_AHEAD_BYTES)
            with file:
                content = file.read(_MOST_WHOLE_BYTES + 1)
        if len(content) > _MOST_WHOLE_BYTES:
            raise ValueError(
                f"{self.url}: its server sends no parts of files, and this one has more than {_MOST_WHOLE_BYTES >> 20} MiB: "
                "download it, and name the local file"
            )
        return io.BufferedReader(io.BytesIO(content))  # type: ignore[arg-type]

    def zarr(self, read_only: bool = True) -> StoreLike:  # type: ignore[override]
        """Return a Zarr store rooted here, for reading.

        Raises:
            ValueError: to write; stores are kept in a `Location`.
        """
        from zarr.storage import FsspecStore

        if not read_only:
            self.objects()
        self.files()  # says which package is missing
        return FsspecStore.from_url(self.url, storage_options=self.options(), read_only=True)

    def objects(self) -> NoReturn:
        """Refuse to be a store.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"stores are kept in a local path or at s3://bucket/prefix, not at {self.url}, which is only read"
        )

    def send(self, path: Path, new: bool = False) -> None:
        """Write a local file to this place, whole or not at all; ``new``: where nothing is.

        Raises:
            FileExistsError: something is there, and it was to be ``new``.
        """
        with self._explained():
            self.files().put_file(str(path), self.url, mode="create" if new else "overwrite")

    def remove_object(self, name: str) -> None:
        """Delete one file below this place."""
        with self._explained():
            self.files().rm_file((self / name).url)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Make one of Python's own errors, which names the place, of what libraries raise; no other reaches another process."""
        try:
            yield
        except FileNotFoundError as error:
            cause = error.__cause__
            if self.is_web and cause is not None and getattr(cause, "status", 0) not in (404, 410):
                raise OSError(f"{self.url} cannot be read: {_said(cause)}") from None
            raise FileNotFoundError(f"no file {self.url}") from error
        except PermissionError as error:
            if self.url in str(error):
                raise
            raise PermissionError(f"{self.url} may not be read: {_said(error)}{self._advice()}") from None
        except FileExistsError:
            raise
        except (ValueError, OSError) as error:
            if self.url in str(error):
                raise
            raise OSError(f"{self.url} cannot be read or written: {_said(error)}") from None
        except Exception as error:  # of an HTTP client, of a cloud's own library
            raise OSError(f"{self.url} cannot be read or written: {_said(error)}") from None

    def _advice(self) -> str:
        if self.scheme != "s3":
            return ""
        if self.anon:
            return " (asked without credentials, as `anon` says: is the bucket a public one?)"
        return " (a public bucket is read with `anon`, one whose reader is billed with `requester_pays`: --access, storage.inputs)"


class _Parts(io.RawIOBase):
    """A file of fsspec, of which every part is asked for when it is read."""

    def __init__(self, file: Any, place: Remote) -> None:
        self._file, self._place = file, place
        self._size = int(file.size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        return int(self._file.seek(at))

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self.tell())
        if wanted <= 0:
            return 0
        with self._place._explained():
            content = self._file.read(wanted)
        if len(content) != wanted:
            raise OSError(f"{self._place} was cut off: {wanted:,} bytes were asked for, {len(content):,} came")
        buffer[:wanted] = content
        return wanted


def is_pattern(location: Location) -> bool:
    """Whether a place stands for those that it matches; of a URL of the web, ``?`` begins what the server is asked for."""
    web = isinstance(location, Remote) and location.is_web
    return any(sign in location.url for sign in ("*[" if web else "*?["))


def file_name(location: Location) -> str:
    """Return the last part of a place, by whose ending its format is known."""
    return location.name if isinstance(location, Remote) else _plain(location.url, ())


def _plain(url: str, web: tuple[str, ...] = _WEB) -> str:
    return (url.partition("?")[0] if url.partition("://")[0] in web else url).rpartition("/")[2]


def _said(error: BaseException) -> str:
    """What a library's error says, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return without_secrets(text[:500])
