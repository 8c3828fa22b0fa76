"""Batches through a network: cut ahead by a thread, copied and computed while others are merged.

Nothing here knows a raster. All batches have one shape, of which unused places are 0: libraries
choose their algorithms by the shape, and another algorithm gives other bits.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lcengine.errors import InputError
from lcengine.models.predictor import Execution, Patches

T = TypeVar("T")
FLOAT = npt.NDArray[np.float32]

AHEAD: Final = 2
"""Batches that lie ready, or are being made, while others are computed."""
IN_FLIGHT: Final = 2
"""Batches given to a GPU at a time."""

EVEN: Final = 4
"""Of 3 patches, 10 or other numbers, some networks give a patch other last bits by its place (seen
of EfficientNet on CPUs); of 1, 2 and multiples of this, none did."""

logger = logging.getLogger(__name__)

_COMPUTE = threading.Lock()
"""Held while the CPU computes, or a GPU is told to: operations share the process's threads."""


@dataclass(frozen=True)
class _Batch:
    """`image`: (batch, channel, y, x) float32; `valid`: (n, y, x), n up to `batch`."""

    image: Tensor
    valid: Tensor


@dataclass(frozen=True)
class _Answer:
    """Probabilities on the host, there after `ready`; until then `batch` is being copied from."""

    proba: Tensor
    batch: _Batch
    ready: torch.cuda.Event | None = None

    def array(self) -> FLOAT:
        if self.ready is not None:
            self.ready.synchronize()
        found: FLOAT = self.proba.numpy()
        return found


class Engine:
    """A module on its device, prepared once per process for one `Execution`.

    `proba` makes probabilities of logits (n, class, y, x), on the device.
    """

    def __init__(
        self, module: nn.Module, proba: Callable[[Tensor], Tensor], how: Execution
    ) -> None:
        self.how = how
        self.device = _device(how.device)
        self.dtype = getattr(torch, how.precision)
        self.proba = proba
        self.size = how.batch
        """Patches that are computed together: halved where memory does not hold them."""
        own = copy.deepcopy(module).eval().requires_grad_(False)
        _cast(own, self.dtype)
        own.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.module: Callable[[Tensor], Tensor] = _compiled(own) if how.compile else own
        self.copies: torch.cuda.Stream | None = None
        if self.device.type == "cuda":
            self.copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def run(self, batches: Iterable[Patches], image: Image) -> Iterator[FLOAT]:
        """Probabilities (n, class, y, x) of one batch after the other; `image` fills (batch, …)."""
        waiting: deque[_Answer] = deque()
        most = IN_FLIGHT if self.copies is not None else 1
        for batch in ahead(batches, lambda patches: self._batch(patches, image)):
            waiting.append(self._started(batch))
            if len(waiting) >= most:
                yield waiting.popleft().array()
        while waiting:
            yield waiting.popleft().array()

    def _batch(self, patches: Patches, image: Image) -> _Batch:
        """What the network sees, in memory that a GPU copies from by itself."""
        inputs, valid = patches
        mask = torch.from_numpy(np.ascontiguousarray(valid))
        if self.copies is None:
            return _Batch(torch.from_numpy(image(inputs, self.how.batch, zeros)), mask)
        made: list[Tensor] = []

        def pinned(shape: tuple[int, ...]) -> FLOAT:
            made.append(torch.zeros(shape, pin_memory=True))
            found: FLOAT = made[0].numpy()
            return found

        image(inputs, self.how.batch, pinned)
        return _Batch(made[0], mask.pin_memory())

    def _started(self, batch: _Batch) -> _Answer:
        """A batch given to the device; where it lacks memory, in halves from then on."""
        while True:
            size = self.size
            try:
                with _COMPUTE, _settings(self.how, self.device), torch.inference_mode():
                    return self._answer(batch, size)
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise InputError(
                        f"one patch of {batch.image.shape[-1]} pixels does not fit into the "
                        f"memory of {self.device} ({error}); give a smaller --patch, or another "
                        "--device"
                    ) from error
            # Here the failed attempt's tensors are gone.
            self.size = min(self.size, -(-size // 2))
            logger.warning("%s lacks memory: batches of %d from now on", self.device, self.size)
            if self.copies is not None:
                torch.cuda.empty_cache()

    def _answer(self, batch: _Batch, size: int) -> _Answer:
        count = len(batch.valid)
        parts = [
            self._part(batch.image[start : start + size], batch.valid[start : start + size], size)
            for start in range(0, count, size)
        ]
        found = parts[0] if len(parts) == 1 else torch.cat(parts)
        if self.copies is None:
            return _Answer(found, batch)
        host = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
        host.copy_(found, non_blocking=True)
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record()
        return _Answer(host, batch, ready)

    def _part(self, image: Tensor, valid: Tensor, size: int) -> Tensor:
        """Probabilities of some patches, computed as `filled(size)` of them."""
        size = filled(size)
        seen, there = self._copied(image), self._copied(valid)
        if len(seen) < size:
            more = seen.new_zeros((size - len(seen), *seen.shape[1:]))
            seen = torch.cat([seen, more])
        seen = seen.to(self.dtype, memory_format=torch.channels_last)
        height, width = valid.shape[1:]
        # Classes apart: a softmax over the innermost axis takes three times as long.
        logits = self.module(seen)[: len(valid), :, :height, :width].contiguous()
        found = self.proba(logits).contiguous()
        return found.masked_fill_(~there[:, None], 0.0)

    def _copied(self, values: Tensor) -> Tensor:
        """On the device, copied beside what is being computed there."""
        if self.copies is None:
            return values
        with torch.cuda.stream(self.copies):
            there = values.to(self.device, non_blocking=True)
        own = torch.cuda.current_stream(self.device)
        own.wait_stream(self.copies)
        there.record_stream(own)
        return there


Image = Callable[[Mapping[str, npt.NDArray[Any]], int, Callable[[tuple[int, ...]], FLOAT]], FLOAT]
"""(inputs, count, room) -> what a network sees, float32 (count, channel, y, x); `room(shape)` is
where to, full of zeros."""


def zeros(shape: tuple[int, ...]) -> FLOAT:
    """Room for an image, that no thread of torch has to fill."""
    return np.zeros(shape, np.float32)


def ahead(items: Iterable[Any], prepare: Callable[[Any], T]) -> Iterator[T]:
    """`prepare` of one item after the other, `AHEAD` of them made by a thread.

    No thread is left when the iteration ends, is closed or fails.
    """
    made = map(prepare, items)
    end = object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="lcengine-batches")
    try:
        waiting: deque[Future[Any]] = deque(pool.submit(next, made, end) for _ in range(AHEAD))
        while (found := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, made, end))
            yield found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def filled(size: int) -> int:
    """How many patches are computed where so many are asked for, so that no place matters."""
    return size if size < EVEN - 1 else -(-size // EVEN) * EVEN


def _device(asked: str) -> torch.device:
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise InputError(
            "device is 'cuda', and PyTorch finds no GPU here; give --device cpu, or workers that "
            "have one"
        )
    return torch.device("cuda" if there and asked != "cpu" else "cpu")


def _compiled(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """By torch.compile, on first use; `InputError` where that cannot be done here."""
    from torch._dynamo.exc import TorchDynamoException  # noqa: PLC0415 (takes seconds)
    from torch._inductor.exc import InvalidCxxCompiler  # noqa: PLC0415 (takes seconds)

    run = torch.compile(module, dynamic=False)

    def found(image: Tensor) -> Tensor:
        try:
            answer: Tensor = run(image)
        except (TorchDynamoException, InvalidCxxCompiler) as error:
            why = str(error).strip().splitlines()[0]
            raise InputError(
                f"the network cannot be compiled here ({why}); install a C++ compiler on every "
                "worker (g++ or clang++), or leave --compile out"
            ) from error
        return answer

    return found


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Weights to `dtype`, but of batch normalisation: its sums of many numbers stay float32."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            continue
        own = *part.parameters(recurse=False), *part.buffers(recurse=False)
        for values in own:
            if values.is_floating_point():
                values.data = values.data.to(dtype)


@contextmanager
def _settings(how: Execution, device: torch.device) -> Iterator[None]:
    """The threads of the plan, and algorithms of a GPU that give the same bits each time."""
    before = torch.get_num_threads()
    exact: AbstractContextManager[Any] = nullcontext()
    if device.type == "cuda":
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
    torch.set_num_threads(how.threads)
    try:
        with exact:
            yield
    finally:
        torch.set_num_threads(before)
