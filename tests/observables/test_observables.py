"""What a Solution says about learning. Oracles: cases computed by hand, NumPy on the raw neurons of finite networks,
known distributions, and infinite against finite width."""

import functools
from dataclasses import replace

import numpy as np
import pytest

import kernelfield as kf
from kernelfield import observables
from kernelfield.observables.kernels import _jackknife
from solutions import changed, changed_outputs, made

Y = np.array([1.0, -1.0, 1.0, 0.5])


def holding(features=None, gradients=None, y=Y, weights=None, predictions=None, exact=False):
    """A Solution of one hidden layer with given factors (R, T, P, k), or kernels that do not matter."""
    points = len(y)
    outputs = np.size(y) // points
    one = np.tile(np.eye(outputs), (points, 1))[None, None]
    features = np.ones((2, 3, points, 1)) if features is None else np.asarray(features, dtype=float)
    gradients = np.ones((*features.shape[:3], 1)) if gradients is None else np.asarray(gradients, dtype=float)
    replicates, rows = features.shape[:2]
    zeros = np.zeros((replicates, rows, *np.shape(y)))
    problem = kf.Problem(np.eye(points), y, weights)
    training = kf.GradientDescent(learning_rate=0.1, steps=max(1, rows - 1))
    f = zeros if predictions is None else np.asarray(predictions, dtype=float)
    Phi, G = (np.eye(points)[None, None], features), (gradients, one)
    solution = made(kf.MLP(depth=1), problem, training, kf.March(), f, Phi, G, exact=exact)
    return changed_outputs(solution, outputs)


def drawn(replicates=3, rows=4, points=4, rank=3, **others):
    rng = np.random.default_rng(1)
    features, gradients = rng.standard_normal((2, replicates, rows, points, rank))
    return holding(features, gradients, predictions=rng.standard_normal((replicates, rows, points)), **others)


# --- losses


def test_losses_by_hand():
    f = [[[0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0], [0.0, -1.0, 3.0, 1.5]]]
    solution = holding(np.ones((2, 2, 4, 1)), weights=[3, 1, 0, 0], predictions=f)
    assert observables.loss(solution).replicates.tolist() == [[0.5, 0.0], [0.5, 0.375]]
    assert observables.loss(solution).mean.tolist() == solution.loss.tolist()
    assert observables.loss(solution, "test").replicates.tolist() == [[0.3125, 0.3125], [0.3125, 1.25]]
    assert observables.loss(solution, "all").replicates.tolist() == [[0.40625, 0.15625], [0.40625, 0.75]]


def test_accuracy_by_hand():
    f = [[[0.0, 0.0, 0.0, 0.0], [0.1, 2.0, 0.0, 1.0]]]
    solution = holding(np.ones((1, 2, 4, 1)), weights=[1, 1, 0, 0], predictions=f)
    assert observables.accuracy(solution).replicates.tolist() == [[0.5, 0.5]]
    assert observables.accuracy(solution, "test").replicates.tolist() == [[0.5, 0.75]]
    assert observables.accuracy(solution, "all").replicates.tolist() == [[0.5, 0.625]]


def test_what_is_not_there_is_named(small_solution):
    with pytest.raises(ValueError, match="the problem has no test points: give them to Problem with weight zero"):
        observables.loss(small_solution, "test")
    with pytest.raises(ValueError, match="points must be one of train, test, all, got 'validation'"):
        observables.accuracy(small_solution, "validation")
    with pytest.raises(ValueError, match="accuracy needs targets that are not zero"):
        observables.accuracy(holding(y=np.array([1.0, 0.0])))
    with pytest.raises(ValueError, match="kernel must be one of Phi, G, NTK, eNTK, cosine, got 'K'"):
        observables.effective_rank(small_solution, "K", 1)
    with pytest.raises(ValueError, match="kernel 'NTK' takes no layer, got layer=1"):
        observables.effective_rank(small_solution, "NTK", 1)
    with pytest.raises(ValueError, match="kernel 'Phi' takes a layer, got layer=None"):
        observables.kernel_alignment(small_solution, "Phi")
    with pytest.raises(ValueError, match=r"layer of feature kernels must be in 0\.\.2, got 3"):
        observables.kernel_movement(small_solution, "Phi", 3)
    with pytest.raises(ValueError, match=r"time must be a step in 0\.\.5"):
        observables.ntk_spectrum(small_solution, 6)
    with pytest.raises(ValueError, match="cosine_alignment needs solutions of the same points, got 4 and 2"):
        observables.cosine_alignment(small_solution, holding(y=np.ones(2)), "NTK")
    with pytest.raises(ValueError, match=r"dropped must be in \(0, 1\), got 1"):
        observables.silent_alignment(small_solution, dropped=1)
    with pytest.raises(ValueError, match="field must be one of h, z, g, which were recorded, got 'u'"):
        observables.excess_kurtosis(small_solution, 1, "u")
    with pytest.raises(ValueError, match=r"fields were recorded at layers \[1, 2\] and steps \[0, 5\]"):
        observables.activation_density(small_solution, 1, t=3)
    with pytest.raises(ValueError, match="sample must be one of 4 points, got 4"):
        observables.activation_density(small_solution, 1, sample=4)


def test_the_loss_is_that_of_the_problem(several_outputs):
    f, y = several_outputs.replicate_predictions, several_outputs.problem.y
    entropy = np.log(np.exp(f).sum(axis=-1)) - (f * y).sum(axis=-1)
    np.testing.assert_allclose(observables.loss(several_outputs).replicates, entropy[:, :, :4].mean(axis=-1), rtol=1e-6)
    np.testing.assert_allclose(observables.loss(several_outputs, "test").replicates, entropy[:, :, 4], rtol=1e-6)
    np.testing.assert_allclose(observables.loss(several_outputs).mean, several_outputs.loss)


def test_accuracy_of_several_outputs_by_hand():
    f = [[np.zeros((4, 3)), [[1, 0, 0], [0, 2, 2], [0, 0, -1], [3, 2, 1]]]]
    y = np.eye(3)[[0, 1, 2, 1]]
    solution = holding(np.ones((1, 2, 4, 1)), y=y, predictions=f)
    assert observables.accuracy(solution).mean == pytest.approx([1 / 3, (1 + 1 / 2) / 4])
    one = holding(np.ones((1, 2, 4, 1)), y=Y[:, None], predictions=[[np.zeros((4, 1)), Y[:, None]]])
    assert observables.accuracy(one).mean.tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="accuracy needs rows of targets with one largest entry"):
        observables.accuracy(holding(y=np.ones((4, 2)), predictions=np.zeros((2, 3, 4, 2))))


# --- kernels


def test_alignment_of_several_outputs_by_hand():
    """Oracle: the formula with Y Y^T, and with the vector of all targets for kernels between outputs."""
    rng = np.random.default_rng(5)
    F, G, targets = rng.standard_normal((1, 1, 4, 3)), rng.standard_normal((1, 1, 8, 3)), rng.standard_normal((4, 2))
    solution = holding(F, G, y=targets, predictions=np.zeros((1, 1, 4, 2)))

    def cosine(one, other):
        return np.sum(one * other) / np.linalg.norm(one) / np.linalg.norm(other)

    K, between, y = F[0, 0] @ F[0, 0].T, G[0, 0] @ G[0, 0].T, targets.ravel()
    assert observables.kernel_alignment(solution, "Phi", 1, 0).mean == pytest.approx(cosine(K, targets @ targets.T))
    assert observables.kernel_alignment(solution, "G", 1, 0).mean == pytest.approx(cosine(between, np.outer(y, y)))
    H = np.eye(4) - 1 / 4
    centred, each = H @ targets, np.kron(H, np.eye(2))
    found = observables.centred_alignment(solution, "Phi", 1, 0).mean
    assert found == pytest.approx(cosine(H @ K @ H, centred @ centred.T))
    found = observables.centred_alignment(solution, "G", 1, 0).mean
    assert found == pytest.approx(cosine(each @ between @ each, np.outer(centred.ravel(), centred.ravel())))


def test_kernels_between_outputs_are_measured_whole(several_outputs):
    train = np.arange(12)
    NTK = several_outputs.estimate("ntk", -1).replicates[:, train][:, :, train]
    spectrum = observables.ntk_spectrum(several_outputs, -1)
    every, alone = np.linalg.eigvalsh(NTK.mean(axis=0)), np.linalg.eigvalsh(NTK[::-1])  # two: without one is the other
    np.testing.assert_allclose(spectrum.replicates, (2 * every - alone)[:, ::-1] / 4, atol=1e-10)
    whole = several_outputs.gradient_kernel(1, slice(None)).reshape(4, 15, 4, 15)[:, :12, :, :12]
    found = observables.two_time_kernel(several_outputs, "G", 1).mean
    np.testing.assert_allclose(found, np.einsum("tmsm->ts", whole) / 12, rtol=1e-6)
    np.testing.assert_allclose(
        observables.cosine_alignment(several_outputs, several_outputs, "NTK").mean[0], 1, atol=0.05
    )
    assert observables.silent_alignment(several_outputs, "Phi", 1, dropped=0.99).step.mean < 3
    with pytest.raises(ValueError, match="cosine_alignment needs kernels of the same outputs, got 3 and 1"):
        observables.cosine_alignment(several_outputs, drawn(points=5, y=np.ones(5), weights=[1, 1, 1, 1, 0]), "NTK")


@pytest.mark.parametrize("times", [None, -1, 1, [0, 2], slice(1, None)])
def test_times_choose_rows_and_replicates_are_kept(times):
    solution = drawn()
    every = observables.effective_rank(solution, "NTK").replicates
    assert every.shape == (3, 4)
    found = observables.effective_rank(solution, "NTK", t=times)
    assert found.replicates.tolist() == every[:, slice(None) if times is None else times].tolist()
    assert (found.se > 0).all()


def test_alignment_by_hand():
    y = Y[None, None, :, None]
    assert observables.kernel_alignment(holding(y), "Phi", 1).mean == pytest.approx([1.0])  # K = y y^T
    across = np.array([1.0, 1.0, 0.0, 0.0])[None, None, :, None]
    assert observables.kernel_alignment(holding(across), "Phi", 1).mean == pytest.approx([0.0])
    assert observables.kernel_alignment(drawn(), "Phi", 0).mean == pytest.approx(np.full(4, 0.5))  # K = 1: P^-1/2
    assert observables.kernel_alignment(drawn(), "Phi", 0).se.tolist() == [0, 0, 0, 0]  # the input kernel is exact
    assert observables.kernel_alignment(holding(0 * y), "Phi", 1).mean.tolist() == [0.0]


def test_centred_alignment_does_not_see_constants():
    F = np.random.default_rng(0).standard_normal((1, 1, 4, 3))
    with_constant = np.concatenate([F, np.full((1, 1, 4, 1), 3.0)], axis=-1)  # K + 9
    one, other = (observables.centred_alignment(holding(each), "Phi", 1).mean for each in (F, with_constant))
    assert one == pytest.approx(other)
    moved = observables.centred_alignment(holding(F, y=Y + 2.0), "Phi", 1).mean
    assert one == pytest.approx(moved)
    centred = F - F.mean(axis=2, keepdims=True)
    plain = observables.kernel_alignment(holding(centred, y=Y - Y.mean()), "Phi", 1).mean
    assert one == pytest.approx(plain) and 0 < plain[0] < 1


def test_movement_by_hand():
    F = np.random.default_rng(0).standard_normal((2, 1, 4, 3)) * np.array([1.0, 1.1, 1.5])[:, None, None]
    moved = observables.kernel_movement(holding(F), "Phi", 1)
    assert moved.replicates == pytest.approx(np.array([[0, 0.21, 1.25]] * 2))
    assert observables.kernel_movement(holding(F), "G", 1).mean.tolist() == [0, 0, 0]


def test_spectrum_and_effective_rank_by_hand():
    F = np.sqrt(np.diag([1.0, 4.0, 2.0, 3.0]))[None, None]
    solution = holding(F, np.zeros((1, 1, 4, 1)))  # NTK = G^2 Phi^1 + G^1 Phi^0 = Phi^1
    assert observables.ntk_spectrum(solution, 0).mean == pytest.approx(np.array([4, 3, 2, 1]) / 4)
    assert observables.effective_rank(solution, "NTK", t=0).mean == pytest.approx(100 / 30)
    assert observables.effective_rank(solution, "Phi", 0, 0).mean == pytest.approx(4)
    assert observables.effective_rank(solution, "G", 2, 0).mean == pytest.approx(1)


def test_the_largest_mode_of_the_static_kernel_decays_at_its_eigenvalue():
    """Oracle: the training of a network with this kernel."""
    rng = np.random.default_rng(2)
    solution = kf.solve(
        kf.MLP(depth=2, activation="erf"),
        kf.Problem(rng.standard_normal((5, 8)), rng.standard_normal(5)),
        kf.GradientFlow(time=2.0, steps=4),
        kf.StaticNTK(),
    )
    values, vectors = observables.ntk_spectrum(solution, 0).mean, np.linalg.eigh(solution.ntk(0))[1][:, ::-1]
    modes = solution.errors @ vectors
    np.testing.assert_allclose(modes[-1] / modes[0], np.exp(-2.0 * values), rtol=1e-8)


def test_the_two_time_kernel_is_the_trace_of_the_kernel(small_solution):
    every = slice(None)
    kernels = {
        ("Phi", 2): small_solution.feature_kernel(2, every),
        ("G", 1): small_solution.gradient_kernel(1, every),
        ("NTK", None): small_solution.ntk(every),
        ("Phi", 0): np.broadcast_to(small_solution.problem.input_kernel[:, None], (6, 4, 6, 4)),
    }
    for (kernel, layer), whole in kernels.items():
        found = observables.two_time_kernel(small_solution, kernel, layer)
        assert found.mean == pytest.approx(np.einsum("tmsm->ts", whole) / 4)
        assert found.replicates.shape == (1 if layer == 0 else 2, 6, 6)


def test_the_two_time_kernel_of_a_power_series_is_the_trace_of_the_kernel(small_solution):
    kernel = small_solution.kernel("Phi", 2)
    weights = np.random.default_rng(0).standard_normal((3, kernel.factor.shape[-1]))
    series = replace(small_solution, kernels={**small_solution.kernels, ("Phi", 2): replace(kernel, weights=weights)})
    kernel = series.feature_kernel(2, slice(None))
    assert observables.two_time_kernel(series, "Phi", 2).mean == pytest.approx(np.einsum("tmsm->ts", kernel) / 4)


def test_kernels_are_measured_on_the_points_that_are_asked_for():
    solution = drawn(weights=[1, 0, 2, 0])
    apart = {"train": [0, 2], "test": [1, 3], "all": [0, 1, 2, 3]}
    for points, rows in apart.items():
        K = solution.estimate("ntk", -1).replicates[np.ix_([0, 1, 2], rows, rows)]
        aligned = [Y[rows] @ each @ Y[rows] / np.linalg.norm(each) / (Y[rows] @ Y[rows]) for each in K]
        found = observables.kernel_alignment(solution, "NTK", t=-1, points=points)
        assert found.replicates == pytest.approx(np.array(aligned))
        assert observables.ntk_spectrum(solution, points=points).mean.shape == (4, len(rows))
        trace = np.einsum("rtmsm->rts", solution.estimate("ntk", slice(None)).replicates[:, :, rows][..., rows])
        found = observables.two_time_kernel(solution, "NTK", points=points)
        assert found.replicates == pytest.approx(trace / len(rows))


def test_cosine_alignment_by_hand(small_solution):
    doubled = changed(small_solution, lambda factor: 2 * factor, "Phi")
    single = small_solution.restricted(replicates=[0])
    assert observables.cosine_alignment(doubled, single, "Phi", 2).replicates[0] == pytest.approx(np.ones(6))
    assert (observables.cosine_alignment(doubled, single, "Phi", 2).replicates[1] < 1 - 1e-4).all()
    left, right = (np.eye(4)[None, None, :, [place]] for place in (0, 1))
    assert observables.cosine_alignment(holding(left), holding(right), "Phi", 1, -1).mean == 0
    both = np.eye(4)[None, None, :, :2]
    assert observables.cosine_alignment(holding(left), holding(both), "Phi", 1, -1).mean == pytest.approx(2**-0.5)


def test_silent_alignment_by_hand():
    """Alignment rises from 0.5 to 1 in the first two steps; the loss falls in the steps after that."""
    towards = Y / np.linalg.norm(Y)
    basis = np.linalg.qr(np.column_stack([towards, np.eye(4)[:, :3]]))[0]
    factors = []
    for share in (0.5, 0.75, 1.0, 1.0, 1.0):  # eigenvalue `share` along y, and another that keeps the norm at one
        other = np.sqrt(1 - share**2)
        factors.append(basis[:, :2] * np.sqrt([share, other]))
    f = Y * (1 - np.sqrt([1.0, 1.0, 0.8, 0.4, 0.0]))[:, None]  # losses in proportion 1, 1, 0.8, 0.4, 0
    solution = holding(np.array(factors)[None], predictions=f[None], exact=True)
    found = observables.silent_alignment(solution, "Phi", 1, dropped=0.6)
    assert float(found.step.mean) == pytest.approx(2.5) and float(found.step.se) == 0
    assert float(found.share.mean) == pytest.approx(1.0)
    early = observables.silent_alignment(solution, "Phi", 1, dropped=0.9)
    assert float(early.step.mean) == pytest.approx(1.5) and float(early.share.mean) == pytest.approx(0.75)
    assert np.isnan(observables.silent_alignment(holding(), "Phi", 1).step.mean)  # the loss never falls


# --- distributions


def with_fields(values):
    """A Solution whose field h has given samples (R, P, neurons)."""
    return replace(holding(y=np.ones(values.shape[1])), field_samples={(1, 2): {"h": values}})


def test_densities_and_kurtosis_of_known_distributions():
    rng = np.random.default_rng(0)
    draws = np.stack([rng.standard_normal((4, 20000)), rng.uniform(-1, 1, (4, 20000))], axis=1)
    solution = with_fields(draws)
    kurtosis = observables.excess_kurtosis(solution, 1)
    assert (np.abs(kurtosis.mean - [0, -1.2]) < 4 * kurtosis.se).all() and kurtosis.se.max() < 0.05
    edges = np.linspace(-1, 1, 11)
    found = observables.activation_density(solution, 1, sample=1, edges=edges)
    assert (np.abs(found.density.mean - 0.5) < 5 * found.density.se).all() and found.density.se.max() < 0.02
    assert found.centres == pytest.approx(np.linspace(-0.9, 0.9, 10))
    both = observables.activation_density(solution, 1, edges=200)
    assert np.sum(both.density.mean * np.diff(both.edges)) == pytest.approx(1, abs=0.005)


def test_bins_cover_samples_that_are_all_equal():
    found = observables.activation_density(with_fields(np.zeros((2, 1, 8))), 1, edges=5)
    assert np.sum(found.density.mean * np.diff(found.edges)) == pytest.approx(1)


@pytest.mark.thorough
def test_linear_networks_stay_gaussian_and_rich_tanh_networks_do_not():
    rng = np.random.default_rng(3)
    problem = kf.Problem(rng.standard_normal((4, 6)), [1.0, -1.0, 1.0, -1.0])
    training = kf.GradientDescent(learning_rate=0.3, steps=40)
    for activation in ("linear", "tanh"):
        network, method = kf.MLP(depth=2, activation=activation, gamma0=3.0), kf.March(kernels="none")
        solution = kf.solve(network, problem, training, method, progress=False)
        first, last = (observables.excess_kurtosis(solution, 1, t=t).mean for t in (0, -1))
        assert np.abs(first).max() < 0.2  # of 4096 neurons: 0.08 for each
        assert np.abs(last).max() < 0.25 if activation == "linear" else np.abs(last).max() > 0.5


# --- finite networks


@functools.cache
def runs():
    """The same training at infinite and at finite width, with two test points."""
    rng = np.random.default_rng(4)
    X = rng.standard_normal((6, 8))
    problem = kf.Problem(X, np.sign(X[:, 0]), weights=[1, 1, 1, 1, 0, 0])
    training = kf.GradientDescent(learning_rate=0.3, steps=10)
    network = kf.MLP(depth=2, activation="tanh", gamma0=1.5)
    methods = (kf.March(particles=1024), kf.FiniteWidth(width=512, seeds=8))
    return [kf.solve(network, problem, training, method, progress=False) for method in methods]


@pytest.mark.thorough
def test_observables_of_finite_networks_are_those_of_their_neurons():
    """Oracle: NumPy on the recorded neurons, whose averages the kernels are."""
    _, finite = runs()
    y, train = finite.problem.y[:4], slice(4)
    for t in (0, -1):
        h, g = (observables.field_samples(finite, 2, name, t)[:, train].astype(float) for name in "hg")
        phi = np.tanh(h)
        for kernel, rows in (("Phi", phi), ("G", g)):
            K = rows @ rows.swapaxes(1, 2) / rows.shape[-1]
            norms = np.linalg.norm(K, axis=(1, 2))
            aligned = np.einsum("m,rmn,n->r", y, K, y) / norms / 4
            ranks = np.trace(K, axis1=1, axis2=2) ** 2 / norms**2
            found = [measure(finite, kernel, 2, t).replicates for measure in
                     (observables.kernel_alignment, observables.effective_rank)]  # fmt: skip
            assert found[0] == pytest.approx(aligned, rel=1e-4) and found[1] == pytest.approx(ranks, rel=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("loss", ("train",)),
        ("loss", ("test",)),
        ("kernel_alignment", ("Phi", 2)),
        ("kernel_alignment", ("NTK",)),
        ("centred_alignment", ("Phi", 1)),
        ("kernel_movement", ("Phi", 2)),
        ("kernel_movement", ("G", 1)),
        ("kernel_movement", ("NTK",)),
        ("effective_rank", ("NTK",)),
        ("ntk_spectrum", ()),
        ("two_time_kernel", ("Phi", 2)),
        ("excess_kurtosis", (1,)),
    ],
)
def test_observables_of_finite_networks_are_near_those_of_infinite_width(name, arguments):
    """Within both error bars and a bias of a few percent of the largest value, O(1/N)."""
    infinite, finite = (getattr(observables, name)(solution, *arguments) for solution in runs())
    noise = np.hypot(finite.se, infinite.se)
    assert (np.abs(finite.mean - infinite.mean) < 4 * noise + 0.01 * np.abs(infinite.mean).max() + 1e-9).all()
    assert np.abs(infinite.mean).max() > 5 * infinite.se.max()


@pytest.mark.thorough
def test_finite_kernels_align_with_those_of_infinite_width():
    infinite, finite = runs()
    aligned = observables.cosine_alignment(finite, infinite, "Phi", 2)
    assert aligned.mean.shape == (11,) and (aligned.mean > 0.99).all() and (aligned.mean < 1).all()


def test_the_jackknife_removes_the_bias_of_eigenvalues_that_noise_drives_apart():
    rng, true = np.random.default_rng(0), np.array([1.0, 1.05, 1.1, 3.0])
    noise = rng.standard_normal((500, 4, 4, 4)) / 20
    kernels = np.diag(true) + (noise + noise.swapaxes(2, 3)) / 2
    plain = np.linalg.eigvalsh(kernels).mean(axis=(0, 1)) - true
    better = np.mean([_jackknife(np.linalg.eigvalsh, K) for K in kernels], axis=(0, 1)) - true
    assert np.linalg.norm(better) < np.linalg.norm(plain) / 2
