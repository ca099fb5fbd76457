"""solve: the one door to every method."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from kernelfield.common.processes import check_process
from kernelfield.common.progress import Report, bar
from kernelfield.describe.architecture import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run, steps_from
from kernelfield.describe.training import Training
from kernelfield.march.checkpoint import EVERY, Checkpoint
from kernelfield.march.method import March
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Interrupted, SolveError, Status

FEW = 1000  # points whose fields are kept by default


def solve(
    network: Architecture,
    problem: Problem,
    training: Training,
    method: Method | None = None,
    *,
    save_at: Sequence[int] | None = None,
    fields_at: Sequence[int] | None = None,
    progress: bool | Report = True,
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
        save_at: steps whose kernels are kept (negative from the end); all by default.
        fields_at: steps at which activation distributions are recorded (negative from the end), and states to predict
            from. By default the first and the last, and of problems of more than 1,000 points the state of the last.
        progress: show a progress bar on runs over two seconds; or a function that takes (done, total) instead.
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
        RuntimeError: in a process that was forked after a solve.
        SolveError: the run diverged or did not converge; its `solution` holds the steps done.
        Interrupted: Ctrl-C, a KeyboardInterrupt whose `solution` holds the steps done.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem = kf.Problem(np.eye(2), [1.0, -1.0])
        >>> training = kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> solution = kf.solve(kf.MLP(depth=1, activation="linear"), problem, training)
        >>> bool(solution.loss[-1] < solution.loss[0])
        True
    """
    run = describe(network, problem, training, method, save_at, fields_at)
    return solve_run(
        run, progress=progress, throw=throw, checkpoint=checkpoint, resume=resume, checkpoint_every=checkpoint_every
    )


def describe(
    network: Architecture,
    problem: Problem,
    training: Training,
    method: Method | None = None,
    save_at: Sequence[int] | None = None,
    fields_at: Sequence[int] | None = None,
) -> Run:
    """Returns the Run that `solve` solves for these arguments; raises ValueError for a step that is not there."""
    method, last = method or March(), training.steps
    if fields_at is None:
        fields_at = (0, -1) if problem.points <= FEW else () if isinstance(method, March) else (-1,)
    saved = None if save_at is None else steps_from("save_at", save_at, last)
    return Run(network, problem, training, method, saved, steps_from("fields_at", fields_at, last))


def solve_run(
    run: Run,
    *,
    progress: bool | Report = True,
    throw: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: float = EVERY,
) -> Solution:
    """Returns the Solution of a run; arguments and errors are those of `solve`."""
    method = run.method
    if not isinstance(method, Method):
        raise ValueError(f"method must be March() or another method, got {type(method).__name__}")
    check_process()
    method.supports(run)
    if checkpoint is None and resume:
        raise ValueError("resume needs checkpoint, the folder to go on from")
    if checkpoint is not None and not method.keeps_checkpoints:
        keepers = "March, GradientIndependence and Perturbation"
        raise ValueError(f"{type(method).__name__} keeps no checkpoints: {keepers} do")
    kept = None if checkpoint is None else Checkpoint(checkpoint, checkpoint_every, resume)
    with bar(type(method).__name__, progress) as report:
        result = method.solve(run, report, kept)
    status, solution = (result, None) if isinstance(result, Status) else (result.status, result)
    if solution is not None and len(run.kernel_steps) <= run.steps:
        done = tuple(step for step in run.kernel_steps if step <= solution.steps_done)
        solution = replace(solution, kernels={key: each.at_steps(done) for key, each in solution.kernels.items()})
    if throw or solution is None:
        check(status, solution)
    assert solution is not None
    return solution


def check(status: Status, solution: Solution | None) -> None:
    """Raise SolveError or Interrupted, with what there is, if a run failed."""
    if status.code != "ok":
        raise (Interrupted if status.code == "interrupted" else SolveError)(str(status), solution)
