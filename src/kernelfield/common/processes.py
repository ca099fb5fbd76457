"""Processes: JAX and fork do not mix."""

from __future__ import annotations

import os

_started_in: list[int] = []  # the process in which JAX computed first


def check_process() -> None:
    """Raises RuntimeError in a process that was forked after its parent had computed, where JAX would wait for ever."""
    if not _started_in:
        _started_in.append(os.getpid())
    elif _started_in[0] != os.getpid():
        advice = 'multiprocessing.get_context("spawn"), or joblib, whose workers start anew'
        raise RuntimeError(f"this process was forked after JAX had started, and JAX would hang in it: take {advice}")
