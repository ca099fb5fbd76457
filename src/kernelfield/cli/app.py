"""The application itself: options of every command, errors as one line, exit codes."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from kernelfield.common.progress import WANTED

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
IMAGES = (".png", ".pdf", ".svg")

app = typer.Typer(
    name="kernelfield",
    help="Train infinitely wide neural networks that learn features, and compare them with finite ones.",
    epilog="Start with: kernelfield demo",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        arguments: those of the process by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    _cache_compilations()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # of its own cache folder
    command = typer.main.get_command(app)
    try:
        run = contextvars.copy_context().run  # `--quiet` is of this call alone
        code = run(command.main, given, prog_name="kernelfield", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        one_line("interrupted: nothing was written")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        sys.exit(_explained(error))
    sys.exit(code if isinstance(code, int) else 0)


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors, and show no progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead, for scripts.")]


@dataclass(frozen=True)
class Output:
    """What a command prints: text for people, one JSON document for scripts, or nothing at all.

    Args:
        quiet: nothing.
        as_json: the document that `result` is given, if not quiet.
    """

    quiet: bool
    as_json: bool

    def __post_init__(self) -> None:
        if self.quiet:
            WANTED.set(False)

    def say(self, *what: Any) -> None:
        """Print for people.

        Args:
            what: lines, or tables of rich.
        """
        if not self.quiet and not self.as_json:
            Console(highlight=False, markup=False, soft_wrap=all(isinstance(each, str) for each in what)).print(
                *what, sep="\n"
            )

    def note(self, message: str) -> None:
        """Progress of a long command, to stderr.

        Args:
            message: a line.
        """
        if not self.quiet:
            one_line(message)

    def result(self, document: Any) -> None:
        """The document for scripts: everything the command found, and what it wrote.

        Args:
            document: of numbers, texts, lists and dictionaries.
        """
        if self.as_json and not self.quiet:
            print(json.dumps(document, indent=2, allow_nan=False))


class Stopped(Exception):
    """Ctrl-C where there is nothing to keep."""


@contextmanager
def stoppable(message: str = "interrupted: nothing was written") -> Iterator[None]:
    """Ctrl-C becomes `Stopped`, with a message."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(message) from None


@contextmanager
def unattended() -> Iterator[None]:
    """SIGTERM, which batch systems send before they kill, does what Ctrl-C does; warnings are one line."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: one_line(str(message))
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _explained(error: Exception) -> int:
    """One line about an error, and the exit code it asks for."""
    from kernelfield.common.atomic_files import CannotWrite
    from kernelfield.solution.status import SolveError

    usage = getattr(error, "format_message", None)  # of a command line that does not parse
    if usage is not None:
        if usage():  # empty where the help was shown instead
            one_line(f"{usage()} Try 'kernelfield --help'.")
        return BAD_INPUT
    if isinstance(error, Stopped):
        one_line(str(error))
        return INTERRUPTED
    if isinstance(error, CannotWrite):
        one_line(str(error))
        return FAILED
    if isinstance(error, ValueError | OSError | ImportError):
        one_line(str(error))
        return BAD_INPUT
    if isinstance(error, SolveError):
        one_line(f"{error}: nothing was written")
        return FAILED
    kind = "out of memory" if isinstance(error, MemoryError) else f"unexpected {type(error).__name__}"
    one_line(f"{kind}: {error} (--debug shows where)")
    return FAILED


def one_line(message: str) -> None:
    """A message to stderr, whatever its line breaks."""
    print("kernelfield: " + " ".join(message.split()), file=sys.stderr)


def _cache_compilations() -> None:
    """Keep compiled programs in the user's cache folder, if it can be written: later runs start faster."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

    warnings.filterwarnings("ignore", "Error writing persistent compilation cache")  # it is only slower next time

    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(base) / "kernelfield"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return
    except (OSError, RuntimeError):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"kernelfield {version('kernelfield')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Options of every command."""


def check_image(path: Path) -> None:
    """Raise an error if no image can be written at `path`."""
    from kernelfield.files.storage import check_folder

    check_folder(path)
    if path.suffix.lower() not in IMAGES:
        raise ValueError(f"the figure's name must end in {', '.join(IMAGES)}, got {path.name}")
