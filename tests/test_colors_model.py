"""The bag of colours beside a plain one of scikit-learn, and as a predictor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from predictor_contract import PredictorContract
from sample_stores import write_samples
from sklearn.cluster import KMeans
from sklearn.ensemble import RandomForestClassifier

from lcengine import models
from lcengine.errors import InputError
from lcengine.features import Division, Vocabulary
from lcengine.features.windows import Images
from lcengine.inputs import Input, observed
from lcengine.kernels.division import start
from lcengine.models import Training
from lcengine.models.bag import IMAGE, BagOfColors
from lcengine.models.segments import majorities
from lcengine.samples import sampleset

BANDS = ("red", "green", "blue", "nir")
S2 = Input("s2", (*BANDS, "swir16"), "int16", -32768)
EDGE = 48
FOREST = {"kind": "forest", "trees": 20}


def scene(count, edge, seed=0, bands=4, missing=0.03):
    """Images of three covers in stripes, with noise, and labels of most pixels."""
    rng = np.random.default_rng(seed)
    spectra = rng.integers(300, 4000, (3, bands))
    truth = (np.add.outer(np.arange(edge), 2 * np.arange(edge)) // 17 % 3).astype(np.uint8)
    truth = np.stack([np.roll(truth, 5 * i, axis=1) for i in range(count)])
    values = spectra[truth] + rng.normal(0, 200, (*truth.shape, bands))
    images = np.ascontiguousarray(np.moveaxis(np.rint(values), 3, 1)).astype(np.int16)
    images[(rng.random(truth.shape) < missing)[:, None].repeat(bands, 1)] = -32768
    labels = np.where(rng.random(truth.shape) < 0.3, 255, truth).astype(np.uint8)
    return images, labels, truth


def plain(images, labels, vocabulary, segments, trees, seed):
    """HR-MARS's steps with scikit-learn alone: the map of the images that it learned from."""
    gains = vocabulary.gains
    x, y, places = [], [], []
    for image, label in zip(images, labels, strict=True):
        valid = (image != -32768).all(axis=0)
        pixels = image[:, valid].T.astype(np.float64)
        flat, there = image.reshape(len(image), -1), valid.ravel()
        first = start(np.ascontiguousarray(flat), there, gains, segments, seed)
        divided = KMeans(len(first), init=first * gains, n_init=1, max_iter=20, tol=0)
        found = divided.fit(pixels * gains).labels_
        words = np.square((pixels[:, None] - vocabulary.colors) * gains).sum(axis=2).argmin(axis=1)
        for segment in range(len(first)):
            inside = found == segment
            counts = np.bincount(words[inside], minlength=len(vocabulary.colors))
            votes = np.bincount(label[valid][inside], minlength=256)[:3]
            x.append((counts / counts.sum()).astype(np.float32))
            y.append(votes.argmax() if votes.any() else 255)
        places.append((valid, found))
    x, y = np.array(x), np.array(y)
    kept = y < 255
    forest = RandomForestClassifier(trees, random_state=seed).fit(x[kept], y[kept])
    answers = forest.predict_proba(x).astype(np.float32)
    out = np.zeros((len(images), 3, *images.shape[2:]), np.float32)
    base = 0
    for i, (valid, found) in enumerate(places):
        out[i][:, valid] = answers[base + found].T
        base += segments
    return out


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_equals_a_plain_one_of_scikit_learn():
    images, labels, truth = scene(12, EDGE)
    bag = BagOfColors(24, 8, FOREST, window=EDGE, missing=-32768, training=Training(seed=3))
    bag.fit(images, labels)
    proba = bag.predict_proba(images)
    expected = plain(images, labels, bag.predictor.vocabulary, 8, 20, 3)
    assert np.array_equal(proba, expected)
    found = bag.predict(images)
    there = found < 255
    assert np.array_equal(there, (images != -32768).all(axis=1))
    assert (found == truth)[there].mean() > 0.9


def test_images_are_cut_into_windows_from_their_corner():
    images, labels, _ = scene(2, 80)
    bag = BagOfColors(16, 5, FOREST, window=32, missing=-32768).fit(images, labels)
    whole = bag.predict_proba(images)
    for y in range(0, 80, 32):
        for x in range(0, 80, 32):
            part = (..., slice(y, y + 32), slice(x, x + 32))
            alone = bag.predict_proba(images[part][1:])
            assert np.array_equal(alone, whole[part][1:])


def test_kept_and_read_again(tmp_path):
    images, labels, _ = scene(4, EDGE)
    bag = BagOfColors(16, 5, FOREST, window=EDGE, missing=-32768).fit(images, labels)
    ref = bag.save(tmp_path / "model")
    again = BagOfColors.load(tmp_path / "model")
    assert np.array_equal(again.predict_proba(images), bag.predict_proba(images))
    assert ref.load().spec == bag.predictor.spec


def test_images_and_labels_that_do_not_fit():
    """The kernels would read beyond what is there."""
    images, labels, _ = scene(2, 24)
    bag = BagOfColors(8, 3, FOREST, window=24, missing=-32768)
    with pytest.raises(InputError, match="learned nothing yet"):
        bag.predict(images)
    bag.fit(images, labels)
    for wrong, said in [
        (np.concatenate([images] * 3, axis=1), r"int16 \(2, 12, 24, 24\), expected int16 \(n, 4"),
        (images[:, :3], "of bands band1, band2, band3, band4"),
        (images.astype(np.float32) / 1e4, "images are float32"),
        (images[0], r"int16 \(4, 24, 24\)"),
    ]:
        with pytest.raises(InputError, match=said):
            bag.predict(wrong)
    for pixels, marks, said in [
        (images, labels.astype(int) - 1, "labels are int64 from -1 to 254, expected uint8"),
        (images, labels[:, :5], r"labels \(2, 5, 24\)"),
        (images > 0, labels, "images are bool"),
        (images.astype(np.float32), labels, "missing -32768, expected NaN"),
    ]:
        with pytest.raises(InputError, match=said):
            bag.fit(pixels, marks)
    legend = bag.predictor.spec.legend
    with pytest.raises(InputError, match="expected uint8 below 3, and 255"):
        bag.fit(images, np.where(labels == 1, 7, labels).astype(np.uint8), legend)
    entry = Input("s2", BANDS, "int16", -32768, scale=1e-4)
    with pytest.raises(InputError, match="says itself what is missing"):
        BagOfColors(image=entry, missing=0)
    for options, said in [
        ({"n_colors": 1}, "cannot have colors: Input should be greater"),
        ({"classifier": RandomForestClassifier()}, "cannot have classifier: Input should be"),
        ({"window": 0}, "window is 0"),
    ]:
        with pytest.raises(InputError, match=said):
            BagOfColors(**options)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("vocabulary.colors", lambda a: a[:, :3].copy()),
        ("vocabulary.colors", lambda a: a.astype(np.float32)),
        ("vocabulary.colors", lambda a: a[:7].copy()),
        ("vocabulary.gains", lambda a: a[:2].copy()),
        ("vocabulary.steps", lambda a: a * np.nan),
        ("segments.classes", lambda a: a + 99),
        ("segments.classes", lambda a: a[:-1].copy()),
    ],
)
def test_arrays_of_other_shapes_are_refused(name, change, fitted):
    _, found, _ = fitted
    arrays, files = found.state()
    kind = models.kind("bag-of-colors")
    assert kind.restore(found.spec, arrays, files).present == found.present
    with pytest.raises(InputError, match=r"copy the model again|was trained on"):
        kind.restore(found.spec, {**arrays, name: change(arrays[name])}, files)
    for spec in (replace(found.spec, training={}), replace(found.spec, options={"colors": "a"})):
        with pytest.raises(InputError, match=r"seed None|cannot have colors"):
            kind.restore(spec, arrays, files)


def store(path, count=16, patch=EDGE, bands=5):
    images, labels, truth = scene(count, patch, bands=bands)
    write_samples(path, {"s2": images, "label": labels}, (S2,))
    return sampleset.open(path), truth


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    samples, _ = store(tmp_path_factory.mktemp("colors") / "samples.zarr")
    kind = models.kind("bag-of-colors")
    options = kind.options.model_validate({"colors": 16, "segments": 6, "classifier": FOREST})
    return samples, kind.fit(samples, options, Training(seed=1)), options


def test_fits_samples_whatever_the_threads_and_memory_of_a_read(fitted, monkeypatch):
    samples, predictor, options = fitted
    assert predictor.spec.patch == EDGE
    assert predictor.vocabulary.channels == tuple(f"s2.{band}" for band in BANDS)
    monkeypatch.setattr("lcengine.models.colors._BYTES", 1)
    monkeypatch.setattr("lcengine.features.clusters.PER_TASK", 3)
    again = models.kind("bag-of-colors").fit(samples, options, Training(seed=1, threads=1))
    for name, values in predictor.state()[0].items():
        assert np.array_equal(values, again.state()[0][name]), name


class TestBagOfColors(PredictorContract):
    """Of validation patches, the last of them without any pixel."""

    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, fitted):
        samples, predictor, _ = fitted
        arrays = samples.read(samples.split("val"))
        inputs = {"s2": arrays["s2"]}
        inputs["s2"][-1] = -32768
        valid = observed(samples.inputs, inputs)
        return predictor, inputs, valid, np.where(valid, arrays["label"], 255)

    def test_classes_without_training_segments_have_none_of_it(self, case, found):
        assert (found[:, 3] == 0).all()


@pytest.mark.parametrize("kind", ["logistic", "mlp", "xgboost"])
def test_other_classifiers(fitted, kind):
    if kind == "xgboost":
        pytest.importorskip("xgboost")
    samples, _, _ = fitted
    known = models.kind("bag-of-colors")
    options = known.options.model_validate(
        {"colors": 16, "segments": 6, "classifier": {"kind": kind}}
    )
    found = known.fit(samples, options, Training(seed=1))
    arrays = samples.read(samples.split("val"))
    proba = found.predict(arrays, observed(samples.inputs, arrays))
    right = proba.argmax(axis=1) == arrays["label"]
    assert right[arrays["label"] < 255].mean() > 0.6


@pytest.mark.parametrize(
    ("classifier", "said"),
    [
        ({"kind": "bag-of-colors"}, "expected a model of pixels"),
        ({"kind": "tree"}, "no models of kind 'tree'"),
        ({"kind": "forest", "features": ["ndvi"]}, "leave them out"),
        ({"kind": "forest", "threes": 3}, "threes"),
    ],
)
def test_classifiers_that_cannot_be(classifier, said):
    with pytest.raises(InputError, match=said):
        BagOfColors(classifier=classifier)


def test_it_lies_beside_the_other_models():
    assert models.BagOfColors is BagOfColors
    assert "BagOfColors" in dir(models)
    with pytest.raises(AttributeError, match="has no attribute 'Bag'"):
        _ = models.Bag


def test_labels_of_segments_are_those_of_most_pixels():
    segments = np.array([[0, 0, 0, 1, 1, 2, 3, 255]], np.uint8)
    labels = np.array([[2, 1, 1, 2, 1, 255, 0, 0]], np.uint8)
    assert majorities(segments, labels, 4, 3).tolist() == [1, 1, 255, 0]


def test_of_more_segments_than_fit_some_are_drawn(fitted):
    samples, _, options = fitted
    said = []
    small = Training(seed=1, memory=8 * 16 * 30, say=said.append)
    found = models.kind("bag-of-colors").fit(samples, options, small)
    assert sum(found.spec.training["segments"].values()) == 30
    assert any("30 drawn" in text for text in said)


def test_one_class_is_not_enough():
    images, labels, _ = scene(2, EDGE)
    with pytest.raises(InputError, match="expected two classes"):
        BagOfColors(8, 3, FOREST, window=EDGE).fit(images, np.zeros_like(labels))
    with pytest.raises(InputError, match=r"\(n, band, y, x\)"):
        BagOfColors(8, 3, FOREST).fit(images[0], labels)
    with pytest.raises(InputError, match="learned nothing"):
        BagOfColors(8, 3, FOREST).predict(images)


def test_vocabulary_of_images_is_near_that_of_scikit_learn():
    """Mini-batches end near what all pixels at once give, in how far pixels are from colours."""
    images, _, _ = scene(8, EDGE, missing=0.0)
    entry = Input(IMAGE, BANDS, "int16", None)
    found = Vocabulary.fit(Images((entry,), {IMAGE: images}, BANDS), colors=12, seed=1)
    pixels = np.moveaxis(images, 1, 3).reshape(-1, 4) * found.gains
    peer = KMeans(12, n_init=1, random_state=0).fit(pixels)
    apart = np.square(pixels[:, None] - found.colors * found.gains).sum(axis=2).min(axis=1).sum()
    assert apart < 1.25 * peer.inertia_


def test_divisions_and_vocabularies_have_limits():
    with pytest.raises(InputError, match="1 to 255"):
        Division(300)
    entry = Input(IMAGE, BANDS, "int16", None)
    images = Images((entry,), {IMAGE: np.zeros((1, 4, 8, 8), np.int16)}, BANDS)
    with pytest.raises(InputError, match="2 to 255"):
        Vocabulary.fit(images, colors=256)
