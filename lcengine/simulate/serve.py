"""Loopback servers for a simulated archive: files over HTTP with ranges, and a STAC API."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import unquote, urlsplit

from lcengine.errors import InputError, LcengineError

_LOG = logging.getLogger(__name__)
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PIECE = 1 << 20
_START_TIMEOUT = 30.0


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of regular files below the server's root, whole or one byte range (RFC 9110)."""

    protocol_version = "HTTP/1.1"
    # Without this, headers and body sent apart wait for each other's acknowledgement (40 ms).
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def _answer(self, send_body: bool) -> None:
        self.server.count(requests=1)
        file = self._file()
        if file is None:
            self._empty(HTTPStatus.NOT_FOUND)
            return
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            span = _parse_range(self.headers.get("Range"), status.st_size)
            if span is None:
                self._empty(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, status.st_size)
                return
            start, stop, partial = span
            self.send_response(HTTPStatus.PARTIAL_CONTENT if partial else HTTPStatus.OK)
            if partial:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{status.st_size}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Content-Type", guess_type(file)[0] or "application/octet-stream")
            self.send_header("Last-Modified", formatdate(status.st_mtime, usegmt=True))
            self.end_headers()
            if send_body:
                self._send(stream, start, stop)

    def _file(self) -> Path | None:
        """The regular file asked for; None when absent or outside the root, by links too."""
        name = unquote(urlsplit(self.path).path).lstrip("/")
        if "\0" in name:
            return None
        file = (self.server.root / name).resolve()
        return file if file.is_relative_to(self.server.root) and file.is_file() else None

    def _empty(self, status: HTTPStatus, size: int | None = None) -> None:
        self.send_response(status)
        if size is not None:
            self.send_header("Content-Range", f"bytes */{size}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, stream: IO[bytes], start: int, stop: int) -> None:
        stream.seek(start)
        while start < stop and (piece := stream.read(min(_PIECE, stop - start))):
            # Counted first, so that a client which has the bytes also sees them counted.
            self.server.count(sent=len(piece))
            self.wfile.write(piece)
            start += len(piece)

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        _LOG.debug(format, *args)


def _parse_range(header: str | None, size: int) -> tuple[int, int, bool] | None:
    """(start, stop, partial) of a Range header; None when it cannot be satisfied.

    Several ranges or an unknown unit are ignored, as RFC 9110 (14.2) allows.
    """
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not any(match.groups()):
        return 0, size, False
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return 0, size, False
    return (start, stop, True) if start < stop else None


class _Server(ThreadingHTTPServer):
    """Threading server that counts, and that closes kept-alive connections when it stops."""

    daemon_threads = False

    def __init__(self, root: Path, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.root = root
        self.connections: set[socket.socket] = set()
        self.bytes_sent = 0
        self.requests = 0
        self._lock = threading.Lock()

    def count(self, requests: int = 0, sent: int = 0) -> None:
        with self._lock:
            self.requests += requests
            self.bytes_sent += sent

    def handle_error(self, request: object, client_address: object) -> None:
        # A client that hangs up in the middle of an answer is no fault of the server.
        level = logging.DEBUG if isinstance(sys.exception(), ConnectionError) else logging.ERROR
        _LOG.log(level, "request from %s failed", client_address, exc_info=True)

    def close(self) -> None:
        self.shutdown()
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                _LOG.debug("connection was already closed")
        self.server_close()


class FileServer:
    """Serve the files below `root` on 127.0.0.1 while the `with` block lasts.

    HTTP/1.1 with keep-alive, HEAD and single byte ranges, so that GDAL reads COGs block by block.
    `port` 0 takes a free one. Directories are not listed; what lies outside `root` is 404.
    """

    def __init__(self, root: str | os.PathLike[str], port: int = 0) -> None:
        self.root = Path(root).resolve()
        if not self.root.is_dir():
            raise InputError(f"{root} is not a folder: name the folder whose files to serve")
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._server = _Server(self.root, self._port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None and self._thread is not None:
            self._server.close()
            self._thread.join()

    @property
    def url(self) -> str:
        """Address of the root, without a final slash."""
        return f"http://127.0.0.1:{self._running.server_address[1]}"

    @property
    def bytes_sent(self) -> int:
        """Bytes of file content sent so far, headers not counted."""
        return self._running.bytes_sent

    @property
    def requests(self) -> int:
        """GET and HEAD requests answered so far."""
        return self._running.requests

    @property
    def _running(self) -> _Server:
        if self._server is None:
            raise LcengineError("the file server has not been started: use it in a with statement")
        return self._server


class StacServer:
    """Serve STAC items as a STAC API on 127.0.0.1 while the `with` block lasts.

    `items` is a FeatureCollection or the path of one (JSON). The API is `rustac serve` with its
    memory back end; starting it raises LcengineError when it is missing or does not answer.
    """

    def __init__(self, items: Mapping[str, Any] | str | os.PathLike[str]) -> None:
        self._items = items
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        """Address of the API's root."""

    def __enter__(self) -> Self:
        program = _rustac()
        self._folder = tempfile.TemporaryDirectory(prefix="lcengine-stac-")
        try:
            self._start(program, Path(self._folder.name))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _start(self, program: str, folder: Path) -> None:
        source = folder / "items.json"
        if isinstance(self._items, Mapping):
            source.write_text(json.dumps(self._items))
        else:
            shutil.copyfile(self._items, source)
        address = f"127.0.0.1:{_free_port()}"
        self.url = f"http://{address}"
        log = folder / "log"
        command = [program, "serve", "--create-collections", "--addr", address, str(source)]
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while not _answers(self.url):
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                state = "still silent" if code is None else f"ended with status {code}"
                said = " ".join(log.read_text(errors="replace").split())[-300:]
                raise LcengineError(
                    f"rustac serve on {address} {state} ({said or 'no message'}): "
                    "check the items, or try again if the port was taken"
                )
            time.sleep(0.05)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def _rustac() -> str:
    """Path of the rustac program: the one beside this Python first."""
    beside = Path(sys.executable).parent / "rustac"
    program = str(beside) if beside.is_file() else shutil.which("rustac")
    if program is None:
        raise LcengineError("the program rustac was not found: pip install lcengine[serve]")
    return program


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    # A proxy configured in the environment must not be asked for a loopback address.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/", timeout=2) as response:
            return bool(response.status == HTTPStatus.OK)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
