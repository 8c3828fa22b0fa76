"""SSHCluster over a real sshd on loopback, with host keys and a user key of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import archives
import clusters
import psutil
import pytest
import yaml

from lcengine.cluster import connect
from lcengine.errors import RunError

SSHD = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(150),
    pytest.mark.skipif(SSHD is None, reason="no sshd here (Debian: apt install openssh-server)"),
]


class Sshd:
    """A server that lets in the owner of one key, and gives processes this checkout."""

    def __init__(self, folder):
        self.port = clusters.free_port()
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / f"{name}.key"]
            subprocess.run(command, check=True, timeout=60)
        kind, key, *_ = (folder / "host.key.pub").read_text().split()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")
        shutil.copy(folder / "user.key.pub", folder / "authorized")
        config = folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host.key\n"
            f"PidFile none\nAuthorizedKeysFile {folder}/authorized\nStrictModes no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
            f"SetEnv PYTHONPATH={clusters.environment()['PYTHONPATH']}\n"
        )
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # what sshd's service makes
        self.log = folder / "sshd.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=log)

    def answers(self):
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ssh")


@pytest.fixture(scope="module")
def sshd(folder):
    server = Sshd(folder)
    try:
        assert archives.until(server.answers, 20), server.log.read_text()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(10)


def write(folder, sshd, **more):
    """The shipped ssh.yaml for this sshd: a scheduler and two workers."""
    settings = yaml.safe_load((clusters.DEPLOYMENTS / "ssh.yaml").read_text())
    arguments = settings["arguments"]
    arguments["hosts"] = ["127.0.0.1"] * 3
    arguments["connect_options"] = {
        "port": sshd.port,
        "username": getpass.getuser(),
        "client_keys": ["./user.key"],
        "known_hosts": "./known_hosts",
        "config": None,
    }
    loopback = {"host": "127.0.0.1"}
    arguments["worker_options"] |= {"n_workers": 1, "nthreads": 2, "memory_limit": "1GB"} | loopback
    arguments["scheduler_options"] |= {"port": 0, "dashboard_address": "127.0.0.1:0"} | loopback
    arguments["remote_python"] = sys.executable
    file = folder / "ssh.yaml"
    file.write_text(yaml.safe_dump(settings | more))
    return file


def link(folder, pem):
    """The certificates where the file looks for them."""
    if not (folder / "certificates").exists():
        (folder / "certificates").symlink_to(pem)


def remote(sshd):
    """Processes that were started through the server."""
    below = psutil.Process(sshd.process.pid).children(recursive=True)
    return [process for process in below if "dask" in " ".join(process.cmdline())]


def test_composites_to_the_same_bytes(sshd, folder, pem, plans, tmp_path):
    """Encrypted with the certificates that the file names, closed at the end."""
    link(folder, pem)
    with connect(write(folder, sshd)) as client:
        started = remote(sshd)
        assert len(started) >= 3
        client.wait_for_workers(2, timeout=60)
        workers = client.scheduler_info(n_workers=-1)["workers"]
        assert [w["nthreads"] for w in workers.values()] == [2, 2]
        assert all(address.startswith("tls://127.0.0.1:") for address in workers)
        preloads = client.run(lambda: os.environ.get("MALLOC_TRIM_THRESHOLD_"))
        assert set(preloads.values()) == {None}
        assert clusters.differing(client, plans, tmp_path) == []
    _, alive = psutil.wait_procs(started, timeout=15)
    assert alive == []


def test_a_stranger_s_host_key_is_refused(sshd, folder):
    settings = yaml.safe_load(write(folder, sshd, security=None).read_text())
    other = folder / "other_hosts"
    other.write_text(f"[127.0.0.1]:{sshd.port} {(folder / 'user.key.pub').read_text()}")
    settings["arguments"]["connect_options"]["known_hosts"] = str(other)
    file = folder / "stranger.yaml"
    file.write_text(yaml.safe_dump(settings))
    with pytest.raises(RunError, match=r"does not start: .*[Hh]ost key"), connect(file):
        pass


def test_a_killed_scheduler_does_not_keep_it_from_closing(sshd, folder, pem):
    """FAULTS 3: the block is left, and the workers on the other machines end."""
    link(folder, pem)
    started = []

    def kill(client):
        client.wait_for_workers(2, timeout=60)
        started.extend(remote(sshd))
        (scheduler,) = [p for p in started if "distributed.Scheduler" in " ".join(p.cmdline())]
        scheduler.kill()
        raise RunError("the scheduler is lost")

    with (
        pytest.warns(UserWarning, match="could not be told to close"),
        pytest.raises(RunError, match="the scheduler is lost"),
        connect(write(folder, sshd)) as client,
    ):
        kill(client)
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
