"""Fixtures of the back ends: a real S3 server on loopback, and an output of each."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import archives
import pytest
from places import BUCKET, KINDS, SECRET, backend_at


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """Address of an S3 server with one bucket."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with (
        (tmp_path_factory.mktemp("s3") / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
        ) as server,
    ):
        assert archives.until(lambda: answers(address))
        yield address
        server.terminate()


def answers(address):
    make = urllib.request.Request(f"{address}/{BUCKET}", data=b"", method="PUT")
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(make):
            return True
    except urllib.error.URLError:
        return False


@pytest.fixture(scope="session")
def aws(s3_server):
    """The environment of a user of that server; a patch that a test enters."""
    return {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture(scope="class")
def environment(aws):
    """The process is configured for the server, and so are processes started meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in aws.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(params=KINDS)
def backend(request, tmp_path):
    if request.param.endswith("s3"):
        request.getfixturevalue("environment")
    return backend_at(request.param, tmp_path)
