"""Checkpoints of long runs at infinite width, from which they go on bit for bit.

A checkpoint is a folder of parts, each of which appears whole or not at all. A part holds what the run recorded since
the part before it. The newest part also holds the state from which the run goes on.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import shutil
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kernelfield.common.atomic_files import reason
from kernelfield.describe.run import differences
from kernelfield.engine.series import Series
from kernelfield.march.array_folders import ArrayFolders
from kernelfield.march.devices import gathered
from kernelfield.march.programs import look
from kernelfield.march.replicate import Replicate, without_motion

FORMAT = 2
EVERY = 300.0  # seconds between two parts
PART = re.compile(r"part\d{6}")
BY_STEP = ("rows", "fields", "states", "starts")  # records of a replicate, which are dictionaries
RECORDS: tuple[str, ...] = ("outputs", *BY_STEP)


class Checkpoint:
    """The folder in which a run keeps what it has done, every so many seconds; `resume` goes on from what is there.

    Raises:
        ValueError: `every` is not a number of seconds.
        ImportError: orbax is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], every: float = EVERY, resume: bool = False) -> None:
        if not 0 <= every < math.inf:
            raise ValueError(f"checkpoint_every must be a number of seconds >= 0, got {every}")
        self.folder, self.every, self.resume = Path(folder).absolute(), every, resume
        self.found: dict[str, Any] | None = None
        self.description: dict[str, Any] = {}
        self.warned = False
        self.files = ArrayFolders()
        self._forget(0)

    def open(self, fingerprint: dict[str, Any]) -> int | None:
        """Look for a checkpoint of a run with this fingerprint; nothing is changed on disk.

        Returns the room for directions with which the run goes on; None if it starts from the beginning.

        Raises:
            ValueError: there is a checkpoint that must not be resumed, or of another run, or a damaged one.
        """
        self.description = json.loads(json.dumps(fingerprint))
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"checkpoint must be a folder, {self.folder} is a file")
        parts = self._on_disk()
        if not parts:
            return None
        if not self.resume:
            raise ValueError(f"{self.folder} holds a checkpoint: resume from it, or remove it to start anew")
        with self._intact():
            found = self.files.read(self.folder / parts[-1], "document")
            version = found["format"]
        if version != FORMAT:
            raise ValueError(f"the checkpoint in {self.folder} has format {version}; this version reads {FORMAT}")
        for what in differences(found["described"], self.description):
            raise ValueError(f"the checkpoint in {self.folder} is of another run: {what}")
        self.found = found
        return found["directions"]

    def begin(self, replicates: Sequence[Replicate]) -> float:
        """Make sure that checkpoints can be written, and put what `open` found into replicates at initialization.

        Returns the seconds that it took to compute what was found.

        Raises:
            ValueError: the folder cannot be written to, or what is in it is damaged.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise ValueError(f"checkpoints cannot be written to {self.folder}: {reason(error)}") from None
        self.files.clean(self.folder)
        self._forget(len(replicates))
        if self.found is None:
            return 0.0
        found, self.found = self.found, None  # a run that starts again, with more directions, has nothing to resume
        with self._intact(), jax.enable_x64(True):
            parts = [self.files.read(self.folder / name, "rows") for name in found["parts"]]
            states = self.files.read(self.folder / self._on_disk()[-1], "state")
            if [*map(_checksum, parts), _checksum(states)] != [*found["parts"].values(), found["state"]]:
                raise ValueError("other arrays than were written")
            trees = _trees(replicates[0])
            for number, replicate in enumerate(replicates):
                rows = [part[str(number)] for part in parts]
                _restore(replicate, trees, rows, states[str(number)], found["replicates"][number])
        self._remember(found["parts"], replicates)
        return found["seconds"]

    @property
    def due(self) -> bool:
        """Whether it is time for the next write."""
        return time.monotonic() - self.last >= self.every

    def write(self, replicates: Sequence[Replicate], seconds: float) -> None:
        """Write what is new, `seconds` after the run began; a failure warns once, and the run goes on."""
        if list(map(_counters, replicates)) == self.latest:
            return
        try:
            self._write(replicates, seconds)
        except (OSError, MemoryError) as error:
            if not self.warned:
                self.warned = True
                warnings.warn(
                    f"no checkpoint could be written to {self.folder}: {reason(error)}; the run goes on",
                    RuntimeWarning,
                    stacklevel=2,
                )
        self.last = time.monotonic()

    def _write(self, replicates: Sequence[Replicate], seconds: float) -> None:
        here = self._on_disk()
        if not set(self.parts) <= set(here):  # somebody removed them
            self._forget(len(replicates))
        name = f"part{1 + max((int(part[4:]) for part in [*self.parts, *here]), default=0):06d}"
        run = {
            "format": FORMAT,
            "described": self.description,
            "directions": replicates[0].setup.capacity,
            "seconds": seconds,
            "replicates": list(map(_counters, replicates)),
        }
        pairs = enumerate(zip(replicates, self.written, strict=True))
        rows = {str(number): _rows(replicate, written) for number, (replicate, written) in pairs}
        states = enumerate(gathered((replicate.state, replicate.bases)) for replicate in replicates)
        state = {str(number): jax.tree.leaves(tree) for number, tree in states}
        run |= {"parts": {**self.parts, name: _checksum(rows)}, "state": _checksum(state)}
        self.files.save(self.folder / name, run, rows=rows, state=state)
        self._remember(run["parts"], replicates)
        for old in self._on_disk():
            if old != name:
                shutil.rmtree(self.folder / old / ("state" if old in self.parts else ""), ignore_errors=True)

    def _forget(self, replicates: int) -> None:
        """Begin with nothing written."""
        self.parts: dict[str, int] = {}  # and their checksums
        self.written = [dict.fromkeys(RECORDS, 0)] * replicates  # how many records of every replicate the parts hold
        self.latest: list[dict[str, Any]] = []  # counters of the replicates
        self.last = time.monotonic()

    def _remember(self, parts: dict[str, int], replicates: Sequence[Replicate]) -> None:
        """Note that parts hold all that the replicates have."""
        self.parts, self.latest = parts, list(map(_counters, replicates))
        self.written = [{name: len(getattr(replicate, name)) for name in RECORDS} for replicate in replicates]

    def _on_disk(self) -> list[str]:
        """The names of the parts that are whole, in order."""
        try:
            return sorted(path.name for path in self.folder.iterdir() if PART.fullmatch(path.name))
        except (FileNotFoundError, NotADirectoryError):
            return []

    @contextlib.contextmanager
    def _intact(self) -> Iterator[None]:
        """Turn whatever goes wrong while reading into one sentence."""
        try:
            yield
        except Exception as error:  # every layer below has its own exceptions for a file it cannot read
            raise ValueError(f"the checkpoint in {self.folder} is damaged: remove it to start anew") from error


# --- replicates


def _counters(replicate: Replicate) -> dict[str, Any]:
    return {name: getattr(replicate, name) for name in replicate.counters}


def _checksum(tree: Any) -> int:
    """A checksum of the entries of arrays: files of orbax have checksums of what describes the arrays alone."""
    return functools.reduce(
        lambda so_far, leaf: zlib.crc32(np.ascontiguousarray(leaf).data, so_far), jax.tree.leaves(tree), 0
    )


def _rows(replicate: Replicate, written: dict[str, int]) -> dict[str, Any]:
    """What is not written yet, as lists and dictionaries of arrays."""
    fresh = replicate.outputs[written["outputs"] :]
    if fresh:
        fresh = [jax.tree.map(lambda *parts: np.concatenate(parts), *fresh)]
        replicate.outputs[written["outputs"] :] = fresh
    rows: dict[str, Any] = {"outputs": [jax.tree.leaves(part) for part in fresh]}
    for name in BY_STEP:
        records = list(getattr(replicate, name).items())[written[name] :]
        rows[name] = {str(t): jax.tree.leaves(record) for t, record in records}
    return jax.tree.map(np.asarray, rows)


def _trees(replicate: Replicate) -> dict[str, Any]:
    """The trees whose leaves the arrays are: the same in all replicates."""
    layers, constants = replicate.state.layers, replicate.constants
    looked = functools.partial(look, replicate.step, replicate.recorder, False)
    row = jax.eval_shape(looked, layers, replicate.bases, constants)
    trees = {
        "outputs": 0 if replicate.step.orders == 1 else Series(constants.data),
        "rows": row.row,
        "fields": row.fields,
        "states": without_motion(layers),
        "starts": 0,
        "state": (replicate.state, replicate.bases),
    }
    return {name: jax.tree.structure(tree) for name, tree in trees.items()}


def _restore(
    replicate: Replicate, trees: dict[str, Any], rows: list[dict[str, Any]], state: list[Any], counters: dict[str, Any]
) -> None:
    """Put what `_rows` took into a replicate at initialization."""
    replicate.outputs = [trees["outputs"].unflatten(leaves) for part in rows for leaves in part["outputs"]]
    for name in BY_STEP:
        records = {int(t): trees[name].unflatten(leaves) for part in rows for t, leaves in part[name].items()}
        setattr(replicate, name, records)
    replicate.starts = replicate.placement.put(replicate.starts)
    replicate.state, replicate.bases = replicate.placement.put(trees["state"].unflatten(state))
    for name, value in counters.items():
        setattr(replicate, name, value)
