"""MOCK dark photons that fly, reconstructed track by track, against what prompt pairs say of them."""

from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from gammastar import mock, select
from gammastar.core.constants import M_MU
from gammastar.core.files import shipped
from gammastar.physics.detector import load_telescope, measured_vertices
from gammastar.predict.in_situ import displaced_shares

MASS, WINDOW = 0.78, 0.06
CUTS = np.array([4.0, 8.0])


@pytest.fixture(scope="module")
def sample():
    card = mock.load_card(shipped("na60_full", Path(), "cards"))
    return mock.simulate_events(card, 40_000, kind="mc", seed=3, engine="toy").branches


def pairs(branches, ctau, rng):
    """Return the pairs of photons that decay after a thrown flight; without a lifetime, of prompt ones."""
    chosen = (ak.num(branches["Muon"]) == 2) & (branches["gen_mll"] > 0)
    muon = branches["Muon"][chosen]
    p = [muon[f"gen_p{axis}"] for axis in "xyz"]
    total = [ak.to_numpy(ak.sum(component, axis=1)).astype(float) for component in p]
    z = rng.exponential(1.0, len(muon)) * total[2] / MASS * ctau * 1e6  # um
    offset = [
        component / total[2] * z - component / component * q / p[2] * z
        for component, q in zip(total, p, strict=True)
    ]
    fields = {
        "lepton": ak.zip(
            {
                "px": muon.px,
                "py": muon.py,
                "pz": muon.pz,
                "mass": ak.full_like(muon.pz, M_MU),
                "charge": muon.charge,
                "dx": muon.dx + offset[0],
                "dy": muon.dy + offset[1],
            }
        ),
        "event": np.arange(len(muon)),
        "weight": np.ones(len(muon)),
    }
    return select.pairs(ak.zip(fields, depth_limit=1), select.Cuts(vertex=("dx", "dy")))[0]


@pytest.mark.long
@pytest.mark.parametrize("ctau", [3e-4, 3e-3, 3e-2])
def test_prompt_pairs_predict_displaced_ones(sample, ctau):
    telescope = load_telescope(shipped("na60_telescope", Path(), "cards"))

    def vertices(found):
        found = found.select(found.os)
        return measured_vertices(
            found, np.ones(len(found)), telescope, lepton_mass=M_MU, unit=1e-6, most=(2.5, 2.5)
        )

    prompt = vertices(pairs(sample, 0.0, np.random.default_rng(1)))
    flown = vertices(pairs(sample, ctau, np.random.default_rng(2)))
    near = flown.select(np.abs(flown.mass - MASS) < WINDOW)
    first, last = telescope.fiducial
    found = [(near.good & (near.pull > cut) & (near.z > first) & (near.z < last)).mean() for cut in CUTS]
    share, _, _ = displaced_shares(prompt, telescope, CUTS, mass=MASS, half_window=WINDOW, ctau=[ctau])
    error = np.sqrt(share[:, 0] / len(near))
    assert found == pytest.approx(share[:, 0], abs=4 * error.max(), rel=0.05)
    assert share[0, 0] > 0.02
