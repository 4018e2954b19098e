"""The error of R(s) moves decay length and branching ratios, and with them the yields."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar import accept
from gammastar.accept.expected_events import width_shift
from gammastar.accept.plane import PlaneRow
from gammastar.core.files import data_path
from gammastar.core.records import Exposure
from gammastar.core.signal import Rate
from gammastar.core.sources import Sources
from gammastar.physics.bremsstrahlung import preset
from gammastar.physics.detector import load_detector
from gammastar.physics.qed import RTable
from gammastar.predict import Bremsstrahlung, DarkPhoton

TABLE = RTable.read(data_path("measurements/r_ratio.csv"))
COUPLINGS = np.geomspace(1e-8, 1e-5, 121)
MASS = 0.6


def signal(table: RTable) -> np.ndarray:
    detector = load_detector(data_path("detectors/na62_dump.toml"))
    sample = Bremsstrahlung(preset("na62"), 400.0).produce(MASS, n=20_000, rng=np.random.default_rng(1))
    law = accept.Measured(Exposure(400.0, 63.55, 29, 19.6, 1e17), "per_interaction")
    options = {"measured": law, "rng": np.random.default_rng(2)}
    return accept.yields(sample, MASS, COUPLINGS, DarkPhoton(table), detector, **options).signal


def test_the_shift_is_that_of_yields_with_another_table() -> None:
    plain = signal(TABLE)
    width = DarkPhoton(TABLE).width_error(MASS)
    moved = 0.5 * (signal(TABLE.shifted(1.0)) - signal(TABLE.shifted(-1.0)))
    ours = width_shift(plain[None, :], COUPLINGS, [width])[0] * plain
    good = plain > 1e-6 * plain.max()
    np.testing.assert_allclose(ours[good], moved[good], atol=0.01 * width * plain.max())
    relative = ours[good] / plain[good]
    assert abs(relative[0]) < 0.01 * width  # long lifetimes: s ∝ ε⁴ whatever the hadrons
    assert relative[-1] < -5 * width  # the upper edge moves by more than the width


def test_the_shift_is_a_source_of_the_yield() -> None:
    plain = signal(TABLE)
    width = DarkPhoton(TABLE).width_error(MASS)
    rate = Rate(np.array([MASS]), np.ones(1), np.zeros((1, 1)), Sources())
    nothing = np.zeros(len(plain))
    row = PlaneRow(accept.AcceptedYield(COUPLINGS, plain, nothing, nothing, nothing), (), None, 0.0)
    value, best, sources = accept.plane_of(rate, [row], width_sigma=np.array([width])).budget()
    found = sources.named("hadronic width")
    expected = width_shift(plain[None, :], COUPLINGS, [width])[0, plain.argmax()]
    assert best[0] == COUPLINGS[plain.argmax()]
    assert found.kind == "widths"
    # at the best coupling d ln s/d ln ε is near zero: two standard deviations of the width
    assert np.sqrt(found.cov[0, 0]) / value[0] == pytest.approx(abs(expected))
    assert np.sqrt(found.cov[0, 0]) / value[0] == pytest.approx(2 * width, rel=0.1)
