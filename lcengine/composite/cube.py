"""Composites of a cube in a notebook, with the kernels and the bytes of a cluster run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from lcengine.composite.spec import QA_FILL
from lcengine.cube import CLEAR
from lcengine.errors import InputError
from lcengine.kernels import NODATA
from lcengine.kernels.composite import MadScreen, Reducer
from lcengine.kernels.composite import composite as kernel


def composite(
    cube: xr.DataArray,
    *,
    bands: tuple[str, ...] | list[str] | None = None,
    method: str = "median",
    outliers: str = "none",
    brightness: tuple[str, ...] = ("blue", "green", "red"),
) -> xr.Dataset:
    """Composite a cube of `lcengine.load`, lazily, chunk by chunk.

    `cube`: int16 (time, band, y, x), nodata -32768, with the coordinate `observation` along time;
    a band `clear` decides what is clear, without it every valid pixel is. Items of one
    observation count once: the first clear one. `bands`: what to return (default: all but
    `clear`); other bands are not looked at, but for the `brightness` bands, on whose sum
    `outliers` (`mad:K`) screens. Returns int16 bands and uint16 `count` and `outliers`, as
    `lcengine composite` writes them.
    """
    names = [str(name) for name in cube["band"].values]
    values = [name for name in names if name != CLEAR]
    wanted = list(bands) if bands is not None else values
    screen = MadScreen.parse(outliers)
    order = list(dict.fromkeys([*wanted, *(brightness if screen else ())]))
    missing = [name for name in order if name not in values]
    if missing:
        raise InputError(f"the cube has no band {missing[0]!r}; it has {', '.join(values)}")
    block = _Block(
        bands=tuple(names.index(name) for name in order),
        clear=names.index(CLEAR) if CLEAR in names else None,
        groups=_observation(cube),
        reducer=Reducer.parse(method),
        screen=screen,
        screen_bands=tuple(order.index(name) for name in brightness) if screen else (),
        n_out=len(wanted),
    )
    whole = cube.chunk(time=-1, band=-1) if cube.chunks else cube.chunk()
    result = whole.data.map_blocks(
        block, dtype=np.int16, drop_axis=0, chunks=((len(wanted) + 2,), *whole.data.chunks[2:])
    )
    coords = {name: cube[name] for name in ("y", "x", "spatial_ref") if name in cube.coords}
    layers = [*result[: len(wanted)], *result[len(wanted) :].view(np.uint16)]
    counts: dict[str, object] = {"_FillValue": QA_FILL}
    attributes = [_attributes() for _ in wanted] + [counts, counts]
    return xr.Dataset(
        {
            name: xr.DataArray(layer, dims=("y", "x"), coords=coords, attrs=attrs)
            for name, layer, attrs in zip(
                (*wanted, "count", "outliers"), layers, attributes, strict=True
            )
        }
    )


@dataclass(frozen=True)
class _Block:
    """The kernel on one chunk of a cube; a value, so that a cluster can be sent it."""

    bands: tuple[int, ...]
    clear: int | None
    groups: npt.NDArray[np.int64]
    reducer: Reducer
    screen: MadScreen | None
    screen_bands: tuple[int, ...]
    n_out: int

    def __call__(self, pixels: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """(time, band, y, x) -> (bands, count, outliers; y, x); the counts as their int16 bits."""
        shape = (pixels.shape[0], *pixels.shape[2:])
        clear = np.ones(shape, np.uint8) if self.clear is None else pixels[:, self.clear] == 1
        out = kernel(
            np.ascontiguousarray(pixels[:, self.bands]),
            clear,
            self.groups,
            reducer=self.reducer,
            screen=self.screen,
            screen_bands=self.screen_bands,
            n_out=self.n_out,
        )
        return np.concatenate([out.values, np.stack([out.count, out.outliers]).view(np.int16)])


def _attributes() -> dict[str, object]:
    return {"scale_factor": 1e-4, "add_offset": 0.0, "_FillValue": NODATA, "units": "1"}


def _observation(cube: xr.DataArray) -> npt.NDArray[np.int64]:
    if "observation" in cube.coords:
        groups = cube["observation"].values.astype(np.int64)
        if np.all(np.diff(groups) >= 0):
            return groups
        raise InputError("the cube's `observation` does not ascend; keep the order of load()")
    return np.arange(cube.sizes["time"], dtype=np.int64)
