"""TLS of a cluster: the files of an identity, from a file, the environment or dask's config."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from lcengine.errors import InputError

if TYPE_CHECKING:
    from distributed import Security

PEM_FILES: Final = {"ca": "LCENGINE_TLS_CA", "cert": "LCENGINE_TLS_CERT", "key": "LCENGINE_TLS_KEY"}
ROLES: Final = ("client", "scheduler", "worker")
TLS = "distributed.comm.tls"


@dataclass(frozen=True, slots=True)
class Pem:
    """PEM files of one identity; dask also takes a key that is appended to the certificate."""

    ca: str
    cert: str
    key: str | None = None


def pem_of_environment(source: str) -> Pem:
    """The client's files from LCENGINE_TLS_… or, where those are not set, from dask's config."""
    import dask

    named = {name: os.environ.get(variable) for name, variable in PEM_FILES.items()}
    if not any(named.values()):
        keys = {"ca": "ca-file", "cert": "client.cert", "key": "client.key"}
        named = {name: dask.config.get(f"{TLS}.{key}", None) for name, key in keys.items()}
    ca, cert = named["ca"], named["cert"]
    if not ca or not cert:
        missing = " and ".join(PEM_FILES[name] for name in ("ca", "cert") if not named[name])
        raise InputError(
            f"{source} needs TLS certificates, and {missing} is not set; name the PEM files of the "
            f"authority, the client's certificate and its key in {', '.join(PEM_FILES.values())}, "
            f"or in dask's configuration ({TLS})"
        )
    return checked(Pem(ca, cert, named["key"]), source)


def checked(pem: Pem, source: str) -> Pem:
    """The same files, if OpenSSL takes them; dask would say so from deep inside a connection."""
    if any("\n" in (text or "") for text in (pem.ca, pem.cert, pem.key)):
        return pem  # dask's configuration may hold the certificates themselves
    try:
        for file in filter(None, (pem.ca, pem.cert, pem.key)):
            with Path(file).open("rb"):
                pass
        context = ssl.create_default_context(cafile=pem.ca)
        # Without an answer OpenSSL would ask a terminal, and wait.
        context.load_cert_chain(pem.cert, pem.key, password="")
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(filter(None, (pem.ca, pem.cert, pem.key)))
        raise InputError(
            f"TLS for {source}: {error.strerror or error}"
            f"{f': {error.filename}' if error.filename else f' in {files}'}; expected PEM files of "
            "an authority, of a certificate and of its key, the key without a pass phrase, as "
            "cluster/tls/certificates.sh makes them"
        ) from error
    return pem


def security_of(pem: Pem) -> Security:
    """dask's TLS object: the same identity in every role."""
    from distributed import Security

    own = {
        f"tls_{role}_{kind}": file
        for role in ROLES
        for kind, file in (("cert", pem.cert), ("key", pem.key))
    }
    return Security(require_encryption=True, tls_ca_file=pem.ca, **own)


def configured(pem: Pem) -> dict[str, Any]:
    """The same as configuration of dask, which SSHCluster hands to its processes."""
    settings: dict[str, Any] = {
        "distributed.comm.require-encryption": True,
        "distributed.comm.default-scheme": "tls",
        f"{TLS}.ca-file": pem.ca,
    }
    for role in ROLES:
        settings |= {f"{TLS}.{role}.cert": pem.cert, f"{TLS}.{role}.key": pem.key}
    return settings


def probe(address: str, security: Security | None, seconds: float) -> None:
    """Wait for the first byte of a scheduler; `OSError` says what stands between it and a client.

    dask limits the time for a connection, but waits without end for what a scheduler says first.
    """
    parts = urlsplit(address)
    context = security.get_connection_args("client")["ssl_context"] if security else None
    deadline = time.monotonic() + seconds
    while True:
        try:
            plain = socket.create_connection((parts.hostname, parts.port), timeout=seconds)
            break
        except ConnectionRefusedError:  # a scheduler may still be starting
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    with plain, context.wrap_socket(plain) if context else plain as stream:
        if context is None:
            stream.shutdown(socket.SHUT_WR)  # one that waits for a TLS client gives up at once
        if not stream.recv(1):
            raise ConnectionResetError("it closes the connection")


def warn_if_open(address: str) -> None:
    """Name a scheduler that anybody on the network may use."""
    host = urlsplit(address).hostname or ""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if address.startswith("tcp://") and not loopback:
        warnings.warn(
            f"the connection to {address} is neither encrypted nor authenticated: who reaches this "
            "port runs code on the workers; use tls:// with certificates, or keep the port inside "
            "a network of your own",
            UserWarning,
            stacklevel=2,
        )
