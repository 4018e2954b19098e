"""Particles in cells of angle and momentum, as FORESEE tabulates them, and mesons with such spectra.

A file holds one line per cell: log10 of the angle to the beam [rad], log10 of the momentum [GeV], and the
cross section of the cell [pb] (FORESEE, arXiv:2105.07077, ``files/hadrons``). Spectra of long-lived particles
are the same three rows as an array of numpy (``model/LLP_spectra``). Angles count in the forward hemisphere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core import constants
from gammastar.core.documents import opened, text_of
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.files import Pathlike, atomic
from gammastar.core.records import BoolArray, FloatArray

PB_PER_MB = 1e9
LARGEST = 256 << 20  # bytes of one table
NAMES: Mapping[int, str] = MappingProxyType(
    {111: "pi0", 221: "eta", 331: "eta_prime", 113: "rho", 223: "omega", 333: "phi", 443: "jpsi"}
)
"""Mesons by their PDG number as the tables of decays name them."""
FILE = re.compile(r".*_(-?\d+)\.(txt|npy)")
LOGARITHMS = (-12.0, 1.0), (-6.0, 6.0)  # of angles [rad] and momenta [GeV] that a table may hold


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Particles in cells of log10 angle and log10 momentum, evenly spread inside each.

    Attributes
    ----------
    log_angle, log_momentum : NDArray, shape (n,)
        Centres of the cells: log10 of the angle to the beam [rad] and of the momentum [GeV].
    weight : NDArray, shape (n,)
        Content of each cell; not negative.
    width : tuple of float
        Of a cell, in both logarithms.
    """

    log_angle: FloatArray
    log_momentum: FloatArray
    weight: FloatArray
    width: tuple[float, float]

    @property
    def total(self) -> float:
        """Sum of the contents."""
        return float(self.weight.sum())

    def within(self, *, max_angle: float = np.inf, min_momentum: float = 0.0) -> Cells:
        """Return the cells that a detector needs; a cell belongs to them if a part of it does.

        Parameters
        ----------
        max_angle : float [rad]
        min_momentum : float [GeV]

        Notes
        -----
        The sums that follow count these cells alone: choose the limits so wide that a decay cannot bring
        what is left out back into the detector.
        """
        with np.errstate(divide="ignore"):
            keep = (self.log_angle - self.width[0] / 2 < np.log10(max_angle)) & (
                self.log_momentum + self.width[1] / 2 > np.log10(min_momentum)
            )
        return self._kept(keep)

    def _kept(self, keep: BoolArray) -> Cells:
        return replace(
            self,
            log_angle=self.log_angle[keep],
            log_momentum=self.log_momentum[keep],
            weight=self.weight[keep],
        )

    def sample(self, mass: npt.ArrayLike, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw px, py, pz, E [GeV], shape (4, n), of particles of this mass, of equal weight.

        Raises
        ------
        PhysicsError
            If all cells are empty.
        """
        if not self.total > 0:
            msg = "a table of angles and momenta holds nothing: every cell is empty"
            raise PhysicsError(msg)
        index = rng.choice(len(self.weight), size=n, p=self.weight / self.total)
        theta = 10 ** (self.log_angle[index] + self.width[0] * rng.uniform(-0.5, 0.5, n))
        p = 10 ** (self.log_momentum[index] + self.width[1] * rng.uniform(-0.5, 0.5, n))
        phi = rng.uniform(-np.pi, np.pi, n)
        pt = p * np.sin(theta)
        energy = np.hypot(p, np.asarray(mass, dtype=np.float64))
        return np.stack([pt * np.cos(phi), pt * np.sin(phi), p * np.cos(theta), energy])


def read_cells(path: Pathlike) -> Cells:
    """Read a table of three columns (text, comments behind ``#``) or an array of three rows (``.npy``).

    Raises
    ------
    InputFileError
        If it is missing or damaged, holds what is no cross section, or its cells are no regular grid.

    Notes
    -----
    The width of a cell is the step between the centres, 0.05 in the files of FORESEE.
    """
    path = Path(path)
    try:
        if path.suffix == ".npy":
            with opened(path, LARGEST) as stream:
                found: Any = np.load(stream, allow_pickle=False)
        else:
            found = np.loadtxt(text_of(path, LARGEST).splitlines(), comments="#", ndmin=2).T
        columns = np.asarray(found, dtype=np.float64)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        msg = f"{path}: is no table of log10 angle, log10 momentum and cross section ({error})"
        raise InputFileError(msg) from error
    if columns.ndim != 2 or len(columns) != 3 or columns.shape[1] < 2:
        msg = f"{path}: expected log10 angle, log10 momentum and cross section, found shape {columns.shape}"
        raise InputFileError(msg)
    bad = ~np.isfinite(columns).all(axis=0) | (columns[2] < 0)
    for row, (low, high), name in zip(columns, LOGARITHMS, ("angle", "momentum"), strict=False):
        outside = ~((row >= low) & (row <= high)) & ~bad
        if outside.any():
            value = row[outside][0]
            msg = f"{path}: log10 {name} = {value:g} lies outside {low:g} to {high:g}; give rad and GeV"
            raise InputFileError(msg)
    if bad.any():
        where = int(np.argmax(bad))
        msg = f"{path}: cell {where}: {columns[:, where].tolist()}; contents must be finite, not negative"
        raise InputFileError(msg)
    angle, momentum, content = columns
    return Cells(angle, momentum, content, (_step(path, angle, "angle"), _step(path, momentum, "momentum")))


def _step(path: Path, centres: FloatArray, name: str) -> float:
    """Return the distance of neighbouring centres; refuse cells of different sizes."""
    steps = np.diff(np.unique(centres.round(6)))
    if not len(steps) or not np.allclose(steps / steps.min(), np.round(steps / steps.min()), atol=1e-2):
        msg = f"{path}: log10 {name} has no even steps ({steps[:5].tolist()} …), so that cells have no width"
        raise InputFileError(msg)
    return float(steps.min())


def write_cells(path: Path, cells: Cells, note: str = "") -> None:
    """Write cells as FORESEE reads them: ``.npy`` of three rows, or text of three columns below a note."""
    rows = np.stack([cells.log_angle, cells.log_momentum, cells.weight])
    with atomic(path) as temporary:
        if path.suffix == ".npy":
            np.save(temporary, rows)
        else:
            header = "\n".join([*note.splitlines(), "log10(theta) log10(p/GeV) cross-section[pb/bin]"])
            np.savetxt(temporary, rows.T, fmt="%12.5e", header=header, comments="# ", encoding="utf-8")


@dataclass(frozen=True, slots=True, eq=False)
class MesonSpectrum:
    """A meson with a tabulated spectrum, in the place of a `gammastar.physics.mesons.Meson`.

    Attributes
    ----------
    cells : Cells
        Cross section [pb] of each cell.
    per_cross_section : float
        Mesons per interaction and pb; 1 leaves cross sections, for a luminosity in the place of protons.
    sigma : float
        Relative uncertainty of the cross section.
    """

    pdg: int
    cells: Cells
    per_cross_section: float = 1.0
    sigma: float = 0.0

    @property
    def per_interaction(self) -> float:
        """Mesons per inelastic interaction, or their cross section [pb]."""
        return self.cells.total * self.per_cross_section

    @property
    def mass(self) -> float:
        """Mass [GeV]."""
        return constants.mass(self.pdg)

    def sample(
        self,
        mass: npt.ArrayLike,
        n: int,
        beam_energy: float,  # noqa: ARG002 - the table is of one beam
        rng: np.random.Generator,
    ) -> FloatArray:
        """Draw px, py, pz, E [GeV], shape (4, n), for an (off-shell) mass: angle and momentum stay."""
        return self.cells.sample(mass, n, rng)


def read_meson_spectra(
    folder: Pathlike, *, sigma_inelastic: float | None = None, sigma: float = 0.0
) -> dict[str, MesonSpectrum]:
    """Read the spectra of one generator, ``<generator>_<energy>TeV_<PDG number>.txt``, in a folder.

    Parameters
    ----------
    folder : path
        ``files/hadrons/14TeV/EPOSLHC`` of FORESEE, or one's own in that form.
    sigma_inelastic : float, optional
        Inelastic cross section [mb]: counts mesons per interaction. Without, they count as cross sections.
    sigma : float
        Relative uncertainty of all cross sections; generators differ by some 30 %.

    Returns
    -------
    dict
        π⁰, η, η', ρ, ω, φ and J/ψ that are there, by the names of `NAMES`; other hadrons are passed over.

    Raises
    ------
    InputFileError
        If the folder is missing or holds none of them, one of them twice, or a file is damaged.
    """
    folder = Path(folder)
    if sigma_inelastic is not None and not 0 < sigma_inelastic < np.inf:
        msg = f"sigma_inelastic = {sigma_inelastic!r} mb must be positive"
        raise PhysicsError(msg)
    if not (np.isfinite(sigma) and sigma >= 0):
        msg = f"sigma = {sigma!r}: the relative error of the mesons must be finite and not negative"
        raise PhysicsError(msg)
    scale = 1.0 if sigma_inelastic is None else 1.0 / (sigma_inelastic * PB_PER_MB)
    found: dict[str, tuple[Path, MesonSpectrum]] = {}
    for path in sorted(folder.glob("*_*.*")):
        match = FILE.fullmatch(path.name)
        name = NAMES.get(int(match[1])) if match else None
        if match is None or name is None:
            continue
        if name in found:
            msg = f"{folder}: {found[name][0].name} and {path.name} are both of the {name}; keep one of them"
            raise InputFileError(msg)
        found[name] = path, MesonSpectrum(int(match[1]), read_cells(path), scale, sigma)
    if not found:
        known = ", ".join(map(str, NAMES))
        msg = f"{folder}: no spectra <generator>_<energy>TeV_<PDG number>.txt of {known} in it"
        raise InputFileError(msg)
    return {name: spectrum for name, (_, spectrum) in found.items()}
