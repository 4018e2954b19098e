"""Any table that can be written comes back, and any spectrum has the covariance of its sources."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from builders import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from gammastar import read
from gammastar.read.published import Column, Conventions, Origin, PublishedTable, TableAxis, TableError
from gammastar.read.published.table import energy_power

sys.path.insert(0, str(ROOT / "analysis"))

from validation.published_forms import differences, write_record

NUMBERS = st.floats(1e-9, 1e9)
LABELS = st.lists(st.sampled_from(["stat", "sys", "sys,lumi", "uncor", "model"]), unique=True, max_size=3)


@st.composite
def tables(draw):
    """A table of bins that join, positive values, and errors with signs."""
    n = draw(st.integers(1, 8))
    widths = draw(st.lists(st.floats(0.01, 10), min_size=n, max_size=n))
    edges = np.cumsum([draw(st.floats(0.1, 5)), *widths])
    low, high = edges[:-1], edges[1:]
    axis = TableAxis("mass", draw(st.sampled_from(["GeV", "MeV"])), low, high, 0.5 * (low + high))

    def row(numbers):
        return np.array(draw(st.lists(numbers, min_size=n, max_size=n)))

    errors = []
    for label in draw(LABELS):
        plus = row(NUMBERS)
        minus = -plus if draw(st.booleans()) else row(NUMBERS) * draw(st.sampled_from([-1, 1]))
        errors.append(TableError(label, minus, plus))
    column = Column("dN/dm", "1/GeV", row(NUMBERS), tuple(errors), np.zeros(n, dtype=bool))
    return PublishedTable("t", "", (axis,), (column,), Origin(Path("t.csv"), ""))


@pytest.mark.long
@settings(max_examples=25, deadline=None)
@given(tables())
def test_what_is_written_is_read(table):
    with tempfile.TemporaryDirectory() as folder:
        again = read.hepdata(write_record(Path(folder) / "r", [table]), 1)
        assert not list(differences(table, again))


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(tables(), st.floats(0.1, 10))
def test_a_spectrum_has_the_covariance_of_its_sources(table, scale):
    found = read.published_spectrum(table, None, Conventions(error=0.1, scale=scale))
    unit = energy_power(table.axes[0].unit)[0]
    width = (table.axes[0].high - table.axes[0].low) * unit
    assert np.allclose(found.spectrum.values, table.columns[0].values * width * scale, rtol=1e-9)
    assert np.allclose(found.spectrum.cov, found.sources.total(), rtol=1e-12)
    size = np.abs(np.diag(found.spectrum.cov)).max()
    assert np.linalg.eigvalsh(found.spectrum.cov)[0] > -1e-9 * size
    shifts = sum(
        (np.outer(row, row) for row in found.spectrum.shifts.values()), np.zeros_like(found.spectrum.cov)
    )
    rest = found.spectrum.cov - shifts
    assert np.abs(rest - np.diag(np.diag(rest))).max() <= 1e-9 * size  # the others are bin by bin


@given(st.sampled_from(["eV", "keV", "MeV", "GeV", "TeV"]), st.integers(1, 3), st.booleans())
def test_units_are_powers_of_an_energy(unit, power, inverse):
    size = {"eV": 1e-9, "keV": 1e-6, "MeV": 1e-3, "GeV": 1.0, "TeV": 1e3}[unit]
    sign = -1 if inverse else 1
    for text in (
        f"{unit}^{sign * power}",
        f"{unit.upper()}**{sign * power}",
        f"nb ({unit}/c^2)^{{{sign * power}}}",
    ):
        scale, found = energy_power(text)
        assert found == sign * power, text
        assert np.isclose(scale, size ** (sign * power), rtol=1e-9), text
    if inverse:
        assert energy_power(f"1/{unit}")[1] == -1
