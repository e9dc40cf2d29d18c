"""`Recipe`, the training settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec
from msgspec import Struct

Optimizer = Literal["sgd", "rmsprop", "adam", "adamw", "adagrad", "lion", "lamb"]
Schedule = Literal["constant", "linear", "cosine", "step", "one_cycle", "plateau"]
MAX_INTEGER = 2**31 - 1
"""Largest value of an integer field."""
_INTEGERS = (
    "epochs", "batch_size", "accumulation_steps", "early_stopping", "max_steps", "step_size", "milestones",
    "plateau_patience",
)  # fmt: skip
"""Fields whose values are integers."""


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Training settings, which have the same meaning for every backend.

    The optimizers are defined as follows, where p is a parameter, g its gradient, a the scheduled learning rate, w the
    weight decay and t the step number, starting at 1:

    - ``sgd``: g += w p; v = momentum v + g; p -= a v (with ``nesterov``: p -= a (g + momentum v)).
    - ``rmsprop``: g += w p; s = 0.99 s + 0.01 g^2; p -= a g / (sqrt(s) + epsilon).
    - ``adam`` (Kingma and Ba 2015): g += w p; m, s are the moving averages; m^ = m / (1 - beta1^t),
      s^ = s / (1 - beta2^t); p -= a m^ / (sqrt(s^) + epsilon).
    - ``adamw`` (Loshchilov and Hutter 2019): p -= a w p first, then the Adam step without w in g.
    - ``adagrad`` (Duchi et al. 2011): g += w p; s += g^2; p -= a g / (sqrt(s) + epsilon).
    - ``lion`` (Chen et al. 2023): u = sign(beta1 m + (1 - beta1) g); p -= a (u + w p); m = beta2 m + (1 - beta2) g. The
      paper uses beta2 = 0.99 and learning rates that are 3 to 10 times smaller than those of ``adamw``.
    - ``lamb`` (You et al. 2020): u = m^ / (sqrt(s^) + epsilon) + w p, with m^ and s^ as in Adam; p -= a r u. Here, r =
      |p| / |u| is the ratio of the 2-norms over the parameter, or 1 if one of the norms is zero.

    The moments m, s and v start at zero. The L1 penalty adds ``l1 * sign(p)`` to g. Weight decay and the L1 penalty are
    applied only to parameters with ``Parameter.decay=True``, after the gradients have been clipped. With
    `decoupled_decay`, ``sgd``, ``rmsprop`` and ``adagrad`` start with p -= a w p instead of g += w p. The constructor
    raises `ValueError` if a value is out of range.
    """

    SESSION_OPTIONS: ClassVar[frozenset[str]] = frozenset(
        {
            "adagrad", "lion", "lamb", "l1", "decoupled_decay", "accumulation_steps", "class_weights", "ema_decay",
            "loss_scale", "frozen", "layer_decay", "distillation_alpha",
        }
    )  # fmt: skip
    """Optimizers and fields that backends must implement. Backends written for earlier versions ignore these options;
    see `Backend.recipe_options`."""
    epochs: int = 10
    """Number of passes over the training split."""
    batch_size: int = 64
    """Number of examples in a batch, for training and inference."""
    optimizer: Optimizer = "adamw"
    """Update rule of the optimizer."""
    learning_rate: float = 1e-3
    """Learning rate after warm-up and before decay."""
    momentum: float = 0.0
    """Momentum of ``sgd``."""
    nesterov: bool = False
    """If True, ``sgd`` uses Nesterov momentum."""
    beta1: float = 0.9
    """Decay rate of the first moment estimate in ``adam``, ``adamw`` and ``lamb``. For ``lion``, weight of the momentum
    in the step."""
    beta2: float = 0.999
    """Decay rate of the second moment estimate in ``adam``, ``adamw`` and ``lamb``. For ``lion``, decay rate of the
    momentum."""
    epsilon: float = 1e-8
    """Constant added to the denominator of the step in ``rmsprop``, ``adam``, ``adamw``, ``adagrad`` and ``lamb``."""
    weight_decay: float = 0.0
    """Weight decay. The decay term is added to the gradient, except in ``adamw``, ``lion`` and ``lamb``, where it is
    decoupled from the moments."""
    schedule: Schedule = "constant"
    """Learning rate schedule after warm-up. With ``linear`` and ``cosine`` (Loshchilov and Hutter 2017), the learning
    rate decays to zero at the last step. With ``step``, the learning rate is multiplied by `gamma` at certain epochs.
    With ``plateau``, the learning rate is multiplied by `gamma` when validation stops improving. With ``one_cycle``
    (Smith and Topin 2019), the learning rate increases from learning_rate / 25 to learning_rate during warm-up, and
    then decreases to learning_rate / 250000 at the last step, both along half a cosine. The initial and final learning
    rates are those of PyTorch's ``OneCycleLR``. Unlike in PyTorch, the momentum is constant."""
    warmup_fraction: float = 0.0
    """Fraction of all steps during which the learning rate increases linearly from zero."""
    clip_norm: float | None = None
    """Maximum global 2-norm of the gradients. Gradients with a larger norm are scaled down to this norm. None for no
    clipping."""
    label_smoothing: float = 0.0
    """Probability mass that the target distribution spreads evenly over all classes (Szegedy et al. 2016)."""
    dropout: float = 0.0
    """Dropout probability in all dropout layers of the model, or 0 for models without dropout layers."""
    l1: float = 0.0
    """Factor of the L1 penalty. The subgradient of the penalty is added to the gradient of each parameter to which
    weight decay applies. For a parameter value of zero, the subgradient is zero."""
    decoupled_decay: bool = False
    """If True, the weight decay of ``sgd``, ``rmsprop`` and ``adagrad`` is decoupled, as in SGDW (Loshchilov and Hutter
    2019). The weight decay of ``adamw``, ``lion`` and ``lamb`` is always decoupled."""
    accumulation_steps: int = 1
    """Number of parts into which each batch is divided to reduce memory use. The resulting gradients are equal to the
    gradients of the mean loss over the whole batch. The sizes of the parts differ by at most one example, and no part
    is empty. Batch normalization uses the statistics of each part."""
    class_weights: Literal["balanced"] | tuple[float, ...] | None = None
    """Class weights. The loss of each example or position is multiplied by the weight of its class before averaging
    over the batch. With ``balanced``, the weight of a class is N / (C n), where n is the number of training examples in
    the class, N is the number of training examples, and C is the number of classes. Weights given as numbers are
    divided by their mean over the training examples. None for no weights. Supported only for classification. The
    weights are not applied to validation losses."""
    ema_decay: float | None = None
    """Decay d of the exponential moving average of the weights. The averaged weights are evaluated instead of the
    trained weights. After step t, average += (1 - d) / (1 - d^t) (weights - average). The division by 1 - d^t corrects
    the bias towards the initial weights (Kingma and Ba 2015). The average includes running statistics. None for no
    average."""
    loss_scale: float | None = None
    """Fixed loss scale for precision ``fp16``, or None for a dynamic scale. The dynamic scale starts at 65536, doubles
    after 2000 steps without overflow, and halves when gradients overflow (Micikevicius et al. 2018). With either a
    fixed or a dynamic scale, a step is skipped if its gradients overflow."""
    frozen: tuple[str, ...] = ()
    """Patterns for the canonical names of parameters that are not trained, such as ``bert.embeddings.*``. Running
    statistics are still updated."""
    layer_decay: float = 1.0
    """Factor between the learning rates of successive layers (Howard and Ruder 2018; Clark et al. 2020). The learning
    rate of a parameter is multiplied by this factor to the power of k, the number of layers that are closer to the
    output. Parameters belong to the same layer if their names agree up to the first number. For names without a number,
    the last component is removed, and the first two remaining components (or the only one) are compared. For example,
    ``norm.weight`` and ``norm.bias`` belong to the same layer. The layers have the same order as the model's
    parameters."""
    distillation_alpha: float = 0.0
    """Weight A of the soft targets in knowledge distillation (Hinton et al. 2015, arXiv:1503.02531), from 0 to 1. The
    loss of an example or position is (1 - A) H + A T^2 KL(softmax(t / T) || softmax(s / T)). H is the cross-entropy
    with the true class, t and s are the logits of the teacher and of the student, and T is `distillation_temperature`.
    Class weights and label smoothing apply only to H. The value 0 disables distillation."""
    distillation_temperature: float = 1.0
    """Temperature T of the soft targets; see `distillation_alpha`. The factor T^2 in the loss keeps the gradients of
    the soft targets at the same scale for all temperatures."""
    early_stopping: int | None = None
    """Training ends after this number of consecutive epochs without a new best validation score. If None, training runs
    for all epochs. `monitor` selects the score. Schedules are computed as if training continued for all epochs."""
    keep_best: bool = False
    """If True, the weights of the epoch with the best validation score are evaluated. If False, the weights of the last
    epoch are evaluated. `monitor` selects the score. In case of a tie, the earliest epoch is used. The default for user
    data is True."""
    max_steps: int | None = None
    """Maximum number of training steps. Learning-rate schedules that decay until the end of
    training are shortened accordingly."""
    max_seconds: float | None = None
    """Training time in seconds, excluding validation, after which training ends. None for no limit. With a time limit,
    the number of steps depends on the machine's speed, so the run is not bitwise reproducible."""
    step_size: int | None = None
    """Number of epochs between learning rate reductions in the ``step`` schedule."""
    milestones: tuple[int, ...] = ()
    """Epochs after which the ``step`` schedule reduces the learning rate, in increasing order. Replaces `step_size`."""
    gamma: float = 0.1
    """Factor by which the ``step`` and ``plateau`` schedules multiply the learning rate at each reduction."""
    plateau_patience: int = 3
    """The ``plateau`` schedule reduces the learning rate after this number of consecutive epochs without a new best
    validation score. `monitor` selects the score."""
    monitor: Literal["metric", "loss"] = "metric"
    """Validation score that determines the best epoch, either the task's primary metric or the loss."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("epochs and batch_size must be at least 1")
        for name in _INTEGERS:
            value = getattr(self, name)
            if any(number > MAX_INTEGER for number in (value if isinstance(value, tuple) else (value or 0,))):
                raise ValueError(f"{name} must be at most {MAX_INTEGER}, got {value}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError("learning_rate must be positive and finite")
        if not 0 <= self.warmup_fraction <= 1:
            raise ValueError(f"warmup_fraction must be in [0, 1], got {self.warmup_fraction}")
        for name in ("label_smoothing", "dropout", "momentum", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.clip_norm is not None and not 0 < self.clip_norm < float("inf"):
            raise ValueError("clip_norm must be positive and finite; omit it to disable clipping")
        if not all(0 <= value < float("inf") for value in (self.weight_decay, self.epsilon, self.l1)):
            raise ValueError("weight_decay, epsilon and l1 must be finite and not negative")
        if self.decoupled_decay and self.optimizer not in ("sgd", "rmsprop", "adagrad"):
            advice = (
                "use the optimizer adamw"
                if self.optimizer == "adam"
                else "the weight decay of this optimizer is always decoupled"
            )
            raise ValueError(f"decoupled_decay cannot be combined with {self.optimizer}: {advice}")
        if self.schedule == "step" and (self.step_size is None) == (not self.milestones):
            raise ValueError("schedule 'step' requires either step_size or milestones, in epochs")
        for name in ("step_size", "plateau_patience", "accumulation_steps", "early_stopping", "max_steps"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self._check_values()
        if list(self.milestones) != sorted({number for number in self.milestones if number > 0}):
            raise ValueError(f"milestones must be positive and in increasing order, got {list(self.milestones)}")
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma must be between 0 and 1 (both exclusive), got {self.gamma}")
        if self.schedule == "one_cycle" and not 0 < self.warmup_fraction < 1:
            raise ValueError("schedule 'one_cycle' requires warmup_fraction between 0 and 1, such as 0.3")

    def _check_values(self) -> None:
        """Raise `ValueError` if the value of a newer option, such as `ema_decay`, is out of range."""
        if isinstance(self.class_weights, tuple) and not (
            self.class_weights and all(0 < weight < float("inf") for weight in self.class_weights)
        ):
            raise ValueError("class_weights must be 'balanced' or one positive number for each class")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must be between 0 and 1 (both exclusive), got {self.ema_decay}")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be in (0, 1], got {self.layer_decay}")
        for name in ("loss_scale", "max_seconds"):
            if (value := getattr(self, name)) is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be positive and finite, got {value}")
        if not 0 <= self.distillation_alpha <= 1:
            raise ValueError(f"distillation_alpha must be in [0, 1], got {self.distillation_alpha}")
        if not 0 < self.distillation_temperature < float("inf"):
            raise ValueError(
                f"distillation_temperature must be positive and finite, got {self.distillation_temperature}"
            )
        if not all(self.frozen):
            raise ValueError("frozen contains an empty pattern; remove it")


_FIRST = frozenset(
    {
        "epochs", "batch_size", "optimizer", "learning_rate", "momentum", "nesterov", "beta1", "beta2", "epsilon",
        "weight_decay", "schedule", "warmup_fraction", "clip_norm", "label_smoothing", "dropout",
    }
)  # fmt: skip
"""Fields that are always part of a key, even if they have their default values. The keys of the first version included
these fields."""
LOOP_FIELDS = (
    "epochs", "plateau_patience", "monitor", "early_stopping", "keep_best", "max_steps", "max_seconds"
)  # fmt: skip
"""Fields that do not affect a training step or the learning rate between two validations. A parity verdict also applies
to recipes that differ only in these fields."""
_DEFAULTS: dict[str, Any] = msgspec.structs.asdict(Recipe())


def without_added_defaults(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe as plain JSON values. Newer fields are omitted if they have their default values.

    The recipes of older runs do not contain the newer fields. Omitting the fields keeps the keys of older runs valid.
    """

    def is_default(name: str, value: Any) -> bool:
        return name in _DEFAULTS and (tuple(value) if isinstance(value, list) else value) == _DEFAULTS[name]

    return {name: value for name, value in recipe.items() if name in _FIRST or not is_default(name, value)}


def without_loop_fields(recipe: Recipe) -> Recipe:
    """Return a copy of a recipe in which the fields in `LOOP_FIELDS` have their default values."""
    defaults = Recipe()
    return msgspec.structs.replace(recipe, **{name: getattr(defaults, name) for name in LOOP_FIELDS})


def for_inference(recipe: Recipe) -> Recipe:
    """Return a copy of a recipe without the options that only some backends implement.

    These options have their default values in the copy.

    These options affect only training, so trained weights can be used with a backend that does not implement them.
    """
    defaults = Recipe()
    options = {name: getattr(defaults, name) for name in Recipe.SESSION_OPTIONS if hasattr(defaults, name)}
    if recipe.optimizer in Recipe.SESSION_OPTIONS:
        options["optimizer"] = defaults.optimizer
    return msgspec.structs.replace(recipe, **options)


def session_options(recipe: Recipe) -> list[str]:
    """Return the elements of `Recipe.SESSION_OPTIONS` that a recipe uses."""
    return sorted(
        option
        for option in Recipe.SESSION_OPTIONS
        if option == recipe.optimizer or getattr(recipe, option, None) != _DEFAULTS.get(option)
    )
