"""Schedulers, workers, certificates and a composite for the tests of clusters."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import archives
import numpy as np
import pytest

from lcengine import jobs

DEPLOYMENTS = Path(__file__).resolve().parents[2] / "cluster"
TLS_VARIABLES = ("LCENGINE_TLS_CA", "LCENGINE_TLS_CERT", "LCENGINE_TLS_KEY")


def certificates(folder):
    """A folder of fresh certificates, made by the shipped script."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on the PATH")
    script = DEPLOYMENTS / "tls" / "certificates.sh"
    subprocess.run(["bash", str(script), str(folder)], check=True, capture_output=True, timeout=60)
    return folder


def free_port():
    """A port of loopback that nobody listens on at the moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def environment():
    """For processes that import lcengine from this checkout."""
    root = str(DEPLOYMENTS.parent)
    kept = {name: value for name, value in os.environ.items() if name not in TLS_VARIABLES}
    return {**kept, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


class Dask:
    """A scheduler and a worker as processes of their own, as a user would start them."""

    def __init__(self, folder, pem=None, *, cert="server", worker=True):
        self.port = free_port()
        self.scheme = "tls" if pem else "tcp"
        self.address = f"{self.scheme}://127.0.0.1:{self.port}"
        self.log = folder / f"dask-{self.port}.log"
        self.tls = []
        if pem:
            self.tls = ["--tls-ca-file", f"{pem}/ca.pem", "--tls-cert", f"{pem}/{cert}.pem"]
            self.tls += ["--tls-key", f"{pem}/{cert}.key"]
        self.processes = []
        options = ["--host", "127.0.0.1", "--port", str(self.port)]
        self.start("scheduler", *options, "--protocol", self.scheme, "--no-dashboard")
        if worker:
            options = ["--host", "127.0.0.1", "--nthreads", "2", "--no-dashboard", "--no-nanny"]
            self.start("worker", self.address, *options, "--local-directory", str(folder))

    def start(self, role, *options):
        command = [sys.executable, "-m", "dask", role, *options, *self.tls]
        with self.log.open("ab") as log:
            self.processes.append(subprocess.Popen(command, stderr=log, env=environment()))

    def __enter__(self):
        def up():
            assert self.processes[0].poll() is None, self.log.read_text()
            with socket.socket() as attempt:
                return attempt.connect_ex(("127.0.0.1", self.port)) == 0

        try:
            assert archives.until(up, 60), self.log.read_text()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait(30)


def differing(client, plans, folder):
    """Names of the variables of composites whose bytes differ from those computed in process."""
    found = []
    for number, plan in enumerate(plans):
        expected, failures = archives.in_process(plan)
        assert failures == []
        assert len(plan.reads.tiles) > 4
        output = jobs.run(plan, folder / f"{number}.zarr", client=client)
        product = archives.arrays(output)
        assert product.keys() == expected.keys()
        assert len(np.unique(product["blue"])) > 100
        found += [name for name in expected if product[name].tobytes() != expected[name].tobytes()]
    return found
