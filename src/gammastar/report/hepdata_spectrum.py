"""A measured mass spectrum as a record of HEPData: bins, named errors, covariance, files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gammastar.core.axes import MASS
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Spectrum
from gammastar.report.hepdata import Submission, document_text, write_files

SPECTRUM = "Mass spectrum"
COVARIANCE = f"{SPECTRUM}, covariance"  # `read.hepdata` looks for this name
STATISTICAL = "stat"
NAMES = {
    "counts": "dN/dm",
    "per_pot": "dN/dm per proton on target",
    "per_interaction": "dN/dm per interaction",
}


def write_spectrum_record(
    directory: Path,
    spectrum: Spectrum,
    submission: Submission,
    *,
    resources: Mapping[str, tuple[str, bytes]] | None = None,
) -> list[Path]:
    """Write the record of a mass spectrum: ``submission.yaml``, the spectrum, its covariance, other files.

    Notes
    -----
    Numbers are densities [1/GeV]. Each named source is a signed error that moves all bins together; "stat" is
    the diagonal of what the covariance holds beside them. `read.hepdata` finds the covariance by the name of
    its table, so that `read.published_spectrum` returns contents, covariance and sources as they were.
    """
    if [axis.name for axis in spectrum.hist.axes] != [MASS]:
        raise PhysicsError(
            f"write_spectrum_record: axes {[axis.name for axis in spectrum.hist.axes]}; give {MASS!r} alone"
        )
    edges = np.asarray(spectrum.hist.axes[0].edges, dtype=np.float64)
    width = np.diff(edges)
    cov = spectrum.cov / np.outer(width, width)
    shifts = {name: shift / width for name, shift in spectrum.shifts.items()}
    bins = [
        {"low": low, "high": high} for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    qualifiers = [{"name": name, "value": value} for name, value in submission.qualifiers.items()]
    column = NAMES[spectrum.quantity]
    header = {"name": "Mass", "units": "GeV"}
    table = {
        "independent_variables": [{"header": header, "values": bins}],
        "dependent_variables": [
            {
                "header": {"name": column, "units": "1/GeV"},
                "qualifiers": qualifiers,
                "values": _entries(spectrum.values / width, cov, shifts),
            }
        ],
    }
    n = len(width)
    pairs = {
        "independent_variables": [
            {"header": header, "values": [one for one in bins for _ in range(n)]},
            {"header": header | {"name": "Mass of the other bin"}, "values": bins * n},
        ],
        "dependent_variables": [
            {
                "header": {"name": f"Covariance of {column}", "units": "1/GeV^2"},
                "values": [{"value": value} for value in cov.ravel().tolist()],
            }
        ],
    }
    extra = dict(resources or {})
    head: dict[str, Any] = {"comment": f"{submission.title}\n\n{submission.abstract}"}
    if extra:
        head["additional_resources"] = [
            {"location": name, "description": text} for name, (text, _) in extra.items()
        ]
    files = {
        "mass_spectrum.yaml": document_text(table).encode(),
        "covariance.yaml": document_text(pairs).encode(),
    }
    together = ", ".join(shifts) or "none"
    listed = [
        _listed(
            SPECTRUM,
            f"{submission.title}. {submission.method} Errors that move all bins together: {together}. The "
            f"whole covariance, these included, is the table {COVARIANCE!r}.",
            "mass_spectrum.yaml",
            submission,
        ),
        _listed(COVARIANCE, f"Covariance of the table {SPECTRUM!r}.", "covariance.yaml", submission),
    ]
    files |= {name: content for name, (_, content) in extra.items()}
    return write_files(directory, [head, *listed], files)


def _entries(density: FloatArray, cov: FloatArray, shifts: Mapping[str, FloatArray]) -> list[dict[str, Any]]:
    """Return values with the rest of the variance as "stat" and the signed shift of each source."""
    rest = np.diag(cov) - np.sum([shift**2 for shift in shifts.values()], axis=0)
    alone = np.sqrt(np.clip(rest, 0.0, None)).tolist()
    return [
        {
            "value": value,
            "errors": [
                {"symerror": alone[i], "label": STATISTICAL},
                *(
                    {"asymerror": {"minus": -float(row[i]), "plus": float(row[i])}, "label": name}
                    for name, row in shifts.items()
                ),
            ],
        }
        for i, value in enumerate(density.tolist())
    ]


def _listed(name: str, description: str, place: str, submission: Submission) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "keywords": [
            {"name": "reactions", "values": [submission.reaction]},
            {"name": "observables", "values": ["DN/DM"]},
            {"name": "phrases", "values": list(submission.phrases)},
        ],
        "data_file": place,
    }
