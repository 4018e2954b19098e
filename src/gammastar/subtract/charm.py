"""Pairs that no single virtual photon made: open charm and named corrections, subtracted as templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hist import Hist

from gammastar.core.constants import BRANCHING, EDITION, mass
from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import MASS, FloatArray, PairHists, Rng, Spectrum, filled, flow_free
from gammastar.subtract.weights import (
    Coarse,
    Formula,
    Removed,
    background,
    cell_values,
    checked_r_factor,
    regions,
)

OFFSET = "charm_offset"
"""Column of pairs: the vertex offset."""

ROUNDS = 24  # of reweighting
LEAST = 1e-6  # fraction of a mass bin in a cell, for the variance of a cell without simulated pairs


@dataclass(frozen=True, slots=True, eq=False)
class CharmFit:
    """Result of the fit."""

    # Pairs from open charm inside the axes
    charm: float
    charm_sigma: float
    # Charm pairs per mass bin with the error of the yield and of the template, shape (n_mass,)
    per_mass: FloatArray
    per_mass_cov: FloatArray
    # Prompt pairs per mass bin: the subtracted spectrum, shape (n_mass,)
    prompt: FloatArray
    prompt_cov: FloatArray
    chi2: float
    ndf: int

    def to_arrays(self) -> dict[str, FloatArray]:
        """Return charm per mass bin with its error; yield, its error, χ² and degrees of freedom."""
        return {
            "charm_mass": self.per_mass,
            "charm_mass_sigma": np.sqrt(np.diag(self.per_mass_cov)),
            "charm_fit": np.array([self.charm, self.charm_sigma, self.chi2, self.ndf]),
        }


def offset_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Return the pair columns that hold an offset: one, or several lepton columns of both legs."""
    return tuple(names) if len(names) == 1 else tuple(f"{name}_{leg}" for name in names for leg in (1, 2))


def _pair_offset(columns: Mapping[str, FloatArray], names: Sequence[str]) -> FloatArray:
    """Return one pair column, or the distance of the two leptons in several lepton columns."""
    missing = [name for name in offset_columns(names) if name not in columns]
    if missing:
        absent = f"the pairs have no column {', '.join(missing)}"
        raise UserError(f"subtract.charm.offset: {absent}; name lepton_columns in the schema")
    if len(names) == 1:
        return np.asarray(columns[names[0]])
    squares = [(columns[f"{name}_1"] - columns[f"{name}_2"]) ** 2 for name in names]
    return np.asarray(np.sqrt(np.sum(squares, axis=0)))


def with_offset(pairs: Pairs, names: Sequence[str], others: Sequence[str] = ()) -> Pairs:
    """Return the pairs with their vertex offset as the column ``OFFSET``."""
    kept = {name: pairs.columns[name] for name in others if name in pairs.columns}
    return replace(pairs, columns={OFFSET: _pair_offset(pairs.columns, names)} | kept)


def prompt_pairs(matched: MatchedPairs, names: Sequence[str]) -> Pairs:
    """Return the reconstructed pairs of a simulation of prompt photons with their vertex offset."""
    seen = matched.select(matched.reconstructed)
    kinematics = (seen.reco[:, 0], seen.reco[:, 1], seen.reco[:, 2])
    offset = _pair_offset(seen.columns, names)
    return Pairs(*kinematics, np.zeros(len(seen), np.int8), seen.weight, seen.event, {OFFSET: offset})


def _two_dimensional(hist: Hist[Any], what: str) -> tuple[int, tuple[int, int]]:
    names = [axis.name for axis in hist.axes]
    if len(names) != 2 or MASS not in names:
        raise UserError(f"fit_charm: {what} has the axes {names}; give the mass and one vertex offset")
    return names.index(MASS), (len(hist.axes[0]), len(hist.axes[1]))


def fit_charm(
    hists: PairHists,
    charm: Hist[Any],
    prompt: Hist[Any],
    *,
    method: Formula = "regions",
    r_factor: float | FloatArray = 1.0,
    r_factor_sigma: float = 0.0,
    coarse: Coarse | None = None,
) -> CharmFit:
    """Fit prompt pairs per mass bin and one yield of open charm to opposite-sign pairs.

    Parameters
    ----------
    hists : PairHists
        On two axes, the mass and a vertex offset of the pair, in any order.
    charm : Hist
        Simulated charm pairs on the same axes; Weight storage carries their statistics. Its mass shape is
        used.
    prompt : Hist
        Simulated (or, around ω and φ, measured) prompt pairs; only its offset shape within each mass bin is
        used.
    method, r_factor, coarse
        Of the combinatorial background, as for `same_sign`.
    r_factor_sigma : float
        Absolute uncertainty of R, common to all cells.

    Raises
    ------
    UserError
        If axes differ or a template is empty.

    Notes
    -----
    N₊₋ = p_i P(o|i) + c C(o, i) + B(o, i): p_i free in every mass bin, one c, B with its covariance from the
    like-sign pairs: B of their counts, which is linear in them, its covariance of expectations that factorise
    in mass and offset. With that of the counts, cells without a like-sign pair would have no error and pull
    the yield up. Iteratively reweighted least squares: Poisson variances follow the fit, which for counts
    is the maximum-likelihood estimate, times Σw²/Σw of the mass bin. The contents of the templates are
    profiled within their statistics (Barlow and Beeston, Comput. Phys. Commun. 77 (1993) 219): taken as they
    are, the cells in the tail of the offset that fluctuated low in the simulation would count most, and the
    charm yield would come out too large. That charm is separable at all comes from its offset: cτ of D mesons
    is 120 to 310 µm.
    """
    position, shape = _two_dimensional(hists.os, "the data")
    for hist in (charm, prompt):
        if tuple(hist.axes) != tuple(hists.os.axes):
            raise UserError("fit_charm: the templates must be on the axes of the data")
    n_mass = shape[position]
    label = np.indices(shape)[position].ravel()
    (c, var_c), (p, var_p) = flow_free(charm), flow_free(prompt)
    per_bin = np.bincount(label, p, n_mass)
    if c.sum() <= 0 or (per_bin <= 0).any():
        raise UserError("fit_charm: the charm template is empty, or the prompt one is empty in a mass bin")
    offset, weight_p = p / per_bin[label], np.bincount(label, var_p, n_mass) / per_bin
    c_shape, var_shape = c / c.sum(), var_c / c.sum() ** 2
    r = checked_r_factor(method, r_factor, shape)
    region = regions(hists.os.axes, coarse)
    size, _ = background(hists, method=method, r_factor=r, region=region)
    smooth = PairHists(hists.os, _factorised(hists.pp), _factorised(hists.mm))
    expected, cov_b = background(smooth, method=method, r_factor=r, region=region)
    by_r, _ = background(hists, method=method, r_factor=np.ones_like(size), region=region)
    cov_b = cov_b + np.outer(by_r, by_r) * r_factor_sigma**2
    os, var_os = flow_free(hists.os)
    scale = _mean_weight(os, var_os, label, n_mass)
    one_prompt = (weight_p / per_bin)[label]  # variance of a fraction of 1
    column = np.indices(shape)[1 - position].ravel()
    total = np.bincount(column, p)
    pooled = np.asarray(total[column] / total.sum())
    templates = _Templates(label, offset, pooled * one_prompt, one_prompt, c_shape, var_shape)
    try:
        found, cov, chi2 = _fit(os - size, cov_b, expected, scale, templates)
    except np.linalg.LinAlgError:  # of the same offsets
        cov = np.zeros((1, 1))
    if not (np.diag(cov) > 0).all():
        msg = (
            f"fit_charm: {c.sum():.0f} charm and {p.sum():.0f} prompt pairs of the templates do not tell them"
        )
        raise UserError(msg + " apart; simulate more, or fit fewer cells")
    return _result(found, cov, (c_shape, var_shape), label, (chi2, len(os)))


def _factorised(part: Hist[Any]) -> Hist[Any]:
    """Return the product of the projections: contents and variances that few pairs tell."""
    made = []
    for cells in (part.values(), part.variances()):
        content = np.asarray(cells, dtype=np.float64)
        product = np.outer(content.sum(axis=1), content.sum(axis=0))
        made.append(product / max(float(content.sum()), 1e-300))
    return filled(tuple(part.axes), *made)


@dataclass(frozen=True, slots=True, eq=False)
class _Templates:
    """Simulated fractions of the cells: prompt ones within each mass bin, charm of all; their variances."""

    label: Any
    prompt: FloatArray
    var_prompt: FloatArray
    one_prompt: FloatArray
    charm: FloatArray
    var_charm: FloatArray

    def design(self, prompt: FloatArray, charm: FloatArray) -> FloatArray:
        n_mass = int(self.label.max()) + 1
        result = np.zeros((len(prompt), n_mass + 1))
        result[np.arange(len(prompt)), self.label] = prompt
        result[:, n_mass] = charm
        return result


def _fit(
    data: FloatArray, cov_b: FloatArray, size: FloatArray, scale: FloatArray, given: _Templates
) -> tuple[FloatArray, FloatArray, float]:
    """Return yields, their covariance and χ²; the templates move within their statistics with the data."""
    nominal = given.design(given.prompt, given.charm)
    moved, prompt, charm, var_prompt = nominal, given.prompt, given.charm, given.var_prompt
    model, found = np.maximum(data + size, 1.0), np.zeros(nominal.shape[1])
    chi2 = 0.0
    for _ in range(ROUNDS):
        prompt_yield, charm_yield = found[given.label], found[-1]
        variance = scale * np.maximum(model, 0.5 * scale)
        variance = variance + charm_yield**2 * given.var_charm + prompt_yield**2 * var_prompt
        lower = np.linalg.cholesky(cov_b + np.diag(variance))
        rows, right = np.linalg.solve(lower, nominal), np.linalg.solve(lower, data)
        best = np.linalg.solve(lower, moved)
        cov = np.linalg.inv(best.T @ rows)
        found = cov @ (best.T @ right)
        residual = right - rows @ found
        chi2 = float(residual @ residual)
        pull = np.linalg.solve(lower.T, residual)
        # half-way to where the data pull the templates: whole steps overshoot where those are thin
        prompt = (prompt + np.maximum(given.prompt + found[given.label] * var_prompt * pull, 0.0)) / 2
        charm = (charm + np.maximum(given.charm + found[-1] * given.var_charm * pull, 0.0)) / 2
        moved = given.design(prompt, charm)
        model = moved @ found + size
        var_prompt = given.one_prompt * np.maximum(prompt, LEAST)
    return found, np.asarray((cov + cov.T) / 2), chi2


def _mean_weight(os: FloatArray, variance: FloatArray, label: Any, n_mass: int) -> FloatArray:
    """Return Σw²/Σw of the data in the mass bin of each cell: prescales differ from mass to mass."""
    total, square = np.bincount(label, os, n_mass), np.bincount(label, variance, n_mass)
    overall = float(square.sum() / total.sum()) if total.sum() > 0 else 1.0
    result = np.divide(square, total, out=np.full(n_mass, overall), where=(total > 0) & (square > 0))
    return np.asarray(result[label], dtype=np.float64)


def _result(
    found: FloatArray,
    cov: FloatArray,
    template: tuple[FloatArray, FloatArray],
    label: Any,
    quality: tuple[float, int],
) -> CharmFit:
    n_mass = len(found) - 1
    mass_shape, mass_var = (np.bincount(label, part, n_mass).astype(np.float64) for part in template)
    charm, variance = float(found[n_mass]), float(cov[n_mass, n_mass])
    per_mass_cov = variance * np.outer(mass_shape, mass_shape) + np.diag(charm**2 * mass_var)
    per_bin, fit = charm * mass_shape, (found[:n_mass], cov[:n_mass, :n_mass])
    error, freedom = float(np.sqrt(variance)), quality[1] - len(found)
    return CharmFit(charm, error, per_bin, per_mass_cov, *fit, quality[0], freedom)


def subtract_component(spectrum: Spectrum, template: Hist[Any], amount: float, sigma: float) -> Spectrum:
    """Subtract a template of known total with its covariance."""
    if tuple(template.axes) != tuple(spectrum.hist.axes):
        raise UserError("subtract_component: the template must be on the axes of the spectrum")
    values, variances = flow_free(template)
    total = float(values.sum())
    if total <= 0 or sigma < 0:
        msg = f"subtract_component: template sum {total:g} must be positive, sigma {sigma:g} not negative"
        raise UserError(msg)
    shape = values / total
    cov = spectrum.cov + sigma**2 * np.outer(shape, shape) + np.diag(amount**2 * variances / total**2)
    left = spectrum.values - amount * shape.reshape(spectrum.values.shape)
    hist = filled(tuple(spectrum.hist.axes), left, np.diag(cov))
    return Spectrum(hist, cov, spectrum.quantity, spectrum.exposure, spectrum.domain)


ETA = 221
WINDOW = 2.0  # standard deviations of the mass around the η whose simulated pairs give pt and energy

_TWO, _DALITZ = BRANCHING["eta -> mu mu"], BRANCHING["eta -> mu mu gamma"]
_RATIO = _TWO.value / _DALITZ.value
ETA_DIMUON_RATIO = (_RATIO, _RATIO * float(np.hypot(_TWO.error / _TWO.value, _DALITZ.error / _DALITZ.value)))
"""BR(η → μ⁺μ⁻)/BR(η → μ⁺μ⁻γ) and its standard deviation."""


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """Pairs to remove.

    Attributes
    ----------
    template : Hist
        Shape on the axes of the spectrum.
    amount, sigma : float
        Pairs inside the axes and their standard deviation.
    pairs : Pairs, optional
        Of which the template was filled.
    """

    name: str
    template: Hist[Any]
    amount: float
    sigma: float
    source: str
    pairs: Pairs | None = None

    @property
    def shift(self) -> FloatArray:
        """What one standard deviation does to the spectrum, shape (n_cells,)."""
        values = self.template.values().ravel()
        return np.asarray(-(values / values.sum()) * self.sigma)

    def removed(self) -> Removed:
        """Return the pairs with weights that sum to the amount inside the axes, 0 outside."""
        if self.pairs is None:
            raise UserError(f"{self.name}: the correction has a histogram and no pairs")
        inside = np.ones(self.template.values().shape)
        weight = self.pairs.weight * cell_values(self.pairs, tuple(self.template.axes), inside)
        return self.pairs, weight * (self.amount / max(float(weight.sum()), 1e-300))


@dataclass(frozen=True, slots=True)
class Applied:
    """What a correction took away: name, pairs, standard deviation, fraction of the yield."""

    name: str
    amount: float
    sigma: float
    fraction: float
    source: str


def apply_corrections(
    spectrum: Spectrum, corrections: Sequence[Correction]
) -> tuple[Spectrum, tuple[Applied, ...]]:
    """Remove every correction; their uncertainties are independent of each other.

    Returns
    -------
    Spectrum
    tuple of Applied
        For the table of sources.

    Raises
    ------
    UserError
        If two corrections have the same name, or a template is empty.
    """
    names = [c.name for c in corrections]
    if len(set(names)) < len(names):
        raise UserError(f"corrections: names must differ, got {', '.join(names)}")
    total = float(spectrum.values.sum())
    done = []
    for c in corrections:
        if c.template.values().sum() <= 0:
            raise UserError(f"subtract: no pair of the template {c.name!r} lies inside the axes of [select]")
        spectrum = subtract_component(spectrum, c.template, c.amount, c.sigma)
        fraction = c.amount / total if total != 0 else float("nan")
        done.append(Applied(c.name, c.amount, c.sigma, fraction, c.source))
    return spectrum, tuple(done)


def eta_dimuon(
    axis: Any,
    n_dalitz: float,
    *,
    resolution: float,
    efficiency_ratio: float = 1.0,
    n_dalitz_sigma: float = 0.0,
    ratio: tuple[float, float] = ETA_DIMUON_RATIO,
) -> Correction:
    """Return η → μμ, a two-photon process, sized by the η Dalitz decays.

    Parameters
    ----------
    axis : hist axis
        Mass.
    n_dalitz, n_dalitz_sigma : float
        Measured η → μμγ pairs, e.g. the yield of the line-shape fit times its efficiency.
    resolution : float
        Standard deviation of the mass at 0.548 GeV [GeV].
    efficiency_ratio : float
        Efficiency of the two-body over that of the Dalitz decay.
    ratio : (float, float)
        BR(η → μμ)/BR(η → μμγ) and its standard deviation.
    """
    if axis.name != MASS or resolution <= 0:
        msg = f"eta_dimuon: axis {axis.name!r} must be the mass and resolution {resolution} positive"
        raise UserError(msg)
    from scipy.stats import norm

    share = np.diff(norm.cdf(np.asarray(axis.edges), mass(ETA), resolution))
    amount = n_dalitz * ratio[0] * efficiency_ratio
    relative = np.hypot(ratio[1] / ratio[0], n_dalitz_sigma / n_dalitz if n_dalitz else 0.0)
    inside = amount * float(share.sum())
    hist = filled((axis,), share, np.zeros_like(share))
    return Correction("eta to mu mu", hist, inside, abs(inside) * float(relative), EDITION)


def eta_pairs(matched: MatchedPairs, resolution: float, *, rng: Rng) -> Pairs:
    """Return pairs of η → μμ: pt and energy of simulated photons near its mass, which is smeared."""
    pole = mass(ETA)
    seen = matched.reco[matched.reconstructed]
    near = seen[np.abs(seen[:, 0] - pole) < WINDOW * resolution]
    n = len(near)
    if not n:
        msg = f"subtract.corrections: no simulated pair within {WINDOW:g} σ of the η gives its pt and energy"
        raise UserError(msg)
    masses = rng.normal(pole, resolution, n)
    return Pairs(masses, near[:, 1], near[:, 2], np.zeros(n, np.int8), np.ones(n), np.arange(n))


def charm_correction(fit: CharmFit, template: Pairs, inside: Hist[Any], fitted: Hist[Any]) -> Correction:
    """Return fitted open charm as a correction."""
    share = float(inside.values().sum()) / float(fitted.values().sum())
    about = "simulated charm, fitted in mass and vertex offset"
    return Correction("open charm", inside, fit.charm * share, fit.charm_sigma * share, about, template)


def removed_columns(removed: Sequence[Removed], names: Sequence[str]) -> FloatArray:
    """Return mass, pt, energy, named columns, weight and component of the pairs to remove that have them."""
    parts = [np.zeros((5 + len(names), 0))]
    for k, (pairs, weight) in enumerate(removed):
        if all(name in pairs.columns for name in names):
            rows = (pairs.mass, pairs.pt, pairs.energy, *(pairs.columns[name] for name in names), weight)
            parts.append(np.stack([*rows, np.full(len(pairs), float(k))])[:, weight > 0])
    return np.concatenate(parts, axis=1)
