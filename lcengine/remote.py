"""Remote files before GDAL opens them: where redirects lead, what a server refuses, when to retry.

GDAL follows any redirect and hides the headers of what it was refused, so one byte is asked for
beforehand. That keeps an honest server's redirects out of the user's network; it cannot bind a
hostile one, which may answer GDAL differently a moment later: where that matters, let the workers
reach the internet only.
"""

from __future__ import annotations

import http.client
import io
import logging
import os
import random
import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry, Timeout

from lcengine.addresses import check_host, is_url, redact, scrub
from lcengine.errors import HrefError

GONE = frozenset({404, 410})
DENIED = frozenset({401, 403})
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5
READ_SECONDS = 20.0


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


def _ask(url: str, limits: tuple[float, float]) -> tuple[int, Mapping[str, str]]:
    """Status and headers of the answer to a request for the first byte; `OSError` without one."""
    connect, read = limits
    parts = urlsplit(url)
    try:
        # Not HEAD: signed addresses often allow nothing but GET.
        response = _connections(_proxy(parts.scheme, parts.hostname or "")).urlopen(
            "GET",
            url,
            headers={"Range": "bytes=0-0"},
            redirect=False,
            retries=False,
            preload_content=False,
            timeout=Timeout(connect=connect, read=read),
        )
        if response.headers.get("Content-Length") in ("0", "1"):
            response.read()  # to its end, so that the connection serves the next request
        response.close()
    except HTTPError as error:
        raise ConnectionError(scrub(str(error))) from None
    return response.status, response.headers


@lru_cache(maxsize=256)
def _proxy(scheme: str, host: str) -> str | None:
    """The proxy that the environment names for a host, as for GDAL."""
    return None if proxy_bypass(host) else getproxies().get(scheme)


@lru_cache(maxsize=8)
def _connections(proxy: str | None) -> PoolManager:
    options: dict[str, Any] = {
        "maxsize": 64,
        "ca_certs": os.environ.get("CURL_CA_BUNDLE")
        or os.environ.get("SSL_CERT_FILE")
        or DEFAULT_CA_BUNDLE_PATH,
    }
    manager = ProxyManager(proxy, **options) if proxy else PoolManager(**options)
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
    return manager


class _Timed(io.RawIOBase):
    """A socket's bytes until the time for an answer is up: a trickle restarts its own timeout."""

    def __init__(self, connection: socket.socket, source: io.BufferedReader) -> None:
        self._connection = connection
        self._source = source
        seconds = connection.gettimeout()
        self._end = time.monotonic() + (READ_SECONDS if seconds is None else seconds)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer is not complete in time")
        self._connection.settimeout(left)
        return self._source.raw.readinto(buffer)

    def close(self) -> None:
        self._source.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Timed(sock, self.fp))


class _Plain(HTTPConnection):
    response_class = _Response


class _Secure(HTTPSConnection):
    response_class = _Response


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


def _scrubbed(record: logging.LogRecord) -> bool:
    """Takes the secrets of addresses out of a record that another library logs."""
    text = record.getMessage()
    if "?" in text or "@" in text:
        record.msg, record.args = scrub(text), ()
    return True


LOGGERS = ("urllib3.connectionpool", *(f"rasterio.{n}" for n in ("_base", "_env", "_err", "_io")))
for _name in LOGGERS:
    logging.getLogger(_name).addFilter(_scrubbed)
