"""An HTTP proxy in front of an S3 server that misbehaves on request: what storage does on a bad day.

A fault strikes the requests that match, at a rate, at most so many times; which ones follows from a seed and the order of
requests alone.
"""

import hashlib
import http.client
import re
import socket
import struct
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from storage_schemas.backend.location import Location

_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{}</Code><Message>{}</Message></Error>'
#: kind -> status, S3's error code
ANSWERS = {
    "error": (500, "InternalError"),
    "slow down": (503, "SlowDown"),
    "expired": (403, "ExpiredToken"),
    "no bucket": (404, "NoSuchBucket"),
    "full": (507, "InsufficientStorage"),
}
LOST, CONFLICT = (412, "PreconditionFailed"), (409, "ConditionalRequestConflict")  # fmt: skip


@dataclass
class Fault:
    """What goes wrong, and for which requests.

    Kinds: those of `ANSWERS`; ``reset`` (the connection, before the request arrives), ``lost`` (the request is done, its
    answer never comes), ``hang`` (no answer for ``seconds``), ``slow`` (the answer drips for ``seconds``), ``truncated`` (half
    the answer), ``ignore conditions`` (If-Match and If-None-Match are removed), ``refuse`` (writes with If-Match are, whatever
    there is, as Ceph 16 and 18 do with a quoted ETag), ``conflict`` (a lost race is 409 instead of 412, as of Ceph 20).
    """

    kind: str
    method: str = ".*"
    path: str = ".*"
    rate: float = 1.0
    times: int | None = None
    after: int = 0  # matching requests that are spared first
    in_a_row: int | None = None  # so many times one request that is repeated; then it is spared once
    key: str | None = None  # strikes requests signed with this access key only
    seconds: float = 3.0
    seed: int = 0
    seen: int = 0
    struck: int = 0
    _rows: dict[tuple[str, str], int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def strikes(self, method: str, path: str, authorization: str) -> bool:
        if not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        if self.key is not None and f"Credential={self.key}/" not in authorization:
            return False
        with self._lock:
            self.seen += 1
            chance = hashlib.sha256(f"{self.seed}/{self.seen}".encode()).digest()[0] / 256
            strike = self.seen > self.after and chance < self.rate and (self.times is None or self.struck < self.times)
            row = self._rows.get((method, path), 0)
            strike = strike and (self.in_a_row is None or row < self.in_a_row)
            self._rows[method, path] = row + 1 if strike else 0
            self.struck += strike
        return strike


class FaultProxy:
    """Serves on loopback in front of ``target``; ``faults`` may be replaced at any time.

    ``in_turn``: writes reach the target one after the other. moto looks at a condition and writes in two steps, and in one
    race of sixteen in a hundred lets two win.
    """

    def __init__(self, target: str, in_turn: bool = False) -> None:
        self.turn = threading.Lock() if in_turn else nullcontext()
        self.target = urlsplit(target).netloc
        self.faults: list[Fault] = []
        self.requests = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = "http://{}:{}".format(*self._server.server_address)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.proxy.requests += 1
        authorization = self.headers.get("Authorization", "")
        kinds = {f.kind: f for f in self.proxy.faults if f.strikes(self.command, self.path, authorization)}
        for kind, (status, code) in ANSWERS.items():
            if kind in kinds:
                return self._refuse(status, code)
        if "refuse" in kinds and self.headers.get("If-Match"):
            return self._refuse(*LOST)
        if "reset" in kinds:
            return self._reset()
        if "hang" in kinds:
            time.sleep(kinds["hang"].seconds)
            return self._reset()
        headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
        if "ignore conditions" in kinds:
            headers = self._without_conditions(headers, body)
        connection = http.client.HTTPConnection(self.proxy.target, timeout=60)
        with self.proxy.turn if self.command == "PUT" else nullcontext():
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        connection.close()
        if "conflict" in kinds and answer.status == LOST[0]:
            return self._refuse(*CONFLICT)
        if "lost" in kinds:
            return self._reset()
        slow = kinds["slow"].seconds if "slow" in kinds else 0.0
        self._answer(answer.status, dict(answer.getheaders()), content, slow, "truncated" in kinds)

    def _without_conditions(self, headers, body) -> dict[str, str]:
        """Headers without conditions, signed anew: a server that looks at signatures would see that something is gone."""
        gone = ("if-match", "if-none-match", "authorization", "host", "x-amz-date", "x-amz-content-sha256")
        kept = {k: v for k, v in headers.items() if k.lower() not in gone}
        request = AWSRequest(self.command, f"http://{self.proxy.target}{self.path}", kept, body)
        S3SigV4Auth(Credentials("test", "test"), "s3", "us-east-1").add_auth(request)
        return dict(request.headers.items())

    def _refuse(self, status, code) -> None:
        self._answer(status, {"Content-Type": "application/xml"}, _ERROR.format(code, code).encode())

    def _answer(self, status, headers, content, slow=0.0, truncated=False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "server", "date"):
                self.send_header(name, value)
        length = headers.get("Content-Length", len(content)) if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        if truncated and len(content) > 1:
            self.wfile.write(content[: len(content) // 2])
            return self._reset()
        parts = 10 if slow else 1
        step = -(-len(content) // parts) or 1
        for start in range(0, len(content), step):
            time.sleep(slow / parts)
            try:
                self.wfile.write(content[start : start + step])
                self.wfile.flush()
            except OSError:  # the client has given up
                self.close_connection = True
                return

    def _reset(self) -> None:
        """End the connection with RST, as a dying server does."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


for _method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
    setattr(_Handler, f"do_{_method}", _Handler._handle)


@contextmanager
def place(proxy, test, **patience):
    """Yield a place of a test's own in the bucket, seen through a proxy without faults; ``test``: its name."""
    proxy.faults = []
    name = "".join(c if c.isalnum() else "-" for c in test)
    yield Location.parse(f"s3://galaxies/{name}", proxy.url, **patience)
    proxy.faults = []
