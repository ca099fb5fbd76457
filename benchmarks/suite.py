"""Every goal of speed beside its figure: runs the benchmarks and writes benchmarks/RESULTS.md.

    python benchmarks/suite.py                       # everything, about three hours on two cores
    python benchmarks/suite.py --only rate scaling   # these again; other sections stay as they are
    python benchmarks/suite.py --mnist FILE          # those of MNIST too; FILE has X (n, 28, 28) and y

Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jax

from goals import MARK

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "RESULTS.md"
SECTION = "\n## "


@dataclass(frozen=True)
class Section:
    """One benchmark: its title, and what it is run with; "FILE" stands for that of MNIST."""

    title: str
    command: tuple[str, ...]


SECTIONS = {
    "ensembles": Section("Time to the same error: finite networks", ("equal_error.py",)),
    "many": Section("Time to the same error: many points, a CNN and a transformer", ("many_points.py",)),
    "notebook": Section("Time to the same error: the notebook of the paper's authors", ("notebook.py",)),
    "points": Section("Cost against the number of points", ("points.py",)),
    "scaling": Section("Time against steps, particles and points", ("scaling.py",)),
    "epoch": Section("An epoch on 60,000 images", ("epoch.py",)),
    "batches": Section("Ten digits by cross-entropy, on batches", ("ten_digits.py",)),
    "estimators": Section("All digits by the estimators", ("all_digits.py",)),
    "cnn": Section("Digits through a convolutional network", ("digits_cnn.py",)),
    "rate": Section("Part of the machine's rate", ("rate.py",)),
    "gpu": Section("On a GPU", ("gpu.py",)),
    "devices": Section("On several devices", ("devices.py",)),
    "estimates": Section("Estimates against what was taken", ("estimates.py",)),
    "warm": Section("First minutes", ("warm.py",)),
    "explore": Section("A page that follows its sliders", ("explore.py",)),
    "mnist": Section("MNIST", ("mnist.py", "FILE")),
    "tables": Section("Tables", ("tables.py", "--mnist", "FILE")),
}


def measured(section: Section, mnist: str | None) -> str | None:
    """The text of a section: command, machine, description, what was printed; None if it failed."""
    print(f"{section.title} ...", flush=True)
    began = time.perf_counter()
    arguments = [mnist if word == "FILE" else word for word in section.command[1:]]
    command = [sys.executable, FOLDER / section.command[0], *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"{done.stdout}failed: the section stays as it is", flush=True)
        return None
    print(f"    {time.perf_counter() - began:.0f} s", flush=True)
    source = (FOLDER / section.command[0]).read_text(encoding="utf-8")
    described = re.split(r"\n\n {4}python [^\n]*(?:\n {4}[^\n]*)*\n\n", source.split('"""')[1], maxsplit=1)
    text = "\n\n".join(part.strip() for part in described)
    command = f"    python benchmarks/{' '.join(section.command)}"
    return f"{section.title}\n\n{command}\n\nOn {machine()}.\n\n{text}\n\n{done.stdout.strip()}\n"


def machine() -> str:
    """What was measured on."""
    known = Path("/proc/cpuinfo")  # on Linux
    names = re.findall(r"model name\s*: (.*)", known.read_text(encoding="utf-8")) if known.exists() else []
    devices = "CPU only" if jax.default_backend() == "cpu" else jax.devices()[0].device_kind
    return f"{os.cpu_count()} cores of {(names or [platform.machine()])[0]}, JAX {jax.__version__}, {devices}"


def written(sections: dict[str, str]) -> str:
    """The page: goals, then sections by title."""
    lines = [
        line.removeprefix(MARK) for text in sections.values() for line in text.splitlines() if line.startswith(MARK)
    ]
    goals = "\n".join(f"| {line} |" for line in lines)
    head = (
        "# Speed\n\n    python benchmarks/suite.py\n\n"
        "writes this page. Every section names its machine; compilation is left out of every time unless it is named.\n"
        "Accuracy is measured in benchmarks/ACCURACY.md. On a loaded machine seconds are upper bounds.\n\n"
        f"| what | aim | figure | met, or why not |\n|---|---|---|---|\n{goals}\n"
    )
    return head + "".join(SECTION + text for text in sections.values())


def main() -> None:
    """Run and write; every section is written as soon as it is there, and one that fails does not keep others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--mnist", metavar="FILE")
    given = parser.parse_args()
    chosen = [name for name in given.only if given.mnist or "FILE" not in SECTIONS[name].command]
    before = RESULTS.read_text(encoding="utf-8").split(SECTION)[1:] if RESULTS.exists() else []
    known = {text.splitlines()[0]: text for text in before}
    failed = []
    for name in (name for name in SECTIONS if name in chosen):
        text = measured(SECTIONS[name], given.mnist)
        if text is None:
            failed.append(name)
        else:
            known[SECTIONS[name].title] = text
            ours = [each.title for each in SECTIONS.values() if each.title in known]
            RESULTS.write_text(written({title: known[title] for title in ours}), encoding="utf-8")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
