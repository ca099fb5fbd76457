"""The application: what commands print, errors as one line, exit codes."""

from __future__ import annotations

import contextvars
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, RenderableType
from typer import Exit, Option

from kernelfield.common.atomic_files import CannotWrite
from kernelfield.common.progress import WANTED
from kernelfield.solution.status import SolveError

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    name="kernelfield",
    help="Train infinitely wide neural networks that learn features, and compare them with finite ones.",
    epilog="Start with: kernelfield demo",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line with arguments, those of the process by default, and exits."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _cache_compilations()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it logs about its cache folder
    command = typer.main.get_command(app)
    try:
        with command.make_context("kernelfield", words.copy()) as context:
            contextvars.copy_context().run(command.invoke, context)  # `--quiet` is of this call alone
    except Exit as end:
        sys.exit(end.exit_code)
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in words:
            raise
        sys.exit(_explain(error))
    sys.exit(0)


@dataclass(frozen=True)
class Output:
    """The output of a command: text for people, or one JSON document for scripts, or nothing at all."""

    quiet: bool  # nothing, not even progress
    as_json: bool  # the document, unless it is quiet

    def __post_init__(self) -> None:
        if self.quiet:
            WANTED.set(False)

    def say(self, *parts: RenderableType) -> None:
        """Prints lines, or tables of rich, for people."""
        if not self.quiet and not self.as_json:
            is_text = all(isinstance(part, str) for part in parts)
            Console(highlight=False, markup=False, soft_wrap=is_text).print(*parts, sep="\n")

    def note(self, message: str) -> None:
        """Prints a line about the progress of a long command to stderr."""
        if not self.quiet:
            print_line(message)

    def print_json(self, document: Any) -> None:
        """Prints the document for scripts: everything that the command computed, and what it wrote."""
        if self.as_json and not self.quiet:
            Console().out(json.dumps(document, indent=2, allow_nan=False), highlight=False)


@contextmanager
def accept_sigterm() -> Iterator[None]:
    """Treats SIGTERM, which batch systems send before they kill, like Ctrl-C, and prints warnings as one line."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: print_line(str(message))
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _explain(error: BaseException) -> int:
    """Prints one line about an error, and returns its exit code."""
    usage = getattr(error, "format_message", None)  # of a command line that does not parse
    if usage is not None:
        if usage():  # empty where the help was shown instead
            print_line(f"{usage()} Try 'kernelfield --help'.")
        return BAD_INPUT
    if isinstance(error, KeyboardInterrupt):
        code, message = INTERRUPTED, "interrupted: nothing was written"
    elif isinstance(error, CannotWrite):
        code, message = FAILED, str(error)
    elif isinstance(error, ValueError | OSError | ImportError):
        code, message = BAD_INPUT, str(error)
    elif isinstance(error, SolveError):
        code, message = FAILED, f"{error}: nothing was written"
    else:
        kind = "out of memory" if isinstance(error, MemoryError) else f"unexpected {type(error).__name__}"
        code, message = FAILED, f"{kind}: {error} (--debug shows where)"
    print_line(message)
    return code


def print_line(message: str) -> None:
    """Prints a message to stderr as one line."""
    print("kernelfield: " + " ".join(message.split()), file=sys.stderr)


def _cache_compilations() -> None:
    """Keeps compiled programs in the user's cache folder, if it can be written: later runs start faster."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

    warnings.filterwarnings("ignore", "Error writing persistent compilation cache")  # it is only slower next time
    with suppress(OSError, RuntimeError):  # no home, or no folder can be made there
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "kernelfield")
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kernelfield {version('kernelfield')}")
        raise Exit


@app.callback()
def options(
    version: Annotated[
        bool, Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Options of every command."""
