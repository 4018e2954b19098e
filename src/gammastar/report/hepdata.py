"""Submissions to HEPData: contour tables and the likelihood, checked before anything is written."""

from __future__ import annotations

import gzip
import importlib
import io
import json
import math
import tarfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.documents import plain, shortened
from gammastar.core.errors import PhysicsError, StoreError
from gammastar.core.files import Pathlike, write_whole
from gammastar.core.records import Reach

Likelihood: TypeAlias = tuple[Mapping[str, Any], Mapping[str, Any]]
"""Background-only workspace and patch set."""
BANDS = ("-2 sigma", "-1 sigma", "median", "+1 sigma", "+2 sigma")
ARCHIVE = "likelihood.tar.gz"
LONGEST_NAME = 60  # HEPData takes 64 characters


@dataclass(frozen=True, slots=True)
class Submission:
    """What a submission says besides its numbers."""

    title: str
    abstract: str
    coupling: str  # Name of the coupling in table headings, e.g. ``"kinetic mixing epsilon"``
    # Of every column, e.g. ``{"CL": 0.9, "POT": 1.4e17, "SQRT(S) [GeV]": 27.4}``
    qualifiers: Mapping[str, str | float]
    reaction: str  # As HEPData's keyword, e.g. ``"P NUCLEUS --> DARKPHOTON X"``
    method: str  # How the limits were computed
    phrases: tuple[str, ...] = ()  # Further keywords, e.g. ``("Dark Photon",)``


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
        reach without any entry: HEPData's own validator accepts NaN and unsorted tables.
    StoreError
        If the folder holds tables of another submission, which would be taken for part of this one.
    """
    directory = Path(directory)
    contours = {"Contour": reach}
    for name, other in (others or {}).items():
        if np.isfinite(other.edges).all(axis=1).any():
            contours[shortened(f"Contour, {name}", LONGEST_NAME)] = other
    tables = {name: _contour(found, submission) for name, found in contours.items()}
    resources = []
    places = {name: f"contour{i or ''}.yaml" for i, name in enumerate(tables)}
    files: dict[str, bytes] = {places[name]: document_text(table).encode() for name, table in tables.items()}
    if likelihoods:
        files[ARCHIVE] = _archive(likelihoods)
        description = "Background-only HistFactory workspace and a patch per mass and coupling (test mu = 1)"
        if any(likelihoods):
            description += f"; one likelihood in each of {len(likelihoods)} folders"
        resources.append({"location": ARCHIVE, "description": description, "type": "HistFactory"})
    head: dict[str, Any] = {"comment": f"{submission.title}\n\n{submission.abstract}"}
    if resources:
        head["additional_resources"] = resources
    listed = [
        {
            "name": name,
            "description": f"{submission.title}. {submission.method if name == 'Contour' else name}. "
            f"{_clipped(contours[name])}",
            "keywords": [
                {"name": "reactions", "values": [submission.reaction]},
                {"name": "observables", "values": ["CLS"]},
                {
                    "name": "phrases",
                    "values": ["Upper limit", *(shortened(phrase, 100) for phrase in submission.phrases)],
                },
            ],
            "data_file": place,
        }
        for name, place in places.items()
    ]
    foreign = sorted({path.name for path in directory.glob("contour*.yaml")} - set(files))
    if foreign:
        raise StoreError(
            f"{directory}: holds {', '.join(foreign[:3])} of another submission; give a folder without it"
        )
    return write_files(directory, [head, *listed], files)


def write_files(
    directory: Path, documents: Sequence[Mapping[str, Any]], files: Mapping[str, bytes]
) -> list[Path]:
    """Write files of a record, then its ``submission.yaml`` of these documents; return the paths."""
    submission = "\n---\n".join(document_text(document) for document in documents).encode() + b"\n"
    paths = []
    for name, content in {**files, "submission.yaml": submission}.items():
        write_whole(directory / name, content)
        paths.append(directory / name)
    return paths


def document_text(content: Any) -> str:
    """Return JSON that YAML reads as the same: it takes a pair of escaped surrogates for two characters."""
    return json.dumps(_plain(content), indent=1, allow_nan=False, ensure_ascii=False)


def _plain(content: Any) -> Any:
    if isinstance(content, str):
        return plain(content)
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    return [_plain(value) for value in content] if isinstance(content, list) else content


def _contour(reach: Reach, submission: Submission) -> dict[str, Any]:
    """Return the table: masses, both edges, and both edges of each expected limit."""
    reached = np.isfinite(reach.edges).all(axis=1)
    mass, edges = reach.mass[reached], reach.edges[reached]
    if not len(mass):
        raise PhysicsError("write_submission: nothing is reached, there is no contour to submit")
    if not (np.isfinite(mass).all() and (mass > 0).all() and (np.diff(mass) >= 0).all()):
        raise PhysicsError("write_submission: masses must be positive, finite and in order")
    if not ((edges > 0).all() and (edges[:, 0] <= edges[:, 1]).all()):
        raise PhysicsError("write_submission: each lower edge must be positive and not above its upper edge")
    qualifiers = []
    for name, value in submission.qualifiers.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise PhysicsError(f"write_submission: qualifier {name} = {value!r} must be finite")
        qualifiers.append({"name": name, "value": value})
    errors = None if reach.errors is None else np.sqrt((reach.errors[reached] ** 2).sum(axis=2))
    columns = []
    for k, side in _SIDES:
        column = _column(f"{submission.coupling}, {side} edge", edges[:, k], qualifiers)
        if errors is not None:
            _add_errors(column, edges[:, k] * math.log(10.0) * errors[:, k])
        columns.append(column)
    if reach.bands is not None:
        bands = reach.bands[reached]
        columns += [
            _column(f"{submission.coupling}, {side} edge, expected {label}", bands[:, i, k], qualifiers)
            for i, label in enumerate(BANDS)
            for k, side in _SIDES
        ]
    masses = {"header": {"name": "Mass", "units": "GeV"}, "values": [{"value": m} for m in mass.tolist()]}
    return {"independent_variables": [masses], "dependent_variables": columns}


_SIDES = ((0, "lower"), (1, "upper"))


def _column(name: str, values: npt.NDArray[np.float64], qualifiers: list[dict[str, Any]]) -> dict[str, Any]:
    if np.isinf(values).any():
        raise PhysicsError(f"write_submission: column {name!r} holds an infinite number")
    entries = [{"value": "-" if math.isnan(value) else value} for value in values.tolist()]
    return {"header": {"name": name}, "qualifiers": qualifiers, "values": entries}


def _add_errors(column: dict[str, Any], errors: npt.NDArray[np.float64]) -> None:
    """Add numerical errors to the entries of a column where they are known (HEPData would drop zeros)."""
    if np.isinf(errors).any() or (errors < 0).any():
        raise PhysicsError(
            f"write_submission: errors of column {column['header']['name']!r} must be finite, not negative"
        )
    for entry, error in zip(column["values"], errors.tolist(), strict=True):
        if error > 0:
            entry["errors"] = [{"symerror": error, "label": "numerical"}]


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
        found = "; ".join(str(m.message) for several in messages.values() for m in several)
        raise PhysicsError(f"{directory}: not valid for HEPData: {found[:500]}")


def _clipped(reach: Reach) -> str:
    """Say where the scan ends before the contour does."""
    sides = sorted({side for entry in reach.clipped_side for side in entry.split(", ") if side})
    if not sides:
        return "The contour is closed inside the scan."
    return f"The scan ends before the contour on: {', '.join(sides)}."


def _archive(likelihoods: Mapping[str, Likelihood]) -> bytes:
    """Return a tar archive without time stamps: equal likelihoods give equal bytes."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for folder, documents in likelihoods.items():
            for name, document in zip(("BkgOnly.json", "patchset.json"), documents, strict=True):
                content = json.dumps(dict(document), allow_nan=False).encode()
                info = tarfile.TarInfo(f"{folder}/{name}" if folder else name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=0)
