"""What a recipe says of training a network; this module knows no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

LossName = Literal["cross-entropy", "bce", "dice", "focal"]

SOFT: tuple[LossName, ...] = ("cross-entropy", "focal")
"""Losses whose probabilities are a softmax over the classes."""
SMOOTHED: tuple[LossName, ...] = ("cross-entropy", "bce")
"""Losses that label smoothing changes."""

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _named(given: Any) -> Any:
    """A loss by name is that loss alone."""
    return {given: 1.0} if isinstance(given, str) else given


def _all(given: Any) -> Any:
    """One learning rate is that of all parameters."""
    return {"rest": given} if isinstance(given, int | float) else given


class SupervisedOptions(_Table):
    """What labelled pixels teach.

    `loss`: a name, or several with their weights; see `lcengine.train.losses`. `label_smoothing` of
    cross-entropy and BCE: the share of a label that goes to all classes.
    """

    loss: Annotated[dict[LossName, Positive], BeforeValidator(_named)] = Field(
        default={"cross-entropy": 1.0}, min_length=1
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)

    @property
    def activation(self) -> Literal["softmax", "sigmoid"]:
        """What makes probabilities of the logits that these losses train."""
        one_by_one = "bce" in self.loss and not set(SOFT) & self.loss.keys()
        return "sigmoid" if one_by_one else "softmax"

    @model_validator(mode="after")
    def _fits(self) -> SupervisedOptions:
        soft = [name for name in SOFT if name in self.loss]
        if "bce" in self.loss and soft:
            raise ValueError(
                f"bce asks of each class by itself and {soft[0]} of all together; expected one of "
                "them, or one of them with dice"
            )
        if self.label_smoothing and not set(SMOOTHED) & self.loss.keys():
            raise ValueError(
                f"label_smoothing is of cross-entropy and bce, and loss has {', '.join(self.loss)}"
            )
        return self


class Views(_Table):
    """Which views of a training patch are shown; see `lcengine.samples.Augment`."""

    flips: bool = True
    rotations: bool = True
    crop: int | None = Field(default=None, ge=1)
    scale: tuple[Positive, Positive] = (1.0, 1.0)
    times: int = Field(default=1, ge=1)


class Schedule(_Table):
    """How a network is trained, below `[training]` of a recipe.

    `epochs` over the training patches; with `steps` training ends after so many steps, however many
    epochs these are. `batch`: patches of a step, of all devices together; what is left of an epoch
    is left out. `learning_rate`: of all parameters, or by prefix of their names, `rest` for all
    others, `head` for what knows the classes. `schedule` of it over all steps: `warmup` is the
    share of them in which it rises; one-cycle has its own. `momentum`: of sgd.
    `weight_decay`: not of biases and normalisation. `clip`: greatest norm of a gradient. `keep`:
    the epoch whose weights are kept, by the greatest macro F1 or mean IoU or the least loss on
    the validation split, or the last. `patience`: epochs without a better one, after which training
    ends. `balanced`: patches are drawn by their classes, rare ones more often.

    `precision` bf16: activations in bfloat16. `devices`: processes, each with its accelerator.
    `checkpoint`: minutes between checkpoints within an epoch. `tensorboard`: a log for it, too.
    """

    epochs: int = Field(default=50, ge=1)
    steps: int | None = Field(default=None, ge=1)
    batch: int = Field(default=8, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[dict[str, Rate], BeforeValidator(_all)] = Field(
        default={"rest": 1e-3}, min_length=1
    )
    schedule: Literal["cosine", "one-cycle", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=1e-2, ge=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    clip: Positive | None = None
    keep: Literal["f1", "iou", "loss", "last"] = "f1"
    patience: int | None = Field(default=None, ge=1)
    balanced: bool = False
    augment: Views = Views()
    precision: Literal["float32", "bfloat16"] = "float32"
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(default=1, ge=1)
    checkpoint: float = Field(default=10.0, ge=0, allow_inf_nan=False)
    tensorboard: bool = False

    @model_validator(mode="after")
    def _used(self) -> Schedule:
        idle = {
            "warmup": self.schedule == "one-cycle" and "one-cycle has a rise of its own",
            "momentum": self.optimizer == "adamw" and "momentum is of sgd",
            "patience": self.keep == "last" and "the last epoch is kept, none is better",
        }
        for name, why in idle.items():
            if why and name in self.model_fields_set:
                raise ValueError(f"{name} would change nothing: {why}; leave it out")
        return self

    def identity(self) -> dict[str, Any]:
        """What decides the weights, in JSON values."""
        beside = {"accelerator", "checkpoint", "devices", "tensorboard"}
        return self.model_dump(mode="json", exclude=beside)


LOSSES: tuple[LossName, ...] = get_args(LossName)
