"""The learning curve of a training."""

from __future__ import annotations

import io

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

MEASURES = {"val_f1": "macro F1", "val_iou": "mean IoU", "val_accuracy": "overall accuracy"}


def curves(rows: list[dict[str, float]]) -> bytes:
    """Losses and measures by epoch, as a PNG."""
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(8, 3.4), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label in (("loss", "training"), ("val_loss", "validation")):
        if name in rows[0]:
            left.plot(epochs, [row[name] for row in rows], marker=".", label=label)
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(xlabel="epoch", ylabel="loss")
    left.legend(fontsize=8)
    measured = {name: label for name, label in MEASURES.items() if name in rows[0]}
    for name, label in measured.items():
        right.plot(epochs, [row[name] for row in rows], marker=".", label=label)
    right.set(xlabel="epoch", ylim=(0, 1))
    if measured:
        right.set_title("validation split", fontsize=9)
        right.legend(fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
