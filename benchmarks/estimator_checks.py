"""scikit-learn's own checks of both estimators, with feature learning: minutes, most of them compilation.

python benchmarks/estimator_checks.py
"""

from __future__ import annotations

import time
import warnings

from sklearn.utils.estimator_checks import check_estimator

import kernelfield as kf


def main() -> None:
    """Print a table, and every check that did not pass."""
    print("| estimator | checks | passed | skipped | failed | s |\n|---|---|---|---|---|---|", flush=True)
    for kind in (kf.InfiniteWidthRegressor, kf.InfiniteWidthClassifier):
        began, model = time.perf_counter(), kind(depth=1, steps=10, particles=256, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results = check_estimator(model, on_fail=None, on_skip=None)
        counts = [sum(each["status"] == status for each in results) for status in ("passed", "skipped", "failed")]
        spent = time.perf_counter() - began
        print(f"| {kind.__name__} | {len(results)} | {' | '.join(map(str, counts))} | {spent:.0f} |", flush=True)
        for each in results:
            if each["status"] != "passed":
                print(f"{each['status']}: {each['check_name']}: {each['exception']}")


if __name__ == "__main__":
    main()
