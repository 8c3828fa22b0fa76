"""The plan of a sample store: every patch in a table, frozen with its source and recipe."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import lcengine
from lcengine.crs import is_pixel_crs, lonlat_box, resolve_crs
from lcengine.legends import Entry, Legend
from lcengine.legends.base import IGNORE
from lcengine.locate import Window
from lcengine.periods import Period
from lcengine.samples import stack_source
from lcengine.samples.select import Candidates, candidates, draw
from lcengine.samples.source import LABEL, PIXELS, TABLE, Source
from lcengine.samples.spec import SPLITS, TRAIN, SampleSpec
from lcengine.samples.stack_source import StackSource
from lcengine.store import Rows, Variable, digest

PART = 64 * 2**20
"""Bytes of all arrays of a part, at most: what a task cuts and a shard holds."""
LEAST = 2**20
"""Bytes of a part below which it is not worth a task."""
TASKS = 16
"""Parts that there should be, so that workers have something to do."""


@dataclass(frozen=True, eq=False)
class SamplePlan:
    """Patches of a source: `table` has a row for each, in the order in which they are stored.

    Columns: `sample` its number; `scene`, `scene_index`, `row`, `col` where its upper-left pixel
    lies; `x`, `y` its centre in the scene's CRS, null without one; `split`; `block` row/column of
    its block in the CRS grid, or the group or scene that goes into one split as a whole;
    `labelled` pixels with a class; `centre` the training index of its middle pixel (255: none);
    `pixels_<code>` pixels of each class.
    """

    source: Source
    spec: SampleSpec
    table: pa.Table
    tiles: Sequence[int]

    kind: ClassVar[str] = "samples"
    time_axis: ClassVar[tuple[Period, ...]] = ()

    @cached_property
    def layout(self) -> Rows:
        """Samples, and how many of them go into a part: a power of two, for any size of chunks."""
        count = self.table.num_rows
        bytes_each = sum(np.dtype(v.dtype).itemsize * math.prod(v.shape) for v in self.variables())
        wanted = min(max(-(-count // TASKS), LEAST // bytes_each), PART // bytes_each)
        return Rows(count, 2 ** (max(1, wanted).bit_length() - 1))

    @cached_property
    def run_id(self) -> str:
        """Identity of the result: source, recipe, table of samples and package version."""
        return digest(self.to_json())

    def variables(self) -> tuple[Variable, ...]:
        """An array per input, and the labels."""
        edge = self.spec.patch
        out = [
            Variable(
                entry.name,
                entry.dtype,
                entry.fill,
                f"{entry.name}: {', '.join(entry.bands)}",
                scale=entry.scale,
                units=entry.units,
                dims=(*([f"time_{entry.name}"] if entry.times else []), f"band_{entry.name}", *YX),
                shape=(*entry.lead, edge, edge),
            )
            for entry in self.source.inputs
        ]
        text = "training index of the class, 255: ignore"
        legend = indexed(self.source.legend)
        out.append(
            Variable(LABEL, "uint8", IGNORE, text, legend=legend, dims=YX, shape=(edge, edge))
        )
        return tuple(out)

    def windows(self, number: int) -> list[tuple[int, list[Window]]]:
        """The patches of a part: scene by scene, in the order of the table."""
        part = self.layout.tile_at(number)
        rows = self.table.slice(part.start, part.stop - part.start)
        out: list[tuple[int, list[Window]]] = []
        columns = (rows[name].to_pylist() for name in ("scene_index", "row", "col"))
        for scene, row, col in zip(*columns, strict=True):
            if not out or out[-1][0] != scene:
                out.append((scene, []))
            out[-1][1].append(Window(row, col, self.spec.patch, self.spec.patch))
        return out

    def training(self, number: int) -> npt.NDArray[np.bool_]:
        """(samples of a part) which of them are for training."""
        part = self.layout.tile_at(number)
        splits = self.table["split"].slice(part.start, part.stop - part.start)
        return np.array([name == SPLITS[TRAIN] for name in splits.to_pylist()], np.bool_)

    def counts(self, number: int) -> npt.NDArray[np.uint32]:
        """(samples of a part, K) pixels of each class when the plan was made."""
        part = self.layout.tile_at(number)
        rows = self.table.slice(part.start, part.stop - part.start)
        names = [PIXELS.format(code) for code in self.source.legend.codes]
        return np.stack([rows[name].to_numpy() for name in names], axis=1).astype(np.uint32)

    def facts(self) -> dict[str, Any]:
        """The plan in JSON values, as the product's provenance has it."""
        return {
            "spec": self.spec.to_json(),
            "source": self.source.to_json(),
            "patch": self.spec.patch,
            "inputs": [entry.to_json() for entry in self.source.inputs],
            "legend": self.source.legend.to_json(),
            "splits": self.splits(),
            "place": self.place(),
        }

    def place(self) -> dict[str, Any]:
        """`crs` and `resolution` of the scenes where they share one, `bounds` of training patches.

        Bounds are west, south, east, north in degrees, `interval` that of the imagery; each is None
        where it is not known.
        """
        scenes = self.source.scenes
        crs = scenes[0].crs if len({scene.crs for scene in scenes}) == 1 else None
        sizes = {abs(scene.transform[0]) for scene in scenes}
        resolution = sizes.pop() if len(sizes) == 1 else None
        rows = self.table.filter(pc.equal(self.table["split"], SPLITS[TRAIN]))
        known = self.source.interval
        time = None if known is None else list(known)
        out = {"crs": crs, "resolution": resolution, "bounds": None, "interval": time}
        if crs is None or is_pixel_crs(crs):
            return out
        half = self.spec.patch / 2 * (resolution or 0.0)
        box = [pc.min_max(rows[axis]).as_py() for axis in ("x", "y")]
        corners = [box[0]["min"] - half, box[1]["min"] - half]
        corners += [box[0]["max"] + half, box[1]["max"] + half]
        bounds = lonlat_box((corners[0], corners[1], corners[2], corners[3]), resolve_crs(crs))
        return {**out, "bounds": list(bounds)}

    def splits(self) -> dict[str, dict[str, Any]]:
        """Of each split: samples, blocks (0: random), and pixels of each class by code."""
        out = {}
        for name in SPLITS:
            rows = self.table.filter(pc.equal(self.table["split"], name))
            blocks = 0 if self.spec.split == "random" else pc.count_distinct(rows["block"]).as_py()
            pixels = {
                str(code): int(pc.sum(rows[PIXELS.format(code)]).as_py() or 0)
                for code in self.source.legend.codes
            }
            out[name] = {"samples": rows.num_rows, "blocks": blocks, "pixels": pixels}
        return out

    def only(self, tiles: Sequence[int]) -> SamplePlan:
        """The plan of some of its parts, for counting."""
        return replace(self, tiles=tuple(tiles))

    def files(self) -> dict[str, bytes]:
        """The table."""
        return {TABLE: self._content}

    @cached_property
    def _content(self) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(self.table, buffer)
        return buffer.getvalue()

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values; the table is a file of its own."""
        return {
            "version": lcengine.__version__,
            "source": self.source.to_json(),
            "spec": self.spec.to_json(),
            "table": _hash(self.table),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], table: bytes) -> SamplePlan:
        """Inverse of `to_json` and `files`."""
        rows = pq.read_table(io.BytesIO(table))
        spec = SampleSpec.from_json(data["spec"])
        return _planned(source_of(data["source"]), spec, rows)


YX = ("y", "x")


def plan_samples(source: Source, spec: SampleSpec) -> SamplePlan:
    """Find and draw the patches of a source; only labels are read.

    Raises `InputError` where no patch has a label, a split stays empty, or blocks cannot keep the
    scenes apart.
    """
    return _planned(source, spec, table_of(draw(candidates(source, spec), spec), source, spec))


def _planned(source: Source, spec: SampleSpec, table: pa.Table) -> SamplePlan:
    plan = SamplePlan(source, spec, table, ())
    return replace(plan, tiles=range(plan.layout.n_tiles))


def source_of(data: Mapping[str, Any]) -> Source:
    """A source from its JSON."""
    if data["kind"] == stack_source.KIND:
        return StackSource.from_json(data)
    from lcengine.samples import folders  # noqa: PLC0415 (stacks do without)

    return folders.LAYOUTS[data["kind"]].from_json(data)


def table_of(found: Candidates, source: Source, spec: SampleSpec) -> pa.Table:
    """Samples as a table, see `SamplePlan`."""
    scenes = source.scenes
    half = spec.patch / 2
    transforms = np.array([scene.transform[:6] for scene in scenes], np.float64)[found.scene]
    placed = np.array([scene.crs is not None for scene in scenes])[found.scene]
    a, left, top = transforms[:, 0], transforms[:, 2], transforms[:, 5]
    names = [PIXELS.format(code) for code in source.legend.codes]
    return pa.table(
        {
            "sample": np.arange(len(found), dtype=np.int64),
            "scene": _names(found.scene, [scene.name for scene in scenes]),
            "scene_index": found.scene,
            "row": found.row,
            "col": found.col,
            "x": pa.array(left + (found.col + half) * a, mask=~placed),
            "y": pa.array(top - (found.row + half) * a, mask=~placed),
            "split": _names(found.split, SPLITS),
            "block": _blocks(found, source, spec),
            "labelled": found.labelled,
            "centre": found.centre,
            **dict(zip(names, np.ascontiguousarray(found.counts.T), strict=True)),
        }
    )


def _names(numbers: npt.NDArray[Any], names: Sequence[str]) -> pa.Array:
    coded = pa.DictionaryArray.from_arrays(numbers.astype(np.int32), pa.array(names, pa.string()))
    return coded.cast(pa.string())


def _blocks(found: Candidates, source: Source, spec: SampleSpec) -> list[str]:
    if spec.split == "random":
        return [""] * len(found)
    whole = [scene.group or (scene.name if scene.crs is None else None) for scene in source.scenes]
    return [
        f"{row}/{col}" if name is None else name
        for name, (row, col) in zip(
            (whole[scene] for scene in found.scene), found.block.tolist(), strict=True
        )
    ]


def indexed(legend: Legend) -> Legend:
    """The classes of a legend under their training indices."""
    entries = (Entry(i, e.name, e.colour, e.groups) for i, e in enumerate(legend.classes))
    return Legend(legend.name, legend.title, tuple(entries), legend.source)


def _hash(table: pa.Table) -> str:
    """Of the values alone: the bytes of a Parquet file differ from release to release."""
    total = hashlib.sha256()
    for name in table.column_names:
        column = table[name].combine_chunks()
        text = pa.types.is_string(column.type)
        if text:
            total.update("\n".join(column.to_pylist()).encode())
        else:
            total.update(np.nan_to_num(column.to_numpy(zero_copy_only=False)).tobytes())
    return total.hexdigest()
