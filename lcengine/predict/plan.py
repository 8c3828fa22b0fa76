"""The frozen plan of a predicted map: which products, which model, on which pixels."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import lcengine
from lcengine import inputs, store
from lcengine.errors import InputError
from lcengine.grid import Grid
from lcengine.inputs import Inputs, Layer
from lcengine.legends import Legend
from lcengine.models import ModelRef, ModelSpec, Predictor
from lcengine.models.files import Read, file_names, reader
from lcengine.models.predictor import Execution
from lcengine.periods import Period
from lcengine.predict.check import bands_of, check_inputs, check_model, named
from lcengine.predict.lattice import PatchLattice, Tiling
from lcengine.store import Variable, digest

LABEL, ENTROPY, MARGIN = "label", "entropy", "margin"
SCALE = 0.004
"""Of everything between 0 and 1 that a map stores, as uint8 with nodata 255."""
SCORES = {
    ENTROPY: "entropy of the probabilities: 0 sure, 1 undecided",
    MARGIN: "greatest probability minus the second greatest: 0 undecided, 1 sure",
}


@dataclass(frozen=True)
class PredictPlan:
    """A map that a model makes of products.

    The model's files travel with the plan, so workers need not see its folder; products are opened
    by workers themselves. `layers`: by the names that the model knows, their bands in its order.
    `read`: where the model's files are, its folder or the files beside the plan. `lattice`, `how`:
    of patches that overlap, None for models without.
    """

    layers: Mapping[str, Layer]
    model: ModelRef
    spec: ModelSpec
    grid: Grid
    proba: bool
    uncertainty: tuple[str, ...]
    tiles: tuple[int, ...]
    read: Read = field(compare=False, repr=False)
    lattice: PatchLattice | None = None
    how: Execution | None = None

    kind: ClassVar[str] = "predict"
    time_axis: ClassVar[tuple[Period, ...]] = ()

    @property
    def layout(self) -> Grid:
        """The product's grid."""
        return self.grid

    @property
    def legend(self) -> Legend:
        """The model's classes."""
        return self.spec.legend

    @cached_property
    def run_id(self) -> str:
        """Identity of the result: all of the plan, but the device that it runs on."""
        return digest({key: value for key, value in self.to_json().items() if key != "device"})

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of the map."""
        return self.grid.shape

    def variables(self) -> tuple[Variable, ...]:
        """See `variables`."""
        return variables(self.spec.legend, self.proba, self.uncertainty)

    def files(self) -> Mapping[str, bytes]:
        """The files of the model."""
        return {_kept(name): self.read(name) for name in file_names(self.read, self.model.path)}

    def only(self, tiles: Sequence[int]) -> PredictPlan:
        """The plan of some of its tiles."""
        return replace(self, tiles=tuple(tiles))

    @cached_property
    def inputs(self) -> Inputs:
        """The products on the grid, ready to be read."""
        return Inputs(self.layers, self.grid)

    @cached_property
    def predictor(self) -> Predictor:
        """The model; `InputError` where it is another one since."""
        return self.model.load(self.read)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values, without the model's files."""
        return {
            "package": lcengine.__version__,
            "sources": {name: layer.to_json() for name, layer in self.layers.items()},
            "model": {"path": self.model.path, "sha256": self.model.sha256},
            "spec": self.spec.to_json(),
            "grid": self.grid.to_dict(),
            "proba": self.proba,
            "uncertainty": list(self.uncertainty),
            "tiles": list(self.tiles),
            **self.running(),
        }

    def running(self) -> dict[str, Any]:
        """Lattice and execution of a network, and beside them the device asked for."""
        if self.lattice is None or self.how is None:
            return {}
        execution = asdict(self.how)
        device = execution.pop("device")
        return {"lattice": asdict(self.lattice), "execution": execution, "device": device}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], file: Read) -> PredictPlan:
        """Inverse of `to_json` and `files`; `file` reads a file beside the plan."""
        return cls(
            {name: Layer.from_json(layer) for name, layer in data["sources"].items()},
            ModelRef(**data["model"]),
            ModelSpec.from_json(data["spec"]),
            Grid.from_dict(data["grid"]),
            data["proba"],
            tuple(data["uncertainty"]),
            tuple(data["tiles"]),
            lambda name: file(_kept(name)),
            PatchLattice(**data["lattice"]) if "lattice" in data else None,
            Execution(**data["execution"], device=data["device"]) if "execution" in data else None,
        )


def plan_predict(  # noqa: PLR0913 - what of what, then how
    sources: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]],
    model: str | os.PathLike[str],
    *,
    proba: bool = False,
    uncertainty: Sequence[str] = (),
    grid: Grid | None = None,
    bands: Mapping[str, Sequence[str]] | None = None,
    resampling: str | Mapping[str, str] = "nearest",
    tiling: Tiling | None = None,
) -> PredictPlan:
    """Freeze the prediction of a map for `lcengine.jobs.run`.

    Args:
        sources: Products by the names of the model's inputs; a path alone for a model of one.
        model: Folder of a model, as `lcengine.models.save` writes it.
        proba: Also store the probability of every class.
        uncertainty: Also store `entropy` and/or `margin`.
        grid: Pixels to predict, by default those of the first source.
        bands: Variables of a source that stand for the model's bands, in the model's order, where
            they have other names.
        resampling: `nearest`, `bilinear` or `average` where a source has other pixels.
        tiling: Of a network, where another lattice of patches, an exact map or another way to run
            it than by default is asked for.

    Raises:
        InputError: The products are not what the model was made for (bands, periods, type, scale,
            units, sensor, pixel size), there is no such model or product, or `tiling` does not
            fit the model.
    """
    scores = check_scores(uncertainty)
    ref = ModelRef.of(model)
    spec = ref.check()
    check_model(spec)
    lattice, how = (tiling or Tiling()).of(spec)
    paths = named(sources, spec)
    chosen = bands_of(paths, spec, bands or {})
    layers = inputs.layers(paths, bands=chosen, resampling=resampling)
    first = next(iter(sources.values())) if isinstance(sources, Mapping) else sources
    pixels = grid or store.grid_of(first)
    check_inputs(spec, Inputs(layers, pixels).inputs, layers, pixels)
    tiles = tuple(tile.index for tile in pixels.tiles() if pixels.touches(tile))
    read = reader(ref.path)
    return PredictPlan(layers, ref, spec, pixels, proba, scores, tiles, read, lattice, how)


def check_scores(names: Sequence[str]) -> tuple[str, ...]:
    """Names of scores in the order of `SCORES`; `InputError` for any other."""
    wrong = [name for name in names if name not in SCORES]
    if wrong:
        raise InputError(f"uncertainty is {wrong}, expected some of {', '.join(SCORES)}")
    return tuple(name for name in SCORES if name in names)


def variables(legend: Legend, proba: bool, uncertainty: Sequence[str]) -> tuple[Variable, ...]:
    """`label`: codes of the legend; probabilities and uncertainty as uint8 of scale 0.004."""
    out = [Variable(LABEL, str(legend.dtype), legend.nodata, legend.title, legend=legend)]
    if proba:
        names = probability_names(legend)
        out += [
            _score(name, f"probability of {entry.name}")
            for name, entry in zip(names, legend.classes, strict=True)
        ]
    return (*out, *(_score(name, SCORES[name]) for name in uncertainty))


def probability_names(legend: Legend) -> list[str]:
    """Names of the variables of probabilities, in the order of the classes."""
    words = (re.sub(r"\W+", "_", name.casefold()).strip("_") for name in legend.names)
    return [f"probability_{c}_{w}".rstrip("_") for c, w in zip(legend.codes, words, strict=True)]


def _score(name: str, text: str) -> Variable:
    return Variable(name, "uint8", 255, text, scale=SCALE, units="1")


def _kept(name: str) -> str:
    """What a file of the model is called beside the plan."""
    return f"model-{name}"
