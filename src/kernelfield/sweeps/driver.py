"""Runs a grid in this process, or on the workers of Dask, and writes every point when it is done."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, ClassVar

import jax
import xarray

from kernelfield.common.atomic_files import check_folder
from kernelfield.common.progress import Report, bar
from kernelfield.describe.architecture import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run
from kernelfield.describe.training import Training
from kernelfield.files.config import METHODS, Config
from kernelfield.march.method import March
from kernelfield.solution.method import Method
from kernelfield.sweeps.axes import Grid, Index, make_grid
from kernelfield.sweeps.store import Store, SweepError, check_same, create, import_extra, lock, read
from kernelfield.sweeps.variables import Record, failure, solve_point

SECONDS_TO_CONNECT = 10.0
Results = Iterator[tuple[Index, Record]]  # points as they are done


def sweep_grid(
    network: Architecture,
    problem: Problem,
    training: Training,
    grid: Mapping[str, Sequence[Any]],
    path: str | os.PathLike[str],
    method: Method | None = None,
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    progress: bool = True,
) -> xarray.Dataset:
    """Solves every combination of several values of several settings, and writes each to disk when it is done.

    The same call goes on with a sweep that was stopped, and does only the points that are missing. A point that fails
    is kept with its reason, and the others go on. Worker processes import the program that calls this: it must do so
    under `if __name__ == "__main__":`.

    Args:
        network, problem, training: as for `kernelfield.solve`.
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
    data: Any = ProblemAsData(problem)
    config = Config(data, network, training, {names[0]: solver})
    with bar("sweep", progress) as report:
        run(make_grid(config, grid, names[0]), Path(path), workers, scheduler, retry_failed, report)
    return read(path)


@dataclass(frozen=True)
class ProblemAsData:
    """A Problem in place of the section [data] of a configuration."""

    content: Problem
    model_fields: ClassVar[dict[str, Any]] = {}  # the section has no keys

    def problem(self, folder: Path) -> Problem:
        """Returns the Problem; `folder` is not used."""
        return self.content

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Returns what a text can say about the Problem."""
        return {"source": "given", "points": self.content.points, "loss": self.content.loss.name}


def run(
    grid: Grid,
    path: Path,
    workers: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    report: Report = lambda done, total: None,
) -> None:
    """Solves the points that a sweep lacks, and writes them into its folder, which is created if it is not there.

    Arguments and errors are those of `sweep_grid`. After a KeyboardInterrupt the points that were done are kept.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers must not be negative, got {workers}")
    if workers is not None and scheduler is not None:
        raise ValueError("give workers or a scheduler, not both: it has its own workers")
    for library in ("zarr",) if workers == 0 else ("zarr", "distributed"):
        import_extra(library)
    if path.exists():
        check_same(path, grid)
    else:
        check_folder(path)
    with contextlib.nullcontext() if scheduler is None else _connect(scheduler) as client:
        if not path.exists():
            create(path, grid)
        with lock(path):
            store = Store(path)
            done = store.status == "ok" if retry_failed else store.status != ""
            missing = {index: run for index, run in grid.runs.items() if not done[index]}
            count = len(grid.runs) - len(missing)
            report(count, len(grid.runs))
            for number, (index, record) in enumerate(_results(missing, workers, client), start=count + 1):
                if record["status"] == "interrupted":
                    raise KeyboardInterrupt
                store.write(index, record)
                report(number, len(grid.runs))


def _results(runs: Mapping[Index, Run], workers: int | None, client: Any) -> Results:
    """Yields the records of points, from this process, from a scheduler, or from worker processes on this computer."""
    if workers == 0:
        yield from ((index, solve_point(run)) for index, run in runs.items())
    elif runs:
        connection = _local_client(workers, len(runs)) if client is None else contextlib.nullcontext(client)
        with connection as client:
            yield from _results_of_dask(runs, client)


@contextlib.contextmanager
def _connect(scheduler: str) -> Iterator[Any]:
    """Yields a connection to the scheduler at an address."""
    try:
        client = import_extra("distributed").Client(scheduler, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError, TypeError):
        raise ValueError(f"no Dask scheduler answers at {scheduler}") from None
    log = logging.getLogger("distributed")
    level = log.level
    log.setLevel(logging.CRITICAL)  # SweepError says that a connection was lost
    try:
        with client:
            yield client
    finally:
        log.setLevel(level)


@contextlib.contextmanager
def _local_client(workers: int | None, points: int) -> Iterator[Any]:
    """Yields a connection to worker processes on this computer, each with its share of the cores."""
    distributed, dask = import_extra("distributed"), import_extra("dask")
    cores = dask.system.CPU_COUNT
    count = min(points, workers or cores)
    with dask.config.set({"distributed.scheduler.worker-saturation": 1.0}), _block_interrupts():
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
def _block_interrupts() -> Iterator[None]:
    """Blocks Ctrl-C for good in threads and processes that start in the block, and in this thread until its end."""
    resource_tracker.ensure_running()  # which would let signals through when a process is first started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment(threads: int) -> dict[str, str]:
    """Returns the environment of worker processes: threads, the cache of compiled programs, no grabbing of a GPU."""
    variables = {"NPROC": str(threads), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # XLA sizes its pool by NPROC
    for option in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"):
        if (value := getattr(jax.config, option)) is not None:
            variables[option.upper()] = str(value)
    return variables


def _results_of_dask(runs: Mapping[Index, Run], client: Any) -> Results:
    """Yields the records of points from workers, which hold no more points at a time than they have threads.

    A point whose worker dies goes to another worker; the scheduler gives it up when several have died on it.
    """
    waiting, places = iter(runs.items()), {}
    queue = import_extra("distributed").as_completed(loop=client.loop)

    def refill() -> None:
        room = max(1, sum(client.nthreads().values())) - len(places)
        for _, (index, run) in zip(range(room), waiting, strict=False):
            with warnings.catch_warnings(action="ignore", category=UserWarning):  # that data are large: they are few
                future = client.submit(solve_point, run, pure=False)
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
    """Returns the record that a worker sent, or an error's if it sent none."""
    if future.status == "finished":
        return future.result()
    if future.status != "error":
        raise SweepError("the connection to the Dask scheduler was lost")
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        return {"status": "error", "message": "every worker that took it died: out of memory, perhaps"}
    return failure(error)
