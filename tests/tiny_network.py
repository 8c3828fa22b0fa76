"""The smallest network that has all that training must keep: batch statistics, and dropout."""

from __future__ import annotations

import hashlib

from pixel_samples import store

from lcengine.models import Training
from lcengine.models.nn.architecture import Architecture, NetworkOptions
from lcengine.train.options import Schedule, SupervisedOptions


class TinyOptions(NetworkOptions):
    """Options of the network."""

    norm: bool = True
    dropout: float = 0.2


def build(options, channels, classes):
    from torch import nn

    body = nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.BatchNorm2d(8) if options.norm else nn.Identity(),
        nn.ReLU(),
        nn.Dropout(options.dropout),
    )
    return nn.Sequential(body, nn.Conv2d(8, classes, 1))


ARCHITECTURE = Architecture(
    TinyOptions,
    build,
    margin=lambda _: 1,
    output_stride=lambda _: 1,
    placed=lambda _: False,
    head="1.",
)


def fit(samples, *, options=None, said=None, objective=None, **schedule):
    """A trained predictor; `said`: other fields of `Training`."""
    from lcengine.models.nn.fit import fit

    schedule = {"epochs": 3, "batch": 4, "learning_rate": {"rest": 0.02}, **schedule}
    training = Training(
        **{"seed": 3, "threads": 1, **(said or {})},
        objective=SupervisedOptions(**(objective or {})),
        schedule=Schedule(**schedule),
    )
    return fit(samples, options or TinyOptions(), training, "unet", ARCHITECTURE)


def digest(predictor):
    """SHA-256 of all weights and buffers."""
    out = hashlib.sha256()
    for name, values in sorted(predictor.state()[0].items()):
        out.update(name.encode() + values.tobytes())
    return out.hexdigest()


__all__ = ["TinyOptions", "digest", "fit", "store"]
