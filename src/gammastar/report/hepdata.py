"""Records for HEPData: contours with their likelihood, a mass spectrum with its covariance.

HEPData's own validator accepts NaN and unsorted tables; they are refused here before anything is written.
"""

from __future__ import annotations

import gzip
import importlib
import io
import json
import math
import tarfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gammastar.core.errors import PhysicsError, StoreError, require
from gammastar.core.files import Pathlike, plain, shortened, write_whole
from gammastar.core.records import MASS, FloatArray, Reach, Spectrum

Likelihood: TypeAlias = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Background-only workspace and patch set."""
Content: TypeAlias = dict[str, Any]
BANDS = ("-2 sigma", "-1 sigma", "median", "+1 sigma", "+2 sigma")
SIDES = ((0, "lower"), (1, "upper"))
ARCHIVE = "likelihood.tar.gz"
LONGEST_NAME = 60  # HEPData takes 64 characters
SPECTRUM = "Mass spectrum"
COVARIANCE = f"{SPECTRUM}, covariance"  # `read.hepdata` looks for this name
STATISTICAL = "stat"
NAMES = {
    "counts": "dN/dm",
    "per_pot": "dN/dm per proton on target",
    "per_interaction": "dN/dm per interaction",
}


@dataclass(frozen=True, slots=True)
class Submission:
    """What a submission says besides its numbers."""

    title: str
    abstract: str
    coupling: str  # Name of the coupling in table headings, e.g. "kinetic mixing epsilon"
    # Of every column, e.g. {"CL": 0.9, "POT": 1.4e17, "SQRT(S) [GeV]": 27.4}
    qualifiers: Mapping[str, str | float]
    reaction: str  # As HEPData's keyword, e.g. "P NUCLEUS --> DARKPHOTON X"
    method: str  # How the limits were computed
    phrases: tuple[str, ...] = ()  # Further keywords, e.g. ("Dark Photon",)


@dataclass(frozen=True, slots=True)
class _Record:
    """Tables and other files of a record, before they are written."""

    submission: Submission
    observable: str
    phrases: Sequence[str]
    tables: list[Content] = field(default_factory=list)
    resources: list[Content] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)

    def add_table(self, name: str, description: str, file: str, content: Content) -> None:
        keywords = {"reactions": [self.submission.reaction], "observables": [self.observable]}
        keywords["phrases"] = list(self.phrases)
        listed = [{"name": key, "values": values} for key, values in keywords.items()]
        entry = {"name": name, "description": description, "keywords": listed, "data_file": file}
        self.tables.append(entry)
        self.files[file] = _text(content).encode()

    def add_resource(self, name: str, description: str, content: bytes, **more: str) -> None:
        self.resources.append({"location": name, "description": description, **more})
        self.files[name] = content

    def write(self, directory: Path) -> list[Path]:
        """Write the files, then ``submission.yaml``; return the paths."""
        head: Content = {"comment": f"{self.submission.title}\n\n{self.submission.abstract}"}
        if self.resources:
            head["additional_resources"] = self.resources
        text = "\n---\n".join(_text(document) for document in (head, *self.tables)) + "\n"
        paths = []
        for name, content in {**self.files, "submission.yaml": text.encode()}.items():
            write_whole(directory / name, content)
            paths.append(directory / name)
        return paths


def write_submission(
    directory: Pathlike,
    reach: Reach,
    submission: Submission,
    *,
    likelihoods: Mapping[str, Likelihood] | None = None,
    others: Mapping[str, Reach] | None = None,
) -> list[Path]:
    """Write a submission: ``submission.yaml``, one table of the contour, the likelihood as an archive.

    Parameters
    ----------
    directory : path
        Made if it is missing.
    reach : Reach
        Masses at which nothing is reached are left out.
    others : mapping of str to Reach, optional
        Further contours by name (discoveries, projections), one table each; empty ones are left out.
    likelihoods : mapping of str to (workspace, patchset), optional
        HistFactory JSON; in ``likelihood.tar.gz`` each is ``BkgOnly.json`` and ``patchset.json`` in a folder
        of its name. That called "" stands in none.

    Returns
    -------
    list of Path
        The files; JSON texts, which are YAML.

    Raises
    ------
    PhysicsError
        For masses out of order, edges that are not positive or cross, qualifiers that are not finite, or a
        reach without any entry.
    StoreError
        If the folder holds tables of another submission, which would be taken for part of this one.
    """
    directory = Path(directory)
    contours = {"Contour": reach}
    for name, other in (others or {}).items():
        if np.isfinite(other.edges).all(axis=1).any():
            contours[shortened(f"Contour, {name}", LONGEST_NAME)] = other
    phrases = [shortened(phrase, 100) for phrase in submission.phrases]
    record = _Record(submission, "CLS", ["Upper limit", *phrases])
    for i, (name, contour) in enumerate(contours.items()):
        what = submission.method if name == "Contour" else name
        text = f"{submission.title}. {what}. {_clipped(contour)}"
        record.add_table(name, text, f"contour{i or ''}.yaml", _contour(contour, submission))
    if likelihoods:
        text = "Background-only HistFactory workspace and a patch per mass and coupling (test mu = 1)"
        if any(likelihoods):
            text += f"; one likelihood in each of {len(likelihoods)} folders"
        record.add_resource(ARCHIVE, text, _archive(likelihoods), type="HistFactory")
    foreign = sorted({path.name for path in directory.glob("contour*.yaml")} - set(record.files))
    holds = f"holds {', '.join(foreign[:3])} of another submission; give a folder without it"
    require(not foreign, f"{directory}: {holds}", StoreError)
    return record.write(directory)


def write_spectrum_record(
    directory: Path,
    spectrum: Spectrum,
    submission: Submission,
    *,
    resources: Mapping[str, tuple[str, bytes]] | None = None,
) -> list[Path]:
    """Write the record of a mass spectrum [1/GeV], its errors by source ("stat" the rest) and covariance."""
    axes = [axis.name for axis in spectrum.hist.axes]
    require(axes == [MASS], f"write_spectrum_record: axes {axes}; give {MASS!r} alone")
    edges = np.asarray(spectrum.hist.axes[0].edges, dtype=np.float64)
    width, n = np.diff(edges), len(edges) - 1
    cov = spectrum.cov / np.outer(width, width)
    shifts = {name: shift / width for name, shift in spectrum.shifts.items()}
    rest = np.diag(cov) - np.sum([shift**2 for shift in shifts.values()], axis=0)
    errors = [
        [
            {"symerror": stat, "label": STATISTICAL},
            *(
                {"asymerror": {"minus": -float(row[i]), "plus": float(row[i])}, "label": name}
                for name, row in shifts.items()
            ),
        ]
        for i, stat in enumerate(np.sqrt(np.clip(rest, 0.0, None)).tolist())
    ]
    density = (spectrum.values / width).tolist()
    entries = [{"value": x, "errors": each} for x, each in zip(density, errors, strict=True)]
    bins = [{"low": low, "high": high} for low, high in pairwise(edges.tolist())]
    column = NAMES[spectrum.quantity]
    record = _Record(submission, "DN/DM", submission.phrases)
    record.add_table(
        SPECTRUM,
        f"{submission.title}. {submission.method} Errors that move all bins together: "
        f"{', '.join(shifts) or 'none'}. The whole covariance, these included, is the table {COVARIANCE!r}.",
        "mass_spectrum.yaml",
        {
            "independent_variables": [_column("Mass", bins, units="GeV")],
            "dependent_variables": [
                _column(column, entries, units="1/GeV", qualifiers=_qualifiers(submission))
            ],
        },
    )
    both = ("Mass", [one for one in bins for _ in bins]), ("Mass of the other bin", bins * n)
    values = [{"value": value} for value in cov.ravel().tolist()]
    record.add_table(
        COVARIANCE,
        f"Covariance of the table {SPECTRUM!r}.",
        "covariance.yaml",
        {
            "independent_variables": [_column(*one, units="GeV") for one in both],
            "dependent_variables": [_column(f"Covariance of {column}", values, units="1/GeV^2")],
        },
    )
    for name, (text, content) in (resources or {}).items():
        record.add_resource(name, text, content)
    return record.write(directory)


def _text(content: Any) -> str:
    """Return JSON that YAML reads as the same: it takes a pair of escaped surrogates for two characters."""

    def printable(value: Any) -> Any:
        if isinstance(value, str):
            return plain(value)
        if isinstance(value, dict):
            return {key: printable(inner) for key, inner in value.items()}
        return [printable(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(printable(content), indent=1, allow_nan=False, ensure_ascii=False)


def _column(
    name: str, values: list[Content], *, units: str = "", qualifiers: list[Content] | None = None
) -> Content:
    more = {} if qualifiers is None else {"qualifiers": qualifiers}
    return {"header": {"name": name} | ({"units": units} if units else {}), **more, "values": values}


def _qualifiers(submission: Submission) -> list[Content]:
    return [{"name": name, "value": value} for name, value in submission.qualifiers.items()]


def _contour(reach: Reach, submission: Submission) -> Content:
    """Return the table: masses, both edges, and both edges of each expected limit."""
    start = "write_submission:"
    reached = np.isfinite(reach.edges).all(axis=1)
    mass, edges = reach.mass[reached], reach.edges[reached]
    require(len(mass), f"{start} nothing is reached, there is no contour to submit")
    ordered = np.isfinite(mass).all() and (mass > 0).all() and (np.diff(mass) >= 0).all()
    require(ordered, f"{start} masses must be positive, finite and in order")
    good = (edges > 0).all() and (edges[:, 0] <= edges[:, 1]).all()
    require(good, f"{start} each lower edge must be positive and not above its upper edge")
    for name, value in submission.qualifiers.items():
        finite = not isinstance(value, float) or math.isfinite(value)
        require(finite, f"{start} qualifier {name} = {value!r} must be finite")
    columns = {f"{submission.coupling}, {side} edge": edges[:, k] for k, side in SIDES}
    if reach.bands is not None:
        bands = [(i, label, k, side) for i, label in enumerate(BANDS) for k, side in SIDES]
        for i, label, k, side in bands:
            columns[f"{submission.coupling}, {side} edge, expected {label}"] = reach.bands[reached][:, i, k]
    errors: dict[str, FloatArray] = {}
    if reach.errors is not None:  # of log10 of the coupling, by source
        total = edges * math.log(10.0) * np.sqrt((reach.errors[reached] ** 2).sum(axis=2))
        errors = dict(zip(columns, total.T, strict=False))
    return {
        "independent_variables": [_column("Mass", [{"value": m} for m in mass.tolist()], units="GeV")],
        "dependent_variables": [
            _column(name, _entries(name, values, errors.get(name)), qualifiers=_qualifiers(submission))
            for name, values in columns.items()
        ],
    }


def _entries(name: str, values: FloatArray, errors: FloatArray | None) -> list[Content]:
    """Return the entries of a column, with their numerical errors where known: HEPData would drop zeros."""
    require(not np.isinf(values).any(), f"write_submission: column {name!r} holds an infinite number")
    entries: list[Content] = [{"value": "-" if math.isnan(value) else value} for value in values.tolist()]
    if errors is not None:
        good = not (np.isinf(errors).any() or (errors < 0).any())
        require(good, f"write_submission: errors of column {name!r} must be finite, not negative")
        for entry, error in zip(entries, errors.tolist(), strict=True):
            if error > 0:
                entry["errors"] = [{"symerror": error, "label": "numerical"}]
    return entries


def check_submission(directory: Pathlike) -> None:
    """Check a submission with HEPData's own validator and its bundled schemas: no network.

    Raises
    ------
    PhysicsError
        With the validator's messages.
    ImportError
        Without the package ``hepdata-validator``.
    """
    directory = Path(directory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the validator leaves files open
        warnings.simplefilter("ignore", DeprecationWarning)  # and imports names that jsonschema gives up
        package = importlib.import_module("hepdata_validator.full_submission_validator")
        validator = package.FullSubmissionValidator(autoload_remote_schemas=False)
        valid, messages = validator.validate(directory=str(directory)), validator.get_messages()
    if not valid:
        texts = "; ".join(str(m.message) for several in messages.values() for m in several)
        raise PhysicsError(f"{directory}: not valid for HEPData: {texts[:500]}")


def _clipped(reach: Reach) -> str:
    """Say where the scan ends before the contour does."""
    sides = sorted({side for entry in reach.clipped_side for side in entry.split(", ") if side})
    if not sides:
        return "The contour is closed inside the scan."
    return f"The scan ends before the contour on: {', '.join(sides)}."


def _archive(likelihoods: Mapping[str, Likelihood]) -> bytes:
    """Return a tar archive without time stamps: equal likelihoods give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder, documents in likelihoods.items():
            for name, document in zip(("BkgOnly.json", "patchset.json"), documents, strict=True):
                content = json.dumps(dict(document), allow_nan=False).encode()
                info = tarfile.TarInfo(f"{folder}/{name}" if folder else name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)
