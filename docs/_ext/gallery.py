"""What must be true of every example once it has run for the gallery; whatever is not is a warning of the build.

The build of the documentation is where examples run: `tests/test_examples.py` reads them, without running them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OUTPUT = re.compile(r"^ *\.\. rst-class:: sphx-glr-script-out\n((?:\n| +.*\n)+)", re.MULTILINE)
KEPT = (".py", ".toml", ".rst")  # of the files in the folder of examples, where they run


def complaints(examples: Path, gallery: Path) -> Iterator[str]:
    """What is wrong with the pages that sphinx-gallery made.

    Args:
        examples: folder of the programs.
        gallery: folder of their pages.
    """
    for name in sorted(path.stem for path in examples.glob("*.py")):
        text = (gallery / f"{name}.rst").read_text(encoding="utf-8")
        if (figures := text.count(".. image-sg::")) != 1:
            yield f"{name} shows {figures} figures, not one"
        for output in OUTPUT.findall(text):
            if re.search(r"\bnan\b|\w*Warning\b", output):
                yield f"{name} prints a number that is none, or a warning"
    for path in sorted(examples.iterdir()):
        if path.is_file() and path.suffix not in KEPT:
            yield f"an example left {path.name} behind"


def _check(app: Any, env: Any) -> None:
    if str(app.config.plot_gallery) in ("0", "False"):
        return  # the examples did not run
    from sphinx.util import logging  # lazy: the tests, which do not need it, import this file

    log = logging.getLogger(__name__)
    docs = Path(app.srcdir)
    for complaint in complaints(docs.parent / "examples", docs / "gallery"):
        log.warning(complaint, type="gallery", subtype="example")


def setup(app: Any) -> dict[str, Any]:
    """Warnings of an example, and of the library that it calls, end it; the pages are checked when all were read."""
    warnings.filterwarnings("error", module=r"__main__$|kernelfield\b")
    app.connect("env-check-consistency", _check)
    return {"parallel_read_safe": True}
