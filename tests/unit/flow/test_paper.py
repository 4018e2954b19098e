"""Numbered events of the paper's preset: physical, a function of their number, distributed as the draws."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import ks_2samp, kstest, pearsonr

from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.flow import FlowOptions, draw_events, fit_paper, model, save
from gammastar.flow.network import inside_limits
from gammastar.flow.options import Table
from gammastar.flow.paper import _other_normal
from gammastar.mock import generate_pairs, load_card
from gammastar.results.events import sample_file

pytestmark = pytest.mark.flow
BEAM = 400.0


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Events are computed in blocks of a length that nothing but the time depends on."""
    monkeypatch.setattr(model, "BLOCK", 1024)


@pytest.fixture(scope="module")
def paper():
    pairs = generate_pairs(load_card(data_path("cards/na60_mock.toml")), 12_000, np.random.default_rng(1))
    keep = pairs.mass < 1.1
    columns = (a[keep] for a in (pairs.mass, pairs.pt, pairs.energy, pairs.weight))
    table = Table(*columns, np.flatnonzero(keep))
    options = FlowOptions.paper(epochs=2, epoch_size=2048)
    return fit_paper(table, beam_energy=BEAM, options=options, rng=np.random.default_rng(1))


@pytest.mark.long
def test_an_event_is_a_function_of_its_number(paper):
    whole = draw_events(paper, 3000, seed=3, mass=0.9)
    part = draw_events(paper, 500, seed=3, mass=0.9, first=2000)
    for name in ("pt", "energy", "azimuth"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[2000:2500])
    assert inside_limits(whole.mass, whole.pt, whole.energy, BEAM).all()
    with pytest.raises(PhysicsError, match="outside the range"):
        paper.transform(np.array([1.5]), np.zeros((1, 2)))


@pytest.mark.long
def test_masses_of_the_neighbours_do_not_matter(paper):
    mass = np.random.default_rng(4).uniform(0.25, 1.05, 1000)
    whole = draw_events(paper, 1000, seed=3, mass=mass)
    part = draw_events(paper, 200, seed=3, mass=mass[700:900], first=700)
    np.testing.assert_array_equal(part.energy, whole.energy[700:900])


@pytest.mark.long
def test_the_physical_points_are_distributed_as_the_draws(paper):
    mass = np.full(5_000, 0.9)
    z = np.random.default_rng(5).standard_normal((5_000, 2))
    pt, energy = paper.scaler.inverse(paper._in_chunks(paper.network.draw, z, paper.scaler.condition(mass)))
    good = inside_limits(mass, pt, energy, paper.beam_energy)
    assert good.mean() < 0.998  # else nothing is tested
    pt, energy = pt[good], energy[good]
    numbered = paper.transform(mass, np.random.default_rng(6).standard_normal((5_000, 2)))
    assert ks_2samp(pt, numbered[0]).pvalue > 1e-3
    assert ks_2samp(energy, numbered[1]).pvalue > 1e-3


def test_other_numbers_are_normal_and_independent():
    normal = np.random.default_rng(7).standard_normal((50_000, 2))
    corner = normal[normal.sum(axis=1) > 3.0]  # as the unphysical ones: from one region
    one, two = _other_normal(corner, 1), _other_normal(corner, 2)
    for column in (*one.T, *two.T):
        assert kstest(column, "norm").pvalue > 1e-3
        assert abs(pearsonr(column, corner[:, 0])[0]) < 4.0 / np.sqrt(len(corner))
    assert abs(pearsonr(one[:, 0], two[:, 0])[0]) < 4.0 / np.sqrt(len(corner))
    assert abs(pearsonr(one[:, 0], one[:, 1])[0]) < 4.0 / np.sqrt(len(corner))


def test_a_file_of_events(paper, tmp_path):
    save(paper, tmp_path / "paper")
    sample_file(tmp_path / "paper", 300, tmp_path / "events.parquet", mass=0.6, seed=2)
    written = pq.read_table(tmp_path / "events.parquet")
    expected = draw_events(paper, 300, seed=2, mass=0.6)
    np.testing.assert_array_equal(np.asarray(written["E"]), expected.energy)
