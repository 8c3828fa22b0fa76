"""A store of samples, opened: its table, classes and statistics, and patches by number."""

from __future__ import annotations

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lcengine import store
from lcengine.errors import InputError
from lcengine.inputs import Arrays, Input
from lcengine.legends import Legend
from lcengine.samples.source import LABEL, PIXELS, STATISTICS, TABLE
from lcengine.store.patches import RowReader, readers

if TYPE_CHECKING:
    from lcengine.samples.loader import Loader


def open(path: str | os.PathLike[str]) -> SampleSet:
    """The samples at a local path or `s3://bucket/key`, of the version that is visible now.

    Raises `InputError` for what is no store of samples.
    """
    facts = store.provenance(path)
    if not {"inputs", "legend"} <= facts.keys():
        raise InputError(
            f"{path} is a product but holds no samples; `lcengine samples` cuts them from it"
        )
    inputs = tuple(Input.from_json(entry) for entry in facts["inputs"])
    table = pd.read_parquet(io.BytesIO(store.sidecar(path, TABLE)))
    return SampleSet(
        str(path),
        inputs,
        Legend.from_json(facts["legend"]),
        table,
        json.loads(store.sidecar(path, STATISTICS)),
        readers(path),
        facts,
    )


@dataclass(frozen=True, eq=False)
class SampleSet:
    """Samples: row i of `table` is sample i of the arrays.

    `statistics`: `{input: {band: {count, mean, std, min, max}}}` of the stored numbers of training
    patches. `facts`: the store's provenance: `spec`, `source`, `place` and more.
    """

    path: str
    inputs: tuple[Input, ...]
    legend: Legend = field(repr=False)
    table: pd.DataFrame = field(repr=False)
    statistics: dict[str, Any] = field(repr=False)
    rows: dict[str, RowReader] = field(repr=False)
    facts: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the store again."""
        return open, (self.path,)

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays of a batch: the inputs and `label`."""
        return (*(entry.name for entry in self.inputs), LABEL)

    @property
    def patch(self) -> int:
        """Edge of the patches in pixels."""
        return self.rows[LABEL].shape[-1]

    @cached_property
    def splits(self) -> dict[str, int]:
        """Number of samples by split."""
        return {str(name): int(n) for name, n in self.table["split"].value_counts().items() if n}

    def split(self, name: str) -> npt.NDArray[np.int64]:
        """Numbers of the samples of a split, ascending; `InputError` names the splits there are."""
        if name not in self.splits:
            there = ", ".join(f"{split} ({n})" for split, n in sorted(self.splits.items()))
            raise InputError(f"{self.path} has no split {name!r}; it has {there or 'no samples'}")
        return np.flatnonzero((self.table["split"] == name).to_numpy()).astype(np.int64)

    def read(self, indices: npt.ArrayLike, threads: int = 2) -> Arrays:
        """Samples by number, in the order asked for, as they are stored.

        (sample, [time,] band, y, x) per input, and `label` uint8 (sample, y, x), 255 = ignore.
        """
        given = np.atleast_1d(np.asarray(indices))
        if given.size and given.dtype.kind not in "iu":
            raise InputError(
                f"samples are asked for by {given.dtype} values, expected whole numbers; of a mask "
                "take np.flatnonzero"
            )
        numbers = given.astype(np.int64)
        out = {
            name: np.empty((len(numbers), *rows.shape[1:]), rows.dtype)
            for name, rows in self.rows.items()
        }
        parts = np.array_split(np.arange(len(numbers)), max(1, min(threads, len(numbers))))
        spans = [slice(int(part[0]), int(part[-1]) + 1) for part in parts if len(part)]
        with ThreadPoolExecutor(max(1, threads), thread_name_prefix="lcengine-samples") as pool:
            jobs = [
                pool.submit(self.rows[name].read, numbers[span], values[span])
                for span in spans
                for name, values in out.items()
            ]
            for job in jobs:
                job.result()
        return out

    def balance(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Weights with which every class has the same part in what is drawn, as far as it can.

        A sample weighs the sum over its classes of their pixels in it / their pixels in all of
        `indices`. Samples without any labelled pixel weigh nothing.
        """
        columns = [PIXELS.format(code) for code in self.legend.codes]
        counts = self.table[columns].to_numpy(np.float64)[indices]
        return np.asarray(counts @ (1.0 / np.maximum(counts.sum(axis=0), 1.0)))

    def loader(self, split: str, batch: int, **options: Any) -> Loader:
        """Batches of a split for training; the options are those of `Loader`."""
        from lcengine.samples.loader import Loader  # noqa: PLC0415 (it compiles kernels)

        return Loader(self, split, batch, **options)
