import numpy as np
import pytest

from kernelfield.engine.points import SOBOL, OutOfParticles, Population, cubature, padded_sobol

SEED = np.random.SeedSequence(3)


@pytest.mark.parametrize("first, off", [(0, 0.02), (SOBOL, 0.06), (SOBOL - 3, 0.06)])  # padding: four times 1 / sqrt(S)
def test_coordinates_are_standard_normal_and_uncorrelated(first, off):
    z = padded_sobol(SOBOL + 8, 4096, SEED)[first : first + 6].astype(float)
    assert np.abs(z.mean(axis=1)).max() < 1e-3
    np.testing.assert_allclose(np.mean(z**2, axis=1), 1, atol=0.002)
    np.testing.assert_allclose(z @ z.T / 4096, np.eye(6), atol=off)
    assert np.mean(z**4) == pytest.approx(3, abs=0.05)


def test_scrambles_of_different_length_are_independent():
    short, long = padded_sobol(4, 1024, SEED), padded_sobol(8, 1024, SEED)
    overlap = short @ long[:4].T / 1024
    assert np.abs(overlap).max() < 0.9
    assert not np.allclose(short, long[:4])


def test_longer_draws_continue_the_padding():
    np.testing.assert_array_equal(padded_sobol(SOBOL + 2, 64, SEED), padded_sobol(SOBOL + 5, 64, SEED)[:-3])


def test_cubature_is_exact_for_quadratics():
    z = cubature(5, 16, SEED)
    np.testing.assert_allclose(z @ z.T / 16, np.eye(5), atol=1e-15)


def test_longer_cubatures_continue_shorter_ones():
    """Else bases that are enlarged during a run would reuse particles that they have used."""
    np.testing.assert_array_equal(cubature(5, 16, SEED), cubature(9, 16, SEED)[:5])


@pytest.mark.parametrize("points", [padded_sobol, cubature])
@pytest.mark.parametrize("first", [3, SOBOL, SOBOL + 70, SOBOL + 199])
def test_coordinates_are_the_same_without_those_before(points, first):
    everything = points(SOBOL + 200, 1024, SEED)
    np.testing.assert_array_equal(points(SOBOL + 200, 1024, SEED, first), everything[first:])


def test_known_coordinates_are_left_out():
    def dealt(known_up, known_down):
        population = Population(padded_sobol, 64, SEED)
        up, fixed, down = population.lane(1, 300, True), population.lane(1, 3, False), population.lane(2, 200, True)
        rows = population.coordinates({up: known_up, fixed: 3, down: known_down} if known_up else {})
        return rows[up], rows[fixed], rows[down]

    (up, _, down), (more_up, fixed, more_down) = dealt(0, 0), dealt(260, 120)
    assert not more_up[:, :260].any() and not fixed.any() and not more_down[:, :120].any()
    np.testing.assert_array_equal(more_up[:, 260:], up[:, 260:])
    np.testing.assert_array_equal(more_down[:, 120:], down[:, 120:])


def test_cubature_refuses_more_coordinates_than_particles():
    with pytest.raises(OutOfParticles, match="17 Gaussian coordinates on 16 particles"):
        cubature(17, 16, SEED)


def test_lanes_of_a_population_share_no_dimension_however_they_grow():
    def unit_vectors(dimensions, particles, seed, first=0):
        return np.eye(dimensions, particles)[first:]

    def dealt(rows_up, rows_down):
        population = Population(unit_vectors, 64, SEED)
        lanes = [
            population.lane(1, rows_up, grows=True),
            population.lane(1, 3, grows=False),
            population.lane(2, rows_down, grows=True),
        ]
        rows = population.coordinates({})
        return [each.argmax(axis=1).tolist() for lane in lanes for each in rows[lane]]

    small, large = dealt(4, 6), dealt(12, 9)
    everything = [dimension for lane in large for dimension in lane]
    assert len(set(everything)) == len(everything)
    assert all(new[: len(old)] == old for old, new in zip(small, large, strict=True))


def test_joined_populations_deal_from_one_point_set():
    def unit_vectors(dimensions, particles, seed, first=0):
        return np.eye(dimensions, particles)[first:]

    one, other, third = (Population(unit_vectors, 64, SEED) for _ in range(3))
    lanes = [one.lane(1, 2, grows=False), other.lane(3, 2, grows=False), third.lane(1, 1, grows=False)]
    other.join(third)
    one.join(third)
    one.join(other)  # again: nothing changes
    assert other.coordinates({}) == third.coordinates({}) == {}
    assert other.itself is third.itself is one
    rows = one.coordinates({})
    dealt = [dimension for lane in lanes for dimension in rows[lane].argmax(axis=2).ravel().tolist()]
    assert sorted(dealt) == list(range(9))
