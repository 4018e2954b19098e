"""Parts of a finished run that draw themselves: records with ``plot``, ``to_hist`` and ``to_pandas``."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gammastar.core.errors import UserError
from gammastar.core.records import ENERGY, PT, FloatArray, Reach, ReprMixin, Rng, Spectrum, summarise
from gammastar.core.signal import Rate

if TYPE_CHECKING:
    import hist
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gammastar.predict.models import Labels


MEASURED, OBSERVED = "measured domain", "observed"
IN_SITU, DISPLACED = "in_situ", "displaced"
QUANTITIES = (PT, ENERGY)
BANDS = ("m2", "m1", "median", "p1", "p2")
CORRELATED = 1.2  # error of a sum of cells over that of their variances alone, from which `to_hist` warns


def _shown(figure: Figure) -> Axes:
    """Return the first axes of a figure; a notebook shows it, and pyplot knows it where it was imported."""
    pyplot, shell = sys.modules.get("matplotlib.pyplot"), sys.modules.get("IPython")
    if shell is not None and getattr(shell.get_ipython(), "kernel", None) is not None:
        from gammastar.report import png_bytes

        shell.display.display(shell.display.Image(png_bytes(figure, dpi=90)))
    elif pyplot is not None and pyplot.isinteractive():
        with contextlib.suppress(TypeError, ValueError):  # matplotlib < 3.11 takes no figure of others
            pyplot.figure(figure)
    return figure.axes[0]


def _drawn(draw: Callable[[], Figure], ax: Axes | None) -> Axes:
    """Return the first axes of a new figure, or `ax` with the figure drawn into them."""
    if ax is None:
        return _shown(draw())
    from gammastar.report.style import into

    with into(ax):
        draw()
    return ax


def _pandas() -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise UserError("to_pandas needs pandas: pip install pandas") from error
    return pd


def copied(kind: type[Any], record: Any, **more: Any) -> Any:
    """Return a record as a kind of its own that can be drawn."""
    return kind(**{one.name: getattr(record, one.name) for one in fields(record)}, **more)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LoadedSpectrum(Spectrum):
    """Virtual photons per proton on target, of a run: a `Spectrum` that draws itself."""

    mock: bool = field(default=False, kw_only=True)

    def to_hist(self) -> hist.Hist[Any]:
        """Return a histogram of its own; its variances are the diagonal of the covariance.

        Sums of its cells have wrong errors where cells are correlated: take those of `project`.
        """
        names = [axis.name for axis in self.hist.axes]
        full = np.concatenate([np.diag(self.project(name).cov) for name in names])
        alone = np.concatenate([self.hist.project(name).variances() for name in names])
        largest = float(np.sqrt(np.max(full[alone > 0] / alone[alone > 0], initial=1.0)))
        if largest > CORRELATED:
            warnings.warn(
                f"to_hist: cells are correlated, and the variances alone make errors of their sums up to "
                f"{largest:.1f} times too small; spectrum.project('mass') has the full covariance",
                stacklevel=2,
            )
        return self.hist.copy()

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per cell: edges [GeV], content, standard deviation, and whether it was measured."""
        edges = [np.asarray(axis.edges) for axis in self.hist.axes]
        places = np.indices(self.values.shape).reshape(len(edges), -1)
        columns: dict[str, Any] = {}
        for axis, values, place in zip(self.hist.axes, edges, places, strict=True):
            columns |= {f"{axis.name}_low": values[place], f"{axis.name}_high": values[place + 1]}
        columns["value"] = self.values.ravel()
        columns["error"] = np.sqrt(np.clip(np.diag(self.cov), 0.0, None))
        return _pandas().DataFrame(columns | {"measured": self.domain.ravel()})

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the mass spectrum with the error of its covariance."""
        from gammastar.report.figures.measured import mass_projection, unfolded_spectrum

        edges, values, cov = mass_projection(self)
        others = tuple(i for i, axis in enumerate(self.hist.axes) if axis.name != "mass")
        inside = np.asarray(self.domain.any(axis=others))
        errors = np.sqrt(np.clip(np.diag(cov), 0.0, None))
        draw = partial(unfolded_spectrum, edges, values, errors, mock=self.mock, measured=inside)
        return _drawn(draw, ax)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LoadedRate(Rate):
    """Dark particles per proton on target and squared coupling, of a run: a `Rate` that draws itself."""

    mock: bool = field(default=False, kw_only=True)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per mass [GeV]: rate, standard deviation of all sources, and of each of them."""
        columns = {"mass": self.mass, "rate": self.value, "error": self.error()}
        if self.measured_part is not None:
            columns["measured_part"] = self.measured_part
        parts = {part.name: np.sqrt(np.clip(np.diag(part.cov), 0.0, None)) for part in self.sources.parts}
        return _pandas().DataFrame(columns | parts)

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the rate against the mass with bands of one and two standard deviations."""
        from gammastar.report.figures.signal import rate_figure

        return _drawn(partial(rate_figure, self.mass, self.value, self.error(), mock=self.mock), ax)


@dataclass(frozen=True, eq=False, repr=False)
class Kinematics(ReprMixin):
    """What draws transverse momentum and energy of virtual photons at a mass: the trained flow of a run."""

    sampler: Any  # The flow itself, with ``sample(mass, rng)``
    mass_range: tuple[float, float]  # That it learned [GeV]
    mock: bool

    @property
    def zuko(self) -> Any:
        """The zuko flow of the run, a ``torch.nn.Module``."""
        return self.sampler.zuko

    def sample(
        self, mass: FloatArray | float, rng: Rng | int = 1, *, n: int = 10_000
    ) -> tuple[FloatArray, FloatArray]:
        """Return q_T and energy of virtual photons."""
        masses = np.full(n, float(mass)) if np.ndim(mass) == 0 else np.asarray(mass, dtype=np.float64)
        pt, energy = self.sampler.sample(masses, np.random.default_rng(rng))
        return pt, energy

    def plot(
        self,
        masses: Sequence[float] | None = None,
        *,
        n: int = 20_000,
        quantity: str | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the densities of q_T and energy at some masses."""
        from gammastar.report.figures.kinematics import densities_figure

        if quantity not in (None, *QUANTITIES) or (quantity is None and ax is not None):
            known = " or ".join(map(repr, QUANTITIES))
            raise UserError(f"flow.plot: quantity {quantity!r}: give {known}, one panel")
        low, high = self.mass_range
        chosen = np.linspace(low, high, 5)[1:4].round(2).tolist() if masses is None else masses
        samples = {float(mass): self.sample(float(mass), n=n) for mass in chosen}
        panels = QUANTITIES if quantity is None else (quantity,)
        return _drawn(partial(densities_figure, samples, mock=self.mock, quantities=panels), ax)


class Workspace(dict[str, Any]):
    """The likelihood without signal as a pyhf workspace: the JSON document itself."""

    mock = False

    def pyhf(self) -> Any:
        """Return the `pyhf.Workspace` of the document."""
        import pyhf

        from gammastar.infer.histfactory.likelihoods import Likelihood  # noqa: F401

        return pyhf.Workspace(self)

    def __repr__(self) -> str:
        samples = [f"{c['name']}: {', '.join(s['name'] for s in c['samples'])}" for c in self["channels"]]
        return "\n".join(["Workspace (pyhf)", *(f"  {line}" for line in samples[:20])])


class Patches(Mapping[str, list[dict[str, Any]]]):
    """The signals of a likelihood by name: each a JSON patch of the workspace."""

    def __init__(self, document: dict[str, Any], *, mock: bool) -> None:
        self.document, self.mock = document, mock
        self._patches = {entry["metadata"]["name"]: entry for entry in document["patches"]}

    def __getitem__(self, name: str) -> list[dict[str, Any]]:
        patch: list[dict[str, Any]] = self._patches[name]["patch"]
        return patch

    def __iter__(self) -> Iterator[str]:
        return iter(self._patches)

    def __len__(self) -> int:
        return len(self._patches)

    def __repr__(self) -> str:
        labels = ", ".join(self.document["metadata"]["labels"])
        return f"Patches: {len(self)} signals of {labels}; the first is {next(iter(self), 'none')}"

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per signal: its name and its labels, e.g. mass [GeV] and coupling."""
        labels = self.document["metadata"]["labels"]
        rows = [dict(zip(labels, p["metadata"]["values"], strict=True)) for p in self._patches.values()]
        return _pandas().DataFrame(rows, index=_pandas().Index(self._patches, name="patch"))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DetectorReach(Reach):
    """The expected reach of a detector: a `Reach`, that of all signal, with the other contours beside it."""

    # Stem of the detector's file, and what the reach is called
    name: str = field(default="", kw_only=True)
    label: str = field(default="", kw_only=True)
    # Every contour: "all", "measured domain", "observed", discoveries and projections
    parts: Mapping[str, Reach] = field(default_factory=dict, kw_only=True)
    # The rows of ``reach.csv``
    rows: tuple[Mapping[str, Any], ...] = field(default=(), kw_only=True, repr=False)
    # Events at −2 … +2 standard deviations
    expected_limit: tuple[float, ...] = field(default=(), kw_only=True)
    # Confidence level, protons on target, names of the model, the shares of the signal that were measured,
    # the limits over the plane ("explored") and a function that reads its signal ("plane")
    about: Mapping[str, Any] = field(default_factory=dict, kw_only=True, repr=False)
    mock: bool = field(default=False, kw_only=True)

    def _lines(self) -> list[tuple[str, str]]:
        ends = [f"{found.low:.3f} to {found.high:.3f} GeV" for found in self.intervals]
        limit = f"{self.expected_limit[2]:.4g} events expected" if self.expected_limit else ""
        told = {
            "label": self.label,
            "reached": ", ".join(ends) or f"{int(np.isfinite(self.edges).any(axis=1).sum())} masses",
            "limit": limit,
            "contours": ", ".join(self.parts),
            "mass": summarise(self.mass),
            "edges": summarise(self.edges),
        }
        return [(name, text) for name, text in told.items() if text]

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows of ``reach.csv``: one per contour, mass and island."""
        return _pandas().DataFrame(list(self.rows))

    def plot(self, *, limits: bool = True, ax: Axes | None = None) -> Axes:
        """Draw all signal, its measured part and what is observed.

        All signal is hatched where less than half of it was measured, crossed where less than 5 % was.
        """
        from gammastar.report import Contour, reach_figure
        from gammastar.report.dark import domain_of

        if self.name == IN_SITU:
            return _drawn(partial(self._peaks, limits=limits), ax)
        plane, fraction = self.about["plane"](), self.about["fraction"]
        domain = None if plane is None or fraction is None else domain_of(plane)
        kind: Any = "expected" if fraction is None else "extrapolated"
        along = None if ax is not None else fraction
        contours = [Contour("all signal", self, kind, bands=self.bands, fraction=along, domain=domain)]
        if MEASURED in self.parts:
            contours.append(Contour("measured domain only", self.parts[MEASURED], "measured"))
        if OBSERVED in self.parts:
            contours.append(Contour("observed", self.parts[OBSERVED], "observed"))
        options = self.options(limits=limits)
        options["plane"] = replace(options["plane"], title=self.detector)
        return _drawn(partial(reach_figure, contours, **options), ax)

    @property
    def detector(self) -> str:
        """Name of the detector, or of the search in the measured pairs, as the run wrote it."""
        start = ("MOCK ", "expected reach ")
        return self.label.partition("reach, ")[2] or self.label.removeprefix(start[0]).removeprefix(start[1])

    @property
    def sentence(self) -> str:
        """What is reached, of which couplings, with how many protons on target."""
        pot, cl = f"{self.about['pot']:.3g} protons on target", f"{100 * self.about['cl']:.3g} % CL"
        start = f"{self.detector}, {pot}, {cl}"
        limit = f"; expected limit {self.expected_limit[2]:.3g} events" if self.expected_limit else ""
        reached = np.isfinite(self.edges).all(axis=1)
        if not reached.any():
            return f"{start}: nothing is reached{limit}"
        ends = [(one.low, one.high) for one in self.intervals] or [(m, m) for m in self.mass[reached]]
        low, high = min(end[0] for end in ends), max(end[1] for end in ends)
        weakest, strongest = self.edges[reached].min(), self.edges[reached].max()
        masses = f"masses from {low:.3g} to {high:.3g} GeV"
        return f"{start}: {masses}, {self.labels.coupling} from {weakest:.2g} to {strongest:.2g}{limit}"

    @property
    def labels(self) -> Labels:
        """Names of particle and coupling."""
        from gammastar.predict.models import Labels

        return Labels(**self.about["model"])

    def options(self, *, limits: bool) -> dict[str, Any]:
        """Return what every figure of reaches of this model needs; `limits`: grey areas of published ones."""
        from gammastar.report import Plane, existing_limits

        labels = self.labels
        published = existing_limits() if limits and labels.limits == "published" else []
        return {
            "mock": self.mock,
            "pot": self.about["pot"],
            "cl": self.about["cl"],
            "limits": [limit.curve for limit in published],
            "plane": Plane(mass_label=labels.mass_axis, coupling_label=labels.coupling_axis),
        }

    def _peaks(self, *, limits: bool) -> Figure:
        from gammastar.report import existing_limits
        from gammastar.report.figures.limits import coupling_figure

        curves = [limit.curve for limit in existing_limits()] if limits else []
        bands = [[row[f"low_{band}"] for band in BANDS] for row in self.rows]
        expected = np.array(bands, dtype=np.float64)  # None is nan
        return coupling_figure(self.mass, expected, mock=self.mock, cl=self.about["cl"], limits=curves)
