"""Output files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CannotWrite(OSError):
    """A file that could not be written; the message names it, and the reason."""


@contextmanager
def whole_file(path: str | os.PathLike[str], size: int = 0) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place at the end; if something fails, nothing is left.

    Args:
        path: of the file; an existing one is replaced.
        size: bytes that there has to be room for before anything is written, where the system can tell.

    Returns:
        Context manager of the path to write to, with the same suffix.

    Raises:
        CannotWrite: the disk is full, or the folder cannot be written to; an existing file is as it was.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from kernelfield.common.atomic_files import whole_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole_file(folder + "/a.txt") as beside:
        ...         _ = beside.write_text("all of it")
        ...     [path.name for path in Path(folder).iterdir()]
        ['a.txt']
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        if size and hasattr(os, "posix_fallocate"):
            with open(beside, "wb") as tried:
                os.posix_fallocate(tried.fileno(), 0, size)
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise CannotWrite(f"{path} could not be written: {reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def reason(error: Exception) -> str:
    """What went wrong, in the words of the system where it says so.

    Args:
        error: of a write.

    Example:
        >>> import errno, os
        >>> from kernelfield.common.atomic_files import reason
        >>> reason(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        'no space left on device'
    """
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return text[:1].lower() + text[1:]
