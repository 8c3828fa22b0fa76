"""Accuracy and reliability against scikit-learn and plain NumPy."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rich.console import Console
from sklearn import metrics as sk

from lcengine.errors import InputError
from lcengine.kernels.confusion import count_pairs
from lcengine.legends import Entry, Legend
from lcengine.metrics import MEASURES, Accuracy, Reliability

CLASSES = 5
LEGEND = Legend(
    "five",
    "Five classes",
    tuple(Entry(10 * i, f"class {i}", f"#0000{i:02x}") for i in range(1, CLASSES + 1)),
    "made up",
)
INDICES = st.sampled_from([*range(CLASSES), 255])


def counted(reference, mapped, classes=CLASSES):
    counts = np.zeros((classes, classes + 1), np.int64)
    count_pairs(reference.ravel(), mapped.ravel(), counts)
    return counts


def pair(size, seed=0, classes=CLASSES):
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, classes, size).astype(np.uint8)
    mapped = np.where(rng.random(size) < 0.6, reference, rng.integers(0, classes, size))
    for values in (reference, mapped):
        values[rng.random(size) < 0.1] = 255
    return reference, mapped.astype(np.uint8)


@pytest.mark.parametrize("classes", [2, 5, 17, 255])
@pytest.mark.parametrize("size", [0, 1, 3, 1001])
def test_counts_are_those_of_scikit_learn(classes, size):
    reference, mapped = pair(size, classes, classes)
    counts = counted(reference, mapped, classes)
    both = (reference < classes) & (mapped < classes)
    expected = np.zeros((classes, classes), np.int64)
    if both.any():
        labels = range(classes)
        expected = sk.confusion_matrix(reference[both], mapped[both], labels=labels)
    np.testing.assert_array_equal(counts[:, :classes], expected)
    alone = reference[(reference < classes) & ~(mapped < classes)]
    np.testing.assert_array_equal(counts[:, classes], np.bincount(alone, minlength=classes))


@settings(max_examples=50, deadline=None)
@given(data=st.data(), size=st.integers(1, 200))
def test_parts_of_any_size_add_up(data, size):
    reference = data.draw(hnp.arrays(np.uint8, size, elements=INDICES))
    mapped = data.draw(hnp.arrays(np.uint8, size, elements=INDICES))
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=5)))
    parts = zip(np.split(reference, cuts), np.split(mapped, cuts), strict=True)
    total = np.zeros((CLASSES, CLASSES + 1), np.int64)
    for part in parts:
        count_pairs(*part, total)
    np.testing.assert_array_equal(total, counted(reference, mapped))


class TestAccuracy:
    """Measures from counts."""

    def test_measures_are_those_of_scikit_learn(self):
        reference, mapped = pair(5000)
        found = Accuracy.of(counted(reference, mapped), LEGEND)
        both = (reference < 255) & (mapped < 255)
        truth, said = reference[both], mapped[both]
        precision, recall, f1, support = sk.precision_recall_fscore_support(truth, said)
        expected = {
            "recall": recall,
            "precision": precision,
            "f1": f1,
            "iou": sk.jaccard_score(truth, said, average=None),
        }
        for name in MEASURES:
            np.testing.assert_allclose(found.measures[name], expected[name], rtol=1e-12)
            assert found.macro[name] == pytest.approx(expected[name].mean(), rel=1e-12)
            weighted = np.average(expected[name], weights=support)
            assert found.weighted[name] == pytest.approx(weighted, rel=1e-12)
        np.testing.assert_array_equal(found.reference, support)
        assert found.overall == pytest.approx(sk.accuracy_score(truth, said), rel=1e-12)
        assert found.kappa == pytest.approx(sk.cohen_kappa_score(truth, said), rel=1e-12)
        assert found.pixels == both.sum()
        assert found.missing.sum() == ((reference < 255) & (mapped == 255)).sum() > 0

    def test_absent_classes_are_in_no_mean(self):
        # Class 0 is right, 1 never mapped, 2 mapped and not in the reference, 3 and 4 nowhere.
        truth = np.repeat([0, 0, 1], 10).astype(np.uint8)
        said = np.repeat([0, 2, 0], 10).astype(np.uint8)
        found = Accuracy.of(counted(truth, said), LEGEND)
        assert found.absent == ("class 3", "class 4", "class 5")
        nan = np.nan
        np.testing.assert_array_equal(found.measures["recall"], [0.5, 0, nan, nan, nan])
        np.testing.assert_array_equal(found.measures["precision"], [0.5, nan, 0, nan, nan])
        np.testing.assert_array_equal(found.measures["f1"], [0.5, 0, 0, nan, nan])
        scores = sk.precision_recall_fscore_support(
            truth, said, labels=[0, 1], average="macro", zero_division=0
        )
        assert [found.macro[n] for n in ("precision", "recall", "f1")] == pytest.approx(scores[:3])

    def test_large_counts_stay_exact(self):
        big = 10**12
        found = Accuracy.of(np.diag([big, big, 0, 0, 0]) + np.eye(5, k=1, dtype=np.int64), LEGEND)
        assert found.pixels == 2 * big + 4
        assert 0.999 < found.kappa < 1

    @pytest.mark.parametrize("counts", [np.zeros((5, 5), int), np.diag([7, 0, 0, 0, 0])])
    def test_what_divides_by_nothing_is_null(self, counts):
        found = Accuracy.of(counts, LEGEND)
        data = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert data["kappa"] is None
        assert data["classes"][4]["f1"] is None

    def test_json_brings_it_back(self):
        found = Accuracy.of(counted(*pair(500)), LEGEND)
        again = Accuracy.from_json(json.loads(json.dumps(found.to_json())))
        assert again.legend == LEGEND
        np.testing.assert_array_equal(again.counts, found.counts)
        np.testing.assert_array_equal(again.missing, found.missing)
        assert again.to_json() == found.to_json()
        with pytest.raises(InputError, match="no accuracy"):
            Accuracy.from_json({"legend": LEGEND.to_json()})

    def test_folds_are_pooled_by_counts(self):
        one, two = pair(300, 1), pair(400, 2)
        pooled = Accuracy.of(counted(*one), LEGEND) + Accuracy.of(counted(*two), LEGEND)
        whole = [np.concatenate(values) for values in zip(one, two, strict=True)]
        assert pooled.to_json() == Accuracy.of(counted(*whole), LEGEND).to_json()
        with pytest.raises(InputError, match="only those of one legend"):
            _ = pooled + Accuracy.of(
                np.zeros((1, 1), int), Legend("one", "", LEGEND.entries[:1], "")
            )

    @pytest.mark.parametrize(
        "counts", [np.zeros((5, 4), int), np.zeros((5, 5)), -np.ones((5, 5), int)]
    )
    def test_other_counts_are_refused(self, counts):
        with pytest.raises(InputError, match="expected numbers of pixels"):
            Accuracy.of(counts, LEGEND)

    def test_the_table_names_classes_and_means(self):
        console = Console(file=io.StringIO(), width=120)
        console.print(Accuracy.of(np.diag([3, 4, 5, 6, 0]), LEGEND).table("five"))
        said = console.file.getvalue()
        assert "class 5" in said
        assert "macro mean" in said
        assert "100.0" in said
        assert "–" in said


class TestReliability:
    """Confidence beside what is right."""

    def test_against_plain_loops(self):
        rng = np.random.default_rng(0)
        given_ = rng.dirichlet(np.ones(4), 3000).T.astype(np.float32)
        truth = rng.integers(0, 4, 3000).astype(np.uint8)
        truth[:100] = 255
        given_[:, 100:150] = np.nan
        found = Reliability.of(given_, truth, bins=10)
        gap = total = 0
        for number in range(10):
            members = [
                i
                for i in range(150, 3000)
                if min(int(np.float64(given_[:, i].max()) * 10), 9) == number
            ]
            assert found.counts[number] == len(members)
            if members:
                confidence = np.mean([given_[:, i].max() for i in members], dtype=np.float64)
                right = np.mean([given_[:, i].argmax() == truth[i] for i in members])
                assert found.confidence[number] == pytest.approx(confidence)
                assert found.accuracy[number] == pytest.approx(right)
                gap += abs(confidence - right) * len(members)
                total += len(members)
        assert found.error == pytest.approx(gap / total)
        again = Reliability.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
        assert again.to_json() == found.to_json()

    def test_nothing_is_no_error_but_nan(self):
        found = Reliability.of(np.zeros((3, 0)), np.zeros(0, np.uint8))
        assert np.isnan(found.error)
        with pytest.raises(InputError, match="expected"):
            Reliability.of(np.zeros((3, 2)), np.zeros(3, np.uint8))
