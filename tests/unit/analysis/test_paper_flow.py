"""The flow of the data-driven paper: its size, physical draws, a normalised density."""

import sys

import numpy as np
import pytest
from builders import ROOT

from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.flow.network import inside_limits
from gammastar.flow.options import Table
from gammastar.mock import generate_pairs, load_card

sys.path.append(str(ROOT / "analysis" / "na60_dimuon"))
from paper_flow import fit_paper, paper_options

pytestmark = pytest.mark.flow
BEAM = 400.0


@pytest.fixture(scope="module")
def paper():
    pairs = generate_pairs(load_card(data_path("cards/na60_mock.toml")), 12_000, np.random.default_rng(1))
    keep = pairs.mass < 1.1
    columns = (a[keep] for a in (pairs.mass, pairs.pt, pairs.energy, pairs.weight))
    table = Table(*columns, np.flatnonzero(keep))
    options = paper_options(epochs=2, epoch_size=2048)
    return fit_paper(table, beam_energy=BEAM, options=options, rng=np.random.default_rng(1))


@pytest.mark.long
def test_draws_are_physical(paper):
    assert paper.network.architecture == {"steps": 8, "bins": 6, "hidden": 32, "layers": 2}
    assert 40_000 < paper.network.n_parameters < 50_000  # normflows: 45120
    rng = np.random.default_rng(2)
    mass = np.full(4000, 0.5)
    assert inside_limits(mass, *paper.sample(mass, rng), BEAM).all()
    with pytest.raises(PhysicsError, match="outside the range"):
        paper.sample(np.array([1.5]), rng)


@pytest.mark.long
def test_the_density_is_normalised(paper):
    """Over the whole quadrant pt, E > 0: this flow does not know the physical limits."""
    log_pt, log_energy = np.linspace(-8, 4, 160), np.linspace(-1, 8, 160)
    pt, energy = np.meshgrid(np.exp(log_pt), np.exp(log_energy), indexing="ij")
    density = np.exp(paper.log_prob(np.full(pt.shape, 0.5), pt, energy)) * pt * energy
    total = np.trapezoid(np.trapezoid(density, log_energy, axis=1), log_pt)
    assert total == pytest.approx(1.0, abs=1e-2)
