"""Contenders in processes of their own: started, warmed, and given one run after the other.

A contender's script says `{"ready": …}` on its standard output, reads orders (a JSON line each) and
answers each with a JSON line, `seconds` among what it says. Used by the benchmarks that compare.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SAMPLE = 0.05
"""Seconds between two looks at the memory of a contender's processes."""


@dataclass
class Measured:
    """One run: wall and CPU seconds, peak resident bytes of the process and its children."""

    seconds: float = 0.0
    cpu: float = 0.0
    memory: int = 0


class Contender:
    """A contender's process; `BENCH_STDERR=1` shows what it says."""

    def __init__(self, name: str, script: Path, job: Mapping[str, Any]) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if not os.environ.get("BENCH_STDERR") else None,
            text=True,
        )
        self.ready = self._answer()

    def run(self, order: Mapping[str, Any]) -> tuple[Measured, dict[str, Any]]:
        """One run, and what the contender answers."""
        assert self._process.stdin is not None
        with watched(self._process.pid) as measured:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer = self._answer()
            measured.seconds = float(answer["seconds"])
        return measured, answer

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} failed; see it with BENCH_STDERR=1")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def orders() -> Iterator[tuple[Any, Iterator[dict[str, Any]]]]:
    """The other end, in a contender's script: (a function that answers, orders one by one).

    Libraries may print: answers go to the real standard output, theirs to standard error.
    """
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)
        yield (
            lambda **facts: print(json.dumps(facts), file=answers),
            (json.loads(line) for line in sys.stdin),
        )


@contextlib.contextmanager
def watched(pid: int) -> Iterator[Measured]:
    """CPU time and peak memory of a process and its children while the block lasts.

    Resident memory is sampled; pages that processes share count in each.
    """
    root = psutil.Process(pid)
    family = [root, *root.children(recursive=True)]
    measured, stop = Measured(cpu=-cpu_seconds(family)), threading.Event()

    def sample() -> None:
        while not stop.wait(SAMPLE):
            resident = sum(process.memory_info().rss for process in family)
            measured.memory = max(measured.memory, resident)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield measured
    finally:
        stop.set()
        thread.join()
    measured.cpu += cpu_seconds(family)


def cpu_seconds(family: list[psutil.Process]) -> float:
    return sum(t.user + t.system for t in (process.cpu_times() for process in family))


def progress(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
