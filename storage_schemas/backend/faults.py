"""Faults of storage in words: what a library's error says, what to do about it, and whether it may pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import icechunk
import obstore

from storage_schemas.backend.redaction import without_secrets

T = TypeVar("T")
#: Seconds before each further try of a request that the storage libraries do not repeat.
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_CLOCK = "the clock of this machine (`date -u`, `chronyc tracking`) is"
_ADVICE = {
    "ExpiredToken": "the credentials for S3 have expired; renew them and run the same command again: it goes on",
    "AccessDenied": "S3 refuses access; check the credentials and what they allow",
    "InvalidAccessKeyId": "S3 does not know the access key; check the credentials",
    "NoSuchBucket": "the bucket does not exist, or not any more",
    "SlowDown": "S3 asks for fewer requests, again and again; run the same command later, or with fewer workers: it goes on",
    "InternalError": "S3 fails, again and again; run the same command later: it goes on",
    "RequestTimeTooSkewed": f"{_CLOCK} off S3's by more than S3 allows; set it and run the same command again: it goes on",
    "invalid snapshot timestamp ordering": f"{_CLOCK} behind that of whoever committed last; set both, or wait as "
    "long, and run the same command again: it goes on",
    "snapshot timestamp is invalid": f"{_CLOCK} off storage's; set it and run the same command again: it goes on",
    "NotValidYet": f"{_CLOCK} perhaps off: storage's certificate is not valid yet by it",
    "certificate expired": f"{_CLOCK} perhaps off, or storage's certificate has expired",
    "InsufficientStorage": "storage is full; make room and run the same command again: it goes on",
}


def explain(error: BaseException) -> str:
    """Return an error in a line or two: storage libraries add stacks and dumps to theirs."""
    text = str(error).strip()
    if isinstance(error, obstore.exceptions.BaseError | OSError):
        text = text.partition("\n\nDebug source")[0]
    elif isinstance(error, icechunk.IcechunkError):
        first, *rest = (line.strip(" |x`->") for line in text.splitlines())
        where = next((line for line in rest if line.startswith(("with ref_key", "with path", "with id"))), "")
        text = ", ".join(filter(None, (first, where.removeprefix("with "), rest[-1] if rest else "")))
    advice = next((advice for code, advice in _ADVICE.items() if code in str(error)), None)
    return without_secrets(f"{advice} ({text})" if advice else text)


#: A clock that is seconds behind is so no longer after a pause.
_PASSING = ("streaming error", "response error", "body error", "ExpiredToken", "invalid snapshot timestamp ordering")


def may_pass(error: BaseException) -> bool:
    """Whether a fault that the storage libraries do not repeat a request for may pass: an answer cut off, credentials."""
    return any(text in str(error) for text in _PASSING)


def is_cut_off(error: BaseException) -> bool:
    """Whether a connection broke within an answer."""
    return "response body error" in str(error)


def is_broken_connection(error: BaseException) -> bool:
    """Whether a connection broke, before an answer or within it."""
    return "error sending request" in str(error) or is_cut_off(error)


def patiently(request: Callable[[], T], passes: Callable[[BaseException], bool]) -> T:
    """Make a request that may be made twice, again where it fails in a way that ``passes``."""
    for pause in PAUSES:
        try:
            return request()
        except (obstore.exceptions.GenericError, icechunk.IcechunkError) as error:
            if not passes(error):
                raise
            time.sleep(pause)
    return request()
