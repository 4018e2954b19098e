"""Yields of a card fitted to a measured mass spectrum of opposite-sign pairs, background included.

``python3 analysis/na60_dimuon/card_yields.py CARD SPECTRUM --pot 1e13 [--known combinatorial 1.0 0.05]``

SPECTRUM is a table (``low,high,entries``) or ``file.root:histogram``. Printed are the factors on the
branching fractions of the modes, to be multiplied into the card.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np
import numpy.typing as npt
from iminuit import Minuit

from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import PhysicsError, require
from gammastar.core.files import shipped
from gammastar.core.records import BoolArray, FloatArray, divided
from gammastar.mock.card import Card, load_card
from gammastar.mock.cocktail import with_energy
from gammastar.mock.ntuple import SimulatedEvents
from gammastar.mock.samples import simulate_events
from gammastar.mock.spectrometer import pair_kinematics
from gammastar.read.published import Conventions, hepdata, published_spectrum


@dataclass(frozen=True, slots=True, eq=False)
class YieldFit:
    """Factors on templates that describe a spectrum."""

    factor: Mapping[str, float]
    error: Mapping[str, float]
    covariance: FloatArray  # In the order of `factor`, shape (k, k)
    # Baker-Cousins likelihood ratio and degrees of freedom
    chi2: float
    ndof: int

    def __str__(self) -> str:
        """Return factors and quality in a line."""
        rows = ((key, value, self.error.get(key, 0.0)) for key, value in self.factor.items())
        factors = ", ".join(f"{key} × {value:.3f} ± {error:.3f}" for key, value, error in rows)
        return f"{factors}; χ²/ndof = {self.chi2:.1f}/{self.ndof}"


def fit_yields(
    counts: npt.ArrayLike,
    templates: Mapping[str, npt.ArrayLike],
    *,
    variance: Mapping[str, npt.ArrayLike] | None = None,
    constraints: Mapping[str, tuple[float, float]] | None = None,
    fixed: Mapping[str, float] | None = None,
) -> YieldFit:
    """Fit factors on templates to the counts of a spectrum.

    Parameters
    ----------
    counts : array_like, shape (bins,)
        Measured entries.
    templates : mapping of str to array_like, shape (bins,)
        Expected entries of each source for a factor of one, as measured (smeared, accepted).
    variance : mapping of str to array_like, optional
        Variances of the templates from finite simulation; they join the statistical error of each bin.
    constraints : mapping of str to (value, error), optional
        Gaussian knowledge of factors, e.g. of the combinatorial background from like-sign pairs.
    fixed : mapping of str to float, optional
        Factors that are not fitted.

    Raises
    ------
    PhysicsError
        If shapes differ, a template is empty, or the fit does not converge.

    Notes
    -----
    Poisson likelihood ratio (S. Baker and R. D. Cousins, NIM 221 (1984) 437); with `variance` each bin's
    expectation is scaled as in H. Dembinski and A. Abdelmotteleb, Eur. Phys. J. C 82 (2022) 1043.
    """
    observed = np.asarray(counts, dtype=np.float64)
    fixed = dict(fixed or {})
    names = [name for name in templates if name not in fixed]
    shapes = {name: np.asarray(template, dtype=np.float64) for name, template in templates.items()}
    for name, shape in shapes.items():
        if shape.shape != observed.shape or not shape.sum() > 0:
            what = f"template {name!r} has shape {shape.shape} and sum {shape.sum():g}"
            raise PhysicsError(f"fit_yields: {what}; the spectrum has shape {observed.shape}")
    spread = {k: np.asarray(v, dtype=np.float64) for k, v in (variance or {}).items()}
    known = dict(constraints or {})

    def cost(values: FloatArray) -> float:
        factor = fixed | dict(zip(names, values, strict=True))
        mean = np.sum([factor[k] * shape for k, shape in shapes.items()], axis=0)
        noise = np.sum([factor[k] ** 2 * s for k, s in spread.items()], axis=0) if spread else 0.0 * mean
        mean = np.maximum(mean, 1e-12)
        k = divided(mean**2, noise, np.inf)
        safe = np.where(np.isfinite(k), k, 1.0)
        beta = np.where(np.isfinite(k), (observed + safe) / (mean + safe), 1.0)
        mu = mean * beta
        ratio = np.log(np.maximum(observed, 1e-300) / mu)
        poisson = 2.0 * np.sum(mu - observed + np.where(observed > 0, observed * ratio, 0.0))
        penalty = np.sum(np.where(np.isfinite(k), (beta - 1.0) ** 2 * safe, 0.0))
        pulls = [((factor[name] - x) / error) ** 2 for name, (x, error) in known.items() if name in names]
        return float(poisson + penalty + sum(pulls))

    minuit = Minuit(cost, np.ones(len(names)), name=names)
    minuit.errordef = Minuit.LEAST_SQUARES
    minuit.limits = [(0.0, None)] * len(names)
    minuit.strategy = 2
    minuit.migrad()
    minuit.hesse()
    require(minuit.valid, f"fit_yields: the templates {names} do not describe the spectrum (no minimum)")
    return YieldFit(
        factor=fixed | {name: float(minuit.values[name]) for name in names},
        error={name: float(minuit.errors[name]) for name in names},
        covariance=np.asarray(minuit.covariance, dtype=np.float64),
        chi2=float(minuit.fval),
        ndof=len(observed) - len(names) + len(known),
    )


def _opposite(events: SimulatedEvents, lepton: float) -> tuple[FloatArray, FloatArray, BoolArray]:
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

    Both are by mode of the card, ``"combinatorial"``, and ``"charm"`` where the card has it.

    Parameters
    ----------
    edges : NDArray, shape (bins + 1,)
        Of the measured mass [GeV].
    pot : float
        Protons on target of the measurement; `n` are the simulated dimuons.

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

    Return the card with branching fractions times the factors, its name saying so, and the fit. Modes
    without an entry keep their yield.

    Parameters
    ----------
    edges, counts : array_like, shapes (bins + 1,), (bins,)
        Measured masses [GeV] and entries, background included.
    pot : float
        Protons on target of the measurement.
    constraints : mapping of str to (value, error), optional
        Knowledge of factors, e.g. ``{"combinatorial": (1.0, 0.05)}`` from like-sign pairs.
    """
    edges, counts = np.asarray(edges, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    if len(edges) != len(counts) + 1 or not pot > 0:
        given = f"{len(edges)} edges for {len(counts)} bins, pot = {pot!r}"
        raise PhysicsError(f"tune_card: {given}; one more edge, pot > 0")
    templates, variance = mass_templates(card, edges, pot, n=n, seed=seed)
    fit = fit_yields(counts, templates, variance=variance, constraints=constraints)
    tuned = card.scaled(fit.factor).model_copy(update={"name": f"{card.name} (tuned)"})
    return tuned, fit


def read_counts(path: Path, name: str = "") -> tuple[FloatArray, FloatArray]:
    """Return edges [GeV] and entries of a mass spectrum: a table of any form, or ``file.root`` and a name."""
    table = hepdata(path, name or None)
    unit = table.axes[0].unit if table.axes else ""
    told = Conventions(observable="N", mass_unit=unit or "GeV", error="poisson", negative="keep")
    hist = published_spectrum(table, None, told).spectrum.hist
    return np.asarray(hist.axes[0].edges, dtype=np.float64), np.asarray(hist.values(), dtype=np.float64)


def main() -> None:
    """Print the factors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("card")
    parser.add_argument("spectrum")
    parser.add_argument("--pot", type=float, required=True, help="protons on target of the measurement")
    parser.add_argument(
        "--known", nargs=3, action="append", default=[], metavar=("SOURCE", "FACTOR", "ERROR")
    )
    parser.add_argument("-n", type=int, default=200_000, help="simulated dimuons of the templates")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    file, _, name = asked.spectrum.partition(":")
    known = {source: (float(factor), float(error)) for source, factor, error in asked.known}
    card = load_card(shipped(asked.card, Path(), "cards"))
    counts = read_counts(Path(file), name)
    print(tune_card(card, *counts, asked.pot, constraints=known, n=asked.n, seed=asked.seed)[1])


if __name__ == "__main__":
    main()
