"""Runs in processes of their own, which tests kill."""

import multiprocessing
import os
import resource
import sys

import numpy as np

import kernelfield as kf
from kernelfield.cli import main
from kernelfield.march import particle_run

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["kernelfield", "kernelfield.cli", "orbax.checkpoint"])

SETTINGS = {
    "network": kf.MLP(depth=1, activation="tanh", gamma0=3.0),
    "problem": kf.Problem(np.random.default_rng(0).standard_normal((3, 4)), [1.0, -1.0, 1.0]),
    "training": kf.GradientDescent(learning_rate=0.3, steps=40),
    "method": kf.March(particles=64, replicates=1),
}


def go_on(folder, cache):
    """The run of SETTINGS, with a checkpoint after every step."""
    import jax

    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    particle_run.SECONDS_BETWEEN_REPORTS = 0.0
    kf.solve(**SETTINGS, progress=False, checkpoint=folder, resume=True, checkpoint_every=0.0)


def with_a_full_disk(folder, arguments, most):
    """The command line where files cannot have more than so many bytes; what it prints is in a file."""
    import jax

    os.chdir(folder)
    jax.config.update("jax_compilation_cache_dir", None)  # others read it, and would find halves of files
    with open("printed", "w") as printed:
        os.dup2(printed.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    main(arguments)
