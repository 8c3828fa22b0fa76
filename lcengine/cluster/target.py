"""Targets of `connect`: what a short text or a YAML file says about a cluster, checked."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from lcengine.cluster.security import PEM_FILES, Pem, checked
from lcengine.errors import InputError

FORMS: Final = (
    "`local`, `local:workers=2,threads=4,memory=8GiB` (memory per worker), `local:gpus=1`, "
    "`tcp://host:port`, "
    "`tls://host:port`, or a YAML file that names a Dask cluster class or an address"
)
"""What `connect` takes, for messages and help texts."""

LEAST_MEMORY = 100_000_000
"""Bytes of a worker that holds lcengine and no pixel; less is a slip of the unit."""

LOCAL_KEYS: Final = ("workers", "threads", "memory", "gpus")
ADAPT_KEYS: Final = (
    *(
        f"{limit}{of}"
        for limit in ("minimum", "maximum")
        for of in ("", "_jobs", "_cores", "_memory")
    ),
    *("interval", "wait_count", "target_duration"),
)
FILE_KEYS: Final = ("cluster", "arguments", "scale", "adapt", "address", "security", "wait")

_VARIABLE = re.compile(r"\$(\$?)\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a target says: a cluster class to start, or the address of a running scheduler.

    `source`: the target, for messages. `wait`: seconds for the first worker to come.
    """

    source: str
    cluster: str = ""
    address: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    scale: int | None = None
    adapt: Mapping[str, Any] | None = None
    pem: Pem | None = None
    wait: float | None = None


def parse(target: str | os.PathLike[str]) -> Deployment:
    """What a target means; `InputError` names what is accepted instead."""
    text = os.fspath(target)
    if isinstance(target, str):
        if text == "local" or text.startswith("local:"):
            return _local(text)
        if "://" in text:
            return Deployment(text, address=_address(text, text))
    path = Path(text).expanduser()
    if not path.is_file():
        raise InputError(f"cluster '{text}' is not known and no such file exists; expected {FORMS}")
    return _file(path)


def _local(text: str) -> Deployment:
    """The worker processes of one machine, by default one for every four CPUs.

    Kernels and reads release the GIL, so a process serves a few threads. With `gpus` there is one
    for each, which offers a resource GPU to every thread: tiles share a card, and read and merge
    while others compute.
    """
    from dask.system import CPU_COUNT

    given: dict[str, str] = {}
    for part in filter(None, text.removeprefix("local").removeprefix(":").split(",")):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in LOCAL_KEYS or key in given or not value:
            raise InputError(
                f"'{part}' in cluster '{text}' is unknown, empty or given twice; expected "
                f"{', '.join(f'{name}=…' for name in LOCAL_KEYS)}, e.g. "
                "local:workers=2,threads=4,memory=8GiB"
            )
        given[key] = value
    threads = _whole(given["threads"], "threads", text) if "threads" in given else 0
    workers = _whole(given["workers"], "workers", text) if "workers" in given else 0
    gpus = _whole(given["gpus"], "gpus", text) if "gpus" in given else 0
    if gpus and workers not in (0, gpus):
        raise InputError(f"cluster '{text}' gives {gpus} gpus to {workers} workers; leave one out")
    workers = workers or gpus or max(1, CPU_COUNT // max(4, threads))
    arguments: dict[str, Any] = {
        "n_workers": workers,
        "threads_per_worker": threads or max(1, CPU_COUNT // workers),
        "processes": True,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": logging.CRITICAL,
    }
    if "memory" in given:
        arguments["memory_limit"] = _memory(given["memory"], text)
    if gpus:
        arguments["resources"] = {"GPU": arguments["threads_per_worker"]}
    # What gives every process a card of its own is no part of distributed.
    cluster = "dask_cuda.LocalCUDACluster" if gpus > 1 else "distributed.LocalCluster"
    return Deployment(text, cluster=cluster, arguments=arguments)


def _file(path: Path) -> Deployment:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no mapping; expected {', '.join(FILE_KEYS)}")
    unknown = [str(key) for key in content if key not in FILE_KEYS]
    if unknown:
        raise InputError(
            f"unknown in {path}: {', '.join(unknown)}; expected {', '.join(FILE_KEYS)}"
        )
    try:
        given = {key: _expanded(value, path) for key, value in content.items() if value is not None}
    except RecursionError:
        raise InputError(f"{path} contains itself through an alias (*); write it out") from None
    running = "address" in given
    if running == ("cluster" in given):
        raise InputError(f"{path} must name either `cluster` (a class to start) or `address`")
    alien = [key for key in ("arguments", "scale", "adapt") if running and key in given]
    if alien or {"scale", "adapt"} <= given.keys():
        wrong, where = (alien, "address") if alien else (["scale"], "adapt")
        raise InputError(f"{path}: {', '.join(wrong)} cannot go with `{where}`; remove one")
    source = str(path)
    scale = given.get("scale")
    adapt = _mapping(given, "adapt", source)
    unknown = [key for key in adapt or () if key not in ADAPT_KEYS]
    if unknown:  # dask takes any name, and then there is no limit
        raise InputError(
            f"unknown in {source}: adapt: {', '.join(unknown)}; expected {', '.join(ADAPT_KEYS)}"
        )
    return Deployment(
        source,
        cluster="" if running else str(given["cluster"]),
        address=_address(str(given["address"]), source) if running else "",
        arguments=_mapping(given, "arguments", source) or {},
        scale=None if scale is None else _whole(scale, "scale", source),
        adapt=adapt,
        pem=_pem_of(given, path),
        wait=_seconds(given["wait"], source) if "wait" in given else None,
    )


def _reason(error: Exception) -> str:
    """What is wrong with a file, without its text: that may be a password."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return str(error)


def _expanded(value: Any, path: Path) -> Any:
    """`${NAME}` from the environment (`$${…}` stays), and ./… and ../… as paths beside the file."""
    if isinstance(value, dict):
        return {key: _expanded(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, path) for item in value]
    if not isinstance(value, str):
        return value

    def variable(found: re.Match[str]) -> str:
        escaped, name = found.groups()
        if escaped:
            return f"${{{name}}}"
        if name not in os.environ:
            raise InputError(
                f"{path} names ${{{name}}}, which is not in the environment; set it, or write "
                f"$${{{name}}} where a shell is to read it"
            )
        return os.environ[name]

    if value.startswith(("./", "../")):
        value = str(path.resolve().parent / value)
    return _VARIABLE.sub(variable, value)


def _pem_of(given: Mapping[str, Any], path: Path) -> Pem | None:
    mapping = _mapping(given, "security", str(path))
    if mapping is None:
        return None
    if not {"ca", "cert"} <= mapping.keys() <= PEM_FILES.keys():
        raise InputError(
            f"{path}: security holds {', '.join(map(str, mapping)) or 'nothing'}; expected the "
            "PEM files ca, cert and key"
        )
    folder = path.resolve().parent
    files = {name: str(folder / Path(str(at)).expanduser()) for name, at in mapping.items()}
    return checked(Pem(**files), str(path))


def _mapping(given: Mapping[str, Any], key: str, source: str) -> Mapping[str, Any] | None:
    value = given.get(key)
    if value is None or (isinstance(value, dict) and all(isinstance(name, str) for name in value)):
        return value
    kind = type(value).__name__  # not the value: it may be a password
    raise InputError(f"{source}: {key} is a {kind}; expected a mapping of names to values")


def _whole(value: Any, name: str, source: str) -> int:
    number = int(value) if re.fullmatch("[0-9]{1,6}", str(value)) else 0
    if number < 1:
        raise InputError(f"{name} is {value!r} in {source}; expected a whole number above 0")
    return number


def _memory(value: str, source: str) -> int:
    from dask.utils import parse_bytes

    try:
        found = parse_bytes(value)
    except ValueError:
        found = 0
    if found < LEAST_MEMORY:
        raise InputError(
            f"memory is '{value}' in {source}; expected bytes per worker with a unit, e.g. 8GiB"
        )
    return found


def _seconds(value: Any, source: str) -> float:
    from dask.utils import parse_timedelta

    try:
        found = float(parse_timedelta(str(value)))
    except (KeyError, ValueError):
        found = 0.0
    if not 0 < found < float("inf"):
        raise InputError(f"wait is {value!r} in {source}; expected a time such as 90s, 30m or 4h")
    return found


def _address(text: str, source: str) -> str:
    try:
        parts = urlsplit(text)
        complete = bool(parts.hostname and parts.port)
    except ValueError:
        complete = False
    if not complete or parts.scheme not in ("tcp", "tls") or parts.path or "@" in parts.netloc:
        raise InputError(
            f"'{text}' is no address of a Dask scheduler"
            + (f" (in {source})" if source != text else "")
            + "; expected tcp://host:port or tls://host:port"
        )
    return text
