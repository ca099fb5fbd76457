"""The static neural tangent kernel: infinite width in the lazy limit, gamma0 -> 0."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from pydantic import Field

from kernelfield.activations.gaussian_averages import NotConverged
from kernelfield.common.progress import Report
from kernelfield.describe.architecture import Architecture
from kernelfield.describe.problem import Problem
from kernelfield.describe.run import Run
from kernelfield.describe.training import GradientDescent, GradientFlow, Training
from kernelfield.engine.infinite_matrix import collect
from kernelfield.layers import Activation, FieldTrace, Space, WeightTrace
from kernelfield.layers.base import uses
from kernelfield.layers.composed import check_lazy
from kernelfield.layers.kernels import sites_of, sum_equal_sites
from kernelfield.solution.factors import stacked
from kernelfield.solution.kernel import network_kernels
from kernelfield.solution.method import Method
from kernelfield.solution.solution import Solution
from kernelfield.solution.status import Status

DIFFERENCE = 1e-4  # of inputs, relative to them, for gradients: errors of 1e-8
POINTS_AT_ONCE = 256  # new points whose kernels are computed at once
NEURONS = 4096  # samples of the fields
SLOWEST = 1e-12  # rate of decay, relative to the fastest, below which a mode does not decay
FLOW = {"method": "LSODA", "rtol": 1e-10, "atol": 1e-12}
LARGEST_KERNEL = 1e150  # mean square of inputs
EVALUATIONS = 50_000  # of the velocity of a flow, at most: a flow that blows up would need them for ever


class StaticNTK(Method):
    """Kernels frozen at initialization, predictions exact for the training rule; gamma0 does not matter.

    Phi^l = <phi phi> and Phidot^l = <phi' phi'> under the Gaussian with covariance Phi^{l-1}, G^l = G^{l+1} Phidot^l,
    NTK = sum_l G^{l+1} Phi^l (all elementwise); every layer brings its own recursion, see `kernelfield.layers`, and
    weights that are used more than once have none here. Gaussian averages are in closed form where it is known,
    otherwise numerical to 1e-10; those of `kernelfield.layers.Particlewise` and of attention of many heads are over
    samples, and the solution then has replicates, of different samples.

    All C outputs have the same kernel, and different outputs are independent. With C > 1 gradient kernels and the NTK
    are left out, and the fields z and g are those of the error signal, sum_c Delta_c z_c and sum_c Delta_c g_c.

    Args:
        seed: seed of samples: those of the fields, and of layers whose averages are sampled.
        replicates: sets of samples, where a layer needs them.

    Source: arXiv:2205.09653, section 4 and references there. For the mean squared error at a constant learning rate
    Delta(t) = (1 - eta NTK / P)^t y for gradient descent, exp(-NTK time / P) y for gradient flow; else
    f(t + 1) = f(t) + eta_t NTK Delta(t) / P step by step, and df/dt = NTK Delta / P integrated to 1e-10.

    Example:
        >>> import numpy as np, kernelfield as kf
        >>> problem, training = kf.Problem(np.eye(2), [1.0, -1.0]), kf.GradientFlow(time=3.0, steps=4)
        >>> lazy = kf.solve(kf.MLP(depth=1, activation="linear"), problem, training, kf.StaticNTK())
        >>> bool(np.allclose(lazy.errors[:, 0], np.exp(-lazy.times / 2)))
        True
    """

    seed: int = Field(default=0, ge=0)
    replicates: int = Field(default=4, ge=1)

    rules: ClassVar[tuple[type, ...]] = (GradientDescent, GradientFlow)
    takes: ClassVar[frozenset[str]] = frozenset({"losses", "outputs", "momentum", "schedule", "mixing"})

    def supports(self, run: Run) -> None:
        """Raises ValueError for a run that it cannot solve: also where squares of the input kernel overflow."""
        super().supports(run)
        run.check_scale(LARGEST_KERNEL, "divide it by a number")

    def solve(self, run: Run, progress: Report, checkpoint: None = None) -> Solution | Status:
        """Returns the Solution; see `kernelfield.solve`."""
        network, problem = run.network, run.problem
        is_sampled = any(layer.is_sampled for layer in uses(network.layers))
        seeds = tuple(range(self.seed, self.seed + self.replicates)) if is_sampled else (self.seed,)
        every, solved = [], []
        try:
            for done, seed in enumerate(seeds):
                every.append(initial_kernels(network, problem, seed))
                solved.append(predictions(every[-1].ntk, problem, run.training))
                progress(run.steps * (done + 1) // len(seeds), run.steps)
        except NotConverged as error:
            names = ", ".join(dict.fromkeys(f"'{phi.name}'" for phi in network.nonlinearities))
            event = f"averages of the activation {names} came to {error.change:.0e} only"
            advice = "as they do for a function with a kink: give its Activation a feature_map and a derivative_map"
            return Status("not_converged", f"{event}, {advice}")
        except FloatingPointError as error:
            return Status("not_converged", f"gradient flow could not be integrated ({error}): try a shorter time")
        f, alpha = (np.stack(values) for values in zip(*solved, strict=True))

        def factors(kind: str, layers: slice) -> list[np.ndarray]:
            kernels = zip(*(getattr(initial, kind)[layers] for initial in every), strict=True)
            return [stacked([factor(kernel)[None, None] for kernel in of_layer]) for of_layer in kernels]

        has_one_output = problem.outputs == 1
        ntk = np.stack([initial.ntk[None] for initial in every])
        return Solution(
            run,
            f,
            network_kernels(
                problem,
                factors("Phi", slice(1, None)),
                factors("G", slice(-1)) if has_one_output else None,
                {("NTK", None): ntk} if has_one_output and not network.factorizes else None,
            ),
            field_samples=self._sample(run, every[0].fields, f[0]),
            predictor=LazyPredictor(network, problem, alpha, seeds),
            exact=not is_sampled,
        )

    def restored_predictor(self, run: Run, info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> LazyPredictor:
        """Returns the predictor that a stored run kept; older files have no axis for one output."""
        alpha = arrays["alpha"].reshape(-1, run.steps + 1, *run.problem.targets.shape)
        seeds = arrays.get("seeds", np.zeros(1, int))
        return LazyPredictor(run.network, run.problem, alpha, tuple(seeds.tolist()))

    def _sample(
        self, run: Run, fields: list[FieldTrace], f: np.ndarray
    ) -> dict[tuple[int, int], dict[str, np.ndarray]]:
        """Returns Gaussian h and z, independent of each other and the same at every step; sites count as neurons."""
        problem, rng, samples = run.problem, np.random.default_rng(self.seed), {}
        for layer, (field, phi) in enumerate(zip(fields, run.network.nonlinearities, strict=True), start=1):
            count = max(1, NEURONS // int(np.prod(sites_of(field.h))))
            h_root, z_root = (factor(kernel.reshape(int(np.sqrt(kernel.size)), -1)) for kernel in (field.h, field.z))
            h, *zs = (
                (root @ rng.standard_normal((root.shape[1], count))).reshape(len(field.h), -1)
                for root in (h_root, *[z_root] * problem.outputs)
            )
            slope = np.asarray(phi.dphi(h))
            for step in run.fields_at:
                z = zs[0]
                if problem.outputs > 1:
                    z = np.einsum("pc,cpn->pn", problem.loss.measured_signal(f[step], problem.targets), np.stack(zs))
                samples[layer, step] = {"h": h[None], "z": z[None], "g": (slope * z)[None]}
        return samples


class Initial(NamedTuple):
    """Kernels at initialization: Phi^0..Phi^L and G^1..G^{L+1}, (P, P) each, the NTK (P, P), and kernels of fields.

    With sites, Phi is the mean over them and G the sum.
    """

    Phi: list[np.ndarray]
    G: list[np.ndarray]
    ntk: np.ndarray
    fields: list[FieldTrace]


def initial_kernels(network: Architecture, problem: Problem, seed: int = 0) -> Initial:
    """Returns the kernels at initialization, which the layers map up to the output and down again.

    The seed is that of layers whose kernels are averages over samples (`is_sampled`).

    Raises:
        NotConverged: an average is not known in closed form, and not smooth.
        ValueError: the lazy limit of a layer is not known.
    """
    _, x, _ = network.coordinates(problem)
    K = np.tensordot(x, x, axes=(-1, -1))
    check_lazy(network.layers)
    _, traces = network.layers.lazy_forward(K, seed)
    _, ntk, traces = network.layers.lazy_backward(np.ones((problem.points, problem.points)), traces, seed)
    weights = collect(traces, WeightTrace)
    Phi = [sum_equal_sites(trace.phi) / np.prod(sites_of(trace.phi)) for trace in weights]
    fields, space = [], Space(None, x.shape[1:-1])
    for layer in uses(network.layers):
        if isinstance(layer, Activation):
            field = collect(traces, FieldTrace)[len(fields)]
            fields.append(field._replace(z=field.z / space.width))
        space = layer.space_above(space)
    return Initial(Phi, [sum_equal_sites(trace.g) for trace in weights], ntk, fields)


def predictions(ntk: np.ndarray, problem: Problem, training: Training) -> tuple[np.ndarray, np.ndarray]:
    """Returns f and alpha under a tangent kernel that does not change, (steps + 1, P, C) both.

    f(x) = sum_mu NTK(x, x_mu) alpha_mu at every point x. Updates v <- momentum v + w_mu Delta_mu, times the learning
    rate, add up to alpha; for gradient flow alpha follows from f of the points that train.

    Raises:
        FloatingPointError: the flow could not be integrated.
    """
    has_squared_error = problem.loss.name == "mse"
    if isinstance(training, GradientFlow):
        times, trains = training.times(problem), problem.weights > 0
        f = problem.targets - errors(ntk, problem, training) if has_squared_error else _integrate(ntk, problem, times)
        rates, modes = np.linalg.eigh(ntk[np.ix_(trains, trains)])
        decays = rates > SLOWEST * rates[-1]
        inverse = (modes[:, decays] / rates[decays]) @ modes[:, decays].T
        alpha = np.zeros_like(f)
        alpha[:, trains] = np.moveaxis(np.tensordot(inverse, f[:, trains], axes=(1, 1)), 0, 1)
        return f, alpha
    if has_squared_error and training.plain:
        f = problem.targets - errors(ntk, problem, training)
        signal = problem.loss.measured_signal(f[:-1], problem.targets)
        added = np.einsum("t,m,tmc->tmc", training.rates(problem), problem.weights, signal)
        return f, np.concatenate([np.zeros_like(f[:1]), np.cumsum(added, axis=0)])
    momentum = getattr(training, "momentum", 0.0)
    v, alpha, f = 0.0, [np.zeros(problem.targets.shape)], [np.zeros(problem.targets.shape)]
    for rate in training.rates(problem):
        v = momentum * v + problem.weights[:, None] * problem.loss.measured_signal(f[-1], problem.targets)
        alpha.append(alpha[-1] + rate * v)
        f.append(np.tensordot(ntk, alpha[-1], axes=1))
    return np.stack(f), np.stack(alpha)


@dataclass(frozen=True)
class LazyPredictor:
    """The predictor with the kernel of initialization at all steps, and with alpha, see `predictions`.

    Replicates, the first axis of alpha, have the kernels of samples of their seeds.
    """

    network: Architecture
    problem: Problem
    alpha: np.ndarray
    seeds: tuple[int, ...] = (0,)

    @property
    def steps(self) -> range:
        """All steps."""
        return range(self.alpha.shape[1])

    def of_replicates(self, chosen: Any) -> LazyPredictor:
        """Returns the predictor of some replicates."""
        seeds = tuple(np.array(self.seeds)[chosen].tolist())
        return replace(self, alpha=self.alpha[chosen], seeds=seeds)

    def predictions(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """Returns f (R, n, C)."""
        kernel = self.kernel(inputs, self.network.inputs(self.problem), t, None)
        return kernel @ self.alpha[:, t]

    def gradients(self, inputs: np.ndarray, t: int) -> np.ndarray:
        """Returns the gradients of outputs in the inputs (R, n, C, *inputs.shape[1:]), by central differences."""
        return difference_gradients(lambda moved: self.predictions(moved, t), inputs)

    def kernel(self, a: np.ndarray, b: np.ndarray, t: int, layer: int | None) -> np.ndarray:
        """Returns the kernel (R, n, m), the same for all outputs."""
        blocks = []
        for rows in np.array_split(a, range(POINTS_AT_ONCE, len(a), POINTS_AT_ONCE)):
            points = np.concatenate([rows, b])
            problem = Problem(points, np.zeros(len(points)))
            every = [initial_kernels(self.network, problem, seed) for seed in self.seeds]
            kernels = np.stack([initial.ntk if layer is None else initial.Phi[layer] for initial in every])
            blocks.append(kernels[:, : len(rows), len(rows) :])
        return np.concatenate(blocks, axis=1)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns alpha and the seeds."""
        return {"alpha": self.alpha, "seeds": np.array(self.seeds)}


def difference_gradients(predictions: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray) -> np.ndarray:
    """Returns the gradients (R, n, C, *inputs.shape[1:]) of predictions (R, n, C) of inputs, by central differences."""
    scale, columns = DIFFERENCE * (np.sqrt(np.mean(inputs**2)) or 1.0), []
    for shift in scale * np.eye(inputs[0].size).reshape(-1, *inputs.shape[1:]):
        columns.append((predictions(inputs + shift) - predictions(inputs - shift)) / (2 * scale))
    return np.stack(columns, axis=-1).reshape(*columns[0].shape, *inputs.shape[1:])


def _integrate(ntk: np.ndarray, problem: Problem, times: np.ndarray) -> np.ndarray:
    """Returns f (times, P, C) from f = 0, with df/dt = NTK w Delta."""
    count, weighted_ntk = 0, ntk * problem.weights

    @jax.jit
    def velocity(f: jax.Array) -> jax.Array:
        return (weighted_ntk @ problem.loss.signal(f.reshape(problem.targets.shape), problem.targets)).reshape(f.shape)

    def evaluate(_: float, f: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        values = np.asarray(velocity(f))
        if count > EVALUATIONS or not np.isfinite(values).all():
            raise FloatingPointError(f"stopped after {count} evaluations")
        return values

    slopes = jax.jit(jax.jacfwd(velocity))
    from scipy.integrate import solve_ivp  # lazy: it takes a while to import

    with jax.enable_x64(True), warnings.catch_warnings(record=True):  # the result says it too
        start, jacobian = np.zeros(problem.targets.size), lambda _, f: np.asarray(slopes(f))
        result = solve_ivp(evaluate, (0.0, times[-1]), start, t_eval=times, jac=jacobian, **FLOW)
    if not result.success:
        raise FloatingPointError(result.message.rstrip("."))
    return result.y.T.reshape(-1, *problem.targets.shape)


def errors(ntk: np.ndarray, problem: Problem, training: Training) -> np.ndarray:
    """Returns y - f (steps + 1, P, C), output by output, for the mean squared error.

    With weights w, e = w^1/2 Delta decays in the modes of w^1/2 NTK w^1/2, and f = eta sum_{s<t} NTK w^1/2 e(s).
    """
    root, eta, trains = np.sqrt(problem.weights), training.learning_rate, problem.weights > 0
    rates, modes = np.linalg.eigh(root[:, None] * ntk * root)
    times = np.arange(training.steps + 1)[:, None]
    remainders = (np.exp(-eta * rates) if isinstance(training, GradientFlow) else 1 - eta * rates) ** times
    decays = rates > SLOWEST * rates[-1]
    sums = np.where(decays, (1 - remainders) / np.where(decays, rates, 1), eta * times)
    columns = []
    for y in problem.targets.T:
        start = modes.T @ (root * y)
        Delta = y - sums * start @ (ntk @ (root[:, None] * modes)).T
        Delta[:, trains] = remainders * start @ modes[trains].T / root[trains]  # without cancellation
        columns.append(Delta)
    return np.stack(columns, axis=-1)


def factor(kernel: np.ndarray, tol: float | None = None) -> np.ndarray:
    """Returns F (P, k) with F F^T = kernel up to directions of less than `tol` of the largest variance."""
    variances, axes = np.linalg.eigh(kernel)
    matters = variances > (len(kernel) * np.finfo(float).eps if tol is None else tol) * variances[-1]
    return axes[:, matters] * np.sqrt(variances[matters])
