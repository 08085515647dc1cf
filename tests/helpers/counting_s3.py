"""A real S3 server on loopback that writes down what it is asked for.

moto keeps one set of buckets a process, whatever the number of its servers: every test has a prefix of its own.
"""

import re
import threading
from contextlib import contextmanager

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

BUCKET = "galaxies"


class Counted:
    """The server's application; ``requests`` holds (method, path, Range header, bytes sent back)."""

    def __init__(self):
        self.application, self.requests = DomainDispatcherApplication(create_backend_app), []

    def __call__(self, environ, start_response):
        body = b"".join(self.application(environ, start_response))
        size = 0 if environ["REQUEST_METHOD"] == "HEAD" else len(body)
        path = re.sub(f"^/{BUCKET}/", "", environ["PATH_INFO"])
        self.requests.append((environ["REQUEST_METHOD"], path, environ.get("HTTP_RANGE", ""), size))
        return [body]

    @contextmanager
    def watch(self):
        """Yield the list of what is asked for inside the block."""
        first, seen = len(self.requests), []
        yield seen
        seen += self.requests[first:]


@contextmanager
def serve(monkeypatch):
    """Start a server with a bucket, point the environment at it and yield its `Counted`."""
    counted = Counted()
    server = make_server("127.0.0.1", 0, counted, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = "http://{}:{}".format(*server.server_address[:2])
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
    yield counted
    server.shutdown()
    thread.join()
