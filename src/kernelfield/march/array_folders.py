"""Folders of arrays that appear whole or not at all, by orbax."""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kernelfield.common.atomic_files import CannotWrite, reason

SETTLED = 0.5  # seconds after which threads of a write that failed make no more files


class ArrayFolders:
    """Reads and writes folders of arrays; ImportError if orbax is not installed."""

    def __init__(self) -> None:
        with _quiet():
            try:
                import orbax.checkpoint as orbax
            except ImportError:
                raise ImportError('a checkpoint needs orbax: pip install "kernelfield[checkpoint]"') from None
            self._args, self._unfinished = orbax.args, orbax.utils.TMP_DIR_SUFFIX
            self._files = orbax.Checkpointer(orbax.CompositeCheckpointHandler())

    def save(self, folder: Path, document: dict[str, Any], **trees: Any) -> None:
        """Write a new folder: a document as JSON can hold it, and by name lists and dictionaries of NumPy arrays.

        Raises:
            CannotWrite: nothing was written; the message is the reason.
        """
        items = {name: self._args.PyTreeSave(tree) for name, tree in trees.items()}
        try:
            with _quiet():
                self._files.save(folder, self._args.Composite(document=self._args.JsonSave(document), **items))
        except Exception as error:  # every layer below has its own
            time.sleep(SETTLED)
            self.clean(folder.parent)
            number = re.search(r"os_error_code='(\d+)'", str(error))  # in the text of an error of tensorstore
            code = int(number[1]) if number else None
            raise CannotWrite(reason(error if code is None else OSError(code, os.strerror(code)))) from error

    def read(self, folder: Path, name: str) -> Any:
        """Returns one of the trees of a folder, or its "document"."""
        restore = self._args.JsonRestore() if name == "document" else self._args.PyTreeRestore()
        with _quiet():
            return self._files.restore(folder, self._args.Composite(**{name: restore}))[name]

    def clean(self, folder: Path) -> None:
        """Remove what was left unfinished in a folder of such folders."""
        for path in folder.glob(f"*{self._unfinished}*"):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what orbax and its threads print besides raising it; threads of a failed write may print later."""
    log, hook = logging.getLogger("absl"), sys.unraisablehook
    for logger in (log, logging.getLogger("asyncio")):
        logger.addFilter(_is_not_of_a_thread)
    if getattr(hook, "func", None) is not _report_unless_closed:
        sys.unraisablehook = functools.partial(_report_unless_closed, hook)
    disabled, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = disabled


def _is_not_of_a_thread(record: logging.LogRecord) -> bool:
    return not re.search("_SignalingThread|orbax.checkpoint", str(record.msg))


def _report_unless_closed(hook: Any, error: Any) -> None:
    if str(error.exc_value) != "Event loop is closed":
        hook(error)
