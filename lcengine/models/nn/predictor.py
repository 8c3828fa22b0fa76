"""A trained network as a predictor of patches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from lcengine.errors import InputError
from lcengine.inputs import Input
from lcengine.kernels.patches import Scaling, normalise
from lcengine.models.calibration import TEMPERATURE, temperature_of
from lcengine.models.mlm import GAIN, MEAN, NETWORK
from lcengine.models.nn.architecture import Activation, Architecture, channels
from lcengine.models.nn.run import Engine, zeros
from lcengine.models.predictor import Execution, Files, Patches, State, array
from lcengine.models.spec import ModelSpec

FLOAT = npt.NDArray[np.float32]
BOOL = npt.NDArray[np.bool_]


@dataclass(eq=False)
class NetworkPredictor:
    """A `Network` of a module of torch.

    `module`: (n, channel, y, x) -> logits (n, class, y, x). `means`, `gains`: float32 (channel,):
    what it sees is (value - mean) · gain, and 0 where a number is missing. Probabilities after
    `spec.options["activation"]` are p^(1/`temperature`), normalised.
    """

    spec: ModelSpec
    module: nn.Module
    means: FLOAT
    gains: FLOAT
    temperature: float = 1.0
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _engines: dict[Execution, Engine] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.module.eval()

    def predict(self, inputs: Mapping[str, npt.NDArray[Any]], valid: BOOL) -> FLOAT:
        """Probabilities (n, class, y, x) of `Predictor`, in float32."""
        how = Execution()
        parts = (
            ({name: a[start : start + how.batch] for name, a in inputs.items()}, valid_part)
            for start in range(0, len(valid), how.batch)
            if len(valid_part := valid[start : start + how.batch])
        )
        return np.concatenate(list(self.run(parts, how)))

    def run(self, batches: Iterable[Patches], how: Execution) -> Iterator[FLOAT]:
        """`predict` of one batch after the other, of `Network`."""
        return self._engine(how).run(batches, self.image)

    def _engine(self, how: Execution) -> Engine:
        """The module as it was prepared for this way to run it, once."""
        with self._lock:
            if how not in self._engines:
                self._engines.clear()  # of the last alone: a copy on a device is large
                self._engines[how] = Engine(self.module, self.proba, how)
            return self._engines[how]

    def image(
        self,
        inputs: Mapping[str, npt.NDArray[Any]],
        count: int,
        room: Callable[[tuple[int, ...]], FLOAT] = zeros,
    ) -> FLOAT:
        """What the module sees: normalised float32 (count, channel, y, x).

        Edges are reflected at the bottom and right up to a multiple of `spec.output_stride`;
        patches up to `count` are 0. `room`: zeros of a shape.
        """
        first = next(iter(inputs.values()))
        height, width = first.shape[-2:]
        step = self.spec.output_stride
        rows, columns = _reflected(height, step), _reflected(width, step)
        out = room((count, len(self.means), len(rows), len(columns)))
        start = 0
        for entry in self.spec.inputs:
            given = inputs[entry.name]
            layers = given.reshape(len(given), -1, height, width)
            part = slice(start, start := start + layers.shape[1])
            scaling = Scaling(self.means[part], self.gains[part])
            normalise(layers, scaling, _missing(entry), out[: len(given), part, :height, :width])
        if len(rows) > height or len(columns) > width:
            out[:, :, height:, :width] = out[:, :, rows[height:], :width]
            out[:, :, :, width:] = out[:, :, :, columns[width:]]
        return out

    def proba(self, logits: Tensor) -> Tensor:
        """Probabilities float32 (n, class, y, x) of logits."""
        logarithms = logits.float()
        if self.activation == "sigmoid":
            # Log-sigmoids keep a sum that is not 0 where no class is likely.
            logarithms = nn.functional.logsigmoid(logarithms)
        if self.temperature != 1:
            logarithms = logarithms / self.temperature
        return logarithms.softmax(dim=1)

    @property
    def activation(self) -> Activation:
        """How logits become probabilities."""
        found: Activation = self.spec.options["activation"]
        return found

    def state(self) -> tuple[State, Files]:
        """Weights and buffers, normalisation and temperature."""
        arrays: dict[str, npt.NDArray[Any]] = {
            NETWORK + name: tensor.detach().cpu().contiguous().numpy()
            for name, tensor in self.module.state_dict().items()
        }
        arrays |= {MEAN: self.means, GAIN: self.gains}
        return {**arrays, TEMPERATURE: np.array([self.temperature])}, {}


def _missing(entry: Input) -> Any:
    """The missing value as `kernels.patches` takes it."""
    return False if entry.fill is None else np.dtype(entry.dtype).type(entry.fill)


def _reflected(size: int, step: int) -> npt.NDArray[np.intp]:
    """Rows of an image reflected at its end up to a multiple of `step`, again where it is tiny."""
    return np.pad(np.arange(size), (0, -size % step), mode="reflect")


def restore(architecture: Architecture, spec: ModelSpec, arrays: State) -> NetworkPredictor:
    """Inverse of `NetworkPredictor.state`; `InputError` for what does not go with the spec."""
    seen, classes = channels(spec.inputs), len(spec.legend.classes)
    said = dict(spec.options)
    if said.pop("activation", None) not in get_args(Activation):
        raise InputError(
            f"the model's activation is {spec.options.get('activation')!r}, expected one of "
            f"{', '.join(get_args(Activation))}; copy the model again"
        )
    try:
        options = architecture.options.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"the model's option {first['loc']} is not known ({first['msg']}); use the version "
            "that it was trained with"
        ) from error
    step = architecture.output_stride(options)
    if spec.stride is None or spec.output_stride != step:
        raise InputError(
            f"the model has stride {spec.stride} and output_stride {spec.output_stride}, expected "
            f"steps between its patches and {step}; copy the model again"
        )
    # Weights at random are thrown away, and should not move anybody's generator.
    with torch.random.fork_rng(devices=[]):
        _check_size(lambda: architecture.build(options, seen, classes), arrays)
        module = architecture.build(options, seen, classes)
    loaded(module, arrays)
    means, gains = (array(arrays, name, np.float32, 1) for name in (MEAN, GAIN))
    if means.shape != (seen,) or gains.shape != (seen,):
        raise InputError(
            f"the model normalises {len(means)} and {len(gains)} channels, expected {seen}; copy "
            "the model again"
        )
    return NetworkPredictor(spec, module, means, gains, temperature_of(arrays))


def _check_size(build: Callable[[], nn.Module], arrays: State) -> None:
    """`InputError` before memory is taken for a network that the arrays are not of.

    A folder may ask for a network of any size; this one's tensors have shapes alone.
    """
    try:
        with torch.device("meta"):
            module = build()
    except (InputError, NotImplementedError, RuntimeError):
        return  # some encoders need numbers to be built; theirs are of the sizes that they have
    _checked(module, arrays)


def loaded(module: nn.Module, arrays: State) -> None:
    """Put a model's arrays into a module; `InputError` unless they are exactly its own."""
    _checked(module, arrays)
    found = {}
    for name, tensor in module.state_dict().items():
        dtype = tensor.numpy().dtype.type
        values = array(arrays, NETWORK + name, dtype, tensor.ndim)
        # Contiguous scalars come back as rows; torch warns of memory that cannot be written.
        found[name] = torch.from_numpy(values.reshape(tensor.shape).copy())
    module.load_state_dict(found)


def _checked(module: nn.Module, arrays: State) -> None:
    """`InputError` unless arrays are those of a module by name and shape."""
    expected = module.state_dict()
    names = {name.removeprefix(NETWORK) for name in arrays if name.startswith(NETWORK)}
    if names != expected.keys():
        first = sorted(names ^ expected.keys())[0]
        raise InputError(
            f"the model has {len(names)} arrays of its network, expected {len(expected)} (the "
            f"first that differs is {first!r}); copy it again, or use the version that trained it"
        )
    for name, tensor in expected.items():
        shape = arrays[NETWORK + name].shape
        if shape != tuple(tensor.shape):
            raise InputError(
                f"the model's array {NETWORK + name!r} is {shape}, expected {tuple(tensor.shape)}; "
                "copy the model again"
            )
