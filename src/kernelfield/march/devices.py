"""Several devices, of one process or of many: arrays with an axis of particles are split along it.

Products sum over particles or act on each of them, so that devices have to add up coordinates, and nothing larger.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import GetAttrKey, tree_map_with_path

AXIS = "particles"  # of a mesh
# what has particles on its last axis
ON_PARTICLES = frozenset({"q", "K", "M", "velocity", "below", "above", "h", "phi", "z", "g", "initial", "F", "G"})


@dataclass(frozen=True)
class Placement:
    """Where arrays are: arrays with particles are split over the devices of a mesh, others are on every device.

    Raises:
        ValueError: the devices cannot have equally many particles.
    """

    mesh: Mesh | None = None  # it has an axis "particles"; None for JAX's default device alone
    particles: int = 0  # S

    def __post_init__(self) -> None:
        if self.mesh is not None and self.particles % (count := self.mesh.shape[AXIS]):
            raise ValueError(
                f"particles must be a multiple of the {count} devices they are split over, got {self.particles}"
            )

    @property
    def is_split(self) -> bool:
        """Whether devices communicate."""
        return self.mesh is not None and self.mesh.size > 1

    def shardings(self, tree: Any) -> Any:
        """Returns the sharding of every leaf of a tree of arrays."""

        def sharding(path: tuple, leaf: Any) -> NamedSharding:
            assert self.mesh is not None
            names = [key.name for key in path if isinstance(key, GetAttrKey)]
            split = names and names[-1] in ON_PARTICLES and leaf.shape[-1] and leaf.shape[-1] % self.particles == 0
            axes = [*[None] * (leaf.ndim - 1), AXIS] if split else []
            return NamedSharding(self.mesh, PartitionSpec(*axes))

        return tree_map_with_path(sharding, tree)

    def put(self, tree: Any) -> Any:
        """Returns a tree of NumPy arrays on the devices, none of which holds all; it is the same in every process."""

        def share(leaf: Any, sharding: NamedSharding) -> jax.Array:
            values = np.asarray(leaf)
            return jax.make_array_from_callback(values.shape, sharding, values.__getitem__)

        if self.mesh is None:
            return jax.device_put(tree)
        return jax.tree.map(share, tree, self.shardings(tree))

    def compiled(self, function: Callable[..., Any], arguments: tuple, **options: Any) -> Any:
        """Returns a function compiled for arguments of these shapes, placed as `put` does, and so are its results."""
        if self.mesh is not None:
            results = jax.eval_shape(function, *arguments)
            options |= {"in_shardings": self.shardings(arguments), "out_shardings": self.shardings(results)}
        return jax.jit(function, **options).lower(*arguments).compile()


ONE_DEVICE = Placement()


def particle_mesh() -> Mesh | None:
    """Returns the mesh that is set, if it has an axis "particles"; else one of all devices, None for a single one."""
    mesh = jax.sharding.get_mesh()
    if AXIS in mesh.axis_names:
        return Mesh(mesh.devices, mesh.axis_names)
    return Mesh(np.array(jax.devices()), (AXIS,)) if jax.device_count() > 1 else None


def placement(particles: int) -> Placement:
    """Returns where S particles go: on all devices, or on one where they do not fit and nobody asked for several.

    Raises:
        ValueError: a mesh that was set, or the devices of several processes, cannot have equally many particles.
    """
    mesh = particle_mesh()
    asked = AXIS in jax.sharding.get_mesh().axis_names or jax.process_count() > 1
    fits = mesh is not None and particles % mesh.shape[AXIS] == 0
    return Placement(mesh, particles) if fits or asked else ONE_DEVICE


def multiple(particles: int) -> int:
    """Returns the next larger number of particles of which the devices can have equal shares."""
    mesh = particle_mesh()
    count = 1 if mesh is None else mesh.shape[AXIS]
    return -(-particles // count) * count


def gathered(tree: Any) -> Any:
    """Returns a tree of arrays as whole NumPy arrays in every process, valid until the arrays are donated."""

    def whole(leaf: Any) -> Any:
        is_elsewhere = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        return process_allgather(leaf, tiled=True) if is_elsewhere else np.asarray(leaf)

    return jax.tree.map(whole, tree)


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> bool:
    """Make this process one of several that solve together, before it has used a device.

    Args:
        coordinator: "host:port" of process 0; it, and what follows, is found by JAX on Slurm.
        processes: how many there are.
        process: the number of this one, from 0.

    Returns:
        Whether this is process 0.

    Raises:
        ValueError: some of the arguments are missing, or all are and JAX does not find them.
    """
    place = coordinator, processes, process
    if coordinator is None or processes is None or process is None:
        if place != (None, None, None):
            raise ValueError("give --coordinator, --processes and --process together, or none of them on Slurm")
    elif not coordinator.rpartition(":")[2].isdigit():
        raise ValueError(f"--coordinator must be HOST:PORT, got '{coordinator}'")
    elif process >= processes:
        raise ValueError(f"--process must be below --processes = {processes}, got {process}")
    try:
        jax.distributed.initialize(*place, cluster_detection_method="deactivate" if coordinator else None)
    except ValueError:
        raise ValueError(
            "--distributed finds other processes on Slurm: elsewhere give --coordinator, --processes and --process"
        ) from None
    return jax.process_index() == 0


@contextmanager
def together() -> Iterator[Callable[[int], int]]:
    """Let all processes do the same steps, and stop together; one process alone is left as it is.

    Yields a function of the number of steps that this process would take next. It returns the number of process 0, and
    raises KeyboardInterrupt in every process once one of them had Ctrl-C.
    """
    if jax.process_count() == 1:
        yield lambda steps: steps
        return
    pressed = []

    def press(*_: Any) -> None:
        if pressed:  # a second time: the others may be gone
            raise KeyboardInterrupt
        pressed.append(True)

    def agree(steps: int) -> int:
        every = process_allgather(np.array([steps, len(pressed)]))
        if every[:, 1].any():
            raise KeyboardInterrupt
        return int(every[0, 0])

    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, press) if is_main else None
    try:
        yield agree
    finally:
        if is_main:
            signal.signal(signal.SIGINT, before)
