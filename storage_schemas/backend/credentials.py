"""Credentials for S3, found as AWS's own tools find them: environment, files, single sign-on, roles of machines and pods.

Both storage libraries ask here again from time to time, so a run follows credentials that change while it works. They are
found where they are used, on every worker; none is ever stored or sent.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import botocore.exceptions
import botocore.session
import icechunk

from storage_schemas.backend.redaction import remember

if TYPE_CHECKING:
    from obstore.store import S3Credential

_ASKED_AGAIN = timedelta(minutes=5)
_REMEMBERED = 5.0  # s: a chain of look-ups is too slow for every store that is opened
_last: tuple[float, tuple[str, str, str | None]] | None = None
_asked: dict[str, float] = {}  # when a profile was looked for


def for_obstore() -> S3Credential:
    """Return credentials as obstore wants them."""
    key, secret, token = _find()
    return {
        "access_key_id": key, "secret_access_key": secret, "token": token, "expires_at": datetime.now(UTC) + _ASKED_AGAIN,
    }  # fmt: skip


def for_icechunk() -> icechunk.S3StaticCredentials:
    """Return credentials as Icechunk wants them."""
    key, secret, token = _find()
    return icechunk.S3StaticCredentials(key, secret, token, expires_after=datetime.now(UTC) + _ASKED_AGAIN)


def require(profile: str | None = None) -> None:
    """Check that there are credentials, of a profile of AWS's files or as everything else finds them: s3fs finds the same.

    Raises:
        PermissionError: there are none.
        ValueError: there is no such profile.
    """
    if profile is None:
        _find()
        return
    if time.monotonic() - _asked.get(profile, -_REMEMBERED) < _REMEMBERED:
        return
    try:
        found = botocore.session.Session(profile=profile).get_credentials()
    except botocore.exceptions.ProfileNotFound:
        raise ValueError(f"AWS's files know no profile {profile}") from None
    if found is None:
        raise PermissionError(f"AWS's files have no credentials for the profile {profile}")
    frozen = found.get_frozen_credentials()
    remember(frozen.secret_key, frozen.token)
    _asked[profile] = time.monotonic()


def _find() -> tuple[str, str, str | None]:
    """Look for credentials.

    Raises:
        PermissionError: there are none.
    """
    global _last
    if _last is None or time.monotonic() - _last[0] > _REMEMBERED:
        found = botocore.session.Session().get_credentials()
        if found is None:
            raise PermissionError(
                "no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or work on a machine "
                "that has a role"
            )
        frozen = found.get_frozen_credentials()
        remember(frozen.secret_key, frozen.token)
        _last = time.monotonic(), (str(frozen.access_key), str(frozen.secret_key), frozen.token)
    return _last[1]
