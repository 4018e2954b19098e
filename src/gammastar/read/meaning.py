"""Check that branches mean what their schema says, from masses, momenta, charges and events."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.constants import LEPTON_MASS, M_PI_CHARGED, mass
from gammastar.core.errors import UserError
from gammastar.core.files import Finding
from gammastar.core.records import BoolArray, FloatArray
from gammastar.read.events import open_events, open_tree
from gammastar.read.files import opened
from gammastar.read.schema import Schema, load_schema

FIRST_ENTRIES = 20_000  # rows that are read
MAX_LEPTONS = 4  # leptons per event whose pairs are made
MAX_SELECTOR_VALUES = 12  # different values of a branch that may select rows
MAX_SELECTOR_BRANCHES = 200  # branches that are looked at for that
INTEGER_TYPES = ("int8_t", "int16_t", "int32_t", "int64_t", "uint8_t", "uint16_t", "uint32_t", "bool")
MIN_ENTRIES = 20  # leptons or pairs, fewer tell nothing
LIKE_WEIGHT = re.compile(r"weight|wgt|presc|scale_?factor|^(w|wt|sf)$", re.IGNORECASE)
MAX_MOMENTUM_RATIO = 50  # ratio of transverse momenta along two axes, or of two legs, that is no physics

# Median momentum [GeV] below which no experiment selects pairs, and above which only MeV are likely.
MOMENTA = {"e": (0.1, 200.0), "mu": (0.25, 200.0)}
MAX_PAIR_MASS = 200.0  # GeV, median pair mass beyond which MeV are likely
PEAKS = {"ω": 223, "φ": 333, "J/ψ": 443, "Υ": 553, "Z": 23}  # PDG codes
LIKELY_PDG_CODES = (11, 13, 15, 211, 321, 2212)  # PDG codes that a column of charges may hold by mistake

IntArray: TypeAlias = npt.NDArray[np.int64]


class BranchFinding(NamedTuple):
    """A finding of one key of the schema."""

    level: Literal["error", "warning"]
    key: str
    text: str


def error(key: str, text: str) -> BranchFinding:
    """Return what cannot give right numbers."""
    return BranchFinding("error", key, text)


def warning(key: str, text: str) -> BranchFinding:
    """Return what may be right."""
    return BranchFinding("warning", key, text)


def graded(bad: BoolArray, key: str, text: str, most: float = 0.5) -> BranchFinding:
    """Return an error where more than a share is bad, else a warning."""
    return error(key, text) if np.mean(bad) > most else warning(key, text)


def examine(
    file: str | Path,
    schema: Schema | Mapping[str, Any] | str | Path,
    *,
    truth: bool = False,
    entries: int = FIRST_ENTRIES,
) -> tuple[Finding, ...]:
    """Judge whether the branches of a file mean what a schema says.

    Parameters
    ----------
    file : path or URL
        One ROOT file.
    truth : bool
        Look at the true virtual photons as well.
    entries : int
        How many of the first entries are read.

    Returns
    -------
    tuple of Finding
        Errors first; empty if nothing looks wrong. `where` is the name of the file and the key of the schema,
        as in ``"mine.root: unit"``. Mistakes of the user never raise: they are findings.

    Notes
    -----
    A stored mass, or a stored energy by E² − p² = m², tells the unit and the flavour. Without them the unit
    is judged by the medians of momentum and pair mass and by the peaks of ω, φ, J/ψ, Υ and Z: those are
    warnings. That px and py are swapped, or that pt holds p where no energy is stored, cannot be seen.
    """
    name = Path(str(file)).name
    with np.errstate(all="ignore"):  # what overflows is told by its values
        try:
            ready = schema if isinstance(schema, Schema) else load_schema(schema)
            points = list(_repeated_names(ready))
            sample = _sample(file, ready, truth=truth, entries=entries)
        except UserError as problem:
            return (Finding("error", f"{name}: schema", str(problem).removeprefix(f"{file}: ")),)
        if sample is None:
            points.append(warning("tree", f"the tree {ready.tree!r} holds no entry"))
        elif not len(sample.counts):
            rules = ", ".join(f"{rule.branch} = {rule.equals!r}" for rule in ready.row_filter)
            text = f"none of the first entries passes ({rules}); which values occur?"
            points.append(warning("row_filter", text))
        else:
            wrong = {point.key for point in points}
            points += [point for rule in RULES for point in rule(sample) if point.key not in wrong]
    points.sort(key=lambda point: point.level)
    return tuple(Finding(level, f"{name}: {key}", text) for level, key, text in points)


def seen_lepton(file: str | Path, schema: Schema, *, entries: int = FIRST_ENTRIES) -> str:
    """Return the flavour that PDG codes or masses show in any unit, "" if nothing shows it."""
    sample = _sample(file, schema, truth=False, entries=entries)
    if sample is None:
        return ""
    if schema.pdg_id:
        codes = np.abs(sample.sign)
        shares = {"e": np.mean(codes == 11), "mu": np.mean(codes == 13)} if len(codes) else {}
        return next((name for name, share in shares.items() if share > 0.5), "")
    for value in _masses(sample).values():
        for name, expected in LEPTON_MASS.items():
            if any(_near(value * scale, expected) for scale in (1.0, 1e-3, 1e3)):
                return name
    return ""


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """The first leptons of a file as flat columns [GeV], and their pairs as indices."""

    file: str | Path
    schema: Schema
    events: ak.Array
    counts: IntArray
    momentum: FloatArray  # (n, 3)
    mass: FloatArray
    sign: FloatArray  # the raw column of charge or PDG code
    charge: FloatArray
    energy: FloatArray | None
    angles: Mapping[str, FloatArray]  # raw eta and phi
    first: IntArray
    second: IntArray

    @property
    def p(self) -> FloatArray:
        return np.asarray(np.sqrt((self.momentum**2).sum(axis=1)))

    @property
    def opposite(self) -> BoolArray:
        return np.asarray(self.charge[self.first] * self.charge[self.second] < 0)

    def pair_mass(self, scale: float, chosen: BoolArray) -> FloatArray:
        """Return the masses of chosen pairs with the momenta scaled, finite ones only."""
        legs = [scale * self.momentum[index[chosen]] for index in (self.first, self.second)]
        m = LEPTON_MASS[self.schema.lepton]
        energy = sum(np.sqrt((leg**2).sum(axis=1) + m**2) for leg in legs)
        squared = energy**2 - ((legs[0] + legs[1]) ** 2).sum(axis=1)
        return np.asarray(np.sqrt(np.maximum(squared[np.isfinite(squared)], 0.0)))


def _sample(file: str | Path, schema: Schema, *, truth: bool, entries: int) -> _Sample | None:
    raw = {"pdg_id": schema.pdg_id} if schema.pdg_id else {}
    if schema.layout != "object":
        raw |= {f"_{key}": schema.kinematics[key] for key in ("eta", "phi", "E") if key in schema.kinematics}
    extended = replace(schema, lepton_columns=dict(schema.lepton_columns) | raw)
    chunk = next(open_events(file, extended, step=entries, truth=truth), None)
    if chunk is None:
        return None
    lepton = chunk["lepton"]
    flat = {name: _flat(lepton[name]) for name in ("px", "py", "pz", "mass", "charge", *raw)}
    counts = np.asarray(ak.to_numpy(ak.num(lepton)), dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]]) if len(counts) else counts
    pairs = ak.argcombinations(lepton["px"][:, :MAX_LEPTONS], 2, fields=["a", "b"])
    first, second = (np.asarray(ak.to_numpy(ak.flatten(pairs[leg] + offsets))) for leg in ("a", "b"))
    energy = schema.unit * flat["_E"] if "_E" in flat else None
    if energy is None and "E" in schema.kinematics:  # of objects: read in the place of a momentum
        momenta = dict.fromkeys(("px", "py", "pz"), schema.kinematics["E"])
        objects = replace(schema, kinematics=momenta, truth=None)
        energy = _flat(next(open_events(file, objects, step=entries))["lepton"]["px"])
    return _Sample(
        file=file,
        schema=schema,
        events=chunk,
        counts=counts,
        momentum=np.stack([flat[axis] for axis in ("px", "py", "pz")], axis=1),
        mass=flat["mass"],
        sign=flat.get("pdg_id", flat["charge"]),
        charge=flat["charge"],
        energy=energy,
        angles={key: flat[f"_{key}"] for key in ("eta", "phi") if f"_{key}" in flat},
        first=first.astype(np.int64),
        second=second.astype(np.int64),
    )


def _flat(array: Any) -> FloatArray:
    return np.asarray(ak.to_numpy(ak.flatten(array, axis=None)), dtype=np.float64)


def _percent(mask: BoolArray) -> str:
    return f"{100 * float(np.mean(mask)):.3g} %"


def _repeated_names(schema: Schema) -> Iterator[BranchFinding]:
    """Find branches that are named for two different things, or for both legs."""
    sign = "charge" if schema.charge else "pdg_id"
    named: Counter[str] = Counter()
    where: dict[str, list[str]] = {}
    for key, branch in {**schema.kinematics, sign: schema.charge or schema.pdg_id}.items():
        if key == "mass":
            continue  # one column may serve both legs
        legs = branch if isinstance(branch, tuple) else (branch,)
        if len(legs) == 2 and legs[0] == legs[1]:
            yield error(key, f"both legs read {legs[0]!r}; name one branch per leg")
            legs = legs[:1]
        for leg in legs:
            named[leg] += 1
            where.setdefault(leg, []).append(key)
    for leg, times in named.items():
        if times > 1:
            yield error(where[leg][-1], f"{leg!r} is read as {' and as '.join(where[leg])}")


def _content(s: _Sample) -> Iterator[BranchFinding]:
    """Look for leptons that are finite, pairs and weights."""
    n = len(s.counts)
    if not (s.counts >= 2).any():
        text = f"no event of {n} has two leptons; are the branches, charge and row_filter right?"
        yield warning("lepton", text)
    lost = s.schema.layout == "pair" and "truth" in s.events.fields  # rows of photons that were not found
    for key, bad in _not_finite(s).items():
        if len(bad) and bad.mean() > 0.01 and not (lost and not bad.all()):
            branch = s.schema.kinematics.get(key) or s.schema.charge or s.schema.pdg_id
            text = f"{_percent(bad)} of {len(bad)} leptons have a value of {branch!r} that is not finite"
            yield graded(bad, key, text)
    weight = np.asarray(ak.to_numpy(s.events["weight"]))
    if not (weight != 0).any():
        yield error("weight", f"all {n} entries have weight zero")


def _not_finite(s: _Sample) -> dict[str, BoolArray]:
    """Return for each key of the kinematics which leptons have no finite value there."""
    if "pt" in s.schema.kinematics:
        angles = {key: ~np.isfinite(values) for key, values in s.angles.items()}
        rest = ~np.isfinite(s.p) & ~np.logical_or.reduce([np.zeros(len(s.p), dtype=bool), *angles.values()])
        bad = angles | {"pt": rest}
    else:
        bad = {key: ~np.isfinite(s.momentum[:, i]) for i, key in enumerate(("px", "py", "pz"))}
    if s.energy is not None:
        bad["E"] = ~np.isfinite(s.energy)
    bad["charge" if s.schema.charge else "pdg_id"] = ~np.isfinite(s.sign)
    if "mass" in s.schema.kinematics:
        bad["mass"] = ~np.isfinite(s.mass) & ~bad.get("E", np.zeros(len(s.mass), dtype=bool))
    return bad


def _charges(s: _Sample) -> Iterator[BranchFinding]:
    key = "charge" if s.schema.charge else "pdg_id"
    source = getattr(s.schema, key)
    if s.schema.positive is not None:
        return  # the reader maps them, and refuses a third value
    if isinstance(source, tuple):
        for leg, name in enumerate(source):
            yield from _signs(s.sign[leg::2], key, name, s.schema.lepton)
        legs = [np.unique(leg[np.isfinite(leg)]) for leg in (s.charge[0::2], s.charge[1::2])]
        for leg, other in ((0, 1), (1, 0)):
            if len(s.counts) >= MIN_ENTRIES and len(legs[leg]) == 1 and len(legs[other]) > 1:
                text = f"{source[leg]!r} gives {legs[leg][0]:+g} in all {len(s.counts)} rows"
                yield warning(key, f"{text}, {source[other]!r} both signs: is it the right branch?")
    else:
        yield from _signs(s.sign, key, source, s.schema.lepton)


def _signs(values: FloatArray, key: str, name: str, lepton: str) -> Iterator[BranchFinding]:
    sign = values[np.isfinite(values)]
    size, wanted = np.abs(sign), 1.0 if key == "charge" else 11.0 if lepton == "e" else 13.0
    wrong = size != wanted
    if not len(sign) or wrong.mean() <= 0.001:
        return
    if key == "charge" and np.isin(size, LIKELY_PDG_CODES).mean() > 0.5:
        advice = "these are PDG codes: name the branch as pdg_id instead of charge"
    elif key == "charge":
        advice = "a charge is +1 or -1; is it the right branch?"
    elif np.isin(size, (0.0, 1.0)).mean() > 0.5:
        advice = "these are charges: name the branch as charge instead of pdg_id"
    elif np.isin(size, (11.0, 13.0)).mean() > 0.5:
        advice = "these are leptons of the other flavour: name another collection, or change lepton"
    else:
        advice = f"leptons {lepton!r} have ±{wanted:g}"
    text = f"{_percent(wrong)} of the {len(sign)} values of {name!r} are not ±{wanted:g}"
    yield graded(wrong, key, f"{text}: {_most_frequent(sign)}; {advice}")


def _most_frequent(values: FloatArray) -> str:
    distinct, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:5]
    shown = ", ".join(f"{distinct[i]:.4g} ({counts[i]})" for i in order)
    return shown + (f" … and {len(distinct) - 5} more" if len(distinct) > 5 else "")


def _opposite(s: _Sample) -> Iterator[BranchFinding]:
    if len(s.first) >= MIN_ENTRIES and not s.opposite.any():
        values = np.unique(s.charge[np.isfinite(s.charge)])
        seen = ", ".join(f"{value:+g}" for value in values[:6])
        text = f"no opposite-sign pair among {len(s.first)} pairs (charges: {seen}); is it the right branch?"
        yield warning("charge" if s.schema.charge else "pdg_id", text)


def _twins(s: _Sample) -> Iterator[BranchFinding]:
    if not len(s.first):
        return
    same = (s.momentum[s.first] == s.momentum[s.second]).all(axis=1)
    if same.sum() > 1 and same.mean() > 0.01:
        text = f"{_percent(same)} of {len(same)} pairs are one lepton twice (equal momenta); do two branches "
        yield graded(same, "kinematics", f"{text}hold the same, or are leptons stored twice?")


def _scale(s: _Sample) -> Iterator[BranchFinding]:
    """Judge unit and flavour by a stored mass, else by E² − p², else by momenta and pairs."""
    masses = _masses(s)
    for source, value in masses.items():
        points = list(_judge_mass(s, source, value))
        if points or _near(value, LEPTON_MASS[s.schema.lepton]):
            yield from points
            return
    yield from _momenta(s)


def _near(value: float, expected: float) -> bool:
    return abs(value / expected - 1) < 0.1


def _masses(s: _Sample) -> dict[str, float]:
    """Return the lepton's mass [GeV] as far as the file tells it, by what tells it."""
    masses = {}
    if "mass" in s.schema.kinematics:
        values = np.abs(s.mass[np.isfinite(s.mass)])
        if len(values) and np.median(values) > 0:
            masses["the mass branch"] = float(np.median(values))
    if s.energy is not None:
        keep = np.isfinite(s.energy) & np.isfinite(s.p) & (s.p > 0)
        p, energy = s.p[keep], s.energy[keep]
        slow = np.argsort(p)[: max(MIN_ENTRIES, len(p) // 4)]  # where the mass weighs most
        if len(p) >= 4:
            low, middle, high = np.quantile(energy[slow] ** 2 - p[slow] ** 2, [0.25, 0.5, 0.75])
            if middle > 0 and high - low < 0.5 * middle:  # else rounding or resolution hides the mass
                masses["√(E² − p²)"] = float(np.sqrt(middle))
    return masses


def _judge_mass(s: _Sample, source: str, value: float) -> Iterator[BranchFinding]:
    lepton, unit = s.schema.lepton, s.schema.unit
    expected = LEPTON_MASS[lepton]
    if _near(value, expected):
        return
    names = {name: m for name, m in LEPTON_MASS.items() if name != lepton} | {"pion": M_PI_CHARGED}
    for scale in (1.0, 1e-3, 1e3, 1e-6, 1e6):
        if scale != 1.0 and _near(value * scale, expected):
            text = (
                f"{source} gives a lepton mass of {value:.4g} GeV, {lepton!r} have {expected:.4g} GeV: "
                f"set unit = {unit * scale:g}, with which the median momentum is "
                f"{scale * np.nanmedian(s.p):.3g} GeV instead of {np.nanmedian(s.p):.3g} GeV"
            )
            alone = "; or leave kinematics.mass out, if it alone is in another unit"
            yield error("unit", text + (alone if source == "the mass branch" else ""))
            return
    for name, other in names.items():
        if _near(value, other):
            text = (
                f"{source} gives {value:.4g} GeV, the mass of {name!r}; lepton = {lepton!r} has "
                f"{expected:.4g} GeV: is it the right collection?"
            )
            yield warning("lepton", text) if name == "pion" else error("lepton", text)
            return


def _mass_branch(s: _Sample) -> Iterator[BranchFinding]:
    if "mass" not in s.schema.kinematics:
        return
    finite = np.isfinite(s.mass)
    values, p = s.mass[finite], s.p[finite]
    expected = LEPTON_MASS[s.schema.lepton]
    if not len(values) or any(
        _near(float(np.median(np.abs(values))) * k, m)
        for k in (1e-6, 1e-3, 1.0, 1e3, 1e6)
        for m in LEPTON_MASS.values()
        if np.median(values) > 0
    ):
        return  # a lepton's mass, maybe of another unit or flavour: judged elsewhere
    wrong = np.abs(values - expected) > 0.1 * expected
    felt = np.abs(values**2 - expected**2) > 1e-4 * p**2  # changes masses of pairs
    if wrong.mean() > 0.5:
        low, middle, high = np.quantile(values, [0, 0.5, 1])
        text = (
            f"the mass branch holds {low:.4g} to {high:.4g} GeV (median {middle:.4g}); {s.schema.lepton!r} "
            f"have {expected:.4g} GeV: leave kinematics.mass out, then the known mass is taken"
        )
        yield graded(wrong if s.schema.lepton == "mu" else wrong & felt, "mass", text)


def _momenta(s: _Sample) -> Iterator[BranchFinding]:
    """Judge the unit by medians of momentum and pair mass, and by peaks."""
    p = s.p[np.isfinite(s.p) & (s.p > 0)]
    chosen = s.opposite if s.opposite.any() else np.ones(len(s.first), dtype=bool)
    masses = {scale: s.pair_mass(scale, chosen) for scale in (1.0, 1e-3, 1e3)}
    if not len(p):
        return
    peaks = {scale: _peak(found) for scale, found in masses.items()}
    if peaks[1.0]:
        return
    middle, (low, high) = float(np.median(p)), MOMENTA[s.schema.lepton]
    pair = float(np.median(masses[1.0])) if len(masses[1.0]) else 0.0
    scale = 1e-3 if middle > high or pair > MAX_PAIR_MASS else 1e3 if middle < low else 1.0
    scale = next((k for k in (1e-3, 1e3) if peaks[k]), scale)
    if scale == 1.0:
        return
    kinematics = s.schema.kinematics
    branch = next(kinematics[key] for key in ("pt", "pz", "p", "q_over_p") if key in kinematics)
    text = f"the median momentum is {middle:.3g} GeV (from {branch!r} and others)"
    other = f"{scale * middle:.3g} GeV"
    if len(masses[1.0]):
        text += f" and the median pair mass {pair:.3g} GeV"
        other += f" and {np.median(masses[scale]):.3g} GeV"
    if peaks[scale]:
        other += f", with a peak at the {peaks[scale]}"
    text += f"; with unit = {s.schema.unit * scale:g} they are {other}: which one does the experiment "
    yield warning("unit", f"{text}measure? (no stored mass or energy tells)")


def _peak(masses: FloatArray) -> str:
    """Return the name of a known particle at whose mass the spectrum has a peak; "" if there is none."""
    for name, code in PEAKS.items():
        x = masses / mass(code) - 1
        inside = int((np.abs(x) < 0.04).sum())
        beside = int(((np.abs(x) > 0.06) & (np.abs(x) < 0.12)).sum()) * 2 / 3  # as wide as the window
        if inside > 2 * beside + 5 * np.sqrt(beside + 1):
            return name
    return ""


def _energies(s: _Sample) -> Iterator[BranchFinding]:
    """Compare a stored energy with the momentum; both are scaled alike."""
    if s.energy is None:
        return
    keep = np.isfinite(s.energy) & np.isfinite(s.p) & (s.p > 0)
    energy, p = s.energy[keep], s.momentum[keep]
    if not len(energy):
        return
    lepton_mass = _masses(s).get("√(E² − p²)", LEPTON_MASS[s.schema.lepton])
    size = np.sqrt((p**2).sum(axis=1) + lepton_mass**2)
    away = np.abs(energy / size - 1)
    # The energy of an electron may be measured, that of a muon is computed from its momentum.
    bits = energy.astype(np.float32).view(np.uint32) & np.uint32(0xFF)
    shortened = np.mean(bits == 0) > 0.9  # mantissas
    tolerance = 0.2 if s.schema.lepton == "e" else 3e-3 if shortened else 3e-5
    wrong = away > tolerance
    if wrong.mean() <= (0.3 if s.schema.lepton == "e" else 0.1):
        return
    text = f"E is not √(p² + m²) within {100 * tolerance:g} % for {_percent(wrong)} of {len(energy)} leptons "
    text += f"(median E/√(p² + m²) = {np.median(energy / size):.6g})"
    reason = "E or a momentum is another quantity, or of another lepton; look at their branches"
    fitting = (cause for cause, ratio in _causes(s, energy, p) if np.mean(np.abs(ratio - 1) < 0.02) > 0.5)
    yield graded(away > max(tolerance, 0.01), "E", f"{text}: {next(fitting, reason)}")


def _causes(s: _Sample, energy: FloatArray, p: FloatArray) -> Iterator[tuple[str, FloatArray]]:
    """Yield likely mistakes with E/p as it would be without them."""
    size = np.sqrt((p**2).sum(axis=1))
    for scale in (1e-3, 1e3):
        yield f"E is in another unit than the momenta (factor {scale:g}); leave E out", energy * scale / size
    if "pt" in s.schema.kinematics:
        pt = np.hypot(p[:, 0], p[:, 1])
        yield "pt holds the momentum p", energy / pt
        theta = np.arcsinh(p[:, 2] / pt)  # what was read as η
        yield "eta holds the polar angle θ", energy * np.abs(np.sin(theta)) / pt


def _axes(s: _Sample) -> Iterator[BranchFinding]:
    """Look for momenta along the axes that are something else."""
    p = s.momentum[np.isfinite(s.momentum).all(axis=1)]
    if len(p) < 5 * MIN_ENTRIES or "px" not in s.schema.kinematics:
        return
    yield from _transverse(s)
    for axis, key in enumerate(("px", "py")):
        if (p[:, axis] >= 0).all() and (p[:, axis] > 0).any():
            text = f"{key} is never negative in {len(p)} leptons (median {np.median(p[:, axis]):.3g} GeV)"
            yield warning(key, f"{text}: is it pt, p or pz?")
    if (p[:, 2] < 0).all():
        text = f"pz is negative in all {len(p)} leptons, and detectors stand along +z: turn its sign"
        yield warning("pz", text)


def _transverse(s: _Sample) -> Iterator[BranchFinding]:
    """Compare px and py, of both legs of a pair: nothing makes one of them many times larger."""
    medians: list[tuple[float, str]] = []
    for axis, key in enumerate(("px", "py")):
        branch = s.schema.kinematics[key]
        names = branch if isinstance(branch, tuple) else (branch,)
        for leg, name in enumerate(names):
            sizes = np.abs(s.momentum[leg :: len(names), axis])
            medians.append((float(np.median(sizes[np.isfinite(sizes)])), name))
    (low, small), (high, large) = min(medians), max(medians)
    if low > 0 and high > MAX_MOMENTUM_RATIO * low:
        text = f"the median size of {large!r} is {high:.3g} GeV, that of {small!r} {low:.3g} GeV"
        yield warning("unit", f"{text}: are they in the same unit?")


def _angles(s: _Sample) -> Iterator[BranchFinding]:
    """Look for degrees, polar angles and other quantities in the place of η and φ."""
    degrees = "phi must be in rad; degrees have to be converted when the file is written"
    large = "a pseudorapidity is smaller; is it the right branch?"
    for key, limit, advice in (("phi", 2 * np.pi + 0.01, degrees), ("eta", 20.0, large)):
        values = s.angles.get(key, np.empty(0))
        values = values[np.isfinite(values)]
        beyond = np.abs(values) > limit
        if len(values) and beyond.mean() > 0.01:
            text = f"{_percent(beyond)} of {len(values)} values beyond ±{limit:.3g}"
            yield graded(beyond, key, f"{text}, up to {np.abs(values).max():.4g}: {advice}", 0.1)
    eta = s.angles.get("eta", np.empty(0))
    eta = eta[np.isfinite(eta)]
    if len(eta) < 5 * MIN_ENTRIES or eta.min() < 0 or eta.max() > np.pi:
        return
    low, middle, high = np.quantile(eta, [0.01, 0.5, 0.99])
    if high < 0.6 or (low < 0.8 and high > 2.2 and abs(middle - np.pi / 2) < 0.35):
        text = f"{low:.3g} to {high:.3g}, median {middle:.3g}, never negative"
        yield warning("eta", f"{text}: is it the polar angle θ [rad]? η = −ln tan(θ/2)")


def _identifiers(s: _Sample) -> Iterator[BranchFinding]:
    """Look at the identifiers of events."""
    n, unique = len(s.counts), len(np.unique(np.asarray(ak.to_numpy(s.events["event"]))))
    many = 5 if s.schema.layout == "pair" else 2
    if n >= MIN_ENTRIES and unique == 1:
        yield error("event", f"{list(s.schema.event)} is the same for all {n} entries")
    elif n >= 5 * MIN_ENTRIES and unique * many < n:
        text = f"{list(s.schema.event)} has {unique} different values in {n} entries"
        yield warning("event", f"{text}: name run, luminosity block or burst as well")


def _repeats(s: _Sample) -> Iterator[BranchFinding]:
    """Find pairs that are in the file more than once."""
    again = _again(s)
    if not again.any() or again.mean() <= 0.02:
        return
    text = f"{_percent(again)} of {len(again)} rows with pairs hold the leptons of another row again, so "
    text += "that pairs are counted more than once"
    if s.schema.layout != "pair" or s.schema.row_filter:
        yield warning("row_filter", f"{text}: were files merged twice?")
        return
    choice = _selectors(s)
    advice = f"choose one kind with row_filter, for instance {choice}" if choice else ""
    yield warning("row_filter", f"{text}: {advice or 'no branch tells them apart'}")


def _again(s: _Sample) -> BoolArray:
    """Return for each row with at least two leptons whether an earlier row has the same leptons."""
    rows = s.counts >= 2
    if s.schema.layout != "pair":
        row, n = np.repeat(np.arange(len(s.counts)), s.counts), len(s.counts)
        total = np.stack([np.bincount(row, axis, n) for axis in np.nan_to_num(s.momentum).T], axis=1)[rows]
        return _repeated(np.column_stack([s.counts[rows], total]))
    legs = s.momentum.reshape(-1, 2, 3)
    if s.schema.event:
        return _same_pairs(legs, np.asarray(ak.to_numpy(s.events["event"])))
    return _repeated(legs.reshape(len(legs), 6))  # only rows equal to the last digit can be known


def _repeated(rows: FloatArray) -> BoolArray:
    """Return for each row whether an earlier one holds the same numbers."""
    order = np.argsort(rows[:, -1], kind="stable")
    same = np.flatnonzero(np.diff(rows[order, -1]) == 0)  # neighbours of one last number: hardly any
    some = np.union1d(order[same], order[same + 1])
    some = some[np.lexsort(rows[some].T)]  # equal rows stay in their order
    again = np.zeros(len(rows), dtype=bool)
    again[some[1:]] = (rows[some[1:]] == rows[some[:-1]]).all(axis=1)
    return again


def _same_pairs(legs: FloatArray, event: IntArray) -> BoolArray:
    """Return for each row of two legs whether another row of its event holds nearly the same."""
    order = np.argsort(event, kind="stable")
    legs, event = legs[order], event[order]
    again = np.zeros(len(legs), dtype=bool)
    for lag in (1, 2, 3):  # the same two leptons may be reconstructed in several ways
        now, before = legs[lag:], legs[:-lag]
        same = _close(now, before) | _close(now, before[:, ::-1])
        again[lag:] |= same & (event[lag:] == event[:-lag])
    result = np.zeros(len(legs), dtype=bool)
    result[order] = again
    return result


def _close(a: FloatArray, b: FloatArray) -> BoolArray:
    """Return whether both legs agree within 10 %, across the beam as well as along it."""
    along = np.abs(a - b)[..., 2] <= 0.1 * np.sqrt((a**2).sum(axis=2))
    across = np.hypot(*np.moveaxis(a - b, 2, 0)[:2]) <= 0.1 * np.hypot(a[..., 0], a[..., 1])
    return np.asarray((along & across).all(axis=1))


def _selectors(s: _Sample) -> str:
    """Return the filters that keep one row per event, most rows first."""
    path, legs = str(s.file), s.momentum.reshape(-1, 2, 3)
    event = np.asarray(ak.to_numpy(s.events["event"]))
    rules: list[tuple[int, str]] = []
    used = s.schema.branches()
    with opened(path) as file:
        tree = open_tree(file, s.schema.tree, path)
        for name, kind in itertools.islice(tree.typenames().items(), MAX_SELECTOR_BRANCHES):
            text = "char*" in kind or "string" in kind
            if name in used or not (text or kind in INTEGER_TYPES):
                continue
            values = np.asarray(ak.to_list(tree[name].array(entry_stop=len(event))))
            for value in np.unique(values) if len(np.unique(values)) <= MAX_SELECTOR_VALUES else ():
                rows = np.flatnonzero(values == value)
                if len(rows) > 1 and _same_pairs(legs[rows], event[rows]).mean() < 0.02:
                    equals = f'"{value}"' if text else value
                    rule = f'{{ branch = "{name}", equals = {equals} }} ({len(rows)} rows)'
                    rules.append((-len(rows), rule))
    return " or ".join(rule for _, rule in sorted(rules)[:4])


def _truth(s: _Sample) -> Iterator[BranchFinding]:
    if "truth" not in s.events.fields:
        return
    true = s.events["truth"]
    m, pt, energy = (_flat(true[key]) for key in ("mass", "pt", "energy"))
    photon = np.isfinite(m) & (m > 0)
    m, pt, energy = m[photon], pt[photon], energy[photon]
    if not len(m):
        yield warning("truth", f"no entry of {len(photon)} has a virtual photon (mass > 0)")
        return
    threshold = 2 * LEPTON_MASS[s.schema.lepton]
    below = m < threshold * (1 - 1e-5)
    if below.any():
        text = f"masses down to {m.min():.4g} GeV ({_percent(below)} of {len(m)}), below the threshold "
        yield error("truth", f"{text}{threshold:.4g} GeV; unit or lepton?")
    small = energy**2 < (m**2 + pt**2) * (1 - 1e-5)
    if small.any():
        yield error("truth", f"{_percent(small)} of {len(m)} energies below √(mass² + pt²)")
    codes = s.schema.truth.signal if s.schema.truth is not None else ()
    if codes and "process" in true.fields and not np.isin(_flat(true["process"]), codes).any():
        seen = _most_frequent(_flat(true["process"]))
        yield warning("truth", f"signal = {list(codes)} never occurs; the processes are {seen}")
    yield from _true_masses(s)


def _true_masses(s: _Sample) -> Iterator[BranchFinding]:
    """Compare the masses of events with one opposite-sign pair with their true photons."""
    row = np.repeat(np.arange(len(s.counts)), s.counts)[s.first]
    finite = np.isfinite(s.momentum[s.first] + s.momentum[s.second]).all(axis=1)
    chosen = s.opposite & (s.counts[row] == 2) & finite
    true = _flat(s.events["truth"]["mass"])[row[chosen]]
    keep = np.isfinite(true) & (true > 0)
    if keep.sum() < MIN_ENTRIES:
        return
    ratio = float(np.median(s.pair_mass(1.0, chosen)[keep] / true[keep]))
    if not 0.1 < ratio < 10:
        text = f"the pairs have {ratio:.3g} times the mass of their true photons (median of {keep.sum()})"
        yield error("truth", f"{text}: are they in the same unit?")


def unnamed_weights(file: str | Path, schema: Schema, *, truth: bool = False) -> dict[str, float]:
    """Return the mean of each branch of one number per row that is named as a weight, unused, and not one."""
    named, means = set(schema.branches(truth=truth)), {}
    with opened(str(file)) as source:
        tree = open_tree(source, schema.tree, str(file))
        for name in map(str, tree.keys(recursive=False)):
            if name in named or not LIKE_WEIGHT.search(name):
                continue
            try:
                values = np.asarray(tree[name].array(entry_stop=FIRST_ENTRIES, library="np"))
            except (ValueError, TypeError, NotImplementedError):
                continue  # no plain numbers
            if values.ndim == 1 and values.dtype.kind in "iuf" and len(values) and (values != 1).any():
                means[name] = float(values.mean())
    return means


RULES: tuple[Callable[[_Sample], Iterator[BranchFinding]], ...] = (
    _content,
    _charges,
    _opposite,
    _twins,
    _scale,
    _mass_branch,
    _energies,
    _axes,
    _angles,
    _identifiers,
    _repeats,
    _truth,
)
