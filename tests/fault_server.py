"""A file server that misbehaves on demand, over real sockets: what reads and searches must survive.

with FaultServer(folder) as server:
    server.fault("item-3/blue", status(503), times=2)
    ...
    assert len(server.seen("item-3/blue")) == 5
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

from lcengine.simulate import serve


@dataclass(frozen=True)
class Seen:
    """A request as the server saw it; `time` is monotonic."""

    time: float
    method: str
    path: str
    query: str
    range: str | None


@dataclass
class Rule:
    """A fault for the requests `after` … `after + times` of the addresses that match."""

    pattern: re.Pattern[str]
    fault: object
    times: int | None
    after: int
    met: int = field(default=0)

    def meets(self, address):
        if not self.pattern.search(address):
            return False
        self.met += 1
        return self.after < self.met and (self.times is None or self.met <= self.after + self.times)


class _Handler(serve._Handler):
    def _answer(self, send_body):
        parts = urlsplit(self.path)
        fault = self.server.meet(
            Seen(
                time.monotonic(), self.command, parts.path, parts.query, self.headers.get("Range")
            ),
            self.path,
        )
        if parts.path == "/token":
            body(HTTPStatus.OK, self.server.issue().encode())(self, send_body)
        elif not self.server.signed(parts.query):
            self._empty(HTTPStatus.FORBIDDEN)
        elif fault is None:
            super()._answer(send_body)
        else:
            fault(self, send_body)

    def usual(self, send_body):
        super()._answer(send_body)

    flips: tuple[int, ...] = ()

    def _send(self, stream, start, stop):
        if not self.flips:
            super()._send(stream, start, stop)
            return
        stream.seek(start)
        data = bytearray(stream.read(stop - start))
        for offset in self.flips:
            if start <= offset < stop:
                data[offset - start] ^= 0xFF
        self.wfile.write(data)


class FaultServer(serve.FileServer):
    """`FileServer` with faults by address; every request is remembered.

    After `guard()` a file is given out only for `?sig=TOKEN`, with a token from `/token` that has
    met fewer than `uses` requests.
    """

    def __init__(self, root):
        super().__init__(root)
        self.rules: list[Rule] = []
        self.log: list[Seen] = []
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._uses: int | None = None
        self._tokens: dict[str, int] = {}

    def __enter__(self):
        server = serve._Server(self.root, 0)
        server.RequestHandlerClass = _Handler
        server.daemon_threads = True  # a stalled answer must not keep the test
        server.ended = self.ended
        server.meet, server.issue, server.signed = self._meet, self._issue, self._signed
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self.ended.set()
        super().__exit__(*exception)

    def fault(self, pattern, fault, *, times=None, after=0):
        """Answer requests whose path and query match (the first `times` after `after`) by it."""
        self.rules.append(Rule(re.compile(pattern), fault, times, after))

    def seen(self, pattern=""):
        """The requests so far whose path matches."""
        return [one for one in self.log if re.search(pattern, one.path)]

    def guard(self, uses):
        """From now on files need a token that has been shown less than `uses` times."""
        self._uses = uses

    @property
    def tokens(self):
        """Tokens issued so far."""
        return list(self._tokens)

    def _issue(self):
        with self._lock:
            token = f"s3cr3t-{len(self._tokens)}"
            self._tokens[token] = 0
        return token

    def _signed(self, query):
        if self._uses is None:
            return True
        (token,) = parse_qs(query).get("sig", [""])
        with self._lock:
            if token not in self._tokens:
                return False
            self._tokens[token] += 1
            return self._tokens[token] <= self._uses

    def _meet(self, seen, address):
        with self._lock:
            self.log.append(seen)
            found = [rule.fault for rule in self.rules if rule.meets(address)]
        return found[0] if found else None


# ---------------------------------------------------------------------------------------- faults


def status(code, **headers):
    """An empty answer of that status; `retry_after="7"` becomes the header Retry-After."""

    def answer(handler, send_body):
        handler.send_response(code)
        for name, value in headers.items():
            text = value() if callable(value) else value
            handler.send_header(name.replace("_", "-").title(), text)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def body(code, content, kind="text/html"):
    """That content, whatever was asked for."""

    def answer(handler, send_body):
        handler.send_response(code)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if send_body:
            handler.wfile.write(content)

    return answer


PAGE = body(HTTPStatus.OK, b"<!DOCTYPE html><html><body>Please log in</body></html>\n" * 50)
"""The page of a portal, with status 200."""


def redirect(location, code=HTTPStatus.FOUND):
    """To another address; `{path}` in it is the path and query that were asked for."""

    def answer(handler, send_body):
        status(code, location=location.format(path=handler.path))(handler, send_body)

    return answer


def stall(handler, send_body):
    """Accepts and never answers."""
    handler.server.ended.wait(60)
    handler.close_connection = True


def stall_in_body(handler, send_body):
    """Answers, sends a few bytes and falls silent."""
    _begin(handler)
    if send_body:
        handler.wfile.write(b"II*\0")
        stall(handler, send_body)


def drip(handler, send_body):
    """A byte now and then: no pause is long enough for a timeout of reads."""
    _begin(handler)
    while send_body and not handler.server.ended.wait(0.05):
        try:
            handler.wfile.write(b"\0")
        except OSError:
            break
    handler.close_connection = True


def drip_headers(handler, send_body):
    """A header that never ends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while not handler.server.ended.wait(0.05):
        try:
            handler.wfile.write(b"x")
        except OSError:
            break
    handler.close_connection = True


def _begin(handler, size=1 << 20):
    span = serve._parse_range(handler.headers.get("Range"), size)
    start, stop, partial = span or (0, size, False)
    handler.send_response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK)
    if partial:
        handler.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
    handler.send_header("Accept-Ranges", "bytes")
    handler.send_header("Content-Length", str(stop - start))
    handler.end_headers()


def cut(handler, send_body):
    """Promises the whole and hangs up after half of it."""
    if not send_body:
        handler.usual(send_body)
        return
    file = handler._file()
    content = file.read_bytes()
    start, stop, _ = serve._parse_range(handler.headers.get("Range"), len(content))
    _begin(handler, len(content))
    handler.wfile.write(content[start : start + (stop - start) // 2])
    handler.close_connection = True


def reset(handler, send_body):
    """Connection reset by peer."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True
    handler.wfile = handler.rfile  # nothing is flushed any more
    handler.connection.close()


def flipped(*offsets):
    """The file with all bits of these bytes inverted."""

    def answer(handler, send_body):
        handler.flips = offsets
        try:
            handler.usual(send_body)
        finally:
            handler.flips = ()

    return answer
