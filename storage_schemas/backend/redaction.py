"""What must not be read by others: one function takes it out of every text that leaves a process.

Errors, events, records, logs: all that is shown, written or sent goes through `without_secrets`. It knows secrets by their
form (in URLs, queries, headers, settings) and those of this process by their value.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from storage_schemas.backend.printable import printable

HIDDEN = "***"
#: Names whose value is a secret, as parts of a longer one: aws_secret_access_key, X-Amz-Security-Token, AccountKey.
_NAME = (
    r"[\w.-]*(?:secret|token|passw(?:or)?d|passphrase|credential|signature|private[_-]?key|api[_-]?key|account[_-]?key|"
    r"access[_-]?key)[\w.-]*|sig|pwd|auth|authorization"
)
#: Not secrets: where one is looked for, and how.
_PLACE = re.compile(
    r"(?:PATH|FILE|DIR|DIRECTORY|MODE|TYPE|URL|URI|URIS|ENDPOINT|REGION|PROVIDER|EXPIRATION|EXPIRY|LIFETIME)$"
)
_FORMS = (
    # user:secret@host, with or without a scheme, whatever the secret holds; a colon of "scheme://" is none of these.
    (re.compile(r"(?<![^\s/:@'\"=(,])[^\s/:@'\"=(,]*:(?!//)[^\s'\"]*@(?!sha256:)"), f"{HIDDEN}@"),
    (re.compile(r"://[^/\s'\"]*@"), f"://{HIDDEN}@"),
    (re.compile(rf"(?<![\w.-])({_NAME})(['\"]?\s?=\s?['\"]?)[^&\s'\",;)}}]+", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    (re.compile(r"([?&]key=)[^&\s'\",;)]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    # In settings and headers; a short word after a colon is a sentence.
    (
        re.compile(
            rf"(?<![\w.-])({_NAME})(['\"]?\s*:\s*['\"]?)(?=[^\s'\",;)}}]*[0-9+=])[A-Za-z0-9/+=_.~-]{{10,}}", re.IGNORECASE
        ),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(rf"(?<![\w.-])({_NAME})(['\"]\s*:\s*['\"])[^'\"]+", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9/+=_.~-]{8,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
)  # fmt: skip
_SECRET_NAME = re.compile(
    r"SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|PRIVATE_KEY|API_?KEY|ACCESS_?KEY|ACCOUNT_?KEY"
)
#: Fewer letters are no secret, and would be found everywhere.
_SHORTEST = 6
_found: set[str] = set()


def remember(*secrets: str | None) -> None:
    """Let `without_secrets` know secrets by value that stand in no environment variable: found credentials."""
    _found.update(one for one in secrets if one)


def without_secrets(text: str) -> str:
    """Return a text in which everything that is, or looks like, a secret is made unreadable."""
    for secret in _of_this_process():
        text = text.replace(secret, HIDDEN)
    return without_credentials(text)


def without_credentials(text: str) -> str:
    """Return a text in which what has the form of a secret is made unreadable: what a place or a setting must not hold."""
    for form, instead in _FORMS:
        text = form.sub(instead, text)
    return text


def plain(value: Any) -> Any:
    """Return what is to be written as JSON, lists and dictionaries in it, with every text in it without secrets."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, Mapping):
        return {plain(name): plain(inner) for name, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def shown(text: str) -> str:
    """Return a text as it may be shown on a terminal: without secrets, control characters written out."""
    return without_secrets(printable(text, keep="\n\t"))


def of_logs() -> None:
    """Let every record that is logged in this process from now on, by any library, be without secrets."""
    make = logging.getLogRecordFactory()
    if getattr(make, "without_secrets", False):
        return

    def record(*arguments: object, **named: object) -> logging.LogRecord:
        made = make(*arguments, **named)
        try:
            made.msg, made.args = without_secrets(made.getMessage()), ()
        except (TypeError, ValueError):  # its arguments do not fit: the handler will say so
            return made
        if made.exc_info and not made.exc_text:
            made.exc_text = without_secrets(logging.Formatter().formatException(made.exc_info))
        return made

    record.without_secrets = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)


def _of_this_process() -> list[str]:
    """Secrets by value, the longest first: of the environment, of Ray's file, and found ones; as URLs have them, too."""
    values = {value for name, value in os.environ.items() if _SECRET_NAME.search(name) and not _PLACE.search(name)}
    token = os.environ.get("RAY_AUTH_TOKEN_PATH") or str(Path(os.environ.get("HOME", "/"), ".ray", "auth_token"))
    values |= {_content(token), *_found}
    secrets = {value.strip() for value in values if _is_secret(value.strip())}
    return sorted(secrets | {quote(value, safe="") for value in secrets}, key=len, reverse=True)


def _is_secret(value: str) -> bool:
    """Whether a value is worth hiding: a plain short word, as tests and examples have it, would be found in every text."""
    return len(value) >= _SHORTEST and (len(value) >= 8 or not value.isalpha())


def _content(path: str) -> str:
    try:
        return Path(path).read_text()[:4096]
    except (OSError, ValueError):
        return ""
