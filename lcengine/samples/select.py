"""Which patches become samples: candidates with their class counts, and a draw among them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.kernels._jit import usable_cpus
from lcengine.kernels.counts import class_counts
from lcengine.legends.base import IGNORE
from lcengine.locate import Window
from lcengine.samples.blocks import INDEX, Lattice, check_scenes, lattice, uniform
from lcengine.samples.source import Source
from lcengine.samples.spec import SPLITS, TRAIN, SampleSpec

PANEL = 2048
"""Largest edge of the labels that are looked at at once, in pixels."""
MEMORY = 3 * 2**29
"""Bytes of candidates, at most; planning takes twice as much. 20 million with ten classes."""


@dataclass(frozen=True)
class Candidates:
    """Patches, one row of every array each.

    `row`, `col`: upper-left pixel in the scene. `block`: (n, 2) row and column of the block in the
    CRS grid, zeros where the scene is not cut into such blocks. `split`: place in `SPLITS`.
    `key`: hash. `centre`: training index of the middle pixel. `counts`: (n, K) pixels per class.
    """

    scene: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    col: npt.NDArray[np.int32]
    block: INDEX
    split: npt.NDArray[np.uint8]
    key: npt.NDArray[np.uint64]
    centre: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.scene)

    @property
    def labelled(self) -> npt.NDArray[np.uint32]:
        """(n) pixels with a class."""
        return np.asarray(self.counts.sum(axis=1, dtype=np.uint32))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(int(getattr(self, f.name).nbytes) for f in fields(self))

    def take(self, rows: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> Candidates:
        """Some of them."""
        return Candidates(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def ordered(self) -> Candidates:
        """By scene and block, and in a block by the hash.

        Blocks follow a Z-curve, so that those of a part lie together and are read together.
        """
        keys = (self.col, self.row, self.key, *self.block.T, _along_curve(self.block), self.scene)
        return self.take(np.lexsort(keys))


def _along_curve(block: INDEX) -> npt.NDArray[np.uint64]:
    """(n) positions of (n, 2) blocks on a Z-curve (Morton 1966): their bits in turn."""
    down, across = (block.T + 2**31).astype(np.uint64)
    return _spread(down) << np.uint64(1) | _spread(across)


def _spread(places: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """32 bits with a zero after each."""
    for width in (16, 8, 4, 2, 1):
        mask = np.uint64((2**64 - 1) // (2**width + 1))
        places = (places | places << np.uint64(width)) & mask
    return places


class _Panel(NamedTuple):
    """A part of a scene's lattice: positions along both axes."""

    scene: int
    lattice: Lattice
    rows: slice
    cols: slice


def candidates(source: Source, spec: SampleSpec) -> Candidates:
    """All patches with labels, in order; only labels are read, by several threads.

    Raises `InputError` where there is none, or more than `MEMORY` holds.
    """
    check_scenes(source.scenes, spec)
    found = _surveyed(source, spec)
    if not found:
        raise InputError(_nothing(source, spec))
    joined = Candidates(
        *(np.concatenate([getattr(part, f.name) for part in found]) for f in fields(Candidates))
    )
    found.clear()  # or there would be three of each
    return joined.ordered()


def _surveyed(source: Source, spec: SampleSpec) -> list[Candidates]:
    """The patches with labels of all panels, in order."""
    classes = len(source.legend.classes)
    found: list[Candidates] = []
    size = 0
    with ThreadPoolExecutor(usable_cpus()) as pool:
        surveys = [
            pool.submit(_survey, source, spec, panel, classes) for panel in _panels(source, spec)
        ]
        try:
            for survey in surveys:
                part = survey.result()
                size += part.nbytes
                if len(part):
                    found.append(part)
                if size > MEMORY:
                    raise InputError(_too_many(sum(map(len, found)), classes))
        finally:
            for survey in surveys:
                survey.cancel()
    return found


def _too_many(number: int, classes: int) -> str:
    return (
        f"there are {number:,} candidates or more, too many to hold in memory with {classes} "
        f"classes; take a larger stride, a larger share of labels (min_labelled) or a "
        "smaller area"
    )


def _nothing(source: Source, spec: SampleSpec) -> str:
    sizes = {scene.shape for scene in source.scenes}
    shapes = ", ".join(f"{height} x {width}" for height, width in sorted(sizes)[:3])
    share = f"at least {spec.min_labelled:g} of it labelled" if spec.min_labelled else "any label"
    blocks = f" in blocks of {spec.edge} with a buffer of {spec.gap}" if spec.gap else ""
    if spec.areas is not None:
        blocks = f" inside an area and {spec.gap} pixels from others"
    return (
        f"no patch of {spec.patch} pixels{blocks} has {share} in {len(source.scenes)} scenes of "
        f"{shapes or 'nothing'}; check the labels, or take a smaller patch, block or buffer"
    )


def _panels(source: Source, spec: SampleSpec) -> Iterator[_Panel]:
    for number, scene in enumerate(source.scenes):
        found = lattice(scene, spec)
        for rows in _runs(found.rows.starts, spec.patch):
            for cols in _runs(found.cols.starts, spec.patch):
                yield _Panel(number, found, rows, cols)


def _runs(starts: INDEX, patch: int) -> Iterator[slice]:
    """Neighbouring positions whose patches span no more than `PANEL`, or one."""
    first = 0
    while first < starts.size:
        stop = int(np.searchsorted(starts, starts[first] + PANEL - patch, side="right"))
        yield slice(first, max(stop, first + 1))
        first = max(stop, first + 1)


def _survey(source: Source, spec: SampleSpec, panel: _Panel, classes: int) -> Candidates:
    """The patches of a panel that have labels."""
    down, across = panel.lattice.rows, panel.lattice.cols
    tops, lefts = down.starts[panel.rows], across.starts[panel.cols]
    y0, x0 = int(tops[0]), int(lefts[0])
    size = int(tops[-1]) + spec.patch - y0, int(lefts[-1]) + spec.patch - x0
    labels = source.labels(panel.scene, Window(y0, x0, *size))
    i, j = _labelled(labels, tops - y0, lefts - x0, spec)
    if spec.areas is not None:
        from lcengine.samples import areas  # noqa: PLC0415 (other splits need no vectors)

        scene = source.scenes[panel.scene]
        splits = areas.splits(spec, scene, tops[i], lefts[j])
        i, j, splits = (values[splits != areas.OUTSIDE] for values in (i, j, splits))
    else:
        splits = panel.lattice.splits(spec, i + panel.rows.start, j + panel.cols.start)
    if 4 * i.size * classes > MEMORY:
        raise InputError(_too_many(i.size, classes))
    counts = np.zeros((i.size, classes), np.uint32)
    class_counts(labels, tops[i] - y0, lefts[j] - x0, spec.patch, counts)
    half = spec.patch // 2
    rows, cols = i + panel.rows.start, j + panel.cols.start
    return Candidates(
        scene=np.full(i.size, panel.scene, np.int32),
        row=tops[i].astype(np.int32),
        col=lefts[j].astype(np.int32),
        block=np.stack([down.blocks[rows], across.blocks[cols]], axis=1),
        split=splits,
        key=panel.lattice.keys(spec, rows, cols),
        centre=labels[tops[i] - y0 + half, lefts[j] - x0 + half],
        counts=counts,
    )


def _labelled(
    labels: npt.NDArray[np.uint8], tops: INDEX, lefts: INDEX, spec: SampleSpec
) -> tuple[INDEX, INDEX]:
    """Positions (down, across) of the patches with enough labels, by a summed-area table."""
    known = labels != IGNORE
    table = np.zeros((labels.shape[0] + 1, labels.shape[1] + 1), np.int32)
    np.cumsum(np.cumsum(known, axis=0, dtype=np.int32), axis=1, out=table[1:, 1:])
    rows = table[tops + spec.patch] - table[tops]
    number = rows[:, lefts + spec.patch] - rows[:, lefts]
    # A share that is a whole number of pixels must not be missed for its last binary digit.
    keep = number >= max(1, math.ceil(spec.min_labelled * spec.patch**2 - 1e-9))
    if spec.centre:
        half = spec.patch // 2
        keep &= known[np.ix_(tops + half, lefts + half)]
    i, j = np.nonzero(keep)
    return i, j


def draw(found: Candidates, spec: SampleSpec) -> Candidates:
    """The candidates that become samples, in order.

    Weighted draws without replacement by keys (Efraimidis & Spirakis 2006), so that neither the
    order nor the number of threads matters. The strategy is for training alone: validation and
    test patches are drawn all alike, or their figures would not be those of the map. Where a split
    has fewer candidates than its share of `samples`, all of them are taken. `InputError` names a
    split that stays empty.
    """
    if spec.samples is None:
        taken = found
    else:
        quotas = shares(spec.samples, spec.parts)
        rows = [_drawn(found, spec, split, quota) for split, quota in enumerate(quotas)]
        taken = found.take(np.sort(np.concatenate(rows)))
    for split, share in enumerate(spec.parts):
        if share and not (taken.split == split).any():
            raise InputError(_empty(found, spec, split))
    return taken


def _drawn(found: Candidates, spec: SampleSpec, split: int, quota: int) -> npt.NDArray[np.int64]:
    rows = np.nonzero(found.split == split)[0]
    if quota >= rows.size:
        return rows
    members = found.take(rows)
    strategy = spec.strategy if split == TRAIN else "random"
    keys = -np.log(uniform(members.key)) / _weights(members, strategy, spec.centre)
    return rows[np.argsort(keys, kind="stable")[:quota]]


def _weights(found: Candidates, strategy: str, centre: bool) -> npt.NDArray[np.float64]:
    """(n) how much more often than others a patch is drawn."""
    if strategy == "density":
        return found.labelled.astype(np.float64)
    if strategy != "balanced":
        return np.ones(len(found))
    if centre:  # the class that the patch stands for
        return 1.0 / np.bincount(found.centre, minlength=IGNORE + 1)[found.centre]
    # Every class has the same sum of weights over all patches.
    totals = found.counts.sum(axis=0, dtype=np.int64)
    weights = np.zeros(len(found))
    for pixels, total in zip(found.counts.T, totals, strict=True):  # one by one: float64 of all
        weights += pixels / max(int(total), 1)  # classes at once is twice the candidates
    return weights


def shares(samples: int, fractions: Sequence[float]) -> list[int]:
    """A number of samples by splits: the largest remainders are rounded up."""
    exact = [samples * share for share in fractions]
    out = [math.floor(value + 1e-9) for value in exact]
    order = sorted(range(len(exact)), key=lambda n: out[n] - exact[n])
    for split in order[: samples - sum(out)]:
        out[split] += 1
    return out


def _empty(found: Candidates, spec: SampleSpec, split: int) -> str:
    name = SPLITS[split]
    if spec.samples is not None and (found.split == split).any():
        return f"split {name} gets none of {spec.samples} samples; draw more"
    scenes = len(np.unique(found.scene))
    if spec.areas is not None:
        return (
            f"split {name} is empty: no patch of {spec.patch} pixels lies in its areas, "
            f"{spec.gap} pixels from those of the splits after it; draw them larger, or take a "
            "smaller patch or buffer"
        )
    if spec.split == "random":
        where, remedy = "", "take a smaller stride"
    elif scenes > 1 and not found.block.any():
        where, remedy = f" in {scenes} scenes, each in one split as a whole", "add scenes"
    else:
        blocks = len(np.unique(np.column_stack([found.scene, found.block]), axis=0))
        places = "1 block" if blocks == 1 else f"{blocks} blocks"
        least = spec.patch + 2 * spec.margin
        smaller = f"block below {spec.edge}" if spec.edge > least else "smaller patch or buffer"
        where, remedy = f" in {places}", f"take a {smaller}"
    remedies = [remedy, "another seed"] + ([f"a share of 0 for {name}"] if split != TRAIN else [])
    return (
        f"split {name} is empty: there are {len(found)} candidates{where}; {' or '.join(remedies)}"
    )
