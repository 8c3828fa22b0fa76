"""FAULTS 43: schedulers with TLS serve who holds a certificate of their authority, nobody else."""

from __future__ import annotations

import socket
import ssl
import stat
import subprocess
import warnings

import clusters
import dask
import pytest

from lcengine.cluster import connect, start
from lcengine.cluster.security import warn_if_open
from lcengine.errors import InputError, RunError

pytestmark = pytest.mark.timeout(25)  # a refusal must not hang


@pytest.fixture(scope="module")
def encrypted(pem, tmp_path_factory):
    with clusters.Dask(tmp_path_factory.mktemp("encrypted"), pem) as found:
        yield found


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with clusters.Dask(tmp_path_factory.mktemp("plain"), worker=False) as found:
        yield found


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_composites_to_the_same_bytes(encrypted, use, pem, plans, tmp_path):
    use(pem)
    with connect(encrypted.address) as client:
        assert client.scheduler.address == encrypted.address
        client.wait_for_workers(1, timeout=60)
        assert all(worker.startswith("tls://") for worker in client.nthreads())
        assert clusters.differing(client, plans, tmp_path) == []


def test_certificates_of_a_file(encrypted, pem, tmp_path):
    file = tmp_path / "cluster.yaml"
    security = f"{{ca: {pem}/ca.pem, cert: {pem}/client.pem, key: {pem}/client.key}}"
    file.write_text(f"address: {encrypted.address}\nsecurity: {security}\n")
    with connect(file) as client:
        assert client.scheduler.address == encrypted.address


def test_certificates_of_dask_s_own_configuration(encrypted, pem):
    settings = {"ca-file": "ca.pem", "client.cert": "client.pem", "client.key": "client.key"}
    names = {f"distributed.comm.tls.{key}": str(pem / file) for key, file in settings.items()}
    with dask.config.set(names), connect(encrypted.address) as client:
        assert client.scheduler.address == encrypted.address


def refused(address, match):
    with pytest.raises(RunError, match=match) as caught, connect(address):
        pass
    assert "\n" not in str(caught.value)


class TestRefusals:
    def test_no_certificate(self, encrypted):
        names = "LCENGINE_TLS_CA and LCENGINE_TLS_CERT"
        with pytest.raises(InputError, match=f"{names} is not set"), connect(encrypted.address):
            pass

    def test_a_certificate_of_another_authority(self, encrypted, use, pem, alien):
        use(pem, alien)
        refused(encrypted.address, "refuses the client's certificate .*LCENGINE_TLS_CERT")

    def test_a_scheduler_of_another_authority(self, encrypted, use, pem, alien):
        use(alien, pem)
        refused(encrypted.address, r"certificate of tls://.* is not accepted .*LCENGINE_TLS_CA")

    def test_a_scheduler_that_shows_the_certificate_of_a_client(self, use, pem, tmp_path):
        """Who only has a client's key cannot pose as the scheduler."""
        use(pem)
        with clusters.Dask(tmp_path, pem, cert="client", worker=False) as impostor:
            refused(impostor.address, "is not accepted .*unsuitable certificate purpose")

    def test_plain_tcp_to_an_encrypted_scheduler(self, encrypted):
        refused(f"tcp://127.0.0.1:{encrypted.port}", "no Dask scheduler answers .*use tls://")

    def test_tls_to_a_plain_scheduler(self, plain, use, pem):
        use(pem)
        refused(f"tls://127.0.0.1:{plain.port}", "no Dask scheduler answers .*use tcp://")

    def test_strangers_hear_nothing(self, encrypted):
        """A scheduler speaks first, but not to a socket without a certificate."""
        anybody = ssl.create_default_context()
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", encrypted.port), 20) as raw:  # noqa: SIM117
            with pytest.raises(ssl.SSLError, match=r"(?i)certificate_required|handshake_failure"):
                with anybody.wrap_socket(raw) as stream:
                    stream.recv(1)

    def test_nobody_at_the_address(self, monkeypatch):
        monkeypatch.setattr(start, "CONNECT_TIMEOUT", 0.3)
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{deaf.getsockname()[1]}"
            refused(address, "no Dask scheduler answers .*refused")

    @pytest.mark.parametrize("scheme", ["tcp", "tls"])
    def test_one_that_accepts_and_says_nothing(self, monkeypatch, use, pem, scheme):
        monkeypatch.setattr(start, "CONNECT_TIMEOUT", 0.5)
        use(pem)
        with socket.create_server(("127.0.0.1", 0)) as mute:
            address = f"{scheme}://127.0.0.1:{mute.getsockname()[1]}"
            refused(address, "no Dask scheduler answers .*timed out")


class TestFiles:
    def test_a_file_that_is_missing(self, use, pem, alien, tmp_path):
        use(pem, tmp_path)
        with pytest.raises(InputError, match=rf"No such file .*: {tmp_path}/client\.pem"):  # noqa: SIM117
            with connect("tls://127.0.0.1:1"):
                pass

    def test_a_key_of_another_certificate(self, monkeypatch, use, pem, alien):
        use(pem)
        monkeypatch.setenv("LCENGINE_TLS_KEY", str(alien / "client.key"))
        with pytest.raises(InputError, match=r"(?i)key values mismatch"), connect("tls://a:1"):
            pass

    def test_no_pem_at_all(self, monkeypatch, use, pem, tmp_path):
        use(pem)
        (tmp_path / "ca.pem").write_text("hello\n")
        monkeypatch.setenv("LCENGINE_TLS_CA", str(tmp_path / "ca.pem"))
        with pytest.raises(InputError, match="expected PEM files"), connect("tls://127.0.0.1:1"):
            pass

    def test_a_key_with_a_pass_phrase_is_not_asked_for(self, monkeypatch, use, pem, tmp_path):
        use(pem)
        locked = tmp_path / "locked.key"
        command = ["openssl", "pkey", "-in", pem / "client.key", "-aes256", "-out", locked]
        subprocess.run([*command, "-passout", "pass:secret"], check=True)
        monkeypatch.setenv("LCENGINE_TLS_KEY", str(locked))
        with pytest.raises(InputError, match="the key without a pass phrase"):  # noqa: SIM117
            with connect("tls://127.0.0.1:1"):
                pass


class TestScript:
    def test_only_the_owner_reads_the_keys(self, pem):
        found = {path.relative_to(pem).as_posix(): path.stat().st_mode for path in pem.rglob("*")}
        assert {stat.S_IMODE(mode) for name, mode in found.items() if "." in name} == {0o600}
        assert stat.S_IMODE(found["authority"]) == stat.S_IMODE(pem.stat().st_mode) == 0o700
        pairs = {f"{name}.{kind}" for name in ("server", "client") for kind in ("key", "pem")}
        assert found.keys() == pairs | {"ca.pem", "authority", "authority/ca.key"}

    def test_a_running_cluster_s_authority_is_not_replaced(self, pem):
        before = (pem / "ca.pem").read_bytes()
        script = clusters.DEPLOYMENTS / "tls" / "certificates.sh"
        ended = subprocess.run(["bash", script, pem], capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert ended.stderr.startswith("error: ")
        assert (pem / "ca.pem").read_bytes() == before

    @pytest.mark.parametrize(
        "arguments", [[], ["a", "0"], ["a", "-1"], ["a", "ten"], ["a", "1", "2"]]
    )
    def test_slips(self, tmp_path, arguments):
        script = clusters.DEPLOYMENTS / "tls" / "certificates.sh"
        ended = subprocess.run(
            ["bash", script, *arguments], capture_output=True, check=False, cwd=tmp_path
        )
        assert ended.returncode == 2
        assert list(tmp_path.iterdir()) == []


class TestWarning:
    @pytest.mark.parametrize("address", ["tcp://192.0.2.7:8786", "tcp://node1:1", "tcp://[::2]:1"])
    def test_an_open_address_is_named(self, address):
        with pytest.warns(UserWarning, match="neither encrypted nor authenticated") as caught:
            warn_if_open(address)
        assert address in str(caught[0].message)
        assert "use tls://" in str(caught[0].message)

    @pytest.mark.parametrize(
        "address", ["tcp://127.0.0.1:1", "tcp://localhost:1", "tcp://[::1]:1", "tls://node1:1"]
    )
    def test_others_are_not(self, address):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warn_if_open(address)

    def test_on_the_way_to_a_scheduler(self, monkeypatch):
        monkeypatch.setattr(start, "CONNECT_TIMEOUT", 0.2)
        with pytest.warns(UserWarning, match=r"tcp://192\.0\.2\.7:1 is neither"):  # noqa: SIM117
            with pytest.raises(RunError), connect("tcp://192.0.2.7:1"):
                pass
