"""The spin state of the virtual photons reaches the leptons of the dark photon."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar import accept
from gammastar.core.constants import M_MU
from gammastar.core.data import data_path
from gammastar.core.records import Exposure
from gammastar.physics.bremsstrahlung import preset
from gammastar.physics.detector import load_detector
from gammastar.physics.polarisation import lambda_theta
from gammastar.physics.widths import RTable
from gammastar.predict import Bremsstrahlung, DarkPhoton

EXPOSURE = Exposure(400.0, 63.55, 29, 19.6, 1e17)


def _signal(longitudinal: float, mass: float) -> float:
    detector = load_detector(data_path("detectors/na62_dump.toml"))
    sample = Bremsstrahlung(preset("na62"), 400.0).produce(mass, n=60_000, rng=np.random.default_rng(1))
    model = DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    law = accept.Measured(EXPOSURE, "per_interaction", longitudinal=longitudinal)
    found = accept.yields(sample, mass, [1e-6], model, detector, measured=law, rng=np.random.default_rng(2))
    return float(found.signal[0])


def test_lambda_of_each_final_state() -> None:
    law = accept.Measured(EXPOSURE, longitudinal=0.0)
    found = law.polarisation(0.3, ["ee", "mumu"])
    assert found["ee"] == pytest.approx(1.0, abs=1e-4)
    assert found["mumu"] == pytest.approx(float(lambda_theta(0.0, 0.3, M_MU)))
    assert law.polarisation(0.2, ["mumu"]) == {"mumu": 0.0}
    assert accept.Measured(EXPOSURE).polarisation(0.3, ["ee"])["ee"] == pytest.approx(0.0, abs=1e-12)


def test_the_spin_state_changes_the_acceptance() -> None:
    transverse, none, longitudinal = (_signal(f, 0.3) for f in (0.0, 1 / 3, 1.0))
    assert len({round(x, 6) for x in (transverse, none, longitudinal)}) == 3
    assert none == pytest.approx((2 * transverse + longitudinal) / 3, rel=0.03)
    assert abs(longitudinal / transverse - 1) > 0.05
