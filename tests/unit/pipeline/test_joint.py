"""The window of the joint likelihood: what it knows of the mass spectrum across it."""

from types import SimpleNamespace

import numpy as np
import pytest
from builders import matched_pairs, opposite_sign

from gammastar.core.constants import M_MU
from gammastar.core.records import Exposure
from gammastar.physics.qed import dark_photon_rate
from gammastar.pipeline.stages import joint

MASS, WINDOW, PIVOT = 0.6, 0.04, 0.57
EXPOSURE = Exposure(400.0, 12.0, 6.0, 1.0, 1e12)


def spectrum(mass, curvature=0.0):
    """Return pairs per GeV: a continuum whose bend is not known."""
    return 1e-9 * np.exp(-3 * (mass - MASS) + curvature * ((mass - PIVOT) / WINDOW) ** 2)


def rate(mass, curvature=0.0):
    return spectrum(mass, curvature) * dark_photon_rate(np.ones_like(mass), mass, M_MU)


def test_the_mass_spectrum_across_a_window_is_an_error_of_the_signal(monkeypatch):
    """The signal at a mass follows from the pairs of a window: thrown with other bends of the spectrum."""
    sigma, rng = 0.15, np.random.default_rng(1)

    def measured_rate(grid):
        shift = sigma * ((grid - PIVOT) / WINDOW) ** 2 * rate(grid)
        return rate(grid), np.outer(shift, shift)

    photon = SimpleNamespace(rate=measured_rate, mass_range=(0.3, 1.0))
    mass = rng.uniform(0.4, 0.8, 4000)
    reco = np.stack([mass, np.full(4000, 0.5), np.full(4000, 30.0)], axis=1)
    pairs = opposite_sign(*reco.T)
    cells = SimpleNamespace(
        window=WINDOW, pt=(0.0, 1.0), energy=(10.0, 50.0), n_replicas=2, efficiency_floor=1e-3
    )
    steering = SimpleNamespace(infer=SimpleNamespace(joint=cells), spectrum=SimpleNamespace(lepton="mu"))
    ctx = SimpleNamespace(steering=steering, seed=1, cache=SimpleNamespace(notes=[]))
    measured = SimpleNamespace(
        parts=(pairs,), truth=SimpleNamespace(parts=(matched_pairs(reco, reco),)), r_factor=(1.0, 0.0),
        charges=1.0, removed=(),
    )  # fmt: skip
    state = SimpleNamespace(production=SimpleNamespace(parts=(photon,), exposure=EXPOSURE))
    search = SimpleNamespace(
        plane=SimpleNamespace(mass=np.array([MASS])), background=(0.0, 0.0, ""), observed="masked",
        detector=SimpleNamespace(name="far"),
    )  # fmt: skip
    monkeypatch.setattr(joint, "_varied", lambda *_: {})
    monkeypatch.setattr(joint, "cell_signals", lambda *_: (np.ones(1), {"far": np.full((1, 3), 5.0)}))
    window = joint._windows(ctx, state, measured, {"far": search}, 0)["far"]
    known = {effect.name: effect for effect in window.model.effects}

    grid = np.linspace(MASS - WINDOW, MASS + WINDOW, 401)
    thrown = sigma * rng.standard_normal(4000)
    every = spectrum(grid[:, None], thrown)
    moved = spectrum(MASS, thrown) / np.trapezoid(every, grid, axis=0)
    wanted = np.std(np.log(moved))
    noise = 4 / np.sqrt(2 * 4000) + sigma  # to first order in the bend
    assert known["mass_shape"].signal == pytest.approx(wanted, rel=noise)
    assert wanted > 0.01
