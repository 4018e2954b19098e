"""Spectra, reaches and histograms as files: JSON with covariance, ROOT, CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import uproot
from hist import Hist

from gammastar.core.axes import filled, variable
from gammastar.core.documents import cell
from gammastar.core.errors import PhysicsError, StoreError
from gammastar.core.files import atomic
from gammastar.core.records import Exposure, Spectrum
from gammastar.store.manifest import read_json, write_json

__all__ = ["read_spectrum", "write_histograms", "write_spectrum", "write_table"]


def write_spectrum(path: Path, spectrum: Spectrum) -> None:
    """Write a spectrum as JSON in the UHI layout with its covariance, exposure and domain."""
    hist = spectrum.hist
    content = {
        "uhi_schema": 1,
        "axes": [
            {"type": "variable", "edges": axis.edges.tolist(), "metadata": {"name": axis.name}}
            for axis in hist.axes
        ],
        "storage": {
            "type": "weighted",
            "values": hist.values().tolist(),
            "variances": np.asarray(hist.variances()).tolist(),
        },
        "metadata": {
            "quantity": spectrum.quantity,
            "exposure": None if spectrum.exposure is None else asdict(spectrum.exposure),
        },
        "covariance": spectrum.cov.tolist(),
        "domain": spectrum.domain.astype(int).tolist(),
    }
    write_json(path, content, indent=None)


def read_spectrum(path: Path) -> Spectrum:
    """Read what `write_spectrum` wrote.

    Raises
    ------
    StoreError
        If the file is damaged or lacks a key.
    """
    content = read_json(path)
    try:
        axes = tuple(variable(axis["metadata"]["name"], axis["edges"]) for axis in content["axes"])
        storage, metadata = content["storage"], content["metadata"]
        exposure = metadata["exposure"]
        return Spectrum(
            hist=filled(axes, np.asarray(storage["values"]), np.asarray(storage["variances"])),
            cov=np.asarray(content["covariance"], dtype=np.float64),
            quantity=metadata["quantity"],
            exposure=None if exposure is None else Exposure(**exposure),
            domain=np.asarray(content["domain"], dtype=bool),
        )
    except (LookupError, TypeError, ValueError, ArithmeticError, PhysicsError) as error:
        msg = f"{path}: is not a spectrum ({error})"
        raise StoreError(msg) from error


def write_histograms(path: Path, histograms: Mapping[str, Hist[Any]]) -> None:
    """Write histograms as TH1 and TH2 with their variances (three axes are projected onto the first)."""
    with atomic(path) as temporary, uproot.recreate(temporary) as file:
        for name, hist in histograms.items():
            file[name] = hist if hist.ndim <= 2 else hist.project(hist.axes[0].name)


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length as CSV; names that look like formulae get an apostrophe."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        msg = f"{path}: columns of different length {lengths}"
        raise StoreError(msg)
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(map(cell, columns))
        writer.writerows(map(cell, row) for row in zip(*columns.values(), strict=True))
