"""The signal over masses and couplings: which errors move with what was measured, and where the data end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gammastar.core.records import effective_size
from gammastar.core.signal import VIRTUAL_PHOTON, Effect, Rate, SignalPlane
from gammastar.core.sources import THEORY_OF, Source, Sources

MASS, COUPLING = np.array([0.3, 0.6]), np.array([1e-7, 1e-6, 1e-5])
MEASURED, THEORY = np.array([3.0, 1.0]), np.array([1.0, 1.0])
# events: measured photons, and theory beside them
OWN, BESIDE = np.outer(MEASURED, [0.5, 2.0, 1.0]), np.outer(THEORY, [1.0, 1.0, 0.25])
GROUP = "bremsstrahlung"


def plane(**more: Any) -> SignalPlane:
    """Measured photons known to 10 %, theory beside them to 30 %."""
    sigma = {"measurement": 0.1 * MEASURED, THEORY_OF + GROUP: 0.3 * THEORY}
    sources = Sources(tuple(Source.shifted(name, "spectrum", row) for name, row in sigma.items()))
    channels = {VIRTUAL_PHOTON: MEASURED, GROUP: THEORY}
    rate = Rate(MASS, MEASURED + THEORY, sources.total(), sources, channels=channels)
    signal = OWN + BESIDE
    theory = Effect(THEORY_OF + GROUP, "theory", "ends", np.stack([OWN + 0.7 * BESIDE, OWN + 1.3 * BESIDE]))
    parts = {VIRTUAL_PHOTON: OWN, GROUP: BESIDE}
    pairs = np.full(signal.shape, 100.0)
    settings: dict[str, Any] = {"n_effective": pairs, "effects": (theory,), "parts": parts} | more
    return SignalPlane(rate, COUPLING, signal, 0 * signal, 0 * signal, **settings)


def test_an_error_moves_the_part_of_the_yield_that_it_is_of() -> None:
    """The measurement the measured photons, theory its own: each once, at the coupling of the most events."""
    value, coupling, sources = plane().budget()
    np.testing.assert_allclose(value, OWN[:, 1] + BESIDE[:, 1])
    np.testing.assert_allclose(coupling, 1e-6)
    wanted = (0.1 * OWN[:, 1]) ** 2 + (0.3 * BESIDE[:, 1]) ** 2
    np.testing.assert_allclose(np.diag(sources.total()), wanted)


def test_the_widths_of_the_likelihood_are_of_the_same_parts() -> None:
    """ln κ of the measurement is 10 % of what the measured photons are of all events."""
    found = plane().spreads({"measurement"})
    (row,) = found.values()
    np.testing.assert_allclose(row, np.log1p(0.1 * OWN / (OWN + BESIDE)))


@pytest.mark.parametrize(
    ("pairs", "end"), [([400.0, 40.0, 4.0], 10**-5.5), ([400.0] * 3, np.inf), ([1.0] * 3, 0)]
)
def test_the_data_end_where_pairs_are_few(pairs: list[float], end: float) -> None:
    """However many particles are drawn of them: 4 √10 pairs are half-way, in logarithms, from 40 to 4."""
    there = plane(n_effective=np.full((2, 3), 1e6), pairs=np.tile(pairs, (2, 1)))
    np.testing.assert_allclose(there.data_end(4 * np.sqrt(10.0)), end)


def test_subtracted_pairs_count_against_the_others() -> None:
    """(Σw)²/Σw²: four pairs less two are two ± √6, known no better than 4/6 of a pair is."""
    assert effective_size(np.array([1.0, 1.0, 1.0, 1.0, -1.0, -1.0])) == pytest.approx(4 / 6)
