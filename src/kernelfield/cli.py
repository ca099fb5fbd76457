"""The command line: parse, call the library, write.

Bad input prints one line to stderr and exits 2 with nothing written; a failed run exits 1 and an interrupted
one 130, both after writing the steps that were computed.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from kernelfield.config import Config
    from kernelfield.solution import Solution

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
ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="What to run; see examples/digits.toml.")]
ResultPath = Annotated[Path, typer.Option("--output", "-o", metavar="RESULT.nc", help="NetCDF file to write.")]


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
        code = command.main(given, prog_name="kernelfield", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        _one_line("interrupted: nothing was written")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        sys.exit(_explained(error))
    sys.exit(code if isinstance(code, int) else 0)


class _Stopped(Exception):
    """Ctrl-C where there is nothing to keep."""


@contextmanager
def _stoppable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise _Stopped("interrupted: nothing was written") from None


def _explained(error: Exception) -> int:
    """One line about an error, and the exit code it asks for."""
    from kernelfield.solution import SolveError

    usage = getattr(error, "format_message", None)  # of a command line that does not parse
    if usage is not None:
        if usage():  # empty where the help was shown instead
            _one_line(f"{usage()} Try 'kernelfield --help'.")
        return BAD_INPUT
    if isinstance(error, _Stopped):
        _one_line(str(error))
        return INTERRUPTED
    if isinstance(error, ValueError | OSError):
        _one_line(str(error))
        return BAD_INPUT
    if isinstance(error, SolveError):
        _one_line(f"{error}: nothing was written")
        return FAILED
    kind = "out of memory" if isinstance(error, MemoryError) else f"unexpected {type(error).__name__}"
    _one_line(f"{kind}: {error} (--debug shows where)")
    return FAILED


def _one_line(message: str) -> None:
    print("kernelfield: " + " ".join(message.split()), file=sys.stderr)


def _cache_compilations() -> None:
    """Keep compiled programs in the user's cache folder, if it can be written: later runs start faster."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

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


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and smaller runs.")] = False,
    out: Annotated[Path, typer.Option("--out", metavar="IMAGE", help="Figure to write.")] = Path(
        "kernelfield-demo.png"
    ),
) -> None:
    """Learn two classes of digits, lazily and richly, at infinite and at growing finite width."""
    from kernelfield import demo as demonstration
    from kernelfield.plotting import write_figure

    _check_image(out)
    began = time.perf_counter()
    plan = demonstration.QUICK if quick else demonstration.FULL
    console = Console()
    with _stoppable():
        results = demonstration.run(plan, lambda line: console.print(line, highlight=False))
        write_figure(demonstration.draw(results), out)
    console.print(demonstration.table(results))
    print(f"wrote {out} ({time.perf_counter() - began:.0f} s in all)")


@app.command()
def solve(config: ConfigPath, output: ResultPath) -> None:
    """Solve training at infinite width."""
    from kernelfield.config import read

    described = read(config)
    _run(described, described.march, config, output)


@app.command()
def train(
    config: ConfigPath,
    output: ResultPath,
    width: Annotated[int | None, typer.Option(help="Neurons of each hidden layer, N.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Networks to train, each from its own start.")] = None,
) -> None:
    """Train networks of finite width."""
    from kernelfield.config import read
    from kernelfield.finite import FiniteWidth

    described = read(config)
    values: dict[str, Any] = described.finite.model_dump() if described.finite else {}
    values.update({name: n for name, n in (("width", width), ("seeds", seeds)) if n is not None})
    if "width" not in values:
        raise ValueError(f"give --width, or width in section [finite] of {config}")
    _run(described, FiniteWidth(**values), config, output)


@app.command()
def show(
    result: Annotated[Path, typer.Argument(metavar="RESULT.nc", help="File that solve or train wrote.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="IMAGE", help="Also draw loss and kernels.")
    ] = None,
) -> None:
    """Summarize a result: settings, status, loss with error bars, kernels."""
    from kernelfield import summary
    from kernelfield.storage import load

    if output is not None:
        _check_image(output)
    solution = load(result)
    Console().print(summary.report(solution))
    if output is not None:
        from kernelfield.plotting import write_figure

        write_figure(summary.draw(solution), output)
        print(f"wrote {output}")


def _check_image(path: Path) -> None:
    from kernelfield.storage import check_folder

    check_folder(path)
    if path.suffix.lower() not in IMAGES:
        raise ValueError(f"the figure's name must end in {', '.join(IMAGES)}, got {path.name}")


def _run(described: Config, method: Any, config: Path, output: Path) -> None:
    """Solve, write what was computed, and exit with the status of the run."""
    import kernelfield
    from kernelfield.storage import check_folder

    check_folder(output)
    if output.exists() and output.samefile(config):
        raise ValueError(f"the result would replace the configuration {config}")
    began = time.perf_counter()
    problem = described.problem()
    with _stoppable():
        solution = kernelfield.solve(described.network, problem, described.training, method, throw=False)
    solution.save(output)
    print(f"wrote {output}: {_in_short(solution)}, {time.perf_counter() - began:.1f} s")
    if solution.status.code != "ok":
        _one_line(f"{solution.status} ({output} holds the steps that were computed)")
        raise typer.Exit(INTERRUPTED if solution.status.code == "interrupted" else FAILED)


def _in_short(solution: Solution) -> str:
    loss = f"loss {solution.loss[0]:.4g} -> {solution.loss[-1]:.4g}"
    return f"{loss} in {solution.steps_done} of {solution.training.steps} steps"


if __name__ == "__main__":
    main()
