"""solve: the one door to every method."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from kernelfield.common.progress import bar
from kernelfield.describe.problem import Problem
from kernelfield.describe.training import GradientDescent, OnlineSGD, Training
from kernelfield.march.checkpoint import EVERY, Checkpoint
from kernelfield.march.march import March
from kernelfield.solution.solution import Interrupted, Solution, SolveError, Status

FEW = 1000  # points whose fields are kept by default
EXTRAS = {
    "losses": "other losses than the mean squared error",
    "outputs": "networks of several outputs",
    "momentum": "gradient descent with momentum",
    "weight_decay": "gradient descent with weight decay",
    "schedule": "gradient descent with a schedule of learning rates",
}


class Method(Protocol):
    """A way to solve: the march, an approximation, or finite networks.

    A method for other training rules than GradientDescent names them in a class attribute `rules`, one that knows the
    equations of some networks only names these in `networks`, and what else than plain gradient descent on the mean
    squared error of one output it takes is in `takes`, a set of names of `EXTRAS`. What else it needs of its input is
    told by a method `check(network, problem, training)`, which raises ValueError.
    """

    def run(
        self,
        network: Any,
        problem: Problem,
        training: Any,
        fields_at: Sequence[int],
        progress: Callable[[int, int], None],
    ) -> Solution | Status:
        """The Solution, with the status of how the run ended; the status alone if there is nothing to keep."""
        ...


def solve(
    network: Any,
    problem: Problem,
    training: Training,
    method: Method | None = None,
    *,
    fields_at: Sequence[int] | None = None,
    progress: bool = True,
    throw: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: float = EVERY,
) -> Solution:
    """Train `network` on `problem` by `training`, solved by `method`.

    Args:
        network: what learns, for instance MLP(depth=3, activation="tanh", gamma0=1.0).
        problem: inputs (P, D) and targets (P,).
        training: how it learns; its steps are the time axis of the Solution.
        method: March() by default.
        fields_at: steps at which activation distributions are recorded (negative from the end), and states to predict
            from. By default the first and the last, and of problems of more than 1,000 points the state of the last.
        progress: show a progress bar on runs over two seconds.
        throw: raise when a run fails; otherwise return what it computed, with its status.
        checkpoint: folder in which March, GradientIndependence and Perturbation keep what they have done, so that a run
            that was stopped can go on bit for bit. What they solve in closed form needs none.
        resume: go on from the checkpoint; from the beginning if there is none.
        checkpoint_every: seconds between two checkpoints, which are written between two rows.

    Returns:
        Solution with steps + 1 rows, fewer if the run ended early.

    Raises:
        ValueError: for input that cannot be solved, or a checkpoint that cannot be resumed; nothing was run.
        ImportError: for a checkpoint without orbax.
        SolveError: the run diverged or ran out of particles; its `solution` holds the steps done.
        Interrupted: Ctrl-C, a KeyboardInterrupt whose `solution` holds the steps done.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem = kf.Problem(np.eye(2), [1.0, -1.0])
        >>> training = kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> solution = kf.solve(kf.MLP(depth=1, activation="linear"), problem, training)
        >>> bool(solution.loss[-1] < solution.loss[0])
        True
    """
    last, solver = training.steps, cast(Method, method or March())
    if fields_at is None:
        fields_at = (0, -1) if problem.points <= FEW else () if method is None or isinstance(method, March) else (-1,)
    outside = [step for step in fields_at if not -last - 1 <= step <= last]
    if outside:
        raise ValueError(f"fields_at must be steps in 0..{last} (or negative, from the end), got {outside[0]}")
    steps = sorted({step % (last + 1) for step in fields_at})
    check_input(network, problem, training, solver)
    kept = _kept(solver, checkpoint, resume, checkpoint_every)
    with bar(type(solver).__name__, progress) as report:
        result = solver.run(network, problem, training, steps, report, **kept)
    status, solution = (result, None) if isinstance(result, Status) else (result.status, result)
    if throw or solution is None:
        check(status, solution)
    assert solution is not None
    return solution


def check_input(network: Any, problem: Problem, training: Any, method: Any) -> None:
    """Raise if a method cannot solve this, as far as it can be told without running.

    Args:
        network, problem, training, method: as for `solve`.

    Raises:
        ValueError: naming what does not fit.
    """
    rules = getattr(method, "rules", (GradientDescent,))
    if not isinstance(training, rules):
        known = " and ".join(rule.__name__ for rule in rules)
        raise ValueError(f"{type(method).__name__} solves {known}, not {type(training).__name__}")
    if isinstance(training, OnlineSGD) != (problem.stream is not None):
        missing = "" if problem.stream is not None else ": give it Problem(X, y, stream=(X, y))"
        raise ValueError(f"OnlineSGD trains on the stream of a Problem, and no other rule does{missing}")
    for name in _extras(problem, training):
        if name not in getattr(method, "takes", ()):
            raise ValueError(f"{type(method).__name__} does not solve {EXTRAS[name]}: use March or FiniteWidth")
    kinds, kind = getattr(method, "networks", None), type(network).__name__
    if kinds and kind not in kinds:
        raise ValueError(f"{type(method).__name__} solves {' and '.join(kinds)}, not {kind}: use March")
    if kinds and not network.is_plain:
        raise ValueError(f"{type(method).__name__} solves {kind} without biases, scales and widths: use March")
    if hasattr(method, "check"):
        method.check(network, problem, training)


def check(status: Status, solution: Solution | None) -> None:
    """Raise SolveError or Interrupted, with what there is, if a run failed."""
    if status.code != "ok":
        raise (Interrupted if status.code == "interrupted" else SolveError)(str(status), solution)


def _kept(method: Any, folder: str | os.PathLike[str] | None, resume: bool, every: float) -> dict[str, Any]:
    """The checkpoint, as an argument of a method that keeps one."""
    if folder is None:
        if resume:
            raise ValueError("resume needs checkpoint, the folder to go on from")
        return {}
    if not getattr(method, "keeps_checkpoints", False):
        raise ValueError(
            f"{type(method).__name__} keeps no checkpoints: March, GradientIndependence and Perturbation do"
        )
    return {"checkpoint": Checkpoint(folder, every, resume)}


def _extras(problem: Problem, training: Training) -> list[str]:
    """What a run needs beyond plain gradient descent on the mean squared error of one output."""
    needed = {
        "losses": problem.loss.name != "mse",
        "outputs": problem.outputs is not None,
        "momentum": getattr(training, "momentum", 0) > 0,
        "weight_decay": getattr(training, "weight_decay", 0) > 0,
        "schedule": getattr(training, "schedule", "constant") != "constant",
    }
    return [name for name, needs in needed.items() if needs]
