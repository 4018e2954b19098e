"""Tables of rates of other tools: what is read, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar import report
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.files import data_path
from gammastar.results.show import SIGMA_INELASTIC, TableSpec, read_rates


def table(tmp_path, text, column=""):
    path = tmp_path / "rates.csv"
    path.write_text(text)
    return TableSpec("other", path, column)


def test_header_names_the_envelope(tmp_path):
    found = read_rates(table(tmp_path, "# by X\nm_GeV,E_central,E_lower,E_upper\n0.3,2,1,4\n0.2,8,7,9\n"))
    assert found.mass.tolist() == [0.2, 0.3]
    assert (found.low.tolist(), found.rate.tolist(), found.high.tolist()) == ([7, 1], [8, 2], [9, 4])


def test_columns_without_header_and_by_name(tmp_path):
    assert read_rates(table(tmp_path, "0.2 8\n0.3 2\n")).low is None
    assert read_rates(table(tmp_path, "0.2 8 7 9\n0.3 2 1 4\n")).high.tolist() == [9, 4]
    named = read_rates(table(tmp_path, "m,a,b\n0.2,1,5\n0.3,2,\n0.4,3,7\n", "b"))
    assert (named.mass.tolist(), named.rate.tolist()) == ([0.2, 0.4], [5, 7])


def test_shipped_table_is_straight_in_the_logarithm():
    found = read_rates(TableSpec("EventCalc", data_path("measurements/ap_yield_400gev.csv")))
    assert found.at(np.array([0.2]))[0] == pytest.approx(0.2466)
    assert found.at(np.array([0.25]))[0] == pytest.approx(np.sqrt(0.2466 * 0.1329))
    assert np.isnan(found.at(np.array([0.001]))[0])


def test_spectra_of_modes_add_and_generators_span_the_envelope(tmp_path):
    def spectrum(name, *weights):
        cells = np.array([[-3.0, -3.0, -2.95, -2.95], [1.0, 1.05, 1.0, 1.05], (*weights, 0, 0, 0)[:4]])
        np.save(tmp_path / f"0.4TeV_{name}_m_{mass}.npy", cells)

    for mass in (0.1, 0.2):
        spectrum("111_EPOSLHC", 1e9, 2e9)
        spectrum("111_SIBYLL", 5e9)
        spectrum("221_EPOSLHC", mass * 1e10)
    found = read_rates(TableSpec("FORESEE", tmp_path))
    assert found.mass.tolist() == [0.1, 0.2]
    assert found.rate[0] * SIGMA_INELASTIC * 1e9 == pytest.approx(4e9 + 1e9)
    assert found.low[0] * SIGMA_INELASTIC * 1e9 == pytest.approx(3e9 + 1e9)
    assert found.high[1] * SIGMA_INELASTIC * 1e9 == pytest.approx(5e9 + 2e9)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(InputFileError, match="no column 'c'; it has m, a"):
        read_rates(table(tmp_path, "m,a\n0.2,1\n0.3,2\n", "c"))
    with pytest.raises(InputFileError, match="is no table of numbers"):
        read_rates(table(tmp_path, "m,a\n0.2,x\n0.3,2\n"))
    with pytest.raises(InputFileError, match="at least two rows"):
        read_rates(table(tmp_path, "0.2 1\n"))
    with pytest.raises(InputFileError, match="give NAME=FILE"):
        TableSpec.parse("no such form")
    with pytest.raises(PhysicsError, match="masses that increase"):
        report.RateTable("x", np.array([0.2, 0.1]), np.array([1.0, 2.0]))


def test_figure_has_rates_and_ratios():
    mass = np.linspace(0.25, 1.0, 20)
    other = report.RateTable("other", mass[::4], 2 * np.ones(5), np.ones(5), 3 * np.ones(5))
    figure = report.compare_figure(mass, np.ones(20), 0.1 * np.ones(20), [other], mock=True)
    upper, lower = figure.axes
    assert [t.get_text() for t in upper.get_legend().get_texts()][1] == "other"
    ratio = lower.lines[-1].get_ydata()
    assert np.allclose(ratio[np.isfinite(ratio)], 2.0)
