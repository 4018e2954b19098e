"""FASER's card with mesons of FORESEE beside the published exclusion, which shares no code with either."""

import os
from pathlib import Path

import numpy as np
import pytest

from gammastar import accept, predict
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.physics.detector import load_detector
from gammastar.physics.mesons import MesonTable
from gammastar.predict.models import r_table
from gammastar.report import existing_limits
from gammastar.report.figures.limits import edges_of

MESONS = Path(os.environ.get("GAMMASTAR_FORESEE", "-")) / "files" / "hadrons" / "13.6TeV" / "EPOSLHC"


@pytest.mark.skipif(not MESONS.is_dir(), reason="needs FORESEE's spectra, its clone in GAMMASTAR_FORESEE")
@pytest.mark.parametrize("mass", [0.02, 0.05, 0.07])
def test_events_at_the_published_edges(mass):
    """2.3 events exclude at 90 %. Their number goes as ε⁴ on the lower edge, and steeper on the upper one.

    Generators differ by 1.5 either way, the card takes an efficiency of one where half is reconstructed, and
    the curve was read off to 0.02 in log10 ε: a factor of four in events is 1.41 in ε at most.
    """
    faser = next(limit for limit in existing_limits() if limit.name == "FASER")
    low, high = edges_of(faser.polygon, np.array([mass]))[0]
    coupling = [low / 1.41, low * 1.41, high / 1.41, high * 1.41]
    table, detector = MesonTable.read(MESONS), load_detector(data_path("detectors/faser.toml"))
    photon, events = predict.DarkPhoton(r_table()), np.zeros(4)
    for channel in (predict.PionDalitz, predict.PseudoscalarDalitz):
        sample = channel(table, beam_energy=6800.0).produce(mass, n=200_000, rng=stream(1, "mesons"))
        seen = accept.yields(
            sample, mass, coupling, photon, detector, final_states=("ee",), rng=stream(1, "decays")
        )
        events += seen.signal
    assert (events[[0, 3]] < 2.3).all(), events
    assert (events[[1, 2]] > 2.3).all(), events
