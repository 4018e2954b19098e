"""Limits of other experiments, with their citations, for the grey areas of reach figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gammastar.core.documents import from_toml
from gammastar.core.errors import InputFileError
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray

__all__ = ["ExistingLimit", "citations", "existing_limits", "read_limit"]

SHIPPED = (
    *("dark_photon_faser_2023", "dark_photon_na62_dump_ee_2023"),
    *("dark_photon_charm_recomputed", "dark_photon_nucal_recomputed"),
)
TEXTS = ("name", "plane", "kind", "citation", "reference", "source", "licence")


@dataclass(frozen=True, slots=True, eq=False)
class ExistingLimit:
    """A published limit.

    Attributes
    ----------
    name : str
        As written into the figure.
    plane : str
        Model whose plane it belongs to: ``"dark_photon"``, ``"millicharge"``, …
    kind : str
        ``"observed"``, ``"projection"`` or ``"recast"``.
    citation, reference : str
        Publication, and its arXiv number or DOI.
    source, licence : str
        Where the numbers were taken from, and under which licence.
    polygon : NDArray, shape (n, 2)
        Mass [GeV] and coupling; open curves are closed towards large couplings.
    """

    name: str
    plane: str
    kind: str
    citation: str
    reference: str
    source: str
    licence: str
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
    """Read a limit from a TOML file.

    Parameters
    ----------
    path : Path
        With the texts of `ExistingLimit`, ``closed`` (true or false), and the lists ``mass`` [GeV] and
        ``coupling``.

    Raises
    ------
    InputFileError
        If the file is missing or no TOML, or a key is missing or not of its kind.
    """
    try:
        content = from_toml(path)
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read as TOML ({error})"
        raise InputFileError(msg) from error
    unknown = set(content) - {*TEXTS, "closed", "mass", "coupling", "changes"}
    missing = {*TEXTS, "closed", "mass", "coupling"} - set(content)
    if unknown or missing:
        msg = f"{path}: missing keys {sorted(missing)}, unknown keys {sorted(unknown)}"
        raise InputFileError(msg)
    if not all(isinstance(content[key], str) and content[key] for key in TEXTS):
        msg = f"{path}: each of {', '.join(TEXTS)} must be a text; a limit without its source is not drawn"
        raise InputFileError(msg)
    try:
        points = np.array([content["mass"], content["coupling"]], dtype=np.float64).T
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"{path}: mass and coupling must be equally long lists of numbers ({error})"
        raise InputFileError(msg) from error
    if points.ndim != 2 or len(points) < 2 or not np.all(np.isfinite(points) & (points > 0)):
        msg = f"{path}: mass and coupling must be at least two positive, finite numbers each"
        raise InputFileError(msg)
    if not content["closed"]:
        above = np.array([[points[-1, 0], 1.0], [points[0, 0], 1.0]])
        points = np.vstack([points, above])
    return ExistingLimit(**{key: content[key] for key in TEXTS}, polygon=points)


def existing_limits(
    plane: str = "dark_photon", *, directory: Path | None = None, kinds: Iterable[str] = ("observed",)
) -> list[ExistingLimit]:
    """Return the shipped limits of a plane and those of a user's directory.

    Parameters
    ----------
    plane : str
    directory : Path, optional
        Further files, one limit each. What may not be shipped for its licence can be drawn from here.
    kinds : iterable of str

    Returns
    -------
    list of ExistingLimit

    Examples
    --------
    >>> [(limit.name, limit.reference) for limit in existing_limits()]
    [('FASER', 'arXiv:2308.05587'), ('NA62', 'arXiv:2312.12055')]
    """
    if directory is not None and not directory.is_dir():
        msg = f"{directory}: no such directory of limits"
        raise InputFileError(msg)
    own = [] if directory is None else sorted(directory.glob("*.toml"))
    found = [read_limit(path) for path in (*(data_path(f"limits/{name}.toml") for name in SHIPPED), *own)]
    wanted = set(kinds)
    return [limit for limit in found if limit.plane == plane and limit.kind in wanted]
