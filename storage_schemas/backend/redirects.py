"""Requests with credentials go to the endpoint that was named, and nowhere else.

The HTTP client of obstore follows redirects and takes the session token along; it has no option against that. So hosts other
than the endpoint's are put behind a proxy that is not there, and the endpoint is asked once, without credentials.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from functools import cache
from typing import Any
from urllib.parse import urljoin, urlsplit

#: Nothing can listen at port 0.
_NOWHERE = "http://127.0.0.1:0"
_AWS = "amazonaws.com,amazonaws.com.cn"
_PATIENCE = 5.0  # s


def client_options(endpoint: str | None) -> dict[str, Any]:
    """Return options of obstore's client with which it reaches only the endpoint's host; None: AWS's own.

    Where requests to the endpoint go through a proxy of the site, it stays the proxy: it decides what is reached.
    """
    parts = urlsplit(endpoint or "https://s3.amazonaws.com")
    if urllib.request.getproxies().get(parts.scheme) and not urllib.request.proxy_bypass(parts.netloc):
        return {}
    return {"proxy_url": _NOWHERE, "proxy_excludes": parts.hostname if endpoint else _AWS}


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow no redirect: it ends as an error that says where it would have led."""


@cache
def refuse(endpoint: str, bucket: str) -> None:
    """Ask an endpoint for a bucket, without credentials, once in a process.

    Raises:
        PermissionError: it sends requests on to another server.
    """
    url = f"{endpoint.rstrip('/')}/{bucket}?list-type=2&max-keys=1"
    try:
        urllib.request.build_opener(_Stay).open(url, timeout=_PATIENCE).close()
    except urllib.error.HTTPError as error:
        with error:
            to = error.headers.get("Location")
        if 300 <= error.code < 400 and to:
            other = urlsplit(urljoin(url, to))
            if (other.scheme, other.netloc) != urlsplit(endpoint)[:2]:
                raise PermissionError(
                    f"the endpoint {endpoint} sends requests on to {other.scheme}://{other.netloc}; credentials do not go "
                    "there. If that is the service you mean, name it as the endpoint"
                ) from None
    except (OSError, ValueError):
        return  # it does not answer: the request that matters will say why
