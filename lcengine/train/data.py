"""From the loader's arrays to tensors on the device."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from lightning_fabric import Fabric

from lcengine.inputs import Arrays
from lcengine.legends import IGNORE
from lcengine.samples.loader import INDEX, Loader
from lcengine.samples.source import LABEL
from lcengine.train.objective import Batch


@dataclass(frozen=True)
class Batches:
    """Batches of a loader; where several processes train, each has its share of every batch.

    Patches are reflected at the bottom and right up to a multiple of `step`, with labels 255 there.
    """

    loader: Loader
    step: int = 1

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.loader)

    def epoch(self, fabric: Fabric, number: int, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from number `start` on, on the device."""
        loader = self.loader
        if fabric.world_size > 1:
            loader = replace(loader, share=(fabric.global_rank, fabric.world_size))
        layers = {entry.name: math.prod(entry.lead) for entry in loader.samples.inputs}
        for arrays in loader.epoch(number, start):
            batch = _tensors(arrays, layers, self.step)
            if fabric.device.type == "cuda":
                batch = {name: values.pin_memory() for name, values in batch.items()}
            found: Batch = fabric.to_device(batch)
            image = found["image"].contiguous(memory_format=torch.channels_last)
            yield {**found, "image": image}


def _tensors(arrays: Arrays, layers: Mapping[str, int], step: int) -> dict[str, torch.Tensor]:
    """All inputs, times and bands as channels of one image."""
    label = arrays[LABEL]
    shape = label.shape[-2:]
    # Of another process's share alone, no patch may be left.
    parts = [arrays[name].reshape(len(label), count, *shape) for name, count in layers.items()]
    image = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    if any(size % step for size in shape):
        around = [(0, -size % step) for size in shape]
        image = np.pad(image, [(0, 0), (0, 0), *around], mode="reflect")
        label = np.pad(label, [(0, 0), *around], constant_values=IGNORE)
    return {
        "image": torch.from_numpy(image),
        "label": torch.from_numpy(label).to(torch.int64),
        "index": torch.from_numpy(arrays[INDEX]),
    }
