"""Composites of a cube in a notebook, with the kernels and the bytes of a cluster run."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from lcengine import masks
from lcengine.composite.block import EPOCH, Block, Series, days_of, reduce_block
from lcengine.composite.spec import AUTO, CompositeSpec, Qa
from lcengine.cube import CLEAR
from lcengine.errors import InputError
from lcengine.kernels.methods import DEFAULT_SCREEN, DISTANCE, check_domain
from lcengine.periods import Period, PeriodRule
from lcengine.sensors import sensor
from lcengine.sensors.base import QUANTITIES, Quantity


def composite(  # noqa: PLR0913 - the options of `lcengine composite`
    cube: xr.DataArray,
    *,
    bands: Sequence[str] | None = None,
    method: str = "median",
    outliers: str = AUTO,
    period: str | PeriodRule | None = None,
    min_clear: int = 0,
    qa: Qa = "basic",
    interval: tuple[dt.datetime, dt.datetime] | None = None,
) -> xr.Dataset:
    """Composite a cube of `lcengine.load`, lazily, chunk by chunk.

    `cube`: int16 (time, band, y, x), nodata -32768, with the coordinate `observation` along time;
    a band `clear` decides what is clear, without it every valid pixel is. Items of one
    observation count once: the first clear one. It holds what its `scale_factor` and `units` say,
    else its name (`backscatter`), else reflectance. `bands`: what to return (default: all but
    `clear` and `cloud_distance`); methods and screens may look at others. `method`, `outliers`,
    `period`, `min_clear` and `qa` are those of `CompositeSpec`; `outliers` `auto` is what the
    sensor takes that `load` noted in the cube's attributes, in another cube of reflectance
    `mad:3:bright`. The best available pixel wants the band `cloud_distance` in the cube.
    `interval`: first and last moment that the periods shall cover, by default the cube's.

    Returns what `lcengine composite` writes, (y, x) or (time, y, x), but for `lost`: here a file
    that cannot be read is an error. `item` is the position along the cube's time.
    """
    if cube.dtype != np.int16:
        raise InputError(
            f"the cube is {cube.dtype}, expected int16 as load() gives, reflectance x 10000; for "
            "other arrays there is lcengine.kernels.composite.composite"
        )
    names = [str(name) for name in cube["band"].values]
    values = [name for name in names if name not in (CLEAR, DISTANCE)]
    quantity = _quantity(cube)
    outliers = _screens(cube, quantity) if outliers == AUTO else outliers
    rule = PeriodRule.parse(period) if isinstance(period, str) else period
    spec = CompositeSpec(
        tuple(bands) if bands is not None else tuple(values),
        mask=next(iter(masks.PRESETS)),  # has been applied: it is the cube's band `clear`
        outliers=outliers,
        method=method,
        period=rule,
        min_clear=min_clear,
        qa=qa,
    )
    for wanted in spec.methods:
        check_domain(wanted, quantity.domain)
    order = list(dict.fromkeys([*spec.bands, *(n for n in spec.needs if n != DISTANCE)]))
    order += [DISTANCE] if DISTANCE in spec.needs else []
    missing = [name for name in order if name not in names]
    if missing:
        remedy = "load it as well"
        if missing[0] in spec.screens.needs:
            remedy += f", or pass another screen than outliers={outliers!r}, such as 'none'"
        raise InputError(
            f"the cube has no band {missing[0]!r}; it has {', '.join(values)}: {remedy}"
        )
    periods = _periods(cube, rule, interval)
    kernel = _Chunk(
        spec=spec,
        periods=periods,
        bands=tuple(order),
        positions=tuple(names.index(name) for name in order),
        clear=names.index(CLEAR) if CLEAR in names else None,
        series=_series(cube),
        quantity=quantity,
    )
    return _apply(cube, kernel)


def _screens(cube: xr.DataArray, quantity: Quantity) -> str:
    """The screens of the cube's sensor, of any reflectance where none is noted."""
    if "sensor" in cube.attrs:
        return sensor(cube.attrs["sensor"]).outliers
    return DEFAULT_SCREEN if quantity == QUANTITIES["reflectance"] else "none"


@dataclass(frozen=True)
class _Chunk:
    """The kernel on one chunk of a cube; a value, so that a cluster can be sent it."""

    spec: CompositeSpec
    periods: tuple[Period, ...]
    bands: tuple[str, ...]
    positions: tuple[int, ...]
    clear: int | None
    series: Series
    quantity: Quantity

    @property
    def names(self) -> dict[str, str]:
        """Variables and their dtypes."""
        variables = self.spec.variables("", self.quantity)
        found = {variable.name: variable.dtype for variable in variables}
        found.pop("lost", None)
        return found

    def __call__(
        self, pixels: npt.NDArray[np.int16]
    ) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], ...]:
        """(y, x, time, band), as xarray hands it, -> the variables, (y, x) or (y, x, time)."""
        cube = np.moveaxis(pixels, (2, 3), (0, 1))
        shape = (cube.shape[0], *cube.shape[2:])
        clear = np.ones(shape, np.uint8)
        if self.clear is not None:
            clear = (cube[:, self.clear] == 1).astype(np.uint8)
        values = np.ascontiguousarray(cube[:, self.positions])
        block = Block(values, clear, self.series, self.bands, self.quantity)
        found = list(reduce_block(self.spec, self.periods, block))
        if self.spec.period is None:
            out = tuple(found[0][name] for name in self.names)
        else:
            out = tuple(np.stack([p[name] for p in found], axis=-1) for name in self.names)
        return out if len(out) > 1 else out[0]  # xarray takes a tuple for several outputs


def _apply(cube: xr.DataArray, kernel: _Chunk) -> xr.Dataset:
    """The kernel on all chunks, and the labels of what comes out."""
    whole = cube.chunk(time=-1, band=-1) if cube.chunks else cube.chunk()
    several = kernel.spec.period is not None
    sizes = {"period": len(kernel.periods)}
    bare = whole.drop_vars([n for n in whole.coords if n not in ("y", "x", "spatial_ref")])
    found = xr.apply_ufunc(
        kernel,
        bare,
        input_core_dims=[["time", "band"]],
        output_core_dims=[["period"] if several else [] for _ in kernel.names],
        dask="parallelized",
        output_dtypes=[np.dtype(kind) for kind in kernel.names.values()],
        dask_gufunc_kwargs={"output_sizes": sizes} if several else None,
        keep_attrs=False,
    )
    layers = found if isinstance(found, tuple) else (found,)
    variables = kernel.spec.variables("", kernel.quantity)
    attributes = {v.name: v.attributes() for v in variables}
    out = xr.Dataset(dict(zip(kernel.names, layers, strict=True))).assign_coords(
        {name: cube[name] for name in ("y", "x", "spatial_ref") if name in cube.coords}
    )
    for name in kernel.names:
        out[name].attrs = {k: v for k, v in attributes[name].items() if k != "grid_mapping"}
    if not several:
        return out
    start = [np.datetime64(p.start.replace(tzinfo=None), "ns") for p in kernel.periods]
    stop = [np.datetime64(p.stop.replace(tzinfo=None), "ns") for p in kernel.periods]
    labelled = out.rename(period="time").transpose("time", "y", "x")
    return labelled.assign_coords(
        time=("time", np.array(start)),
        time_bnds=(("time", "bnds"), np.stack([start, stop], axis=1)),
        period=("time", np.array([p.name for p in kernel.periods], dtype=object)),
    )


def _quantity(cube: xr.DataArray) -> Quantity:
    """What the cube holds, by its units; its name stands for them where attributes were lost."""
    named = {str(kind): quantity for kind, quantity in QUANTITIES.items()}
    by_name = named.get(str(cube.name), QUANTITIES["reflectance"])
    units = cube.attrs.get("units", by_name.units)
    known = sorted(QUANTITIES.values(), key=lambda quantity: quantity != by_name)
    known = [quantity for quantity in known if quantity.units == units]
    scale = cube.attrs.get("scale_factor", known[0].scale if known else None)
    for quantity in known:
        if quantity.scale == scale:
            return quantity
    listed = ", ".join(f"{q.scale:g} {q.units}" for q in QUANTITIES.values())
    raise InputError(
        f"the cube is in steps of {scale} {units!r}, expected those of load(): {listed}"
    )


def _series(cube: xr.DataArray) -> Series:
    """What the cube's coordinates say of its items."""
    number = np.arange(cube.sizes["time"])
    groups = number
    if "observation" in cube.coords:
        groups = cube["observation"].values.astype(np.int64)
        if np.any(np.diff(groups) < 0):
            raise InputError("the cube's `observation` does not ascend; keep the order of load()")
    days = np.zeros(len(groups))
    if "began" in cube.coords:
        days = _days(cube["began"])
    elif "time" in cube.coords:
        days = _days(cube["time"])
        first = {group: days[groups == group].min() for group in np.unique(groups)}
        days = np.array([first[group] for group in groups])
    if np.any(np.diff(days) < 0):
        raise InputError("the cube's observations do not ascend in time; sort them")
    return Series(groups, days, number)


def _days(times: xr.DataArray) -> npt.NDArray[np.float64]:
    """Days since 1970-01-01 of UTC times."""
    # By way of datetimes, as the items' own times: the same floats on both ways to a composite.
    moments = times.values.astype("M8[us]").astype(object)
    return np.array([days_of(moment.replace(tzinfo=dt.UTC)) for moment in moments], np.float64)


def _periods(
    cube: xr.DataArray,
    rule: PeriodRule | None,
    interval: tuple[dt.datetime, dt.datetime] | None,
) -> tuple[Period, ...]:
    if interval is None:
        first, last = EPOCH, EPOCH
        if "time" in cube.coords and cube.sizes["time"]:
            # An observation counts from when it began, maybe before the first item of the cube.
            names = [name for name in ("time", "began") if name in cube.coords]
            times = [m for n in names for m in cube[n].values.astype("M8[us]").astype(object)]
            first, last = (m.replace(tzinfo=dt.UTC) for m in (min(times), max(times)))
        interval = first, last
    if rule is None:
        return (Period("all", interval[0], interval[1] + dt.timedelta(microseconds=1)),)
    return rule.periods(*interval)
