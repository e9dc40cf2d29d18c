"""Replay of training steps: each step of a session is predicted from the weights before the step.

Two sessions of the same backend are used. The first session is trained with `Session.train_step` only, as in a run.
Before each step, the weights of the first session are copied to the second session, which computes the gradients.
`ReferenceOptimizer` predicts a step from the gradients, and the predicted step is compared with the actual step. Since
each prediction starts from the actual weights, rounding errors do not accumulate, except in the optimizer's state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.checks.parity.distance import ELEMENTS, Sample, by_parameter, rms
from harness.checks.parity.moving_average import MovingAverage
from harness.checks.parity.optimizer import ReferenceOptimizer, clipping
from harness.checks.parity.scaling import dynamic_scaling, finite, scaled_gradients
from harness.checks.parity.tolerances import tolerance
from harness.interfaces import Batch, Parameter, Session
from harness.records import Precision, Recipe

Array = NDArray[Any]

_STORED = 4.0
"""Allowed rounding error of a stored weight, as a multiple of the unit roundoff. A step consists of a few in-place
additions."""
_NOISE = 2.0
"""Safety factor for the rounding errors of gradients."""
_DRAWS = 3
_NOISE_EVERY = 50
"""Interval at which the rounding errors of the gradients are measured, in steps."""
_FIRST = 6
"""Number of initial training steps during which the running statistics are compared after every step."""
_EVERY = 23
"""Number of steps between comparisons of running statistics after the first `_FIRST` steps. The interval is prime, so
that a periodic fault is eventually detected."""
_LARGE = 1e18
"""Magnitude of weights and gradients above which float32 arithmetic may overflow in a correct backend."""


class Replay:
    """Training of one session, in which each step is predicted with a second session."""

    def __init__(
        self,
        trained: Session,
        probe: Session,
        start: Mapping[str, Array],
        recipe: Recipe,
        parameters: Sequence[Parameter],
        precision: Precision,
        factors: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Set the weights of `trained` to `start`.

        `recipe` is the recipe with which the sessions were opened. `factors` contains the learning rate factors that
        differ from 1, by parameter.
        """
        self._trained, self._probe = trained, probe
        self._recipe, self._precision = recipe, precision
        self._roundoff = _roundoff(precision)
        self._trainable = [parameter.name for parameter in parameters if parameter.trainable]
        self._statistics = [parameter.name for parameter in parameters if not parameter.trainable]
        decayed = {parameter.name for parameter in parameters if parameter.trainable and parameter.decay}
        self._scaling = dynamic_scaling(precision, recipe)
        self._optimizer = ReferenceOptimizer(recipe, decayed, factors)
        trained.set_weights(start)
        self.weights = _copied(trained.get_weights())
        """The weights after the last predicted step."""
        # LAMB divides by the norm of the whole step, so all elements are needed to predict it.
        elements = np.inf if recipe.optimizer == "lamb" else ELEMENTS
        self._sample = Sample({name: self.weights[name] for name in self._trainable}, elements)
        self._noise: dict[str, float] = {}
        self._rows: list[dict[str, Any]] = []
        self._checked: list[tuple[int, list[float]]] = []
        self._number = self._steps = self._skipped = 0
        self._lost = False
        self._average = MovingAverage(trained, recipe, self._sample) if recipe.ema_decay is not None else None

    def step(self, batch: Batch, rate: float) -> float:
        """Train one step and return its loss. If weights or gradients are not finite, later steps are not predicted.

        Gradients may overflow in fp16. Setting the weights of the session `probe` resets its loss scale. The loss scale
        is then halved until the gradients are finite. For each halving, the session `trained` may skip a step on this
        batch. A step of `trained` is predicted even if the gradients overflow in `probe`.
        """
        loss = float(np.array(self._trained.fetch(self._trained.train_step(batch, rate))))
        self._number += 1
        if self._average:
            self._average.update()
        if not self._lost:
            self._predict(batch, rate, loss)
        return loss

    def _predict(self, batch: Batch, rate: float, loss: float) -> None:
        before, after = self.weights, _copied(self._trained.get_weights())
        self._probe.set_weights(before)
        expected_loss, gradients, halvings = scaled_gradients(self._probe, batch, self._scaling)
        if not finite(gradients) and self._precision == "fp16" and self._recipe.loss_scale is not None:
            if self._unchanged(after):
                self._skipped += 1
            else:
                self._add_undefined(loss, expected_loss)
                self._lost = True
            return
        if not finite(gradients):
            self._lost = True
            if halvings and np.isfinite(expected_loss):  # the gradients overflow even at the smallest loss scale
                self._add_undefined(loss, expected_loss)
            return
        ended = not finite(after)
        if self._statistics and not ended and (self._number <= _FIRST or self._number % _EVERY == 0):
            self._compare_statistics(before, after, batch, rate)
        if not np.isfinite(expected_loss) or (ended and _may_overflow({**before, **gradients})):
            self._lost = True
            return
        if self._skipped < halvings and self._unchanged(after):
            self._skipped += 1
            self.weights = after  # the forward pass of a skipped step updates running statistics
            return
        if self._steps % _NOISE_EVERY == 0:
            gradients = _copied(gradients)
            self._noise = self._measured_noise(before, batch, gradients)
        self._steps += 1
        factor = clipping(gradients, self._recipe.clip_norm)
        old, new, used = (self._sample.of(arrays) for arrays in (before, after, gradients))
        noise = {name: self._noise[name] * _magnitude(gradient) for name, gradient in used.items()}
        allowed = tolerance("optimizer", self._precision, 0).value
        row: dict[str, Any] = {name: [] for name in ("size", "actual", "error", "rounding", "kept")}
        for name, (change, doubt) in self._optimizer.step(old, used, noise, rate, factor).items():
            actual = new[name] - old[name]
            kept = doubt <= allowed * rms(change)
            row["size"].append(_norm(change[kept]))
            is_finite = not ended or finite({name: after[name]})
            row["actual"].append(_norm(actual[kept]) if is_finite else np.inf)
            row["error"].append(_norm((actual - change)[kept]) if is_finite else np.inf)
            row["rounding"].append(_STORED * self._roundoff * _norm(old[name][kept]))
            row["kept"].append(float(np.count_nonzero(kept)))
        self._rows.append({**row, "loss": [loss, expected_loss], "clipping": factor})
        self._lost = ended
        if not ended:
            self.weights = after

    def _measured_noise(
        self, weights: Mapping[str, Array], batch: Batch, gradients: Mapping[str, Array]
    ) -> dict[str, float]:
        """Return the size of the rounding errors of each gradient, relative to the gradient's root mean square.

        The last bits of the weights are changed several times, and the resulting changes of the gradients are measured.
        A perturbation may also change the sign of a ReLU's input, which is not a rounding error. Therefore, only the
        perturbation with the smallest effect is used. The median over the elements of a gradient excludes elements that
        depend on few examples.
        """
        ratios = dict.fromkeys(gradients, float("inf"))
        for draw in range(_DRAWS):
            rng = np.random.default_rng(draw)
            self._probe.set_weights({name: _nudged(array, rng) for name, array in weights.items()})
            again = scaled_gradients(self._probe, batch, self._scaling).gradients
            for name, gradient in gradients.items():
                size = rms(gradient)
                moved = np.abs(np.subtract(again[name], gradient, dtype=np.float64))[gradient != 0]
                ratio = float(np.median(moved)) / size if moved.size and np.isfinite(size) else 0.0
                ratios[name] = min(ratios[name], ratio)
        return {name: _NOISE * max(ratio, self._roundoff) for name, ratio in ratios.items()}

    def _compare_statistics(
        self, before: Mapping[str, Array], after: Mapping[str, Array], batch: Batch, rate: float
    ) -> None:
        """Repeat a step in the second session, starting from the same weights, and compare the running statistics."""
        self._probe.set_weights(before)
        self._probe.train_step(batch, rate)
        errors = dict(by_parameter(after, self._probe.get_weights(), "", names=self._statistics))
        self._checked.append((self._number, [errors[name] for name in self._statistics]))

    @property
    def lost(self) -> bool:
        """True if some steps were not predicted because weights, gradients or losses became infinite or NaN."""
        return self._lost

    def _add_undefined(self, loss: float, expected_loss: float) -> None:
        """Add a step whose changes cannot be compared."""
        row = {name: [0.0] * len(self._trainable) for name in ("size", "rounding", "kept")}
        row |= {name: [np.inf] * len(self._trainable) for name in ("actual", "error")}
        self._rows.append({**row, "loss": [loss, expected_loss], "clipping": 1.0})

    def _unchanged(self, after: Mapping[str, Array]) -> bool:
        """Return True if no parameter changed, as in a step that was skipped because gradients overflowed."""
        return all(np.array_equal(self.weights[name], after[name]) for name in self._trainable)

    def arrays(self) -> dict[str, Array]:
        """Return the measurements for S predicted steps and P trainable parameters.

        - ``loss``, ``[S, 2]``: the loss returned by the trained session, and the loss recomputed at the same weights,
        - ``size``, ``actual`` and ``error``, ``[S, P]``: 2-norms of a parameter's predicted change, its actual change,
          and the difference between the two,
        - ``rounding``, ``[S, P]``: bound on the rounding error of the parameter,
        - ``kept``, ``[S, P]``: number of elements in these norms, excluding elements whose change is determined by the
          rounding error of the gradient,
        - ``elements``, ``[P]``: number of elements, including the excluded ones,
        - ``clipping``, ``[S]``: factor by which clipping scales the gradients,
        - ``skipped``, ``[1]``: number of steps skipped because their gradients overflowed,
        - ``average``, ``[2, P]``, only if the recipe uses a moving average of the weights: 2-norm of the error of the
          average, and 2-norm of the difference between the average and the weights,
        - ``checked``, ``[C]``: numbers of the steps after which running statistics were compared, and ``statistics``,
          ``[C, Q]``: relative errors of the Q running statistics.
        """
        keys = ("loss", "size", "actual", "error", "rounding", "kept", "clipping")
        arrays = {key: np.array([row[key] for row in self._rows]) for key in keys}
        elements = np.array([array.size for array in self._sample.of(self.weights).values()])
        errors = [errors for _, errors in self._checked]
        arrays |= {
            "elements": elements,
            "skipped": np.array([self._skipped]),
            "checked": np.array([number for number, _ in self._checked], dtype=np.int64),
            "statistics": np.array(errors).reshape(len(errors), len(self._statistics)),
        }
        return arrays | (self._average.arrays() if self._average and not self._lost else {})

    def predictions(self, inputs: Mapping[str, Array]) -> Array:
        """Return the outputs of both sessions, ``[2, B, ...]``, computed with the weights of the trained session."""
        outputs = [np.array(self._trained.fetch(self._trained.predict(inputs)))]
        self._probe.set_weights(self._trained.get_weights())
        return np.array([*outputs, np.array(self._probe.fetch(self._probe.predict(inputs)))])


def _nudged(array: Array, rng: np.random.Generator) -> Array:
    """Return a copy of the array with each element changed by at most one unit in the last place."""
    return np.asarray(array + rng.integers(-1, 2, array.shape) * np.spacing(np.abs(array)), array.dtype)


def _magnitude(gradient: Array) -> Array:
    """Return the scale of each element's rounding error. The scale is 0 if the gradient is exactly 0, as for unused
    embeddings."""
    return np.where(gradient == 0, 0.0, rms(gradient) + np.abs(gradient, dtype=np.float64))


def _copied(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.array(array) for name, array in arrays.items()}


def _may_overflow(arrays: Mapping[str, Array]) -> bool:
    """Return True if a correct step from these weights and gradients may overflow in float32."""
    return any(float(np.abs(array).max(initial=0)) > _LARGE for array in arrays.values())


def _roundoff(precision: Precision) -> float:
    """Return the unit roundoff of the weights."""
    return 2.0**-53 if precision == "fp64" else 2.0**-24


def _norm(array: Array) -> float:
    return float(np.sqrt(np.sum(np.square(array, dtype=np.float64))))
