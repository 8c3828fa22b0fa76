"""What every model is to the engine, and the kinds there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.models.spec import ModelSpec
from lcengine.train.progress import Hear

if TYPE_CHECKING:
    from pydantic import BaseModel

    from lcengine.samples.sampleset import SampleSet

KINDS = {
    "forest": "lcengine.models.forest",
    "boosting": "lcengine.models.boosting",
    "xgboost": "lcengine.models.xgboost",
    "logistic": "lcengine.models.logistic",
    "mlp": "lcengine.models.mlp",
    "bag-of-colors": "lcengine.models.colors",
    "unet": "lcengine.models.nn.unet",
    "encoder-unet": "lcengine.models.nn.encoders",
    "deeplabv3": "lcengine.models.nn.deeplab",
    "deeplabv3plus": "lcengine.models.nn.deeplab",
    "deeplab-head": "lcengine.models.nn.deeplab",
    "patch-cnn": "lcengine.models.nn.patchcnn",
}
"""Kinds of models by the name that recipes know them by: the module that holds their `KIND`."""

State = Mapping[str, npt.NDArray[Any]]
"""What a model has learned: arrays by name."""
Files = Mapping[str, bytes]
"""What another library writes and reads of it, by the name of the file."""


class Predictor(Protocol):
    """Turns blocks of stored numbers into probabilities of classes.

    It knows neither files nor grids nor dask, runs on one thread, and gives the same bits for a
    pixel whatever is predicted with it (for a patch, where `spec.patch` > 1).
    """

    spec: ModelSpec

    def predict(
        self, inputs: Mapping[str, npt.NDArray[Any]], valid: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        """Probabilities (n, class, y, x) in the order of the legend, each pixel's adding up to 1.

        `inputs`: stored numbers (n, [time,] band, y, x) by name, as `spec.inputs` says. `valid`:
        (n, y, x) where there is anything to predict from (`lcengine.inputs.observed`); elsewhere
        probabilities are 0. Where `spec.patch` > 1, y and x are at most that: windows at the edge
        of a raster are cut.
        """
        ...

    def state(self) -> tuple[State, Files]:
        """What `Kind.restore` makes the predictor of again, besides its spec."""
        ...


@dataclass(frozen=True)
class Execution:
    """How a network is run; all of it but `device` is part of a map's identity.

    `batch`: patches at a time, always so many (the last batch is filled up), because another shape
    may give other bits. `threads` of one operation. `precision` of weights and activations; what
    comes out is float32. `compile`: by torch.compile, once per process. `device`: "auto" takes a
    GPU where the worker has one.
    """

    batch: int = 8
    threads: int = 2
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        for name in ("batch", "threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected 1 or more")
        for name in ("precision", "device"):
            known = get_args(get_type_hints(Execution)[name])
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}"
                )


Patches = tuple[Mapping[str, npt.NDArray[Any]], npt.NDArray[np.bool_]]
"""What `Predictor.predict` takes: (inputs, valid) of a batch."""


class Network(Predictor, Protocol):
    """A `Predictor` of patches that overlap: each pixel is judged with its surroundings."""

    def run(self, batches: Iterable[Patches], how: Execution) -> Iterator[npt.NDArray[np.float32]]:
        """`predict` of one batch after the other, in their order, each of at most `how.batch`.

        The next batches are fetched and copied to the device while one is computed. The
        same patch gives the same bits at any place of any batch, on the same machine and versions.
        """
        ...


@dataclass(frozen=True)
class Training:
    """How a model is fitted, whatever its kind.

    `class_weight`: of the loss: None all pixels alike, "balanced" every class alike, or a weight by
    name of class. `memory`: bytes that training pixels and their features may take at a time; what
    needs them all at once takes a stratified draw, and says so. `calibrate`: fit a temperature on
    the validation split. `seed` decides all that is drawn. `threads`: of training alone. `say`
    hears what a user should know. Of networks alone: `objective` and `schedule`, of `Kind`'s types;
    `folder` keeps checkpoints, from which the same training goes on, logs and pictures; `hear` is
    told how far training is.
    """

    class_weight: Mapping[str, float] | Literal["balanced"] | None = None
    memory: int = 2 * 2**30
    calibrate: bool = False
    seed: int = 0
    threads: int = 2
    say: Callable[[str], None] = lambda _: None
    objective: BaseModel | None = None
    schedule: BaseModel | None = None
    folder: Path | None = None
    hear: Hear = lambda _: None


@dataclass(frozen=True)
class Kind:
    """How models of a kind are made and read back.

    `options`: what a recipe may say below `[model]` besides `kind`, validated. `fit`: from samples'
    training split; the spec has everything but metrics. `restore`: from a folder, without the
    library that it was fitted with, if possible. `schedule`: what a recipe may say below
    `[training]`; None for what is not trained in steps.
    """

    options: type[BaseModel]
    fit: Callable[[SampleSet, Any, Training], Predictor]
    restore: Callable[[ModelSpec, State, Files], Predictor]
    schedule: type[BaseModel] | None = field(default=None, kw_only=True)


def kind(name: str) -> Kind:
    """The kind of models of that name; `InputError` names those there are."""
    if name not in KINDS:
        raise InputError(f"there are no models of kind {name!r}; there are {', '.join(KINDS)}")
    module = import_module(KINDS[name])
    # A module may hold several kinds, by their names.
    found: Kind = module.KINDS[name] if hasattr(module, "KINDS") else module.KIND
    return found


def array(arrays: State, name: str, dtype: type[np.generic], ndim: int) -> npt.NDArray[Any]:
    """An array of a model, C-contiguous; `InputError` without it, or where it is another one.

    Floating-point numbers must be finite.
    """
    found = arrays.get(name)
    if found is None or found.dtype != dtype or found.ndim != ndim:
        got = "none" if found is None else f"{found.dtype} {found.shape}"
        raise InputError(
            f"the model's array {name!r} is {got}, expected {np.dtype(dtype)} of {ndim} axes; "
            "copy the model again"
        )
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise InputError(f"the model's array {name!r} is not finite; copy the model again")
    return np.ascontiguousarray(found)
