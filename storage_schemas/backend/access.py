"""How inputs are reached: a path or a URL, and options that hold no secret, in; the place that is read out."""

from __future__ import annotations

import os
from dataclasses import dataclass

from storage_schemas.backend.location import Location
from storage_schemas.backend.redaction import without_credentials, without_secrets
from storage_schemas.backend.remote import PACKAGES, Remote

_CREDENTIALS = "they come from the environment or the files of that storage's own tools, never from a URL"


@dataclass(frozen=True)
class Access:
    """How inputs in buckets are reached; no secret is part of it.

    ``anon``: without credentials, as public buckets are read. ``requester_pays``: who reads is billed. ``profile``: of AWS's
    files. ``endpoint`` and ``region`` are as of a `Location`; None: those of the storage that stores are kept in.
    """

    anon: bool = False
    requester_pays: bool = False
    profile: str | None = None
    endpoint: str | None = None
    region: str | None = None

    def place(self, url: str | os.PathLike[str], storage: Location | None = None) -> Location:
        """Return where an input is: a `Location` for a local path, else a `Remote`.

        Raises:
            ValueError: the URL's scheme is none that is read, or it holds credentials, which are not repeated.
        """
        text = os.fspath(url)
        scheme, separator, rest = text.partition("://")
        if not separator or scheme == "file":
            return Location.parse(text)
        if without_credentials(text) != text:
            raise ValueError(f"{without_secrets(text)} holds credentials; {_CREDENTIALS}")
        host = rest.partition("/")[0]
        parts = rest.partition("?")[0].split("/")
        if scheme not in PACKAGES or "::" in text or not host or {".", ".."} & set(parts) or not text.isprintable():
            raise ValueError(
                f"cannot read {text!r}; allowed are a local path and URLs with {', '.join(f'{s}://' for s in PACKAGES)}"
            )
        storage = storage or Location("")
        if scheme in ("s3", "s3a"):
            endpoint, region = self.endpoint or storage.endpoint, self.region or storage.region
            found = Location.parse(f"s3://{rest}", endpoint, region, storage.tries, storage.timeout)
            return Remote(**vars(found), anon=self.anon, requester_pays=self.requester_pays, profile=self.profile)
        return Remote(text.rstrip("/"), None, None, storage.tries, storage.timeout)
