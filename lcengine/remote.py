"""Remote files before GDAL opens them: where redirects lead, what a server refuses, when to retry.

GDAL follows any redirect and hides the headers of what it was refused, so one byte is asked for
beforehand. That keeps an honest server's redirects out of the user's network; it cannot bind a
hostile one, which may answer GDAL differently a moment later: where that matters, let the workers
reach the internet only.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

from lcengine.addresses import check_host, is_url, redact, scrub
from lcengine.errors import HrefError

GONE = frozenset({404, 410})
DENIED = frozenset({401, 403})
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5


class RefusedError(OSError):
    """A server's answer that keeps GDAL from being asked; `wait`: the seconds it asks for."""

    def __init__(self, status: int, wait: float = 0.0) -> None:
        super().__init__(f"HTTP response code: {status}")
        self.status = status
        self.wait = wait


@dataclass(slots=True)
class Trial:
    """How often one read is tried, and how long it may take altogether.

    `attempts` at most, `backoff` seconds before the second and twice as long before each further
    one (± half, so that workers do not return all at once), or as long as the server asks, within
    `patience` seconds since the beginning.
    """

    attempts: int
    backoff: float
    patience: float
    number: int = 1
    denied: bool = False
    started: float = field(default_factory=time.monotonic)

    def again(self, refusal: RefusedError | None) -> bool:
        """Whether to try once more after a failure; waits before it answers yes."""
        status = refusal.status if refusal is not None else 0
        if status in GONE or self.number >= self.attempts:
            return False
        pause = self.backoff * 2.0 ** (self.number - 1) * random.uniform(0.5, 1.5)
        if status in DENIED:
            # One fresh signature; a second refusal is meant.
            if self.denied:
                return False
            self.denied, pause = True, 0.0
        if refusal is not None:
            pause = max(pause, refusal.wait)
        if time.monotonic() + pause - self.started > self.patience:
            return False
        time.sleep(pause)
        self.number += 1
        return True


def resolve(url: str, hosts: Collection[str], limits: tuple[float, float]) -> str:
    """The address behind all redirects of `url`, every host on the way public or in `hosts`.

    `limits`: seconds to connect and to answer. Raises `HrefError` for a redirect to anywhere
    else, `RefusedError` where the file is gone or the server busy, `OSError` where nobody answers.
    What is denied is left to GDAL, which may have been given credentials of its own.
    """
    for _ in range(MAX_REDIRECTS + 1):
        check_host(urlsplit(url).hostname or "", hosts)
        status, headers = _ask(url, limits)
        location = headers.get("Location")
        if status not in REDIRECTS or not location:
            if status in GONE or status in BUSY:
                raise RefusedError(status, _seconds(headers.get("Retry-After")))
            return url
        following = urljoin(url, location)
        if not is_url(following) or any(ord(c) <= 32 for c in following):
            raise HrefError(
                f"{redact(url)} redirects to {redact(following)!r}; expected an http address"
            )
        url = following
    raise HrefError(f"{redact(url)} is the end of more than {MAX_REDIRECTS} redirects")


def _seconds(header: str | None) -> float:
    """Seconds of a Retry-After header, a number or a date; 0 where it is neither."""
    try:
        return Retry(0).parse_retry_after(header) if header else 0.0
    except InvalidHeader:
        return 0.0


_local = threading.local()


def _ask(url: str, limits: tuple[float, float]) -> tuple[int, Mapping[str, str]]:
    """Status and headers of the answer to a request for the first byte."""
    session: requests.Session | None = getattr(_local, "session", None)
    if session is None:
        session = _local.session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Adapter())
    # Not HEAD: signed addresses often allow nothing but GET.
    headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
    with session.get(
        url, headers=headers, allow_redirects=False, stream=True, timeout=limits
    ) as response:
        if response.headers.get("Content-Length") in ("0", "1"):
            _ = response.content  # to its end, so that the connection serves the next request
        return response.status_code, response.headers


@contextmanager
def _hung_up_after(connection: HTTPConnection) -> Iterator[None]:
    """Ends an answer that is not there in time: a trickle restarts a socket's own timeout."""

    def hang_up() -> None:
        with suppress(OSError, AttributeError):  # closed already
            connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(float(connection.timeout or 0.0), hang_up)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Plain(HTTPConnection):
    def getresponse(self) -> Any:
        with _hung_up_after(self):
            return super().getresponse()


class _Secure(HTTPSConnection):
    def getresponse(self) -> Any:
        with _hung_up_after(self):
            return super().getresponse()


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class _Adapter(HTTPAdapter):
    """Connections whose headers arrive in time or never."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        pools = {"http": _PlainPool, "https": _SecurePool}
        self.poolmanager.pool_classes_by_scheme = pools


def _scrubbed(record: logging.LogRecord) -> bool:
    """Takes the secrets of addresses out of a record that another library logs."""
    text = record.getMessage()
    if "?" in text or "@" in text:
        record.msg, record.args = scrub(text), ()
    return True


LOGGERS = ("urllib3.connectionpool", *(f"rasterio.{n}" for n in ("_base", "_env", "_err", "_io")))
for _name in LOGGERS:
    logging.getLogger(_name).addFilter(_scrubbed)
