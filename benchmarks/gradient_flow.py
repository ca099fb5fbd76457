"""Gradient flow: error against the closed form, order in time, and steps on a stiff problem beside those of descent.

    python benchmarks/gradient_flow.py

All networks are linear, so that there is no sampling error. Errors are the largest over points and rows, relative to
the largest target.
"""

from __future__ import annotations

import numpy as np
from scipy.integrate import solve_ivp

import kernelfield as kf

GAMMA0, Y = 2.0, np.array([1.0, -1.0, 1.0])
EIGENVALUES = np.array([1000.0, 100.0, 10.0, 1.0])  # of the inputs' kernel


def whitened(rtol: float, steps: int) -> tuple[float, int]:
    """Error of one hidden layer on whitened inputs, and steps taken."""
    problem, training = kf.Problem(np.sqrt(3) * np.eye(3), Y), kf.GradientFlow(time=6.0, steps=steps, rtol=rtol)
    network = kf.MLP(depth=1, activation="linear", gamma0=GAMMA0)
    solution, size = kf.solve(network, problem, training, progress=False), np.linalg.norm(Y)

    def slope(_: float, Delta: np.ndarray) -> np.ndarray:
        return -2 * np.sqrt(1 + GAMMA0**2 * (size - Delta) ** 2) * Delta

    times = solution.times / 3
    truth = size - solve_ivp(slope, (0, times[-1]), [size], t_eval=times, rtol=1e-12, atol=1e-13).y[0]
    return np.abs(solution.predictions @ Y / size - truth).max() / size, solution.info["steps_taken"][0]


def main() -> None:
    """Print three tables."""
    print("| rtol | error | steps |\n|---|---|---|")
    for rtol in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        error, steps = whitened(rtol, 4)
        print(f"| {rtol:g} | {error:.1e} | {steps} |")
    print("\n| steps, all of one length | error | order |\n|---|---|---|")
    before = np.nan
    for count in (32, 64, 128, 256, 512):
        error, _ = whitened(0.9, count)
        print(f"| {count} | {error:.2e} | {np.log2(before / error):.2f} |")
        before = error
    print("\n| rule | error | steps |\n|---|---|---|")
    problem = kf.Problem(np.diag(np.sqrt(4 * EIGENVALUES)), [1.0, -1.0, 1.0, 0.5])
    network = kf.MLP(depth=2, activation="linear", gamma0=1.0)

    def solved(training: kf.GradientFlow | kf.GradientDescent) -> kf.Solution:
        return kf.solve(network, problem, training, progress=False, throw=False)

    truth = solved(kf.GradientFlow(time=8.0, steps=4, rtol=1e-7)).predictions
    for rtol in (1e-2, 1e-3, 1e-4, 1e-5):
        solution = solved(kf.GradientFlow(time=8.0, steps=4, rtol=rtol))
        error = np.abs(solution.predictions - truth).max()
        print(f"| flow, rtol {rtol:g} | {error:.1e} | {solution.info['steps_taken'][0]} |")
    for steps in (1000, 2000, 4000, 8000, 16000):
        solution = solved(kf.GradientDescent(learning_rate=8.0 / steps, steps=steps))
        good = solution.status.code == "ok"
        error = f"{np.abs(solution.predictions[:: steps // 4] - truth).max():.1e}" if good else solution.status.code
        print(f"| descent | {error} | {steps} |")


if __name__ == "__main__":
    main()
