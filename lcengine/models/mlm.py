"""A model as a STAC Item: what catalogues and other programs read of it.

STAC 1.1 with the Machine Learning Model extension (MLM 1.4, https://github.com/stac-extensions/mlm)
and the File extension. The item says the same of the same model, whenever it is written.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lcengine.inputs import Input
from lcengine.legends import Legend
from lcengine.models.predictor import State
from lcengine.models.spec import ModelSpec

if TYPE_CHECKING:
    from pystac import Item
    from pystac.extensions.mlm import ModelInput, ModelOutput

SCIKIT, XGBOOST, TORCH = "scikit-learn", "XGBoost", "PyTorch"
PIXEL: Final = "each pixel by itself"
WHOLE: Final = "its whole patch"
ARCHITECTURES: Final = {
    "forest": ("Random Forest", SCIKIT, PIXEL),
    "boosting": ("Histogram Gradient Boosting", SCIKIT, PIXEL),
    "xgboost": ("XGBoost", XGBOOST, PIXEL),
    "logistic": ("Logistic Regression", SCIKIT, PIXEL),
    "mlp": ("Multilayer Perceptron", SCIKIT, PIXEL),
    "bag-of-colors": ("Bag of Colors", SCIKIT, "segments of a window"),
    "unet": ("U-Net", TORCH, "107 pixels around, at depth 4"),
    "encoder-unet": ("U-Net with an encoder", TORCH, "as far as its encoder, hundreds of pixels"),
    "deeplabv3": ("DeepLabV3", TORCH, WHOLE),
    "deeplabv3plus": ("DeepLabV3+", TORCH, WHOLE),
    "deeplab-head": ("DeepLabV3 head", TORCH, f"{WHOLE}; 37 pixels around without pooling"),
    "patch-cnn": ("Patch CNN", TORCH, "2 pixels around"),
}
"""What kinds of models are called in the literature, what trains them, and what a pixel's class
depends on with default options."""

PACKAGES: Final = {
    SCIKIT: ("scikit-learn",),
    XGBOOST: ("xgboost", "xgboost-cpu"),
    TORCH: ("torch",),
}
"""What frameworks are installed as: their versions are in `ModelSpec.training`."""

NETWORK, MEAN, GAIN = "network.", "normalisation.mean", "normalisation.gain"
"""Arrays of networks: weights, and what is taken from a channel before it is multiplied."""

FIRST, LAST = "1900-01-01T00:00:00Z", "9999-12-31T23:59:59Z"
"""Of a model whose training period nobody knows, as the best practices of MLM say."""

MODEL_ROLE: Final = "mlm:model"

_VERSION = re.compile(r"\d+\.\d+\.\d+(\+[0-9A-Za-z.-]+)?")
_SHA256 = "1220"
"""A SHA-256 of 32 bytes as a multihash, which the File extension has."""


def item(
    spec: ModelSpec, arrays: State, contents: Mapping[str, bytes], own: Mapping[str, Any]
) -> dict[str, Any]:
    """The item of a model as JSON values.

    `contents`: its files by name, the weights first, which `arrays` are. `own`: properties of this
    package, added as they are.
    """
    import pystac  # noqa: PLC0415 (for saving alone)
    from pystac.extensions.mlm import (  # noqa: PLC0415
        Hyperparameters,
        MLMExtension,
        TaskType,
    )

    weights = next(iter(contents))
    first, last = period(spec)
    geometry, box = area(spec)
    made = pystac.Item(
        id=f"{spec.kind}-{hashlib.sha256(contents[weights]).hexdigest()[:16]}",
        geometry=geometry,
        bbox=box,
        datetime=None,
        properties={"start_datetime": first, "end_datetime": last, "bands": _bands(spec)},
    )
    title, framework, _ = described(spec.kind)
    encoder = spec.options.get("encoder")
    start = spec.options.get("weights")
    told = hyperparameters(spec)
    MLMExtension.ext(made, add_if_missing=True).apply(
        name=_named(spec),
        architecture=f"{title}: {encoder}" if encoder else title,
        tasks=[TaskType.SEMANTIC_SEGMENTATION],
        input=_inputs(spec, arrays),
        output=[_output(spec)],
        framework=framework,
        framework_version=_version(spec, framework),
        memory_size=sum(values.nbytes for values in arrays.values()),
        total_parameters=parameters({name: v.shape for name, v in arrays.items()}),
        pretrained=start is not None,
        pretrained_source=None if start is None else str(start),
        hyperparameters=Hyperparameters.create(**told) if told else None,
    )
    made.properties.update(own)
    for name, content in contents.items():
        _asset(made, name, content, MODEL_ROLE if name == weights else "data")
    # MLM wants the bands in the item, where STAC allows them only beside those of an asset.
    names = [{"name": band["name"]} for band in made.properties["bands"]]
    made.assets[weights].extra_fields["bands"] = names
    return made.to_dict(include_self_link=False)


def described(kind: str) -> tuple[str, str | None, str | None]:
    """What models of a kind are called, what trains them, and what they see."""
    return ARCHITECTURES.get(kind, (kind, None, None))


def period(spec: ModelSpec) -> tuple[str, str]:
    """First and last moment of the imagery that a model learned from, as far as is known."""
    known = (spec.training.get("place") or {}).get("interval")
    if known is None:
        return FIRST, LAST
    start, stop = map(str, known)
    return start, stop


def area(spec: ModelSpec) -> tuple[dict[str, Any] | None, list[float] | None]:
    """GeoJSON geometry and bounding box of the training patches; None without a place."""
    bounds = (spec.training.get("place") or {}).get("bounds")
    if bounds is None:
        return None, None
    west, south, east, north = map(float, bounds)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}, [west, south, east, north]


def hyperparameters(spec: ModelSpec) -> dict[str, Any]:
    """How it was trained: options of its kind, then of the objective and of the schedule."""
    said = ("class_weight", "seed", "objective", "schedule")
    out = {name: spec.training[name] for name in said if spec.training.get(name) is not None}
    return {re.sub(r"[^0-9A-Za-z_.-]", "_", key): v for key, v in {**spec.options, **out}.items()}


def _named(spec: ModelSpec) -> str:
    """Letters, digits, points, dashes and spaces: MLM allows no others."""
    words = re.sub(r"[^A-Za-z0-9_.-]+", " ", f"lcengine {spec.kind} {spec.legend.name}")
    return words.strip(" _.-")


def _version(spec: ModelSpec, framework: str | None) -> str | None:
    """Of the framework when it was trained, if MLM can say it: three numbers."""
    known = spec.training.get("libraries") or {}
    found = [str(known[name]) for name in PACKAGES.get(framework or "", ()) if name in known]
    return found[0] if found and _VERSION.fullmatch(found[0]) else None


def parameters(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Numbers that a network has learned, from its arrays' shapes; None of other models."""
    counted = [
        math.prod(shape)
        for name, shape in shapes.items()
        if name.startswith(NETWORK) and not name.endswith("num_batches_tracked")
    ]
    return sum(counted) or None


def _band_names(inputs: tuple[Input, ...]) -> list[list[str]]:
    """Of each input; qualified by the input where several have a band of that name."""
    seen = Counter(band for entry in inputs for band in entry.bands)
    return [
        [band if seen[band] == 1 else f"{entry.name}_{band}" for band in entry.bands]
        for entry in inputs
    ]


def _bands(spec: ModelSpec) -> list[dict[str, Any]]:
    """Bands of all inputs, as STAC 1.1 has them."""
    out: list[dict[str, Any]] = []
    for entry, names in zip(spec.inputs, _band_names(spec.inputs), strict=True):
        facts: dict[str, Any] = {"data_type": entry.dtype}
        if entry.fill is not None or entry.dtype.startswith("float"):
            facts["nodata"] = "nan" if entry.fill is None else entry.fill
        if entry.units is not None:
            facts["unit"] = entry.units
        for name, band in zip(names, entry.bands, strict=True):
            out.append({"name": name, "description": f"{band} of {entry.name}", **facts})
    return out


def _inputs(spec: ModelSpec, arrays: State) -> list[ModelInput]:
    """Each input; networks take normalised numbers, others the stored ones."""
    from pystac.extensions.mlm import (  # noqa: PLC0415 (for saving alone)
        InputStructure,
        ModelInput,
        ProcessingExpression,
    )
    from pystac.extensions.raster import DataType  # noqa: PLC0415

    edge = spec.patch if spec.patch > 1 else -1
    features = spec.options.get("features")
    scalings = _scalings(spec, arrays)
    out = []
    for entry, names in zip(spec.inputs, _band_names(spec.inputs), strict=True):
        channels = [next(scalings, None) for _ in range(math.prod(entry.lead))]
        scaled = all(channel is not None for channel in channels)
        times = ["time"] if entry.times else []
        made = ModelInput.create(
            name=entry.name,
            bands=names,
            input=InputStructure.create(
                shape=[-1, *entry.lead, edge, edge],
                dim_order=["batch", *times, "channel", "height", "width"],
                data_type=DataType.FLOAT32 if scaled else DataType(entry.dtype),
            ),
            description=_said(entry),
            pre_processing_function=ProcessingExpression.create("lcengine-features", list(features))
            if features
            else None,
        )
        if scaled:  # one for each channel, which the library's setter has no way to say
            made.properties["value_scaling"] = channels
        out.append(made)
    return out


def _said(entry: Input) -> str:
    """What a stored number is, and the periods, of which missing pixels are 0 after scaling."""
    scale = "" if entry.scale is None else f", scale {entry.scale:g}"
    times = f"; periods {', '.join(entry.times)}" if entry.times else ""
    sensor = f"{entry.sensor}: " if entry.sensor else ""
    return f"{sensor}{entry.dtype} as stored{scale}, missing {entry.fill}{times}"


def _scalings(spec: ModelSpec, arrays: State) -> Iterator[dict[str, Any]]:
    """Of each channel of a network, in the order of inputs, times and bands."""
    from pystac.extensions.mlm import ValueScaling, ValueScalingType  # noqa: PLC0415 (see above)

    if MEAN not in arrays or GAIN not in arrays:
        return
    means, gains = (np.ravel(arrays[name]).astype(np.float64) for name in (MEAN, GAIN))
    for mean, gain in zip(means.tolist(), gains.tolist(), strict=True):
        if gain > 0:
            kind = ValueScalingType.Z_SCORE
            yield ValueScaling.create(kind, mean=mean, stddev=1 / gain).to_dict()
        else:  # a constant channel
            yield ValueScaling.create(ValueScalingType.OFFSET, value=mean).to_dict()


def _output(spec: ModelSpec) -> ModelOutput:
    """Probabilities of the legend's classes."""
    from pystac.extensions.mlm import (  # noqa: PLC0415 (for saving alone)
        ModelOutput,
        ResultStructure,
        TaskType,
    )
    from pystac.extensions.raster import DataType  # noqa: PLC0415

    edge = spec.patch if spec.patch > 1 else -1
    return ModelOutput.create(
        name="probabilities",
        tasks=[TaskType.SEMANTIC_SEGMENTATION],
        result=ResultStructure.create(
            shape=[-1, len(spec.legend.classes), edge, edge],
            dim_order=["batch", "class", "height", "width"],
            data_type=DataType.FLOAT32,
        ),
        description="Probabilities of the classes, in their order; the class is the first greatest",
        classes=_classes(spec.legend),
    )


def _classes(legend: Legend) -> list[Any]:
    from pystac.extensions.classification import Classification  # noqa: PLC0415 (see above)

    return [
        Classification.create(
            value=entry.code,
            name=re.sub(r"[^0-9A-Za-z_-]+", "_", entry.name).strip("_") or f"class_{entry.code}",
            title=entry.name,
            description=entry.name,
            color_hint=entry.colour[1:].upper(),
        )
        for entry in legend.classes
    ]


def _asset(made: Item, name: str, content: bytes, role: str) -> None:
    """A file of the folder, with its checksum."""
    from pystac import Asset  # noqa: PLC0415 (for saving alone)
    from pystac.extensions.file import FileExtension  # noqa: PLC0415
    from pystac.extensions.mlm import AssetGeneralMLMExtension  # noqa: PLC0415

    asset = Asset(href=f"./{name}", media_type="application/octet-stream", roles=[role])
    made.add_asset(name, asset)
    checksum = _SHA256 + hashlib.sha256(content).hexdigest()
    FileExtension.ext(asset, add_if_missing=True).apply(checksum=checksum, size=len(content))
    if role == MODEL_ROLE:
        AssetGeneralMLMExtension.ext(asset).apply(artifact_type="safetensors")
