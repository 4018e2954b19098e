"""Yields of a card come back from a spectrum that another card made."""

import awkward as ak
import numpy as np
import pytest

from gammastar.core.constants import M_MU
from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.mock import load_card, simulate_events, tune_card
from gammastar.mock.tuning import _opposite

CARD = load_card(data_path("cards/na60_mock.toml"))


def test_tuning_finds_the_yields_behind_a_spectrum():
    factor = {"eta_dalitz": 0.7, "omega_2body": 1.4, "phi_2body": 1.8}
    modes = {
        k: m.model_copy(update={"branching": m.branching * factor.get(k, 1.0)}) for k, m in CARD.modes.items()
    }
    data = simulate_events(CARD.model_copy(update={"modes": modes}), 30_000, seed=1)
    assert ak.any(data.branches["Muon"].charge)
    edges = np.linspace(0.2, 1.2, 51)
    counts = np.histogram(_opposite(data, M_MU)[0], edges)[0]
    known = {"combinatorial": (1.2, 0.3), "eta_prime_dalitz": (1.0, 0.3), "omega_dalitz": (1.0, 0.1)}
    tuned, fit = tune_card(CARD, edges, counts, data.meta["N_POT"], constraints=known, n=300_000)
    for key, expected in factor.items():
        assert fit.factor[key] == pytest.approx(expected, abs=4 * fit.error[key] + 0.03 * expected)
    assert fit.chi2 / fit.ndof < 2.0
    ratio = tuned.modes["phi_2body"].branching / CARD.modes["phi_2body"].branching
    assert ratio == pytest.approx(fit.factor["phi_2body"])
    with pytest.raises(PhysicsError, match="51 edges for 49 bins"):
        tune_card(CARD, edges, counts[1:], 1e10)
