"""A bag of colours of images in memory, used as scikit-learn's estimators are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from lcengine.errors import InputError
from lcengine.features.vocabulary import COLORS, SEGMENTS, WINDOW, Division, Vocabulary
from lcengine.features.windows import Images
from lcengine.inputs import Input, observed
from lcengine.legends import IGNORE, Entry, Legend
from lcengine.models.colors import NAME, RANDOM_FOREST, ColorOptions, ColorPredictor, learned
from lcengine.models.files import ModelRef, load, save
from lcengine.models.predictor import Training
from lcengine.models.segments import Block, collected
from lcengine.models.spec import ModelSpec

IMAGE = "image"
"""Name of the one input, unless told otherwise."""

UINT8 = npt.NDArray[np.uint8]
FLOAT = npt.NDArray[np.float32]


class BagOfColors:
    """Learns from images (n, band, y, x) of whole numbers or floats with NaN.

    Images are cut into windows from their upper-left pixel. `classifier`: kind and options of a
    pixel model, by default a random forest of 1000 trees. `missing`: whole number of pixels that
    are not there; floats are not where they are NaN. `image`: all that is known of the images, in
    place of `missing`, for a model that is to predict products.
    """

    def __init__(
        self,
        n_colors: int = COLORS,
        n_segments: int = SEGMENTS,
        classifier: Mapping[str, Any] = RANDOM_FOREST,
        *,
        window: int = WINDOW,
        missing: int | None = None,
        image: Input | None = None,
        training: Training | None = None,
    ) -> None:
        if window < 1:
            raise InputError(f"window is {window} pixels, expected 1 or more")
        if image is not None and (missing is not None or image.times):
            raise InputError(
                f"image {image.name!r} has periods {list(image.times)}, and missing is {missing}; "
                "expected an image without periods that says itself what is missing"
            )
        self.options = ColorOptions.checked(
            {"colors": n_colors, "segments": n_segments, "classifier": classifier}
        )
        self.window = window
        self.missing = missing
        self.image = image
        self.training = training or Training()
        self._predictor: ColorPredictor | None = None

    def fit(
        self, images: npt.NDArray[Any], labels: UINT8, legend: Legend | None = None
    ) -> BagOfColors:
        """Learn labels (n, y, x): indices of the classes of `legend`, 255 = ignore.

        Without a legend classes have numbers for names. Raises `InputError` for arrays that do not
        go together, or fewer than two classes.
        """
        _check_labels(images, labels, legend)
        names = tuple(f"band{i + 1}" for i in range(images.shape[1]))
        entry = self.image or Input(IMAGE, names, str(images.dtype), self.missing)
        _check_images(entry, images)
        options = self.options.model_copy(update={"bands": entry.bands})
        seed = self.training.seed
        spec = ModelSpec(
            NAME,
            (entry,),
            legend or _numbered(labels),
            patch=self.window,
            options=options.model_dump(mode="json"),
            training={"images": len(images), "seed": seed},
        )
        source = Images((entry,), {entry.name: images}, entry.bands)
        vocabulary = Vocabulary.fit(source, colors=options.colors, rounds=options.rounds, seed=seed)
        division = Division(options.segments, seed=seed)
        blocks = self._blocks(entry, images, labels)
        segments = collected(blocks, vocabulary, division, spec.legend, self.training)
        self._predictor = learned(spec, vocabulary, division, segments, None)
        return self

    def predict_proba(self, images: npt.NDArray[Any]) -> FLOAT:
        """Probabilities (n, class, y, x); 0 where a pixel is not there."""
        found = self.predictor
        _check_images(found.spec.inputs[0], images)
        classes = len(found.spec.legend.classes)
        out = np.empty((len(images), classes, *images.shape[2:]), np.float32)
        for part in self._parts(images):
            block = {found.spec.inputs[0].name: images[part]}
            out[part] = found.predict(block, observed(found.spec.inputs, block))
        return out

    def predict(self, images: npt.NDArray[Any]) -> UINT8:
        """Classes (n, y, x) as `fit` had them, of equally probable ones the first; 255 = none."""
        found = self.predict_proba(images).argmax(axis=1).astype(np.uint8)
        entry = self.predictor.spec.inputs[0]
        found[~observed((entry,), {entry.name: images})] = IGNORE
        return np.asarray(found)

    @property
    def predictor(self) -> ColorPredictor:
        """What was learned; `InputError` before."""
        if self._predictor is None:
            raise InputError("the bag of colours has learned nothing yet; fit it, or load one")
        return self._predictor

    def save(self, folder: str | os.PathLike[str]) -> ModelRef:
        """Write it as a model, see `lcengine.models.save`."""
        return save(self.predictor, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> BagOfColors:
        """Inverse of `save`; `InputError` for other models."""
        found = load(folder)
        spec = found.spec
        several = len(spec.inputs) != 1 or bool(spec.inputs[0].times)
        if not isinstance(found, ColorPredictor) or several:
            raise InputError(
                f"{folder} is a model of kind {spec.kind} of inputs "
                f"{', '.join(entry.name for entry in spec.inputs)}, expected {NAME} of one image "
                "without periods; lcengine.models.load reads it"
            )
        out = cls(window=spec.patch, image=spec.inputs[0])
        out.options = ColorOptions.checked(spec.options)
        out._predictor = found
        return out

    def _parts(self, images: npt.NDArray[Any]) -> Iterator[tuple[slice, ...]]:
        """Windows, each of one image."""
        height, width = images.shape[-2:]
        for i in range(len(images)):
            for y in range(0, height, self.window):
                for x in range(0, width, self.window):
                    down, across = slice(y, y + self.window), slice(x, x + self.window)
                    yield slice(i, i + 1), slice(None), down, across

    def _blocks(self, entry: Input, images: npt.NDArray[Any], labels: UINT8) -> Iterator[Block]:
        for number, part in enumerate(self._parts(images)):
            arrays = {entry.name: images[part]}
            marks = labels[part[0], part[2], part[3]]
            yield Block(np.array([number]), arrays, observed((entry,), arrays), marks)


def _check_labels(images: npt.NDArray[Any], labels: UINT8, legend: Legend | None) -> None:
    shapes = getattr(images, "shape", None), getattr(labels, "shape", None)
    if len(shapes[0] or ()) != 4 or shapes[1] != (len(images), *images.shape[2:]):
        raise InputError(
            f"images have shape {shapes[0]} and labels {shapes[1]}, expected arrays "
            "(n, band, y, x) and (n, y, x)"
        )
    most = IGNORE if legend is None else len(legend.classes)
    known = labels.dtype == np.uint8 and bool(((labels < most) | (labels == IGNORE)).all())
    if not known:
        raise InputError(
            f"labels are {labels.dtype} from {labels.min(initial=0)} to {labels.max(initial=0)}, "
            f"expected uint8 below {most}, and {IGNORE} where there is none"
        )


def _check_images(entry: Input, images: npt.NDArray[Any]) -> None:
    """`InputError` where they are not what the model was made for."""
    if images.ndim != 4 or images.shape[1] != len(entry.bands) or str(images.dtype) != entry.dtype:
        raise InputError(
            f"images are {images.dtype} {images.shape}, expected {entry.dtype} "
            f"(n, {len(entry.bands)}, y, x) of bands {', '.join(entry.bands)}"
        )
    if images.dtype.kind not in "iuf" or not images.dtype.isnative:
        raise InputError(f"images are {images.dtype}, expected native whole numbers or floats")
    if images.dtype.kind == "f" and entry.fill is not None:
        raise InputError(f"images are {images.dtype} missing {entry.fill}, expected NaN there")


def _numbered(labels: UINT8) -> Legend:
    """Classes 0 … of labels, codes from 1."""
    there = labels[labels != IGNORE]
    count = int(there.max()) + 1 if there.size else 0
    entries = tuple(Entry(i + 1, f"class {i}", "#808080") for i in range(count))
    return Legend("numbered", "Classes by number", entries, "labels of images")
