"""One decorator for every compiled kernel, and the one way to spread a kernel over threads.

Policy: nogil, so kernels run side by side in the worker threads of Dask; no fastmath, because
integer outputs are the exactly rounded float64 result; NumPy's error model, so a division has no
branch and vectorises; compiled code is kept in the user's cache directory.

Threads are ordinary Python threads that each run the serial machine code on a share of the work
items. There is no numba threading layer: nothing to compile twice, nothing that must not be entered
from two threads, nothing that breaks after a fork.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import tempfile
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, wraps
from itertools import pairwise
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from lcengine import __version__

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A", bound=NDArray[Any])

SHARES_PER_THREAD: Final = 8  # a slow core then holds the others up by an eighth of its work

logger = logging.getLogger(__name__)


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function` at its first call, per argument types, and keep the machine code on disk.

    The result can be called from Python and from other kernels. `LCENGINE_KERNEL_CACHE=0` in the
    environment, or a cache directory that cannot be written, means compiling in every process.
    """
    dispatcher: Any = numba.njit(nogil=True, fastmath=False, error_model="numpy")(function)
    folder = _cache_folder()
    if folder is not None:
        dispatcher._cache = _KernelCache(function, folder)
    compiled: Callable[P, R] = dispatcher
    return compiled


def by_type(stub: Callable[P, R]) -> Callable[[Callable[..., Callable[..., R]]], Callable[P, R]]:
    """Decorate `choose(types…) -> function`, which picks the body of `stub` for kernels.

    Both have the stub's parameter names; the types arrive as numba's, whose str() is NumPy's name.
    """

    def decorate(choose: Callable[..., Callable[..., R]]) -> Callable[P, R]:
        @wraps(choose)
        def bare(*kinds: object) -> Callable[..., R]:
            body = choose(*kinds)
            body.__annotations__ = {}  # numba compares signatures with their annotations
            return body

        choose.__annotations__ = {}
        overload(stub)(bare)
        return stub

    return decorate


def run_threaded(
    function: Callable[Concatenate[int, int, P], None], n: int, *args: P.args, **kwargs: P.kwargs
) -> None:
    """Call `function(start, stop, *args)` over shares of range(n), one thread per usable CPU.

    The shares must be independent; their results then do not depend on the number of threads.
    """
    threads = min(usable_cpus(), n)
    if threads < 2:
        function(0, n, *args, **kwargs)
        return
    shares = min(n, threads * SHARES_PER_THREAD)
    edges = [n * share // shares for share in range(shares + 1)]
    # A pool per call: a pool kept alive would be without its threads after a fork.
    with ThreadPoolExecutor(threads, thread_name_prefix="lcengine-kernel") as pool:
        futures = [
            pool.submit(function, start, stop, *args, **kwargs) for start, stop in pairwise(edges)
        ]
        for future in futures:
            future.result()


@intrinsic
def _borrow(_context: Any, array: Any) -> Any:
    """An array value without its owner."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, args[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return array(array), lower


borrow = cast("Callable[[A], A]", _borrow)
"""In a kernel: the same array, without reference counting.

Every row that a loop takes out of a counted array costs two locked instructions, more than the work
on a row of some hundred pixels. Only for arguments (the caller holds them meanwhile), never for an
array that the function made itself: numba frees it after its last mention.
"""


@intrinsic
def _prefetch(_context: Any, array: Any, index: Any) -> Any:
    """LLVM's prefetch for reading, into every cache level."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, args[0])
        at = builder.gep(view.data, [args[1]])
        number = ir.IntType(32)
        arguments = [at.type, number, number, number]
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), arguments),
            "llvm.prefetch." + at.type.intrinsic_name,
        )
        builder.call(function, [at, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.none(array, types.intp), lower


prefetch = cast("Callable[[NDArray[Any], int], None]", _prefetch)
"""In a kernel: ask for the cache line of a C-contiguous 1-d array's element, without waiting."""


@intrinsic
def _call(_context: Any, address: Any, arguments: Any) -> Any:
    """A call of a compiled kernel by its address; the arguments come as one tuple."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = tuple(signature.args[1])
        pointer = builder.inttoptr(
            args[0], context.call_conv.get_function_type(types.none, kinds).as_pointer()
        )
        values = cgutils.unpack_tuple(builder, args[1])
        status, _ = context.call_conv.call_function(builder, pointer, types.none, kinds, values)
        with builder.if_then(status.is_error, likely=False):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    return types.none(address, arguments), lower


call = cast("Callable[[int, tuple[Any, ...]], None]", _call)
"""In a kernel: call the kernel at an `address_of`, with a tuple of exactly its argument types.

A loop over a table of addresses then runs any sequence of stages, each compiled once on its own:
ten nanoseconds a call, and no combination of stages is ever compiled again.
"""


def address_of(function: Callable[..., None], *arguments: object) -> int:
    """Where the machine code of a kernel lies for arguments of these types; compiles it if needed.

    Valid in this process for its lifetime.
    """
    dispatcher: Any = function
    signature = tuple(numba.typeof(argument) for argument in arguments)
    dispatcher.compile(signature)
    overload = dispatcher.overloads[signature]
    found: int = overload.library.get_pointer_to_function(overload.fndesc.llvm_func_name)
    return found


def usable_cpus() -> int:
    """Number of CPUs this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=1)
def _cache_folder() -> Path | None:
    """Folder of the compiled kernels of exactly this source, or None where caching is off.

    The name carries the package's and numba's versions and a digest of the kernels' sources: numba
    does not notice when a function that a cached kernel calls has changed in another file.
    """
    if os.environ.get("LCENGINE_KERNEL_CACHE") == "0":
        return None
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    version = f"{__version__}-numba{numba.__version__}-{digest.hexdigest()[:12]}"
    try:
        home = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
        base = Path(home) if home else Path.home() / ".cache"
        folder = base / "lcengine" / "kernels" / version
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
        logger.info("kernels are compiled in every process: no cache directory (%s)", error)
        return None
    return folder


class _KernelCache(NullCache):
    """One file per function, argument types and CPU, written whole and then renamed.

    numba's own cache keeps an index file per function; processes that start at once can overwrite
    each other's entries there. Here a name belongs to one content, so the last writer may win.
    """

    def __init__(self, function: Callable[..., object], folder: Path) -> None:
        self._function = f"{function.__module__}.{function.__qualname__}"
        self._folder = folder

    @property
    def cache_path(self) -> str:
        return str(self._folder)

    def _path(self, signature: object, codegen: Any) -> Path:
        key = repr((self._function, signature, codegen.magic_tuple()))
        return self._folder / f"{self._function}-{hashlib.sha256(key.encode()).hexdigest()[:32]}"

    def load_overload(self, signature: object, target_context: Any) -> object | None:
        target_context.refresh()
        path = self._path(signature, target_context.codegen())
        try:
            payload = pickle.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            logger.warning("compiled kernel %s is unreadable and compiled anew: %s", path, error)
            return None
        result: object = CompileResult._rebuild(target_context, *payload)
        return result

    def save_overload(self, signature: object, data: Any) -> None:
        if data.library.has_dynamic_globals or data.lifted:
            return
        path = self._path(signature, data.codegen)
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        try:
            part.write_bytes(dumps(data._reduce()))
            part.replace(path)
        except OSError as error:
            logger.warning("compiled kernel %s could not be kept: %s", path, error)
            part.unlink(missing_ok=True)
