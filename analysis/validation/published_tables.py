"""Rows of the topic `published`: every table at hand read from the command line, and back from every form."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from scipy.integrate import quad
from validation.published_forms import FORMS, contiguous, differences, write_record

from gammastar import read, report
from gammastar.cli import app
from gammastar.core import constants, records
from gammastar.core.files import data_path
from gammastar.core.records import Reach, Spectrum
from gammastar.pipeline.run import run
from gammastar.read.published import table_names
from gammastar.store.manifest import write_spectrum_files

DATA = Path(__file__).resolve().parents[2] / "data"
TABLES = tuple(sorted([*DATA.glob("published/*/*.csv"), *DATA.glob("measurements/**/*.csv")]))
OURS = "written and read back"
SQRT_S = 200.0  # GeV, of PHENIX, arXiv:0912.0244
PHENIX = """
[analysis]
name = "phenix"
[spectrum] # the beam that would give sqrt(s) = 200 GeV on a proton at rest
beam_energy = {beam}
target_a = 1.0
target_z = 1
thickness = 1e-3
pot = 1.0
lepton = "e"
[spectrum.table]
file = "phenix_2010/fig25"
quantity = "per_pot"
mass = [0.02, 0.15]
[predict]
mass_dependence = "bins"
masses = {masses}
"""


def table_rows() -> Iterator[dict]:
    """Yield the rows."""
    yield _row(
        "tables of data/ listed by `gammastar inspect`, no line of Python",
        sum(_inspected(path) for path in TABLES),
        len(TABLES),
        "files of data/published and data/measurements",
    )
    with tempfile.TemporaryDirectory() as folder:
        yield from _round_trips(Path(folder))
        yield from _ours(Path(folder))
        yield _phenix(Path(folder))


def _row(quantity: str, ours: float, expected: float, source: str, tolerance: float = 0.0) -> dict:
    named = {"quantity": quantity, "ours": float(ours), "expected": float(expected)}
    return named | {"tolerance": tolerance, "source": source}


def _inspected(path: Path) -> bool:
    """Return whether the command line shows every column of a table."""
    shown = CliRunner().invoke(app, ["inspect", str(path)]).output
    return all(repr(column.name) in shown for column in read.hepdata(path).columns)


def _round_trips(folder: Path) -> Iterator[dict]:
    tables = [read.hepdata(path) for path in TABLES]
    record = write_record(folder / "record", tables)
    same = sum(not list(differences(t, read.hepdata(record, k))) for k, t in enumerate(tables, 1))
    yield _row("of them the same from a HEPData record (submission.yaml)", same, len(tables), OURS)
    joined = [table for table in tables if contiguous(table)]
    for name, write, file in FORMS:
        back = [read.hepdata(write(folder / file, table)) for table in joined]
        same = sum(not list(differences(t, b, columns=1)) for t, b in zip(joined, back, strict=True))
        yield _row(f"of those with bins that join, the same from {name}", same, len(joined), OURS)


def _ours(folder: Path) -> Iterator[dict]:
    """Yield rows of what this package publishes itself: limits in a HEPData record, spectra as ROOT."""
    mass = np.linspace(0.3, 0.9, 7)
    edges = np.stack([1e-7 * mass, 1e-5 / mass], axis=1)
    bands = np.stack([edges * scale for scale in (0.8, 0.9, 1.0, 1.1, 1.2)], axis=1)
    flat, closed = np.ones(7), np.ones(7, bool)
    reach = Reach(mass, edges, flat, 2.3, closed, ("",) * 7, bands=bands, errors=np.full((7, 2, 3), 0.01))
    about = report.Submission("MOCK", "MOCK", "epsilon", {"SQRT(S) [GeV]": 27.4}, "P P --> X", "exact")
    report.write_submission(folder / "ours", reach, about, others={"projection": reach})
    found = [read.hepdata(folder / "ours", name) for name in table_names(folder / "ours")]
    worst = max(
        float(np.max(np.abs(column.values / expected - 1)))
        for table in found
        for column, expected in zip(table.columns, (*edges.T, *bands.reshape(7, 10).T), strict=True)
    )
    yield _row("tables of our own limits read from our HEPData record", len(found), 2, OURS)
    yield _row("largest relative difference of their edges and bands", worst, 0.0, OURS, 1e-12)
    grid = tuple(records.regular(name, n, 0.2, 1.2) for name, n in (("mass", 10), ("pt", 3), ("energy", 2)))
    values = np.arange(1.0, 61.0).reshape(10, 3, 2)
    hist = records.filled(grid, values, values)
    ours = Spectrum(hist, np.diag(values.ravel()), "per_pot", None, np.ones(values.shape, bool))
    write_spectrum_files(folder, ours, ours)
    names = table_names(folder / "spectrum.root")
    sums = [float(read.hepdata(folder / "spectrum.root", name).columns[0].values.sum()) for name in names]
    good = sum(abs(total / values.sum() - 1) < 1e-12 for total in sums)
    yield _row("tables of our own spectra read from spectrum.root", good, 5, OURS)


def _phenix(folder: Path) -> dict:
    """Return the row of a rate from a published table by a steering file alone."""
    m_p = constants.M_PROTON
    masses = [0.035, 0.0525, 0.085, 0.12]
    text = PHENIX.format(beam=(SQRT_S**2 - 2 * m_p**2) / (2 * m_p), masses=masses)
    (folder / "steering.toml").write_text(text)
    out = run(folder / "steering.toml", output=folder / "out")
    made = np.load(out / "stages" / "predict.npz")["value"]
    lines = data_path("published/phenix_2010/fig25.csv").read_text().splitlines()[3:]
    bins = np.array([[float(cell) for cell in line.split(",")[:3]] for line in lines])
    bins = bins[(bins[:, 0] >= 0.02) & (bins[:, 1] <= 0.15)]
    mean = [quad(_pairs, low, high)[0] / (high - low) for low, high, _ in bins]
    rates = bins[:, 2] / np.array(mean)
    expected = np.interp(masses, bins[:, :2].mean(axis=1), rates)
    worst = float(np.max(np.abs(made / expected - 1)))
    source = "dN/dm over the mean of 2κ/m in its bin, by quadrature"
    return _row("PHENIX e⁺e⁻ by a steering file alone: rate, largest deviation", worst, 0.0, source, 1e-5)


def _pairs(mass: float) -> float:
    """Return 2κ/m, κ = α/(3π) √(1 − 4x)(1 + 2x) with x = (m_e/m)²."""
    x = (constants.M_E / mass) ** 2
    return 2 * constants.ALPHA / (3 * np.pi) * np.sqrt(1 - 4 * x) * (1 + 2 * x) / mass
