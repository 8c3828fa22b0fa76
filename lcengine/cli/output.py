"""What the command line prints: one-line messages, tables, JSON."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

import typer


def complain(message: str) -> None:
    """One line on stderr."""
    typer.secho(f"error: {' '.join(message.split())}", fg="red", err=True)


def say(message: str) -> None:
    """One line on stderr for people."""
    typer.echo(message, err=True)


def show_warnings() -> None:
    """Warnings as one line each, without source code."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        typer.secho(f"warning: {' '.join(str(message).split())}", fg="yellow", err=True)

    warnings.showwarning = show


def emit(data: Mapping[str, Any], as_json: bool) -> None:
    """A result on stdout: JSON for machines, aligned lines for people."""
    if as_json:
        typer.echo(json.dumps(data))
        return
    width = max(len(key) for key in data)
    for key, value in data.items():
        typer.echo(f"{key.replace('_', ' '):<{width}}  {_text(key, value)}")


def _text(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return "  ".join(f"{_label(k, v)} {_text(k, v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], Mapping):
            return "; ".join(_text(key, v) for v in value)
        return ", ".join(str(v) for v in value)
    if key.endswith("bytes") or key.startswith("memory"):
        return human_bytes(int(value))
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _label(key: str, value: Any) -> str:
    """A key for people; the keys of mappings are names, such as those of hosts."""
    return key if isinstance(value, Mapping) else key.replace("_", " ")


def human_bytes(count: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1024 or unit == "PiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
