"""Immutable records of the measured half, the axes of their histograms and small statistics."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import UnionType
from typing import Any, Literal, Self, TypeAlias, get_args, get_origin, get_type_hints

import hist
import numpy as np
import numpy.typing as npt
from hist import Hist
from hist.storage import Weight

from gammastar.core.errors import require

__all__ = [
    "DarkState",
    "Exposure",
    "FloatArray",
    "Limit",
    "Momenta",
    "PairHists",
    "PreformattedText",
    "Reach",
    "ReprMixin",
    "Response",
    "Sample",
    "Spectrum",
    "summarise",
]

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
IntArray: TypeAlias = npt.NDArray[np.int64]
Rng: TypeAlias = np.random.Generator
Quantity: TypeAlias = Literal["counts", "per_pot", "per_interaction"]


LONGEST = 88  # characters of a value


class ReprMixin:
    """Gives a dataclass a representation of one screen, as text and as HTML."""

    __slots__ = ()

    def _lines(self) -> list[tuple[str, str]]:
        record: Any = self
        values = [(one.name, getattr(self, one.name)) for one in fields(record) if one.repr]
        return [(name, summarise(value)) for name, value in values if value is not None]

    def __repr__(self) -> str:
        lines = self._lines()
        width = max((len(name) for name, _ in lines), default=0)
        return "\n".join([type(self).__name__, *(f"  {name:{width}s}  {text}" for name, text in lines)])

    def _repr_html_(self) -> str:
        """Return the same as a table, for notebooks."""
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(text)}</td></tr>'
            for name, text in self._lines()
        )
        return f"<table><caption>{html.escape(type(self).__name__)}</caption>{rows}</table>"


class PreformattedText(str):
    """A text that a prompt and a notebook show as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """Return the text with its lines, for notebooks."""
        return f"<pre>{html.escape(self)}</pre>"


def summarise(value: Any) -> str:
    """Return a value in a line: arrays by size and range, histograms by axes, mappings by their keys."""
    if isinstance(value, np.ndarray):
        return _array(value)
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    if hasattr(value, "axes") and hasattr(value, "values"):
        text = "Hist, " + " × ".join(f"{len(axis)} bins of {axis.name}" for axis in value.axes)
    elif isinstance(value, Mapping):
        text = f"{len(value)}: {', '.join(map(str, value))}" if value else "none"
    elif hasattr(value, "names"):
        text = ", ".join(map(str, value.names)) or "none"
    elif isinstance(value, tuple) and value:
        named = [getattr(item, "name", None) or summarise(item) for item in value[:100]]
        text = f"{len(value)}: {', '.join(dict.fromkeys(map(str, named)))}"
    elif isinstance(value, ReprMixin) or (is_dataclass(value) and len(text) > LONGEST):
        text = type(value).__name__
    return _cut(text)


def _array(value: np.ndarray[Any, Any]) -> str:
    size = " × ".join(map(str, value.shape)) or "1"
    if value.dtype == bool:
        return f"{size} flags, {int(value.sum())} true"
    if not np.issubdtype(value.dtype, np.number):
        return f"{size} of {value.dtype}"
    known = value[np.isfinite(value)]
    ends = f", {known.min():.4g} to {known.max():.4g}" if known.size else ""
    missing = f", {value.size - known.size} nan or inf" if known.size < value.size else ""
    return f"{size} numbers{ends}{missing}"


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


class ArrayRecord:
    """A dataclass that arrays of numbers or text hold, by names as ``rate|sources|parts|0|cov``."""

    __slots__ = ()

    def to_arrays(self) -> Arrays:
        """Return plain arrays by name."""
        return dict(_unpacked(self, ""))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the record of such arrays."""
        found: Self = _packed(cls, arrays, "")
        return found


def _unpacked(value: Any, name: str) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    start = f"{name}|" if name else ""
    if is_dataclass(value):
        for one in fields(value):
            yield from _unpacked(getattr(value, one.name), start + one.name)
    elif isinstance(value, Mapping | tuple):
        keys = list(value) if isinstance(value, Mapping) else list(range(len(value)))
        yield name, np.array(keys, dtype=str)
        for i, key in enumerate(keys):
            yield from _unpacked(value[key], f"{start}{i}")
    elif value is not None:
        yield name, np.asarray(value)


def _packed(kind: Any, arrays: Mapping[str, npt.NDArray[Any]], name: str) -> Any:
    """Return the value of a type, which is that of a field."""
    start, origin, inner = f"{name}|" if name else "", get_origin(kind), get_args(kind)
    if origin is UnionType:
        there = any(key == name or key.startswith(start) for key in arrays)
        return _packed(inner[0], arrays, name) if there else None
    if isinstance(kind, type) and is_dataclass(kind):
        hints, record = get_type_hints(kind), kind
        named = {one.name: _packed(hints[one.name], arrays, start + one.name) for one in fields(kind)}
        return record(**named)
    if origin in (tuple, Mapping):
        keys = arrays[name].tolist()
        values = [_packed(inner[origin is Mapping], arrays, f"{start}{i}") for i in range(len(keys))]
        return tuple(values) if origin is tuple else dict(zip(keys, values, strict=True))
    array = arrays[name]
    return array.item() if kind in (int, float, str, bool) or origin is Literal else array


@dataclass(frozen=True, slots=True, eq=False)
class Exposure:
    """Beam, target and protons on target."""

    beam_energy: float  # Energy of the proton beam [GeV]
    # Mass and atomic number of the target
    target_a: float
    target_z: float
    thickness: float  # Target thickness in nuclear interaction lengths
    pot: float  # Protons on target
    pot_sigma: float = 0.0  # Relative uncertainty of `pot` (log-normal)

    def __post_init__(self) -> None:
        for name in ("beam_energy", "target_a", "target_z", "thickness", "pot"):
            value = getattr(self, name)
            require(np.isfinite(value) and value > 0, f"Exposure.{name} = {value!r} must be positive")
        require(self.pot_sigma >= 0, f"Exposure.pot_sigma = {self.pot_sigma!r} must not be negative")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PairHists(ReprMixin):
    """Histograms of opposite-sign, ++ and -- pairs on common axes (Weight storage)."""

    os: Hist[Any]  # Opposite-sign pairs
    pp: Hist[Any]  # ++ pairs
    mm: Hist[Any]  # −− pairs

    def __post_init__(self) -> None:
        shared = self.os.axes == self.pp.axes == self.mm.axes
        require(shared, "PairHists: the opposite-sign, ++ and -- histograms must share their axes")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Spectrum(ReprMixin):
    """A spectrum with its full covariance."""

    hist: Hist[Any]  # Values on named axes; variances are the diagonal of `cov`
    cov: FloatArray  # Covariance of the cells in C order, no flow bins, (n, n)
    quantity: Quantity
    exposure: Exposure | None
    domain: BoolArray  # Cells where dileptons were measured
    # Named sources in `cov`: what one standard deviation makes of each cell, all cells together, (n,)
    shifts: Mapping[str, FloatArray] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        shape = tuple(len(axis) for axis in self.hist.axes)
        n = int(np.prod(shape))
        require(self.cov.shape == (n, n), f"Spectrum.cov has shape {self.cov.shape}, expected {(n, n)}")
        require(self.domain.shape == shape, f"Spectrum.domain has shape {self.domain.shape}, not {shape}")
        for source, shift in self.shifts.items():
            require(np.shape(shift) == (n,), f"Spectrum.shifts {source!r} has {np.shape(shift)}, not {(n,)}")
        for name, values in (("cov", self.cov), ("hist", self.hist.values()), *self.shifts.items()):
            require(bool(np.isfinite(values).all()), f"Spectrum.{name} holds values that are not finite")

    @property
    def values(self) -> FloatArray:
        """Cell contents, shape of the histogram."""
        return np.asarray(self.hist.values(), dtype=np.float64)

    def project(self, *names: str) -> Self:
        """Return the sums over all other axes with their full covariance."""
        axes, shape = tuple(self.hist.axes), self.domain.shape
        known = [axis.name for axis in axes]
        require(bool(names) and set(names) <= set(known), f"Spectrum.project: no axes {names} in {known}")
        kept = [k for k, name in enumerate(known) if name in names]
        others = tuple(k for k in range(len(axes)) if k not in kept)
        both = others + tuple(len(axes) + k for k in others)
        n = int(np.prod([shape[k] for k in kept]))
        cov = self.cov.reshape(shape + shape).sum(axis=both).reshape(n, n)
        made: Hist[Any] = Hist(*(axes[k] for k in kept), storage=Weight())
        view: Any = made.view(flow=False)
        view["value"] = self.values.sum(axis=others)
        view["variance"] = np.diag(cov).reshape(view.shape)
        shifts = {name: shift.reshape(shape).sum(axis=others).ravel() for name, shift in self.shifts.items()}
        domain = np.asarray(self.domain.any(axis=others))
        return replace(self, hist=made, cov=cov, domain=domain, shifts=shifts)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Response(ReprMixin):
    """Detector response, P(reco | true)."""

    # Probability that a dilepton of true cell i is reconstructed in cell j, (n_reco, n_true)
    migration: FloatArray
    efficiency: FloatArray  # Sums of the columns of `migration`, (n_true,)
    # Fraction of reconstructed pairs in each cell without a true partner inside the true axes, (n_reco,)
    fakes: FloatArray
    reco: tuple[Any, ...]
    true: tuple[Any, ...]
    prior: FloatArray  # True spectrum of the simulation that made the response, (n_true,)
    # Migration matrices of bootstrapped simulation events (may be empty), (n_replicas, n_reco, n_true)
    cov_replicas: FloatArray
    # True spectra of the same bootstraps, (n_replicas, n_true) or none: `prior` counts as known exactly
    prior_replicas: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    # Simulated photons behind each true cell, (Σw)²/Σw², (n_true,), and Σw² of those behind each element of
    # `migration` over (Σw)² of the cell, (n_reco, n_true); without them the response counts as known exactly
    # where nothing is taken from the bootstraps
    entries: FloatArray = field(default_factory=lambda: np.zeros(0))
    squares: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))

    def __post_init__(self) -> None:
        n_reco = int(np.prod([len(a) for a in self.reco]))
        n_true = int(np.prod([len(a) for a in self.true]))
        shape, expected = self.migration.shape, (n_reco, n_true)
        require(shape == expected, f"Response.migration has shape {shape}, (n_reco, n_true) = {expected}")
        sums = bool(np.allclose(self.migration.sum(axis=0), self.efficiency, atol=1e-9))
        require(sums, "Response: the columns of `migration` must sum to `efficiency`")
        require(bool((self.efficiency <= 1 + 1e-9).all()), "Response.efficiency exceeds one")
        found, wanted = self.prior_replicas.shape, (len(self.cov_replicas), n_true)
        require(found[0] == 0 or found == wanted, f"Response.prior_replicas has shape {found}, not {wanted}")


@dataclass(frozen=True, slots=True)
class DarkState:
    """A dark particle at one point of its parameter space."""

    mass: float  # [GeV]
    coupling: float  # ε of a dark photon, Q/e of a millicharge
    ctau: float  # Proper decay length [m]; inf if stable
    charge: float  # Electric charge in units of e
    # Branching ratios by final state, e.g. ``{"ee": 0.5, "mumu": 0.4, "hadrons": 0.1}``.
    branching: Mapping[str, float]

    def __post_init__(self) -> None:
        require(self.mass > 0, f"DarkState.mass = {self.mass!r} must be positive")
        require(self.coupling >= 0, f"DarkState.coupling = {self.coupling!r} must not be negative")
        require(self.ctau > 0, f"DarkState.ctau = {self.ctau!r} must be positive")


@dataclass(frozen=True, slots=True, eq=False)
class Momenta:
    """Four-momenta [GeV], shape (n,), with all of ``vector.MomentumNumpy4D``, which is imported late."""

    px: FloatArray
    py: FloatArray
    pz: FloatArray
    E: FloatArray

    @property
    def pt(self) -> FloatArray:
        """Transverse momentum [GeV]."""
        return np.sqrt(self.px**2 + self.py**2)

    @property
    def array(self) -> Any:
        """The same as ``vector.MomentumNumpy4D``."""
        import vector

        columns = {one.name: np.asarray(getattr(self, one.name), dtype=np.float64) for one in fields(self)}
        return vector.array(columns)

    def __len__(self) -> int:
        return len(self.E)

    def __getitem__(self, index: npt.NDArray[Any] | slice) -> Momenta:
        """Return some of them, by their places, a mask or a slice."""
        return Momenta(self.px[index], self.py[index], self.pz[index], self.E[index])

    def __add__(self, other: Any) -> Any:
        """Return the sums with others, one by one."""
        return self.array + (other.array if isinstance(other, Momenta) else other)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.array, name)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sample(ReprMixin):
    """Weighted particles."""

    p4: Any  # Four-momenta in the laboratory, z along the beam [GeV], (n,)
    # The sum of weights is the number of particles per proton on target (at unit coupling unless said), (n,)
    weight: FloatArray
    origin: FloatArray  # Production points [m], (n, 3)
    in_domain: BoolArray  # True where dileptons of this (mass, pt, energy) were measured, (n,)
    # px, py, pz, E [GeV] of the meson whose Dalitz decay made the particle, in whose rest frame it is
    # transverse to its flight; nan where there is none. None: no spin state is known, (n, 4)
    parent: FloatArray | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        n = len(self.weight)
        alike = self.parent is None or self.parent.shape == (n, 4)
        require(alike, f"Sample.parent does not have the shape {(n, 4)}")
        require(self.origin.shape == (n, 3), f"Sample.origin has shape {self.origin.shape}, not {(n, 3)}")
        require(len(self.p4) == n and self.in_domain.shape == (n,), "Sample: arrays of different length")

    @property
    def four_momenta(self) -> FloatArray:
        """px, py, pz and E as plain numbers [GeV], (4, n)."""
        return np.stack([np.asarray(getattr(self.p4, c), np.float64) for c in ("px", "py", "pz", "E")])

    def part(self, index: npt.NDArray[Any]) -> Sample:
        """Return some of the particles, by their places or by a mask."""
        parent = None if self.parent is None else self.parent[index]
        columns = self.p4[index], self.weight[index], self.origin[index], self.in_domain[index]
        return Sample(*columns, parent=parent)


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """An upper limit on a signal yield."""

    observed: float  # Observed limit; nan while the observation is masked
    expected: FloatArray  # Expected limits at −2, −1, 0, +1, +2 standard deviations, (5,)
    cl: float  # Confidence level
    method: str  # How it was computed, as written into every result
    mc_error: float  # Monte Carlo error of `observed` (0 for exact methods)


@dataclass(frozen=True, slots=True)
class MassInterval:
    """Masses at each of which some coupling lies inside a contour."""

    # [GeV]
    low: float
    high: float
    # Where the two edges meet at either end; the coupling of the largest signal where an end is not closed
    low_coupling: float
    high_coupling: float
    # Whether the signal falls to its limit there. False where the scan ends first: in mass, in coupling, or
    # because too few sampled particles populate the next mass
    low_closed: bool
    high_closed: bool


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Reach(ReprMixin):
    """A contour as coupling intervals per mass."""

    mass: FloatArray  # (n,) [GeV]; one entry per mass and island
    edges: FloatArray  # Lower and upper coupling; nan where nothing is reached, (n, 2)
    signal: FloatArray  # Largest expected signal along the coupling at this mass, (n,)
    limit: FloatArray  # Upper limit on the signal, at `peak` where it changes along the coupling
    closed: BoolArray  # False where an edge lies outside the scan, (n,)
    # "", "lower", "upper", "lower, upper", "lower mass" or "upper mass" per entry
    clipped_side: tuple[str, ...]
    # All masses at which anything is reached, in order; empty if nothing is, or if it was not worked out
    intervals: tuple[MassInterval, ...] = ()
    # Mass and coupling at which the island of an entry ends before the mass below and that above; nan where
    # it goes on or is clipped, (n, 2, 2)
    ends: FloatArray | None = None
    # Edges for the limits expected at −2 … +2 standard deviations; nan where nothing is reached, (n, 5, 2)
    bands: FloatArray | None = None
    # Numerical errors of both edges [decades]: from the sample of the signal, from the toys of the limit, and
    # from interpolation in the coupling; nan where nothing is reached, (n, 2, 3)
    errors: FloatArray | None = None
    method: tuple[str, ...] = ()  # How the limit of each entry was computed; empty if it was not recorded
    # Coupling of the largest signal (over its limit, where that changes), of `signal` and `limit`, (n,)
    peak: FloatArray | None = None
    # Upper limit on the signal at the lower and at the upper edge; nan where nothing is reached, (n, 2)
    edge_limits: FloatArray | None = None
    # Part of the signal on both edges at energies above those of all measured pairs, (n, 2)
    beyond: FloatArray | None = None

    @property
    def tip(self) -> tuple[float, float] | None:
        """Mass and coupling where the edges meet at the largest mass reached; None if it is clipped."""
        if not self.intervals or not self.intervals[-1].high_closed:
            return None
        return self.intervals[-1].high, self.intervals[-1].high_coupling


MASS = "mass"
PT = "pt"
ENERGY = "energy"
COUPLING = "coupling"
KINEMATICS = (MASS, PT, ENERGY)

LABELS = {MASS: r"$m$ [GeV]", PT: r"$q_T$ [GeV]", ENERGY: r"$E$ [GeV]", COUPLING: r"$\varepsilon$"}

Axes: TypeAlias = tuple[hist.axis.AxesMixin, ...]


def regular(name: str, n_bins: int, low: float, high: float) -> hist.axis.Regular:
    """Return a regular axis of the quantity `name`, labelled with its unit."""
    return hist.axis.Regular(n_bins, low, high, name=name, label=LABELS.get(name, name))


def variable(name: str, bin_edges: Sequence[float]) -> hist.axis.Variable:
    """Return an axis of the quantity `name` with the given bin edges."""
    return hist.axis.Variable(bin_edges, name=name, label=LABELS.get(name, name))


def cell_of(axes: Sequence[Any], column: Callable[[str], FloatArray]) -> IntArray:
    """Return the cell of every row in C order, −1 outside the axes; `column` gives the values of an axis."""
    cell, inside = np.zeros(1, np.int64), np.ones(1, np.bool_)
    for axis in axes:
        index = np.asarray(axis.index(np.ascontiguousarray(column(axis.name), np.float64)), np.int64)
        inside = inside & (index >= 0) & (index < len(axis))
        cell = cell * len(axis) + index
    return np.where(inside, cell, -1)


def effective_size(weight: FloatArray) -> float:
    """Return the effective sample size (Σw)²/Σw² (Kish); 0 for an empty sample."""
    square = float(np.sum(weight**2))
    return float(np.sum(weight)) ** 2 / square if square > 0 else 0.0


def divided(above: Any, below: Any, otherwise: float = 0.0) -> FloatArray:
    """Return above / below, `otherwise` where `below` is not positive."""
    shape = np.broadcast_shapes(np.shape(above), np.shape(below))
    positive = np.broadcast_to(np.asarray(below) > 0, shape)
    return np.asarray(np.divide(above, below, out=np.full(shape, otherwise), where=positive))


def rescaled(weight: FloatArray, total: float) -> FloatArray:
    """Return weights with this sum; as they are, where either sum is not positive."""
    now = float(weight.sum())
    return weight * (total / now) if now > 0 and total > 0 else weight


def filled(axes: tuple[Any, ...], values: FloatArray, variances: FloatArray) -> hist.Hist[Any]:
    """Return a Weight histogram with the given cell contents (no flow)."""
    result: hist.Hist[Any] = hist.Hist(*axes, storage=Weight())
    view: Any = result.view(flow=False)
    view["value"] = np.reshape(values, view.shape)
    view["variance"] = np.reshape(variances, view.shape)
    return result


def flow_free(histogram: hist.Hist[Any]) -> tuple[FloatArray, FloatArray]:
    """Return values and variances of a histogram in C order, without flow bins."""
    values = np.asarray(histogram.values(), dtype=np.float64).ravel()
    variances = histogram.variances()
    return values, (values if variances is None else np.asarray(variances, dtype=np.float64).ravel())
