"""Clients of clusters: a scheduler is joined, or a cluster is started and closed at the end."""

from __future__ import annotations

import inspect
import os
import signal
import ssl
import threading
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from lcengine.cluster.security import (
    PEM_FILES,
    Pem,
    configured,
    pem_of_environment,
    probe,
    security_of,
    warn_if_open,
)
from lcengine.cluster.target import Deployment, parse
from lcengine.errors import InputError, RunError

if TYPE_CHECKING:
    from distributed import Client, Security

CONNECT_TIMEOUT = 10.0
"""Seconds that a scheduler may take to answer."""

TRIM = "MALLOC_TRIM_THRESHOLD_"
DASK_TRIM = 65536
"""What dask sets it to for every worker."""
DASHBOARD = "127.0.0.1:0"

CLOSE_TIMEOUT = "5s"
"""How long a scheduler that may be dead is called at the end."""

PACKAGES: Final = {
    "coiled": "coiled",
    "dask_cuda": "dask-cuda",
    "dask_gateway": "dask-gateway",
    "dask_jobqueue": "dask-jobqueue",
    "dask_kubernetes": "dask-kubernetes",
}
"""What to install for a module."""

NANNY_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"
PRELOAD = "distributed.worker.preload"


@contextmanager
def connect(
    target: str | os.PathLike[str] = "local", *, security: Security | None = None
) -> Iterator[Client]:
    """A client of the cluster that `target` names; a cluster that this starts is closed at the end.

    `security`: dask's own TLS object, in place of the files that `target` or the environment name.

    Raises:
        InputError: a target, file, argument or certificate that cannot be meant.
        RunError: no scheduler answers, it refuses the certificate, or a cluster does not start.
    """
    deployment = parse(target)
    stack = ExitStack()
    try:
        with _interrupts_held():
            if deployment.address:
                client = _join(stack, deployment, security)
            else:
                client = _start(stack, deployment, security)
        if deployment.wait is not None:
            _await_worker(client, deployment.wait)
        yield client
    finally:
        with _interrupts_held():
            stack.close()


def dask_setup(_worker: object) -> None:
    """Preload of a worker: a terminal sends Ctrl-C to it too, but only the driver acts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _join(stack: ExitStack, deployment: Deployment, security: Security | None) -> Client:
    """A client of a running scheduler."""
    from distributed import Client

    address = deployment.address
    encrypted = address.startswith("tls://")
    if not encrypted and (deployment.pem or security):
        raise InputError(
            f"certificates are given for {address}, which is not encrypted; use tls://"
        )
    if encrypted and security is None:
        security = security_of(deployment.pem or pem_of_environment(address))
    warn_if_open(address)
    try:
        probe(address, security, CONNECT_TIMEOUT)
        client: Client = stack.enter_context(
            Client(address, security=security, timeout=CONNECT_TIMEOUT)
        )
    except OSError as error:
        raise RunError(_refusal(address, error)) from error
    return client


def _refusal(address: str, error: OSError) -> str:
    """Why a scheduler could not be reached, with the remedy."""
    reason = str(error.strerror or error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {address} is not accepted ({error.verify_message}); expected one "
            f"for servers that the authority in {PEM_FILES['ca']} signed"
        )
    if isinstance(error, ssl.SSLError) and "ALERT" in reason:
        return (
            f"{address} refuses the client's certificate ({reason}); expected one that the "
            f"scheduler's own authority signed, in {PEM_FILES['cert']}"
        )
    other = "tcp" if address.startswith("tls://") else "tls"
    return (
        f"no Dask scheduler answers at {address} ({reason}); start one with `dask scheduler`, or "
        f"use {other}:// if that is what it speaks"
    )


def _start(stack: ExitStack, deployment: Deployment, security: Security | None) -> Client:
    """Start a cluster of the class that a deployment names, and a client of it."""
    import dask
    from distributed import Client

    factory = _factory(deployment)
    if security is None and deployment.pem:
        security = security_of(deployment.pem)
    stack.enter_context(dask.config.set(_settings(deployment.pem)))
    _forget_threshold()
    arguments = dict(deployment.arguments)
    signature = inspect.signature(factory)
    _hide_dashboard(arguments, signature)
    if security is not None and "security" in signature.parameters:
        arguments["security"] = security
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise InputError(f"{deployment.source}: {deployment.cluster}: {error}") from error
    try:
        cluster = factory(**arguments)
        stack.callback(_close, cluster)
        if deployment.scale is not None:
            cluster.scale(deployment.scale)
        if deployment.adapt is not None:
            cluster.adapt(**deployment.adapt)
        client: Client = stack.enter_context(Client(cluster, timeout=CONNECT_TIMEOUT))
    except Exception as error:  # whatever the libraries behind a class raise
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        raise RunError(
            f"{deployment.cluster} of {deployment.source} does not start: "
            f"{type(reason).__name__}: {reason}"
        ) from error
    warn_if_open(str(cluster.scheduler_address))
    return client


def _hide_dashboard(arguments: dict[str, Any], signature: inspect.Signature) -> None:
    """The scheduler's page on loopback, unless told otherwise: dask shows it to the network."""
    # Queues know both words and refuse the plain one.
    if "scheduler_options" in signature.parameters:
        options = arguments.get("scheduler_options") or {}
        arguments["scheduler_options"] = {"dashboard_address": DASHBOARD, **options}
    elif "dashboard_address" in signature.parameters:
        arguments.setdefault("dashboard_address", DASHBOARD)


def _close(cluster: Any) -> None:
    """Close a cluster; a dead scheduler must not hide the error that it caused."""
    import dask
    from distributed import Status

    try:
        with dask.config.set({"distributed.comm.timeouts.connect": CLOSE_TIMEOUT}):
            cluster.close()
    except OSError as error:
        cluster.status = Status.closed  # or dask tries again when the process ends
        warnings.warn(
            f"the cluster could not be told to close ({error}): its workers end on their own when "
            "they miss the scheduler; see that none is left",
            UserWarning,
            stacklevel=2,
        )


def _forget_threshold() -> None:
    """Take back what a nanny of another cluster left in this process's own environment."""
    import dask

    default = dask.config.get(NANNY_ENVIRONMENT).get(TRIM) or DASK_TRIM
    if os.environ.get(TRIM) == str(default):
        del os.environ[TRIM]


def _settings(pem: Pem | None) -> dict[str, Any]:
    """dask's configuration while a cluster of ours lives; SSHCluster hands it to its processes."""
    import dask
    import distributed  # noqa: F401 - brings its defaults

    settings: dict[str, Any] = {
        "distributed.worker.daemon": True,
        # dask's threshold turns off glibc's own tuning: every source block that GDAL decodes would
        # be mapped, faulted in page by page and given back. None unsets it.
        NANNY_ENVIRONMENT: {**dask.config.get(NANNY_ENVIRONMENT), TRIM: None},
        PRELOAD: [*dask.config.get(PRELOAD), __name__],
    }
    return settings | (configured(pem) if pem else {})


def _factory(deployment: Deployment) -> Callable[..., Any]:
    """The cluster class by its dotted name, or a function that is annotated to return one."""
    name, source = deployment.cluster, deployment.source
    home, _, attribute = name.rpartition(".")
    if not home:
        raise InputError(f"{source}: cluster is '{name}'; expected e.g. dask_jobqueue.SLURMCluster")
    package = home.partition(".")[0]
    try:
        module = import_module(home)
        if attribute == "SSHCluster":
            package = "asyncssh"
            import_module(package)
    except ImportError as error:
        raise InputError(
            f"{source}: {name} cannot be imported ({error}); pip install "
            f"{PACKAGES.get(package, package)}"
        ) from error
    found = getattr(module, attribute, None)
    made = found
    if inspect.isfunction(found):
        try:
            made = typing.get_type_hints(found).get("return")
        except NameError:  # annotated with names that only type checkers know
            made = None
    # GatewayCluster is a cluster without being a subclass of dask's own.
    if not (isinstance(made, type) and all(hasattr(made, n) for n in ("scale", "adapt", "close"))):
        raise InputError(
            f"{source}: {name} is no Dask cluster class; expected e.g. distributed.SSHCluster, "
            "dask_jobqueue.SLURMCluster or dask_kubernetes.operator.KubeCluster"
        )
    return typing.cast("Callable[..., Any]", found)


def _await_worker(client: Client, seconds: float) -> None:
    """Wait for a worker by asking for one: an adaptive cluster starts none before there is work."""
    address = client.scheduler_info(n_workers=0)["address"]
    try:
        client.submit(os.getpid, pure=False).result(timeout=seconds)
    except TimeoutError as error:
        raise RunError(
            f"no worker of {address} came within {seconds:g} s (`wait`); see "
            "the queue and the log of its jobs"
        ) from error


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block is left: half a cluster could not be closed.

    Only the first: a second one is for a cluster that never gets ready.
    """
    held: list[int] = []
    handlers: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def hold(got: int, _frame: object) -> None:
        held.append(got)
        restore()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, hold)
    try:
        yield
    finally:
        restore()
        for got in held:
            signal.raise_signal(got)
