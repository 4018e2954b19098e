"""Limits of other experiments, with their citations, for the grey areas of reach figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from gammastar.core.errors import InputFileError
from gammastar.core.files import Pathlike, data_path, from_toml
from gammastar.core.records import FloatArray

SHIPPED = (
    *("dark_photon_faser_2023", "dark_photon_na62_dump_ee_2023"),
    *("dark_photon_charm_recomputed", "dark_photon_nucal_recomputed"),
)
LENGTHS = {  # from the target to the decay volume and its length [m]
    "FASER": (476.0, 1.5),  # arXiv:2308.05587
    "NA62": (81.6, 77.9),  # arXiv:2312.12055
    "CHARM (recomputed)": (480.0, 35.0),  # Phys. Lett. B 157 (1985) 458
    "NuCal (recomputed)": (64.0, 23.0),  # Z. Phys. C 51 (1991) 341
}
TEXTS = ("name", "plane", "kind", "citation", "reference", "source", "licence")


@dataclass(frozen=True, slots=True, eq=False)
class ExistingLimit:
    """A published limit."""

    name: str  # As written into the figure
    plane: str  # Model whose plane it belongs to: ``"dark_photon"``, ``"millicharge"``, …
    kind: str  # ``"observed"``, ``"projection"`` or ``"recast"``
    # Publication, and its arXiv number or DOI
    citation: str
    reference: str
    # Where the numbers were taken from, and under which licence
    source: str
    licence: str
    # Mass [GeV] and coupling; open curves are closed towards large couplings, shape (n, 2)
    polygon: FloatArray

    @property
    def curve(self) -> tuple[str, FloatArray]:
        """Label and polygon, as `reach_figure` takes them."""
        return self.name, self.polygon


def citations(limits: Iterable[ExistingLimit]) -> str:
    """Return one line with the references of limits, for captions.

    Examples
    --------
    >>> citations(existing_limits())
    'FASER [arXiv:2308.05587]; NA62 [arXiv:2312.12055]'
    """
    return "; ".join(f"{limit.name} [{limit.reference}]" for limit in limits)


def read_limit(path: Path) -> ExistingLimit:
    """Read a limit from a TOML file."""
    try:
        content = from_toml(path)
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: cannot be read as TOML ({error})") from error
    unknown = set(content) - {*TEXTS, "closed", "mass", "coupling", "changes"}
    missing = {*TEXTS, "closed", "mass", "coupling"} - set(content)
    if unknown or missing:
        raise InputFileError(f"{path}: missing keys {sorted(missing)}, unknown keys {sorted(unknown)}")
    if not all(isinstance(content[key], str) and content[key] for key in TEXTS):
        raise InputFileError(
            f"{path}: each of {', '.join(TEXTS)} must be a text; a limit without its source is not drawn"
        )
    try:
        points = np.array([content["mass"], content["coupling"]], dtype=np.float64).T
    except (TypeError, ValueError, OverflowError) as error:
        raise InputFileError(
            f"{path}: mass and coupling must be equally long lists of numbers ({error})"
        ) from error
    if points.ndim != 2 or len(points) < 2 or not np.all(np.isfinite(points) & (points > 0)):
        raise InputFileError(f"{path}: mass and coupling must be at least two positive, finite numbers each")
    if not content["closed"]:
        above = np.array([[points[-1, 0], 1.0], [points[0, 0], 1.0]])
        points = np.vstack([points, above])
    return ExistingLimit(**{key: content[key] for key in TEXTS}, polygon=points)


def existing_limits(
    plane: str = "dark_photon", *, directory: Pathlike | None = None, kinds: Iterable[str] = ("observed",)
) -> list[ExistingLimit]:
    """Return the shipped limits of a plane and those of a user's directory.

    Parameters
    ----------
    directory : path, optional
        Further files, one limit each. What may not be shipped for its licence can be drawn from here.

    Examples
    --------
    >>> [(limit.name, limit.reference) for limit in existing_limits()]
    [('FASER', 'arXiv:2308.05587'), ('NA62', 'arXiv:2312.12055')]
    """
    directory = None if directory is None else Path(directory)
    if directory is not None and not directory.is_dir():
        raise InputFileError(f"{directory}: no such directory of limits")
    own = [] if directory is None else sorted(directory.glob("*.toml"))
    found = [read_limit(path) for path in (*(data_path(f"limits/{name}.toml") for name in SHIPPED), *own)]
    wanted = set(kinds)
    return [limit for limit in found if limit.plane == plane and limit.kind in wanted]


def edges_of(polygon: FloatArray, mass: FloatArray) -> FloatArray:
    """Return the lowest and highest coupling of a closed polygon at masses, shape (n, 2); nan outside it."""
    low, high = np.full(len(mass), np.inf), np.full(len(mass), -np.inf)
    x, y = polygon[:, 0], np.log(polygon[:, 1])
    for (x0, y0), (x1, y1) in pairwise(zip([*x, x[0]], [*y, y[0]], strict=True)):
        if x0 != x1:
            part = (mass - x0) / (x1 - x0)
            at = np.where((part >= 0) & (part <= 1), y0 + part * (y1 - y0), np.nan)
            low, high = np.fmin(low, at), np.fmax(high, at)
    edges = np.exp(np.stack([low, high], axis=1))
    edges[~(low < high - 1e-6)] = np.nan
    return np.asarray(edges, dtype=np.float64)


def recast(
    limits: Iterable[ExistingLimit],
    plane: str,
    carry: Callable[[FloatArray, FloatArray, float], FloatArray],
    *,
    highest: float,
    points: int = 60,
) -> list[ExistingLimit]:
    """Return limits carried over to another model, of kind "recast", one for each island."""
    found = []
    for limit in limits:
        near, length = LENGTHS[limit.name]
        low, high = limit.polygon[:, 0].min(), min(limit.polygon[:, 0].max(), highest)
        mass = np.geomspace(low * 1.001, high * 0.999, points)
        edges = edges_of(limit.polygon, mass)
        inside = np.isfinite(edges).all(axis=1)
        mass, edges = mass[inside], edges[inside]
        new = carry(mass, edges, (near + length) / near)
        name = f"{limit.name.removesuffix(' (recomputed)')} (recast)"
        found += [
            replace(limit, name=name, plane=plane, kind="recast", polygon=polygon)
            for polygon in _islands(mass, new)
        ]
    return found


def _islands(mass: FloatArray, edges: FloatArray) -> list[FloatArray]:
    """Return closed polygons of runs of two masses or more with finite edges."""
    good = np.asarray(np.isfinite(edges).all(axis=1), dtype=np.bool_)
    runs = np.split(np.arange(len(mass)), np.flatnonzero(np.diff(good)) + 1)
    polygons = []
    for run in runs:
        if len(run) > 1 and good[run[0]]:
            lower = np.stack([mass[run], edges[run, 0]], axis=1)
            upper = np.stack([mass[run], edges[run, 1]], axis=1)
            polygons.append(np.concatenate([lower, upper[::-1]]))
    return polygons
