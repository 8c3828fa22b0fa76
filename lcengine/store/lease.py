"""One driver per output on an object store: a lease that expires unless its holder renews it.

The lease is an object, taken by a put that only creates and renewed by one that only replaces the
version it knows (`If-None-Match`, `If-Match`). Expiry is read off the drivers' own clocks, which
must agree to within a few seconds.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from lcengine.errors import StoreError

if TYPE_CHECKING:
    from obstore.store import S3Store

SECONDS = 60.0
"""How long a lease lasts: a killed driver blocks the next one for no longer."""

NAME = "lease.json"


class Lease:
    """The right to drive an output; `check` before every step that must not happen twice."""

    def __init__(self, store: S3Store, output: str) -> None:
        self.store = store
        self.output = output
        self.holder = f"{socket.gethostname()} process {os.getpid()}"
        self.token = uuid.uuid4().hex
        self.etag = ""
        self.until = 0.0
        self.lost: str | None = None
        self._stop = threading.Event()
        self._beat = threading.Thread(target=self._renew, name="lcengine-lease", daemon=True)

    def acquire(self) -> None:
        """Take a free or expired lease and keep renewing it; `StoreError` names the holder."""
        from obstore.exceptions import (  # noqa: PLC0415 (an extra)
            AlreadyExistsError,
            PreconditionError,
        )

        try:
            try:
                self._put("create", SECONDS)
            except AlreadyExistsError:
                self._take_over()
        except PreconditionError:
            raise StoreError(
                f"another run has just begun to write {self.output}; wait for it or stop it first"
            ) from None
        self._beat.start()

    def check(self, *, lenient: bool = False) -> None:
        """`StoreError` where another driver may have taken over; `lenient`: where one has."""
        if self.lost is None and not lenient and time.time() > self.until:
            self.lost = "it could not be renewed in time"
        if self.lost is not None:
            raise StoreError(
                f"this run has lost its lease on {self.output} ({self.lost}); "
                "stop here, and run the same command again when no other run writes it"
            )

    def release(self) -> None:
        """Give the lease back, unless it is another's by now."""
        self._stop.set()
        self._beat.join()
        if self.lost is None:
            from obstore.exceptions import PreconditionError  # noqa: PLC0415 (an extra)

            try:
                self._put({"e_tag": self.etag}, 0.0)
            except PreconditionError:
                self.lost = "another run took it"

    def _take_over(self) -> None:
        import obstore  # noqa: PLC0415 (an extra)

        found = obstore.get(self.store, NAME)
        etag = found.meta["e_tag"]
        held = json.loads(bytes(found.bytes()))
        if held["until"] > time.time():
            until = dt.datetime.fromtimestamp(held["until"], dt.UTC).isoformat(timespec="seconds")
            raise StoreError(
                f"another run is writing {self.output}: {held['holder']} holds it until {until}; "
                "wait for it or stop it first"
            )
        self._put({"e_tag": etag or ""}, SECONDS)

    def _renew(self) -> None:
        """Renew until told to stop; a refusal means that the lease is another's."""
        from obstore.exceptions import BaseError, PreconditionError  # noqa: PLC0415 (an extra)

        while not self._stop.wait(SECONDS / 4):
            try:
                self._put({"e_tag": self.etag}, SECONDS)
            except (PreconditionError, FileNotFoundError):
                if not self._mine():
                    self.lost = "another run took it"
                    return
            except BaseError:
                continue  # the network may come back before the lease ends

    def _mine(self) -> bool:
        """Whether the lease is ours after all: the answer to a renewal may have been lost."""
        import obstore  # noqa: PLC0415 (an extra)
        from obstore.exceptions import BaseError  # noqa: PLC0415 (an extra)

        try:
            found = obstore.get(self.store, NAME)
            held = json.loads(bytes(found.bytes()))
        except (BaseError, FileNotFoundError):
            return False
        if held["token"] != self.token:
            return False
        self.etag, self.until = found.meta["e_tag"] or "", held["until"]
        return True

    def _put(self, mode: Any, seconds: float) -> None:
        import obstore  # noqa: PLC0415 (an extra)

        until = time.time() + seconds
        body = {"holder": self.holder, "token": self.token, "until": until}
        put = obstore.put(self.store, NAME, json.dumps(body).encode(), mode=mode)
        self.etag, self.until = put["e_tag"] or "", until
