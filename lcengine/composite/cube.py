"""Composites of a cube in a notebook, with the kernels and the bytes of a cluster run."""

from __future__ import annotations

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
    reducer = Reducer.parse(method)
    index = tuple(order.index(name) for name in brightness) if screen else ()
    groups = _observation(cube)
    positions = [names.index(name) for name in order]
    clear_at = names.index(CLEAR) if CLEAR in names else None

    def block(pixels: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        stack = np.ascontiguousarray(pixels[:, positions])
        clear = np.ones((pixels.shape[0], *pixels.shape[2:]), dtype=np.uint8)
        if clear_at is not None:
            clear = (pixels[:, clear_at] == 1).astype(np.uint8)
        out = kernel(
            stack,
            clear,
            groups,
            reducer=reducer,
            screen=screen,
            screen_bands=index,
            n_out=len(wanted),
        )
        # One int16 array per block; the counts' bits travel in it and are uint16 again below.
        qa = np.stack([out.count, out.outliers]).view(np.int16)
        return np.concatenate([out.values, qa])

    whole = cube.chunk(time=-1, band=-1) if cube.chunks else cube.chunk()
    result = whole.data.map_blocks(
        block, dtype=np.int16, drop_axis=0, chunks=((len(wanted) + 2,), *whole.data.chunks[2:])
    )
    coords = {name: cube[name] for name in ("y", "x", "spatial_ref") if name in cube.coords}
    out = {
        name: xr.DataArray(result[i], dims=("y", "x"), coords=coords, attrs=_attributes())
        for i, name in enumerate(wanted)
    }
    for i, name in enumerate(("count", "outliers")):
        counts = result[len(wanted) + i].view(np.uint16)
        out[name] = xr.DataArray(counts, dims=("y", "x"), coords=coords)
        out[name].attrs["_FillValue"] = QA_FILL
    return xr.Dataset(out)


def _attributes() -> dict[str, object]:
    return {"scale_factor": 1e-4, "add_offset": 0.0, "_FillValue": NODATA, "units": "1"}


def _observation(cube: xr.DataArray) -> npt.NDArray[np.int64]:
    if "observation" in cube.coords:
        groups = cube["observation"].values.astype(np.int64)
        if np.all(np.diff(groups) >= 0):
            return groups
        raise InputError("the cube's `observation` does not ascend; keep the order of load()")
    return np.arange(cube.sizes["time"], dtype=np.int64)
