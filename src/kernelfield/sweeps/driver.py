"""Run a grid: in this process, or on the workers of Dask, and write every point when it is done."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kernelfield.common.progress import bar
from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run
from kernelfield.describe.training import Training
from kernelfield.files.config import METHODS, Config
from kernelfield.files.storage import check_folder
from kernelfield.march.method import March
from kernelfield.sweeps.axes import Grid, Index, grid_of
from kernelfield.sweeps.given import GivenData
from kernelfield.sweeps.store import Store, SweepError, check_same, create, locked, needs, read
from kernelfield.sweeps.variables import Record, solved

if TYPE_CHECKING:
    import xarray

SECONDS_TO_CONNECT = 10.0
Results = Iterator[tuple[Index, Record]]


def sweep_grid(
    network: Any,
    problem: Problem,
    training: Training,
    grid: Mapping[str, Sequence[Any]],
    path: str | os.PathLike[str],
    method: Any = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    progress: bool = True,
) -> xarray.Dataset:
    """Solve every combination of several values of several settings, each written to disk the moment it is done.

    The same call goes on with a sweep that was stopped, and does only the points that are missing. A point that fails
    is kept with its reason, and the others go on. Worker processes import the program that calls this: it must do so
    under `if __name__ == "__main__":`.

    Args:
        network: what learns.
        problem: what is learned.
        training: how it learns.
        grid: values by setting of network, training or method: "gamma0", or "march.seed" where several have the name.
        path: of the folder to write, a dataset in zarr format.
        method: March() by default.
        workers: processes to start on this computer; by default as many as there are cores or points, and with 0 the
            points are solved in this process.
        scheduler: address of a Dask scheduler whose workers solve the points instead.
        retry_failed: do points that failed again.
        progress: show a progress bar on sweeps over two seconds.

    Returns:
        xarray.Dataset of all points, see `kernelfield.sweeps.read`.

    Raises:
        ValueError: for settings that cannot be solved, or a folder of another sweep; nothing was run.
        ImportError: Dask or zarr is not installed.
        SweepError: the disk is full, or the scheduler was lost; the points that were written are kept.

    Example:
        >>> import tempfile, numpy as np, kernelfield as kf
        >>> problem, training = kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientDescent(learning_rate=0.5, steps=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = kf.sweep_grid(kf.MLP(depth=1, activation="linear"), problem, training,
        ...                          {"gamma0": [0.1, 1.0], "steps": [2, 4]}, folder + "/sweep.zarr", workers=0)
        >>> data.final_loss.dims, bool((data.status == "ok").all())
        (('gamma0', 'steps'), True)
        >>> moved = data.Phi_movement.sel(steps=4, layer=1)
        >>> bool(moved.sel(gamma0=1.0) > moved.sel(gamma0=0.1))
        True
    """
    solver = March() if method is None else method
    names = [name for name, kind in METHODS.items() if kind is type(solver)]
    if not names:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {type(solver).__name__}")
    data: Any = GivenData(problem)
    config = Config(data, network, training, {names[0]: solver})
    with bar("sweep", progress) as report:
        run(grid_of(config, grid, names[0]), Path(path), workers, scheduler, retry_failed, report)
    return read(path)


def run(
    grid: Grid,
    path: Path,
    workers: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Do what is missing of a grid.

    Args:
        grid: what to solve.
        path: of the folder to write, or to go on in.
        workers, scheduler, retry_failed: as for `sweep_grid`.
        report: called with (points done, points in all).

    Raises:
        ValueError, ImportError, SweepError: as of `sweep_grid`.
        KeyboardInterrupt: the points that were done are kept.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers must not be negative, got {workers}")
    if workers is not None and scheduler is not None:
        raise ValueError("give workers or a scheduler, not both: it has its own workers")
    for library in ("zarr",) if workers == 0 else ("zarr", "distributed"):
        needs(library)
    if path.exists():
        check_same(path, grid)
    else:
        check_folder(path)
    with _client(scheduler) as client:
        if not path.exists():
            create(path, grid)
        with locked(path):
            store = Store(path)
            left = _left(store.status, grid, retry_failed)
            done = len(grid.runs) - len(left)
            report(done, len(grid.runs))
            for index, record in _results(left, workers, client):
                if record["status"] == "interrupted":
                    raise KeyboardInterrupt
                store.write(index, record)
                done += 1
                report(done, len(grid.runs))


def _left(status: np.ndarray, grid: Grid, retry_failed: bool) -> dict[Index, Run]:
    """The points that are to be done."""
    kept = status == "ok" if retry_failed else status != ""
    return {index: run for index, run in grid.runs.items() if not kept[index]}


def _results(runs: Mapping[Index, Run], workers: int | None, client: Any) -> Results:
    """Points as they are done."""
    if workers == 0:
        yield from ((index, solved(run)) for index, run in runs.items())
    elif client is not None:
        yield from _on_dask(runs, client)
    elif runs:
        with _local_client(workers, len(runs)) as local:
            yield from _on_dask(runs, local)


@contextlib.contextmanager
def _client(scheduler: str | None) -> Iterator[Any]:
    """A connection to a scheduler, if there is an address of one."""
    if scheduler is None:
        yield None
        return
    try:
        client = needs("distributed").Client(scheduler, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError):
        raise ValueError(f"no Dask scheduler answers at {scheduler}") from None
    log = logging.getLogger("distributed")
    before, _ = log.level, log.setLevel(logging.CRITICAL)  # a lost connection is told in a sentence of our own
    try:
        with client:
            yield client
    finally:
        log.setLevel(before)


@contextlib.contextmanager
def _local_client(workers: int | None, points: int) -> Iterator[Any]:
    """Worker processes on this computer, each with its share of the cores."""
    distributed, dask = needs("distributed"), needs("dask")
    cores = dask.system.CPU_COUNT
    count = min(points, workers or cores)
    with dask.config.set({"distributed.scheduler.worker-saturation": 1.0}), _without_interrupts():
        cluster = distributed.LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=0,  # none: JAX needs what it needs
            dashboard_address=":0",  # any free port
            silence_logs=logging.CRITICAL,
            env=_environment(max(1, cores // count)),
        )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Threads and processes that are started here never see Ctrl-C; this one does, at the end."""
    resource_tracker.ensure_running()  # which would let signals through when a process is first started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment(threads: int) -> dict[str, str]:
    """Of worker processes: so many threads, compiled programs where this process has them, no grabbing of a GPU."""
    import jax

    variables = {"NPROC": str(threads), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # XLA sizes its pool by NPROC
    for option in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"):
        if (value := getattr(jax.config, option)) is not None:
            variables[option.upper()] = str(value)
    return variables


def _on_dask(runs: Mapping[Index, Run], client: Any) -> Results:
    """Points as workers are done with them, with no more of them on the way than there are threads.

    A point whose worker dies is given to another one; the scheduler gives it up when several have died on it.
    """
    waiting, places = iter(runs.items()), {}
    queue = needs("distributed").as_completed(loop=client.loop)

    def refill() -> None:
        room = max(1, sum(client.nthreads().values())) - len(places)
        for _, (index, run) in zip(range(room), waiting, strict=False):
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # that data are large: they are few
                future = client.submit(solved, run, pure=False)
            places[future.key] = index
            queue.add(future)

    refill()
    for future in queue:
        index = places.pop(future.key)
        record = _record(future)
        future.release()
        refill()
        yield index, record


def _record(future: Any) -> Record:
    """What a worker found, or why it did not."""
    if future.status == "finished":
        return future.result()
    if future.status == "error":
        error = future.exception()
        if type(error).__name__ == "KilledWorker":
            return {"status": "error", "message": "every worker that took it died: out of memory, perhaps"}
        return {"status": "error", "message": " ".join(f"{type(error).__name__}: {error}".split())}
    raise SweepError("the connection to the Dask scheduler was lost")
