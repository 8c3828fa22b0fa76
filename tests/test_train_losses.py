"""Losses against plain NumPy, by the formulas of papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lcengine.train.losses import Loss
from lcengine.train.options import SupervisedOptions

CLASSES = 4
WEIGHTS = np.array([1.0, 0.5, 2.0, 3.0])


def batch(seed, patches=3, size=6, classes=(0, 1, 3)):
    """Logits, and labels of some classes, a third unknown."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (patches, CLASSES, size, size)).astype(np.float32)
    label = rng.choice(classes, (patches, size, size))
    label[rng.random(label.shape) < 0.3] = 255
    return logits, label.astype(np.int64)


def rows(logits, label):
    """Logits (pixel, class) and classes of labelled pixels, in float64."""
    flat = np.moveaxis(logits.astype(np.float64), 1, -1).reshape(-1, CLASSES)
    truth = label.reshape(-1)
    return flat[truth != 255], truth[truth != 255]


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cross_entropy(x, y, w, smoothing=0.0):
    target = np.eye(CLASSES)[y] * (1 - smoothing) + smoothing / CLASSES
    return (-(target * w * np.log(softmax(x))).sum(axis=1)).sum() / w[y].sum()


def focal(x, y, w):
    p = softmax(x)[np.arange(len(y)), y]
    return (w[y] * -((1 - p) ** 2) * np.log(p)).sum() / w[y].sum()


def bce(x, y, w, smoothing=0.0):
    target = np.eye(CLASSES)[y] * (1 - smoothing) + smoothing / 2
    p = sigmoid(x)
    each = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean(axis=1)
    return (w[y] * each).sum() / w[y].sum()


def dice(x, y, w, proba=softmax):
    p, total, shares = proba(x), 0.0, 0.0
    for k in np.unique(y):
        g = (y == k).astype(float)
        total += w[k] * (1 - 2 * (p[:, k] * g).sum() / (p[:, k].sum() + g.sum()))
        shares += w[k]
    return total / shares


CASES = {
    "cross-entropy": ({"cross-entropy": 1}, 0.0, cross_entropy),
    "cross-entropy, smooth": (
        {"cross-entropy": 1},
        0.1,
        lambda x, y, w: cross_entropy(x, y, w, 0.1),
    ),
    "focal": ({"focal": 1}, 0.0, focal),
    "bce": ({"bce": 1}, 0.0, bce),
    "bce, smooth": ({"bce": 1}, 0.2, lambda x, y, w: bce(x, y, w, 0.2)),
    "dice": ({"dice": 1}, 0.0, dice),
    "sum": (
        {"cross-entropy": 0.5, "dice": 2, "focal": 1},
        0.0,
        lambda x, y, w: 0.5 * cross_entropy(x, y, w) + 2 * dice(x, y, w) + focal(x, y, w),
    ),
    "sigmoids": (
        {"bce": 1, "dice": 1},
        0.0,
        lambda x, y, w: bce(x, y, w) + dice(x, y, w, sigmoid),
    ),
}


def made(loss, smoothing=0.0, weights=WEIGHTS):
    options = SupervisedOptions(loss=loss, label_smoothing=smoothing)
    return Loss(options, torch.from_numpy(weights))


def of(loss, logits, label):
    return float(loss(torch.from_numpy(logits), torch.from_numpy(label)))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("weights", [np.ones(CLASSES), WEIGHTS], ids=["alike", "weighted"])
def test_a_loss_is_its_formula_over_labelled_pixels(case, weights):
    loss, smoothing, oracle = case
    logits, label = batch(1)
    found = of(made(loss, smoothing, weights), logits, label)
    assert found == pytest.approx(oracle(*rows(logits, label), weights), rel=1e-5)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_ignored_pixels_change_nothing_and_get_no_gradient(case):
    loss = made(*case[:2])
    logits, label = batch(2)
    given_ = torch.from_numpy(logits).requires_grad_()
    value = loss(given_, torch.from_numpy(label))
    value.backward()
    gone = np.broadcast_to((label == 255)[:, None], logits.shape)
    assert (given_.grad.numpy()[gone] == 0).all()
    assert (given_.grad.numpy()[~gone] != 0).any()
    other = np.where(gone, 50, logits).astype(np.float32)
    assert of(loss, other, label) == pytest.approx(float(value.detach()), rel=1e-6)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_batch_without_labels_is_nothing(case):
    logits, label = batch(3)
    given_ = torch.from_numpy(logits).requires_grad_()
    value = made(*case[:2])(given_, torch.full(label.shape, 255))
    value.backward()
    assert float(value.detach()) == 0
    assert not given_.grad.any()


@given(st.integers(0, 2**31), st.sampled_from(sorted(CASES)), st.integers(1, 4))
def test_a_loss_of_parts_is_that_of_the_whole(seed, name, cut):
    loss = made(*CASES[name][:2])
    logits, label = batch(seed, patches=5)
    whole = of(loss, logits, label)
    total = {}
    for part in (slice(cut), slice(cut, None)):
        sums = loss.sums(torch.from_numpy(logits[part]), torch.from_numpy(label[part]))
        total = {key: total.get(key, 0) + value for key, value in sums.items()}
    assert float(loss.value(total)) == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_gradients_are_those_of_finite_differences():
    logits, label = batch(4, patches=1, size=3)
    given_ = torch.from_numpy(logits.astype(np.float64)).requires_grad_()
    for loss, smoothing, oracle in CASES.values():
        given_.grad = None
        made(loss, smoothing)(given_, torch.from_numpy(label)).backward()
        place = (0, 1, 0, 0) if label[0, 0, 0] != 255 else (0, 1, 0, 1)
        around = []
        for away in (-1e-4, 1e-4):
            moved = logits.astype(np.float64)
            moved[place] += away
            around.append(oracle(*rows(moved, label), WEIGHTS))
        expected = (around[1] - around[0]) / 2e-4
        assert given_.grad[place].item() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_a_name_is_that_loss_alone_and_knows_its_activation():
    assert SupervisedOptions(loss="dice").loss == {"dice": 1.0}
    assert SupervisedOptions(loss="dice").activation == "softmax"
    assert SupervisedOptions(loss={"bce": 1, "dice": 1}).activation == "sigmoid"


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"loss": {"bce": 1, "focal": 1}}, "expected one of them"),
        ({"loss": "dice", "label_smoothing": 0.1}, "is of cross-entropy and bce"),
        ({"loss": {}}, "at least 1"),
        ({"loss": "jaccard"}, "cross-entropy"),
    ],
)
def test_what_does_not_go_together_is_refused(given_, said):
    with pytest.raises(ValidationError, match=said):
        SupervisedOptions(**given_)
