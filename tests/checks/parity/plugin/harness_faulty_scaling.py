"""Sessions of the torch backend in fp16 with one fault each in gradient scaling. `SESSIONS` lists them."""

from __future__ import annotations

from typing import Any

import torch
from harness_torch.session import TorchSession

from harness import Batch


class Scaling(TorchSession):
    """An explicit implementation of dynamic gradient scaling. Subclasses replace one part."""

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self._backward(batch)
        assert self._scaler is not None
        scale = self._scaler.get_scale()
        overflowed = not all(bool(torch.isfinite(parameter.grad).all()) for parameter in self._trainable)
        with torch.no_grad():
            self.prepare(scale)
        if overflowed:
            self.skip(scale)
        else:
            self._optimizer.step()
        return loss

    def prepare(self, scale: float) -> None:
        """Unscale and clip the gradients."""
        self.unscale(scale)
        self.clip()

    def unscale(self, scale: float) -> None:
        for parameter in self._trainable:
            parameter.grad /= scale

    def clip(self) -> None:
        if self._clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._trainable, self._clip_norm)

    def skip(self, scale: float) -> None:
        self.set_scale(scale / 2)

    def set_scale(self, scale: float) -> None:
        assert self._scaler is not None
        self._scaler._scale = torch.tensor(scale)


class NotUnscaled(Scaling):
    """Use the scaled gradients."""

    def unscale(self, scale: float) -> None:
        pass


class UnscaledAfterClipping(Scaling):
    """Clip the scaled gradients."""

    def prepare(self, scale: float) -> None:
        self.clip()
        self.unscale(scale)


class UnscaledByFirst(Scaling):
    """Divide by the first scale, even after it has been halved."""

    def unscale(self, scale: float) -> None:
        super().unscale(65536.0)


class UnscaledTwice(Scaling):
    """Divide by the square of the scale."""

    def unscale(self, scale: float) -> None:
        super().unscale(scale**2)


class NotSkipped(Scaling):
    """Use the gradients that overflowed."""

    def skip(self, scale: float) -> None:
        super().skip(scale)
        self._optimizer.step()


class Replaced(NotSkipped):
    """Replace gradients that overflowed by zeros and the largest number."""

    def prepare(self, scale: float) -> None:
        for parameter in self._trainable:
            parameter.grad = torch.nan_to_num(parameter.grad, 0.0, 65504.0, -65504.0)
        super().prepare(scale)


class ZeroStep(NotSkipped):
    """Replace all gradients by zeros if one overflowed: moments and weight decay still change the weights."""

    def skip(self, scale: float) -> None:
        for parameter in self._trainable:
            parameter.grad = torch.zeros_like(parameter)
        super().skip(scale)


class CountedSkip(Scaling):
    """Count a skipped step in the bias correction of Adam."""

    def skip(self, scale: float) -> None:
        super().skip(scale)
        if not self._optimizer.state:
            before = [parameter.detach().clone() for parameter in self._trainable]
            for parameter in self._trainable:
                parameter.grad = torch.zeros_like(parameter)
            self._optimizer.step()
            for parameter, value in zip(self._trainable, before, strict=True):
                parameter.data.copy_(value)
        else:
            for state in self._optimizer.state.values():
                if "step" in state:
                    state["step"] += 1


class DecayInSkip(Scaling):
    """Apply weight decay in a skipped step."""

    def skip(self, scale: float) -> None:
        super().skip(scale)
        group = self._optimizer.param_groups[0]
        for parameter in self._weights.decayed:
            parameter.data *= 1 - group["lr"] * self._request.recipe.weight_decay


class NeverHalved(Scaling):
    """Keep the scale, so that every step is skipped."""

    def skip(self, scale: float) -> None:
        pass


class HalvedSlowly(Scaling):
    """Reduce the scale by a tenth only."""

    def skip(self, scale: float) -> None:
        self.set_scale(scale * 0.9)


class SkipsMore(Scaling):
    """Skip two more steps after one whose gradients overflowed."""

    left = 0

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        if self.left and learning_rate:
            self.left -= 1
            return self._backward(batch)
        return super().train_step(batch, learning_rate)

    def skip(self, scale: float) -> None:
        super().skip(scale)
        self.left = 2


class SkipsWithoutOverflow(Scaling):
    """Skip every tenth step, although its gradients are finite."""

    number = 0

    def train_step(self, batch: Batch, learning_rate: float) -> Any:
        self.number += 1
        return super().train_step(batch, learning_rate) if self.number % 10 else self._backward(batch)


SESSIONS: tuple[type[TorchSession], ...] = (
    NotUnscaled, UnscaledAfterClipping, UnscaledByFirst, UnscaledTwice, NotSkipped, Replaced, ZeroStep, CountedSkip,
    DecayInSkip, NeverHalved, HalvedSlowly, SkipsMore, SkipsWithoutOverflow,
)  # fmt: skip
