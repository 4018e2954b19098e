"""Yields of a card fitted to a measured mass spectrum."""

from __future__ import annotations

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.simulate.candidates import with_energy
from gammastar.simulate.card import Card
from gammastar.simulate.detector import pair_kinematics
from gammastar.simulate.ntuple import SimulatedEvents, simulate_events
from gammastar.simulate.tuning import YieldFit, fit_yields

__all__ = ["mass_templates", "tune_card"]


def _opposite(events: SimulatedEvents, lepton: float) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Return mass and weight of opposite-sign pairs of two-lepton events, and which events these are."""
    muon = events.branches["Muon"]
    two = ak.to_numpy((ak.num(muon) == 2) & (ak.sum(muon.charge, axis=1) == 0))
    p = np.stack([ak.to_numpy(muon[two][c]).astype(np.float64) for c in ("px", "py", "pz")])
    p = with_energy(p, lepton)
    weight = (events.branches["weight"] * events.branches["prescale"])[two]
    return pair_kinematics(p[..., 0], p[..., 1])[0], weight, two


def mass_templates(
    card: Card, edges: FloatArray, pot: float, *, n: int = 200_000, seed: int = 0
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Return expected entries of each source in a measured mass spectrum, and their variances.

    Parameters
    ----------
    card : Card
    edges : NDArray, shape (bins + 1,)
        Of the measured mass [GeV].
    pot : float
        Protons on target of the measurement.
    n : int
        Simulated dimuons.
    seed : int

    Returns
    -------
    templates, variance : dict of str to NDArray, shape (bins,)
        By mode of the card, ``"combinatorial"``, and ``"charm"`` where the card has it.

    Notes
    -----
    Events with a third muon are not among those of two, in a measurement as here: the templates of sources
    that are simulated without one lose this share.
    """
    lepton = LEPTON_MASS[card.lepton]
    samples = {"mc": simulate_events(card, n, kind="mc", seed=seed)}
    samples["combinatorial"] = simulate_events(card, max(n // 10, 1000), kind="background", seed=seed)
    if card.has_charm:
        samples["charm"] = simulate_events(card, max(n // 10, 1000), kind="charm", seed=seed)
    templates, variance = {}, {}
    two_only = 1.0 - float(samples["combinatorial"].meta["third_muon_probability"])
    for kind, sample in samples.items():
        mass, weight, two = _opposite(sample, lepton)
        scale = pot / float(sample.meta["N_POT"]) * (1.0 if kind == "combinatorial" else two_only)
        sources = {kind: np.ones(len(mass), dtype=np.bool_)}
        if kind == "mc":
            process = sample.branches["gen_process"][two]
            sources = {key: process == mode.process for key, mode in card.modes.items() if mode.enabled}
        for key, mine in sources.items():
            found = np.histogram(mass[mine], edges, weights=weight[mine] * scale)[0]
            if found.sum() > 0:
                templates[key] = found
                variance[key] = np.histogram(mass[mine], edges, weights=(weight[mine] * scale) ** 2)[0]
    return templates, variance


def tune_card(
    card: Card,
    edges: npt.ArrayLike,
    counts: npt.ArrayLike,
    pot: float,
    *,
    constraints: dict[str, tuple[float, float]] | None = None,
    n: int = 200_000,
    seed: int = 0,
) -> tuple[Card, YieldFit]:
    """Fit the yields of a card's modes to a measured spectrum of opposite-sign pairs.

    Parameters
    ----------
    card : Card
    edges, counts : array_like, shapes (bins + 1,), (bins,)
        Measured masses [GeV] and entries, background included.
    pot : float
        Protons on target of the measurement.
    constraints : mapping of str to (value, error), optional
        Knowledge of factors, e.g. ``{"combinatorial": (1.0, 0.05)}`` from like-sign pairs.
    n, seed : int
        Simulated dimuons of the templates, and their seed.

    Returns
    -------
    Card, YieldFit
        The card with branching fractions times the factors; its name says that it was tuned. Modes without
        an entry keep their yield.

    Raises
    ------
    PhysicsError
        If `edges` and `counts` do not fit together, or the fit fails.
    """
    edges, counts = np.asarray(edges, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if len(edges) != len(counts) + 1 or not pot > 0:
        msg = f"tune_card: {len(edges)} edges for {len(counts)} bins, pot = {pot!r}; one more edge, pot > 0"
        raise PhysicsError(msg)
    templates, variance = mass_templates(card, edges, pot, n=n, seed=seed)
    fit = fit_yields(counts, templates, variance=variance, constraints=constraints)
    modes = {}
    for key, mode in card.modes.items():
        factor = fit.factor.get(key, 1.0)
        photon = None if mode.branching_photon is None else mode.branching_photon * factor
        modes[key] = mode.model_copy(
            update={"branching": mode.branching * factor, "branching_photon": photon}
        )
    update = {"name": f"{card.name} (tuned)", "modes": modes, "tuning": None}
    return card.model_copy(update=update), fit
