"""Checks before the spectrum is believed: each a number, the range in which it is plausible, and a cure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy.special import ndtri

from gammastar.core.constants import LEPTON_MASS, mass
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import FloatArray, PairHists, Spectrum, divided, effective_size, flow_free

Verdict: TypeAlias = Literal["ok", "alarm", "error"]
SEEN = 3.0  # standard deviations of all pairs that are left, from which a signal is seen
CHANCE = 1e-3  # that fluctuations alone make any cell so negative
PRESCALES = 20  # whole numbers that prescales of one experiment may take
FEW = 30  # pairs, fewer tell nothing
SLICES = np.linspace(0.62, 1.16, 109)  # GeV, fine bins about ω and φ
SCALES = np.linspace(0.92, 1.08, 81)
FAR_BEYOND = 1.2  # times the energy of the beam: no resolution
KINEMATIC = ("mass", "pt", "energy", "angle")


@dataclass(frozen=True, slots=True)
class Check:
    """A number, the range (ends included) in which it is plausible, and what to do where it is not."""

    name: str
    number: float
    low: float
    high: float
    cure: str
    worst: tuple[float, float] = (-np.inf, np.inf)  # Range beyond which no result can be right

    @property
    def verdict(self) -> Verdict:
        """What the number means."""
        if not self.worst[0] <= self.number <= self.worst[1]:
            return "error"
        return "ok" if self.low <= self.number <= self.high else "alarm"

    @property
    def threshold(self) -> str:
        """The range as a text."""
        if np.isinf(self.low):
            return f"≤ {self.high:.3g}"
        return f"≥ {self.low:.3g}" if np.isinf(self.high) else f"{self.low:.3g} … {self.high:.3g}"


def _project(spectrum: Spectrum, axis: int) -> tuple[FloatArray, FloatArray]:
    """Return contents along one axis and their errors, with the full covariance."""
    shape = spectrum.values.shape
    rows = np.moveaxis(np.eye(shape[axis])[np.indices(shape)[axis]], -1, 0).reshape(shape[axis], -1)
    variance = np.einsum("ij,jk,ik->i", rows, spectrum.cov, rows)
    return rows @ spectrum.values.ravel(), np.sqrt(np.clip(variance, 0.0, None))


def _lowest(values: FloatArray, sigma: FloatArray) -> tuple[float, float]:
    """Return the lowest pull and the one that `CHANCE` allows among so many."""
    pulls = values[sigma > 0] / sigma[sigma > 0]
    return float(pulls.min(initial=0.0)), float(min(-3.0, ndtri(CHANCE / max(len(pulls), 1))))


def of_subtraction(hists: PairHists, subtracted: Spectrum) -> Iterator[Check]:
    """Yield the checks of the pairs in their cells: negative contents, like signs, what lies outside."""
    cure = 'a wrong R or split tracks: r_factor = "mixed", and look at like-sign pairs of small angle'
    sigma = np.sqrt(np.clip(np.diag(subtracted.cov), 0.0, None))
    number, low = _lowest(subtracted.values.ravel(), sigma)
    yield Check("subtract: lowest cell after the background [σ]", number, low, np.inf, cure)
    number, low = _lowest(*_project(subtracted, 0))
    yield Check("subtract: lowest mass bin after the background [σ]", number, low, np.inf, cure)
    os, pp, mm = (float(flow_free(part)[0].sum()) for part in (hists.os, hists.pp, hists.mm))
    if os > FEW:
        number = float(subtracted.values.sum() / np.sqrt(max(float(subtracted.cov.sum()), 1e-300)))
        cure = "no signal is seen: mixed or wrongly selected events, a lost charge, or too few data"
        yield Check("subtract: pairs left over their error", number, SEEN, np.inf, cure)
        cure = "a skim that drops like-sign pairs leaves the background in: take files before it"
        yield Check("subtract: like-sign over opposite-sign pairs", (pp + mm) / os, 1e-4, np.inf, cure)
    if pp + mm > FEW:
        cure = "is one sign missing, prescaled, or is the charge of one leg wrong? give its prescale"
        yield Check("subtract: ++ over −− pairs", (pp + 0.5) / (mm + 0.5), 1 / 6, 6.0, cure)
    every = np.asarray(hists.os.values(flow=True), dtype=np.float64)
    if every.sum() > FEW:
        among = every[1:-1].sum()
        what, cure = "select: share of +− pairs outside the axes", "wrong unit or mass range? widen the axes"
        yield Check(what, 1.0 - os / every.sum(), 0.0, 0.6, cure)
        if among > FEW:
            what = "select: share of +− pairs of these masses outside in q_T or energy"
            cure = "widen pt and energy: what lies outside is not in the spectrum"
            yield Check(what, 1.0 - os / among, 0.0, 0.25, cure)


def of_pairs(pairs: Pairs, lepton: str, beam_energy: float, *, weighted: bool) -> Iterator[Check]:
    """Yield the checks of single pairs; `weighted`: a branch gives a weight that is no prescale."""
    n = len(pairs)
    if n < FEW:
        return
    order = np.argsort(pairs.mass, kind="stable")
    same = np.all([np.diff(x[order]) == 0 for x in (pairs.mass, pairs.pt, pairs.energy)], axis=0)
    within = np.diff(pairs.event[order]) == 0
    twins = np.abs(pairs.mass - 2 * LEPTON_MASS[lepton]) < 1e-6
    number = max(float((same & within).sum()), float(twins.sum())) / n
    cure = "each muon is stored twice: drop the copies"
    yield Check("read: share of pairs twice in one event", number, 0.0, 1e-3, cure, (0.0, 0.3))
    number = float((same & ~within & ~twins[order][1:]).sum()) / n
    cure = "are events copied under new numbers? they count twice"
    yield Check("read: share of pairs with the kinematics of another event", number, 0.0, 1e-3, cure)
    like = ~pairs.os
    first, counts = np.unique(pairs.event, return_index=True, return_counts=True)[1:]
    alone = np.zeros(n, dtype=np.bool_)
    alone[first[counts == 1]] = True
    if like.sum() >= FEW and (alone & pairs.os).sum() >= FEW:
        plus, minus = float((alone & pairs.pp).sum()), float((alone & pairs.mm).sum())
        cure = "a skim drops or prescales like signs where an event holds one pair: take files before it"
        share = (plus + minus) / float((alone & pairs.os).sum())
        yield Check("subtract: like-sign over +− pairs, events with one pair", share, 1e-3, np.inf, cure)
        if plus + minus >= FEW:
            ratio = (plus + 0.5) / (minus + 0.5)
            yield Check("subtract: ++ over −− pairs, events with one pair", ratio, 1 / 6, 6.0, cure)
    if like.sum() >= FEW and pairs.os.sum() >= FEW:
        share = float(np.isin(pairs.event[like], pairs.event[pairs.os]).mean())
        cure = "a skim asked for a +− pair and took the like-sign events: take files before it"
        yield Check("subtract: share of like-sign pairs that are beside a +− pair", share, 0.0, 0.95, cure)
    share = float((pairs.energy > FAR_BEYOND * beam_energy).mean())
    what = f"select: share of pairs above {FAR_BEYOND:g} of the beam energy"
    yield Check(what, share, 0.0, 1e-2, "is beam_energy or the unit of the files wrong?", (0.0, 0.5))
    weight = pairs.weight
    cure = "is a branch that is no weight named as one?"
    yield Check("read: effective share of the pairs", effective_size(weight) / n, 0.1, np.inf, cure)
    yield Check("read: mean weight of a pair", float(weight.mean()), 0.01, 100.0, cure)
    whole = np.all(weight == np.round(weight))
    if not whole:
        cure = "are these corrections for the efficiency? the response corrects for it once more"
        yield Check("read: mean of weights that are no whole numbers", float(weight.mean()), 0.0, 1.1, cure)
    if weighted and whole:
        values = np.unique(weight)  # a prescale takes few, one among them; a counter or a trigger word many
        number = float(len(values)) if 1 in values else np.inf
        yield Check("read: different whole numbers among the weights", number, 0.0, PRESCALES, cure)


def of_simulation(matched: MatchedPairs, beam_energy: float) -> Iterator[Check]:
    """Yield the checks of the simulation with its truth."""
    found = matched.reconstructed
    if len(matched) < FEW or found.sum() < FEW:
        return
    number = float(matched.weight[found].sum() / matched.weight.sum())
    cure = "a response without losses: was the simulation written after the selection?"
    yield Check("unfold: reconstructed share of the simulation", number, 0.0, 0.97, cure)
    true, reco = np.log(matched.true[found, 0]), np.log(matched.reco[found, 0])
    wide = true.std() > 0 and reco.std() > 0
    number = float(np.corrcoef(true, reco)[0, 1]) if wide else 0.0
    cure = "are truth and pairs of the same event, and is the truth not the measured mass?"
    what = "unfold: correlation of true and reconstructed mass"
    yield Check(what, number, 0.5, 1 - 1e-9, cure, (0.05, np.inf))
    number = float((matched.true[:, 2] > beam_energy).mean())
    cure = "is beam_energy or the unit of the simulation wrong?"
    what = "unfold: share of simulated photons above the beam energy"
    yield Check(what, number, 0.0, 1e-3, cure, (0.0, 0.5))
    weight = effective_size(matched.weight) / len(matched)
    cure = "is a branch that is no weight named as one? then the response has few events"
    yield Check("unfold: effective share of the simulation", weight, 0.02, np.inf, cure)


def _median(values: FloatArray, weight: FloatArray) -> float:
    return float(np.quantile(values, 0.5, weights=weight, method="inverted_cdf"))


def of_both(pairs: Pairs, signed: FloatArray, positive: FloatArray, matched: MatchedPairs) -> Iterator[Check]:
    """Yield the checks of data against simulation; `signed` and `positive` are weights of the signal."""
    reco = matched.reco[matched.reconstructed]
    data = (pairs.mass, pairs.pt, pairs.energy)
    use = positive > 0
    if len(reco) < 10 * FEW or positive.sum() < 10 * FEW:
        return
    edges = np.quantile(reco[:, 0], np.linspace(0, 1, 21))
    samples = ((data[0], positive), (reco[:, 0], None))
    wanted, there = (np.histogram(m, edges, weights=w)[0] for m, w in samples)
    place = np.clip(np.searchsorted(edges, reco[:, 0], side="right") - 1, 0, 19)
    weight = (wanted / np.maximum(there, 1))[place]
    kept = use & (data[0] >= edges[0]) & (data[0] < edges[-1])
    if weight.sum() <= 0 or not kept.any():
        return

    def rapidity(m: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        return np.asarray(np.arccosh(np.maximum(energy / np.hypot(m, pt), 1.0)))

    cure = "is one of the two boosted, in another unit, or with another field? compare them before unfolding"
    for name, mine, simulated in (
        ("rapidity", rapidity(*data), rapidity(*reco.T)),
        ("ln E", np.log(data[2]), np.log(reco[:, 2])),
    ):
        low, high = np.quantile(simulated, (0.16, 0.84))
        shift = _median(mine[kept], positive[kept]) - _median(simulated, weight)
        what = f"unfold: data against simulation, {name} [widths]"
        yield Check(what, float(shift / max(0.5 * (high - low), 1e-9)), -0.8, 0.8, cure)
    scale = _shift_of_lines(pairs.mass, signed, matched)
    if scale is not None:
        cure = "the momenta of data or simulation have another scale: field map, energy loss, units"
        yield Check("unfold: scale of ω and φ in data over simulation", scale, 0.985, 1.015, cure)


def _shift_of_lines(m: FloatArray, signed: FloatArray, matched: MatchedPairs) -> float | None:
    """Return the scale of the mass at which ω and φ of the data fit best; None where no line stands out."""
    true, reco = matched.true[:, 0], matched.reco[:, 0]
    near = matched.reconstructed & (true > SLICES[0]) & (true < SLICES[-1])
    ratio = (reco[near] / true[near])[:200_000]
    n = np.histogram(m, SLICES, weights=signed)[0]
    variance = np.maximum(np.histogram(m, SLICES, weights=signed**2)[0], 1.0)
    if len(ratio) < 10 * FEW or n.sum() < 10 * FEW:
        return None
    x = np.linspace(-1, 1, len(n))
    fine = np.linspace(0.8, 1.2, 801)
    cumulative = np.searchsorted(np.sort(ratio), fine) / len(ratio)

    def chi2(scale: float | None) -> float:
        columns = [x**k for k in range(4)]
        if scale is not None:
            columns += [np.diff(np.interp(SLICES / (scale * mass(c)), fine, cumulative)) for c in (223, 333)]
        model = np.stack(columns, axis=1) / np.sqrt(variance)[:, None]
        data = n / np.sqrt(variance)
        return float(((data - model @ np.linalg.lstsq(model, data)[0]) ** 2).sum())

    found = np.array([chi2(scale) for scale in SCALES])
    best, k = found.min(), int(found.argmin())
    clear = chi2(None) - best > 60 and chi2(1.0) - best > 25 and 0 < k < len(SCALES) - 1
    if chi2(None) - best <= 60:
        return None
    return float(SCALES[k]) if clear else 1.0


def of_unfolding(
    unfolded: Spectrum, subtracted: Spectrum, efficiency: FloatArray, prior: FloatArray, p_value: float | None
) -> Iterator[Check]:
    """Yield the checks of errors that vanish, and of the refolding."""
    value, inside = unfolded.values.ravel(), unfolded.domain.ravel()
    error, content = np.sqrt(np.clip(np.diag(unfolded.cov), 0.0, None)), np.where(inside, value, 0.0)
    shape = unfolded.values.shape
    simulated = np.where(inside, np.ravel(prior), 0.0).reshape(shape[0], -1)
    of_bins = content.reshape(shape[0], -1).sum(axis=1, keepdims=True)
    share = divided(of_bins, simulated.sum(axis=1, keepdims=True))
    expected = (simulated * np.clip(share, 0, None)).ravel()
    seen = expected * np.ravel(efficiency)
    poisson = expected / np.sqrt(np.maximum(seen, 1e-300))
    dead = inside & (seen > 1.0) & (np.abs(value) < 1e-3 * expected) & (error < 0.1 * poisson)
    cure = 'cells that fluctuated low lost their errors: method = "likelihood"'
    yield Check("unfold: cells near zero with errors far below √N", float(dead.sum()), 0.0, 0.0, cure)
    if len(unfolded.values) == len(subtracted.values):
        (m, em), (n, en) = _project(unfolded, 0), _project(subtracted, 0)
        well = (n > 5 * en) & (m > 0)
        if well.any():
            number = float((em[well] / m[well] * (n[well] / en[well])).min())
            cure = 'errors below what the counts allow (Fisher): method = "likelihood", more n_replicas'
            what = "unfold: least relative error of a mass bin over that of its pairs"
            yield Check(what, number, 0.3, np.inf, cure)
    if p_value is not None and np.isfinite(p_value):
        cure = "the result, folded again, is not the data: wrong simulation, background or R?"
        yield Check("unfold: p-value of the refolding", p_value, 1e-4, 1.0, cure)


def of_yield(spectrum: Spectrum) -> Iterator[Check]:
    """Yield the check of photons per interaction of a spectrum per proton on target."""
    if spectrum.exposure is None:
        return
    number = float(spectrum.values[spectrum.domain].sum() / -np.expm1(-spectrum.exposure.thickness))
    cure = "is pot in units of 1e12, or thickness not in interaction lengths?"
    yield Check("spectrum: photons per interaction", number, 1e-7, 1.0, cure, (-np.inf, 1e3))


def of_r_factor(mixed: PairHists, background: FloatArray, subtracted: Spectrum) -> Check | None:
    """Return the largest shift of a bin where R follows mixed pairs beyond three of its errors."""
    worst, chi2, cells = 0.0, 0.0, 0
    for axis in range(background.ndim):
        others = tuple(i for i in range(background.ndim) if i != axis)
        (os, eos), (pp, epp), (mm, emm) = (
            tuple(np.asarray(x).sum(axis=others) for x in (p.values(), p.variances()))
            for p in (mixed.os, mixed.pp, mixed.mm)
        )
        enough = (os**2 > 100 * eos) & (pp**2 > 100 * epp) & (mm**2 > 100 * emm)
        if enough.sum() < 2:
            continue
        b, sigma = background.sum(axis=others)[enough], _project(subtracted, axis)[1][enough]
        r = (os / (2 * np.sqrt(np.maximum(pp * mm, 1e-300))))[enough]
        # leptons are mixed many times: twice the Poisson error
        squares = [e[enough] / n[enough] ** 2 for n, e in ((os, eos), (pp, epp), (mm, emm))]
        relative = 2 * np.sqrt(squares[0] + 0.25 * (squares[1] + squares[2]))
        mean = float((b * r).sum() / max(b.sum(), 1e-300))
        if mean <= 0:
            continue
        pulls = (r / mean - 1) / relative
        chi2, cells = chi2 + float((pulls**2).sum()), cells + len(r) - 1
        shift = np.abs(b * (r / mean - 1)) / np.maximum(sigma, 1e-300)
        worst = max(worst, float(shift[np.abs(pulls) > 3].max(initial=0.0)))
    if not cells:
        return None
    what = f"subtract: shift by R that is not one number [σ] (χ² {chi2:.0f} for {cells})"
    return Check(what, worst, 0.0, 4.0, 'charges differ in acceptance: r_factor = "mixed", in every cell')


def of_tracks(
    data: tuple[FloatArray, Any], simulation: tuple[FloatArray, Any], counts: FloatArray
) -> Iterator[Check]:
    """Yield the checks of single leptons: momenta (n, 4) and charges; `counts`: leptons of simulated rows."""
    if len(counts) >= 10 * FEW and (counts == 1).sum() >= FEW:
        share, what = float((counts == 0).mean()), "unfold: share of simulated rows without a lepton"
        cure = "a skim that asked for a lepton makes the efficiency too high: give all generated photons"
        yield Check(what, share, 1e-4, 1.0, cure)
    for axis, name in enumerate("xy"):
        means, width = [], 1e-9
        for momentum, charge in (data, simulation):
            slope = np.clip(momentum[:, axis] / np.where(momentum[:, 2] == 0, np.inf, momentum[:, 2]), -1, 1)
            if min((charge > 0).sum(), (charge < 0).sum()) < 10 * FEW:
                return
            means.append(0.5 * (slope[charge > 0].mean() + slope[charge < 0].mean()))
            width = max(width, float(np.subtract(*np.quantile(slope, (0.84, 0.16)))) / 2)
        cure = "does the beam run along z in both? rotate the momenta, or use crossing angle and alignment"
        text = f"unfold: mean p_{name}/p_z, data less simulation [widths]"
        yield Check(text, float((means[0] - means[1]) / width), -0.2, 0.2, cure)


def of_cuts(data: Sequence[Mapping[str, Any]], simulation: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """Yield the share that a cut, of no kinematics, keeps in data less that in the simulation."""
    measured = {row["name"]: (before, row) for before, row in pairwise(data)}
    for first, other in pairwise(simulation):
        level, name = other["level"], str(other["name"])
        if name not in measured:
            continue
        before, mine = measured[name]
        if level == "lepton" or name in ("pairs", *(f"pair {k}" for k in KINEMATIC), "ghost veto"):
            continue
        key = "n" if level == "event" else "os"
        if min(before[key], first[key]) < FEW:
            continue
        shift = mine[key] / before[key] - other[key] / first[key]
        cure = "a cut on runs or flags keeps another share: correct pot, or cut the simulation alike"
        yield Check(f"select: share that {name} keeps, data less simulation", float(shift), -0.2, 0.2, cure)
