"""Output files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place at the end; if something fails, nothing is left.

    Args:
        path: of the file; an existing one is replaced.

    Returns:
        Context manager of the path to write to, with the same suffix.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from kernelfield.files import whole_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole_file(folder + "/a.txt") as beside:
        ...         _ = beside.write_text("all of it")
        ...     [path.name for path in Path(folder).iterdir()]
        ['a.txt']
    """
    path = Path(path)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
