"""Output files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class CannotWrite(OSError):
    """A file could not be written; the message names the file and the reason."""


@contextmanager
def whole_file(path: str | os.PathLike[str], size: int = 0) -> Iterator[Path]:
    """Yields the path of a temporary file, which replaces the file at `path` if the block ends without an error.

    Room for `size` bytes is reserved first, where the system can. The temporary file has the suffix of `path`. It may
    be a folder if there is nothing at `path`.

    Raises:
        CannotWrite: the disk is full, or the folder cannot be written to; a file at `path` stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        if size and hasattr(os, "posix_fallocate"):
            with open(temporary, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise CannotWrite(f"{path} could not be written: {reason(error)}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # if it is a folder
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def reason(error: Exception) -> str:
    """Returns why a file could not be written, in the words of the system if it gives any."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return text[:1].lower() + text[1:]


def check_file(path: Path) -> None:
    """Raises FileNotFoundError if there is no file at `path`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file" if path.exists() else f"{path} does not exist")


def check_folder(path: Path) -> None:
    """Raises FileNotFoundError or ValueError if no file can be written at `path`."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} for {path.name} does not exist")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file in it")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"the folder {path.parent} cannot be written to: {reason(error)}") from None
