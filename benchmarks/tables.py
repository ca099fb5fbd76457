"""`kernelfield fit` on five tables: seconds, memory, and the scores of infinite width beside other predictors.

    python benchmarks/tables.py --mnist mnist_8000.npz

wine, diabetes and breast cancer come with scikit-learn; `mixed` has 20,000 rows and 12 columns of mixed kinds (numbers
with and without thousands separators, dates, truth values, categories), few of which its target depends on; `mnist` are
2,000 images as a table of 784 columns. Every table is written as a .csv file and fitted by the command line, in a
process of its own; a fifth of the rows tests, errors are standard errors.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import psutil
from sklearn import datasets

COLUMNS = ("infinite width", "infinite width, NTK", "network of width", "kernel ridge, RBF", "gradient boosting")


def bundled(name: str) -> pandas.DataFrame:
    """A table of scikit-learn, with names for classes."""
    frame: Any = getattr(datasets, f"load_{name}")(as_frame=True)
    table = frame.frame.copy()
    if hasattr(frame, "target_names"):
        table["target"] = np.asarray(frame.target_names)[table.target]
    return table


def mixed(rows: int = 20_000, seed: int = 0) -> pandas.DataFrame:
    """A table of mixed kinds: the price depends on the area, the distance, the district, the date and one flag."""
    rng = np.random.default_rng(seed)
    area, distance = rng.lognormal(4.5, 0.4, rows), rng.exponential(5.0, rows)
    district, garden = rng.choice(["north", "south", "east", "west"], rows), rng.random(rows) < 0.3
    days = rng.integers(0, 3650, rows)
    value = np.log(area) * (1 + 0.3 * (district == "north")) + np.sin(distance / 3) * np.exp(-distance / 20)
    value += 0.3 * garden * (district != "east") + 0.1 * days / 365 + 0.2 * rng.standard_normal(rows)
    table = pandas.DataFrame({"area": area.round(1), "distance": distance.round(2), "district": district})
    table["garden"], table["sold"] = garden, pandas.Timestamp("2014-01-01") + pandas.to_timedelta(days, unit="D")
    table["tax"] = [f"{amount:,.2f}" for amount in rng.lognormal(7, 1, rows)]
    table["colour"] = rng.choice(["red", "blue", "green"], rows)
    for number in range(5):
        table[f"noise{number}"] = rng.standard_normal(rows).round(4)
    return table.assign(target=(1e4 * value).round(2))


def mnist(path: Path, rows: int = 2000) -> pandas.DataFrame:
    """Images as rows of 784 pixels."""
    with np.load(path) as file:
        X, labels = file["X"][:rows], file["y"][:rows]
    table = pandas.DataFrame(X.reshape(rows, -1), columns=[f"pixel{number}" for number in range(784)])
    return table.assign(target=[f"digit {label}" for label in labels])


def fit(path: Path, folder: Path) -> tuple[dict[str, Any], float, float]:
    """What the command prints as JSON, its seconds, and the most memory that it took, in GB."""
    command = [sys.executable, "-m", "kernelfield.cli", "fit", str(path), "--target", "target", "--json"]
    began, most = time.perf_counter(), 0.0
    process = subprocess.Popen(
        [*command, "-o", str(folder / "model.nc")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    watched, done = psutil.Process(process.pid), threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.1):
            try:
                most = max(most, watched.memory_info().rss / 1e9)
            except psutil.Error:
                return

    thread = threading.Thread(target=watch)
    thread.start()
    printed, _ = process.communicate()
    done.set()
    thread.join()
    return json.loads(printed), time.perf_counter() - began, most


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, metavar="FILE.npz", help="with X uint8 (n, 28, 28) and y")
    parser.add_argument("--tables", nargs="+", metavar="NAME")
    given = parser.parse_args()
    tables = {name: lambda name=name: bundled(name) for name in ("wine", "diabetes", "breast_cancer")}
    tables["mixed"] = mixed
    if given.mnist is not None:
        tables["mnist"] = lambda: mnist(given.mnist)
    headings = ["table", "rows x columns", "s", "GB", "score", "gamma0", *COLUMNS]
    print(f"| {' | '.join(headings)} |\n|{'---|' * len(headings)}", flush=True)
    for name in given.tables or tables:
        with tempfile.TemporaryDirectory() as folder:
            table, path = tables[name](), Path(folder) / f"{name}.csv"
            table.to_csv(path, index=False)
            found, seconds, memory = fit(path, Path(folder))
        cells = []
        for column in COLUMNS:
            (scores,) = [
                scores for key, scores in found["scores"].items() if re.fullmatch(rf"{column}(, gamma0.*| \d+)?", key)
            ]
            metric = next(key for key in scores if key != "standard_error")
            cells.append(f"{scores[metric]:.3f} ({scores['standard_error']:.3f})")
        size = f"{len(table)} x {len(table.columns) - 1}"
        row = [name, size, f"{seconds:.0f}", f"{memory:.1f}", metric, f"{found['gamma0']:g}", *cells]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
