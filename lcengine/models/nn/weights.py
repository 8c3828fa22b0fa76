"""First weights of a network: of ImageNet, of another library's file, or of a model's folder."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from lcengine.errors import InputError
from lcengine.inputs import Input
from lcengine.legends import Legend
from lcengine.models import files
from lcengine.models.nn.architecture import Architecture, NetworkOptions, channels
from lcengine.models.nn.predictor import NetworkPredictor
from lcengine.models.spec import ModelSpec

IMAGENET: Final = "imagenet"
PREFIXES: Final = ("", "encoder.", "encoder.model.")
"""Where a network may have what a file has: as it is, in its encoder, in an encoder of timm."""
HEADS: Final = frozenset(
    {
        "AuxLogits",
        "_fc",
        "aux1",
        "aux2",
        "aux_classifier",
        "bn2",
        "classifier",
        "conv_head",
        "fc",
        "head",
        "last_linear",
    }
)
"""What classifiers of images have beside the encoder, by the first part of the name."""
NESTED: Final = ("state_dict", "model_state_dict", "model")
"""Where training scripts keep the weights in what they save."""
SHOWN: Final = 3
"""Names in a message."""

_COUNTER = "num_batches_tracked"
"""Of batch normalisation; older files have none, and nothing depends on it."""
_FLAT = re.compile(r"^(stem|stages)\.(\d+)\.")
"""Parts that timm calls `stages_0` where only features are asked for."""


class Channel(NamedTuple):
    """What a channel shows."""

    input: str
    time: str
    band: str


@dataclass(frozen=True)
class Source:
    """Weights by name, the channels that they were learned on, and the classes, if known."""

    name: str
    tensors: Mapping[str, Tensor]
    channels: tuple[Channel, ...]
    legend: Legend | None = None


RGB: Final = tuple(Channel("", "", band) for band in ("red", "green", "blue"))
"""What pretrained encoders have seen."""


def start(
    module: nn.Module,
    architecture: Architecture,
    options: NetworkOptions,
    spec: ModelSpec,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Put the weights that `options.weights` names into a new network; without, leave it.

    All that the source has is taken, or `InputError` lists what does not fit. Left as they were:
    what a source of encoders has not; and the classes, unless they have the same names, or, where
    the source knows none, are as many. Layers that read the bands are `adapted`. `say` hears it.
    """
    if options.weights is None:
        return
    source = _imagenet(options) if options.weights == IMAGENET else _from_path(options.weights)
    own = module.state_dict()
    seen, classes = channels(spec.inputs), len(spec.legend.classes)
    readers = _differing(own, architecture, options, seen + 1, classes)
    heads = _differing(own, architecture, options, seen, classes + 1)
    prefix, given = _placed(source.tensors, own)
    there = channel_names(spec.inputs)
    taken: dict[str, Tensor] = {}
    wrong = [name for name in given if name not in own and not _dropped(name, prefix)]
    for name, tensor in own.items():
        found = given.get(name)
        if name in heads and not _same_classes(source, spec, found, tensor):
            continue
        if found is None:
            if name.startswith(prefix) and not name.endswith(_COUNTER):
                wrong.append(name)
            continue
        if name in readers and found.ndim == 4 and found.shape[1] == len(source.channels):
            found = adapted(found, source.channels, there)
        if found.shape == tensor.shape and bool(torch.isfinite(found).all()):
            taken[name] = found.to(tensor.dtype)
        else:
            wrong.append(f"{name} {tuple(given[name].shape)} for {tuple(tensor.shape)}")
    if wrong or not taken:
        listed = ", ".join(sorted(wrong)[:SHOWN]) + (
            f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        )
        raise InputError(
            f"{source.name} does not fit kind {spec.kind!r}: {listed}; give weights of the "
            "same network or encoder"
        )
    module.load_state_dict({**own, **taken})
    say(_told(source, taken, own, there))


def channel_names(inputs: Sequence[Input]) -> tuple[Channel, ...]:
    """What a network sees, in order."""
    return tuple(
        Channel(entry.name, time, band)
        for entry in inputs
        for time in entry.times or ("",)
        for band in entry.bands
    )


def adapted(weight: Tensor, before: Sequence[Channel], after: Sequence[Channel]) -> Tensor:
    """Weights (out, channel, y, x) that read some channels, for others.

    A channel takes those of the same channel, else the mean of those of its band (at any time, of
    any input), else the mean of all; all are scaled by the number of channels before over that
    after, so that sums keep their size. The same channels in another order are put in order.
    """
    bands = [channel.band for channel in before]
    columns = []
    for channel in after:
        same = [i for i, old in enumerate(before) if old == channel]
        alike = [i for i, band in enumerate(bands) if band == channel.band]
        columns.append(weight[:, same or alike or list(range(len(before)))].mean(dim=1))
    return torch.stack(columns, dim=1) * (len(before) / len(after))


# ------------------------------------------------------------------------------ where they are from


def _imagenet(options: NetworkOptions) -> Source:
    """The encoder's weights, as segmentation-models-pytorch loads them."""
    encoder = getattr(options, "encoder", None)
    if encoder is None:
        raise InputError(
            "weights 'imagenet' are those of an encoder, and this network has none; use a kind "
            "with one such as encoder-unet, or leave weights out"
        )
    from segmentation_models_pytorch.encoders import get_encoder  # noqa: PLC0415 (for them alone)

    weights: Any = True if encoder.startswith("tu-") else IMAGENET
    try:
        found = get_encoder(encoder, depth=getattr(options, "depth", 5), weights=weights)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(
            f"ImageNet weights of encoder {encoder!r} cannot be had "
            f"({type(error).__name__}: {str(error)[:200]}); load them once where there is a "
            "network, give weights = a file of them, or leave weights out"
        ) from error
    tensors = {f"encoder.{name}": tensor for name, tensor in found.state_dict().items()}
    return Source(f"ImageNet's {encoder}", tensors, RGB)


def _from_path(text: str) -> Source:
    path = Path(text)
    if path.is_dir():
        model = files.load(path)
        if not isinstance(model, NetworkPredictor):
            raise InputError(f"{path} is a model of kind {model.spec.kind!r}, expected a network")
        spec = model.spec
        return Source(text, model.module.state_dict(), channel_names(spec.inputs), spec.legend)
    try:
        return Source(text, _tensors(path), RGB)
    except FileNotFoundError as error:
        raise InputError(
            f"weights {text!r} are not there; expected 'imagenet', a model's folder, or a state "
            "dict as .safetensors or .pth"
        ) from error
    except (
        OSError,
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
        safetensors.SafetensorError,
    ) as error:
        raise InputError(
            f"weights {text!r} cannot be read ({type(error).__name__}); expected a state dict: "
            "tensors by name, nothing else, as .safetensors or .pth"
        ) from error


def _tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a file by name; what it may nest or prefix them with is taken off."""
    if path.suffix == ".safetensors":
        found: Any = safetensors.torch.load_file(path)
    else:
        found = torch.load(path, map_location="cpu", weights_only=True)
    for name in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise InputError(f"{path} holds no state dict; expected tensors by name")
    for prefix in ("module.", "backbone."):
        if any(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return dict(found)


# --------------------------------------------------------------------------------------- what fits


def _differing(
    own: Mapping[str, Tensor],
    architecture: Architecture,
    options: NetworkOptions,
    seen: int,
    classes: int,
) -> set[str]:
    """Names of what has another shape with so many channels or classes."""
    with torch.random.fork_rng(devices=[]):
        other = architecture.build(options, seen, classes).state_dict()
    return {name for name, tensor in own.items() if other[name].shape != tensor.shape}


def _placed(tensors: Mapping[str, Tensor], own: Iterable[str]) -> tuple[str, dict[str, Tensor]]:
    """The prefix under which most are the network's own, and the tensors by its names."""
    names = set(own)
    tried = [
        (prefix, {prefix + renamed(name): tensor for name, tensor in tensors.items()})
        for prefix in PREFIXES
        for renamed in (str, lambda name: _FLAT.sub(r"\1_\2.", name))
    ]
    prefix, found = max(tried, key=lambda each: len(names & each[1].keys()))
    encoder = prefix == "" and not any(n in names and not n.startswith("encoder.") for n in found)
    return ("encoder." if encoder else prefix), found


def _dropped(name: str, prefix: str) -> bool:
    """Whether it is what classifies whole images."""
    return name.removeprefix(prefix).partition(".")[0] in HEADS


def _same_classes(source: Source, spec: ModelSpec, found: Tensor | None, own: Tensor) -> bool:
    if found is None or found.shape != own.shape:
        return False
    return source.legend is None or source.legend.names == spec.legend.names


def _told(
    source: Source, taken: Mapping[str, Tensor], own: Mapping[str, Tensor], after: Sequence[Channel]
) -> str:
    """What was taken, for who trains."""
    fresh = sorted({name.partition(".")[0] for name in own.keys() - taken.keys()})
    known = {channel.band for channel in source.channels}
    mixed = sorted({channel.band for channel in after} - known)
    return (
        f"{source.name}: {len(taken)} of {len(own)} arrays taken"
        + (f", bands {', '.join(mixed)} as the mean of its bands" if mixed else "")
        + (f"; at random: {', '.join(fresh)}" if fresh else "")
    )
