import numpy as np
import pytest

from kernelfield.engine.points import SOBOL, Population, cubature, padded_sobol

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


def test_lanes_of_a_population_share_no_dimension():
    population = Population(cubature, 64, SEED)
    lanes = [population.add_lane(1, 7), population.add_lane(1, 3), population.add_lane(2, 5)]
    rows = population.coordinates()
    assert population.dimensions() == 20
    places = [place for lane in lanes for place in np.abs(rows[lane]).argmax(axis=2).ravel().tolist()]
    assert len(set(places)) == 20


@pytest.mark.parametrize("points", [padded_sobol, cubature])
def test_further_coordinates_are_new_ones_and_do_not_depend_on_how_many(points):
    population = Population(points, 1024, SEED)
    first, second = population.add_lane(1, 4, grows=True), population.add_lane(2, 6, grows=True)
    known = np.concatenate([rows.reshape(-1, 1024) for rows in population.coordinates().values()])
    more = np.concatenate([population.draw_more(lane, 3).reshape(-1, 1024) for lane in (first, second)])
    everything = np.concatenate([known, more])
    assert len(everything) == population.dimensions(3) == 4 + 12 + 9
    np.testing.assert_allclose(everything @ everything.T / 1024, np.eye(25), atol=0.15)
    if points is padded_sobol:
        np.testing.assert_array_equal(population.draw_more(first, 2), population.draw_more(first, 3)[:, :2])


def test_joined_populations_deal_from_one_point_set():
    def unit_vectors(dimensions, particles, seed, first=0):
        return np.eye(dimensions, particles)[first:]

    one, other, third = (Population(unit_vectors, 64, SEED) for _ in range(3))
    lanes = [one.add_lane(1, 2), other.add_lane(3, 2), third.add_lane(1, 1)]
    other.join(third)
    one.join(third)
    one.join(other)  # again: nothing changes
    assert other.coordinates() == third.coordinates() == {}
    assert other.root is third.root is one
    rows = one.coordinates()
    dealt = [dimension for lane in lanes for dimension in rows[lane].argmax(axis=2).ravel().tolist()]
    assert sorted(dealt) == list(range(9))
