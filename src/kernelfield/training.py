"""How the network learns."""

from __future__ import annotations

from pydantic import Field

from kernelfield.validation import Spec


class GradientDescent(Spec):
    """Full-batch gradient descent in discrete time.

    Every weight moves with learning rate `learning_rate` * gamma0^2 * N on the mean loss (N the width), so
    that one step advances training time by `learning_rate` at any gamma0 and width.

    Args:
        learning_rate: eta, training time per step.
        steps: number of updates T. Solutions have T + 1 rows: row t is before update t, row T is final.

    Source: theory of arXiv:2205.09653 in discrete time.

    Example:
        >>> import kernelfield as kf
        >>> kf.GradientDescent(learning_rate=0.2, steps=100).time
        20.0
    """

    learning_rate: float = Field(gt=0, allow_inf_nan=False)
    steps: int = Field(ge=1)

    @property
    def time(self) -> float:
        """Total training time eta * T."""
        return self.learning_rate * self.steps


class GradientFlow(Spec):
    """Full-batch gradient descent in continuous time, the limit of small learning rates.

    Args:
        time: total training time.
        steps: rows recorded after the first, equally spaced in time.

    Source: arXiv:2205.09653, section 2.

    Example:
        >>> import kernelfield as kf
        >>> kf.GradientFlow(time=20.0, steps=100).learning_rate
        0.2
    """

    time: float = Field(gt=0, allow_inf_nan=False)
    steps: int = Field(default=100, ge=1)

    @property
    def learning_rate(self) -> float:
        """Training time between two rows."""
        return self.time / self.steps


Training = GradientDescent | GradientFlow
