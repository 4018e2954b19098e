"""What a published column is, from its name, its unit or a key: contents against integrals done by hand."""

import numpy as np
import pytest

from gammastar import read
from gammastar.core.errors import InputFileError
from gammastar.read.published.spectra import Conventions
from gammastar.read.published.table import energy_power

M = np.array([0.2, 0.5, 1.0, 2.0])
N = np.array([30.0, 20.0, 12.0])  # entries of the bins
WIDTH, LOGARITHM, SQUARE = np.diff(M), np.diff(np.log(M)), np.diff(M**2)
CENTRE = (M[1:] + M[:-1]) / 2


def table(path, axis, unit, column, edges, values):
    """Write a CSV table with errors of a tenth and read it."""
    head = ",".join([f"{axis} low [{unit}]", f"{axis} high [{unit}]", column, f"{column} stat"])
    rows = [
        f"{a!r},{b!r},{v!r},{v / 10!r}"
        for a, b, v in zip(edges.tolist(), edges[1:].tolist(), values.tolist(), strict=False)
    ]
    path.write_text("\n".join([head, *rows]) + "\n")
    return read.hepdata(path)


@pytest.mark.parametrize(
    ("axis", "unit", "column", "edges", "values", "told"),
    [
        ("M", "GeV", "dN/dM [GeV^-1]", M, N / WIDTH, {}),
        ("M", "MeV", "dN/dM", 1e3 * M, N / WIDTH / 1e3, {}),
        ("M", "GeV", "dN/dlnM", M, N / LOGARITHM, {}),
        ("M", "MeV", "d$N$/d $\\ln M_{ee}$", 1e3 * M, N / LOGARITHM, {}),
        ("M", "GeV", "M dN/dM", M, N / WIDTH * CENTRE, {"observable": "m dN/dm"}),
        ("M", "GeV", "M dN/dM", M, N / LOGARITHM, {"observable": "dN/dlnm"}),
        ("M^2", "GeV^2", "dN/dM^2 [GeV^-2]", M**2, N / SQUARE, {}),
        ("M**2", "GeV2", "dN/dM2", M**2, N / SQUARE, {}),
        ("M^2", "MeV^2", "entries", 1e6 * M**2, N, {"content": "counts"}),
        ("M^2", "GeV^2", "dN/dM [GeV-1]", M**2, N / WIDTH, {}),
        ("M", "GeV", "d2N/dMdy [GeV^-1]", M, N / WIDTH / 0.7, {"observable": "dN/dm", "scale": 0.7}),
        ("M_ee", "GeV/c^2", "(1/N_evt) dN/dM_ee [(GeV/c^2)^-1]", M, N / WIDTH, {}),
        ("E", "GeV", "counts", M, N, {"observable": "N"}),
    ],
)
def test_contents_of_bins(tmp_path, axis, unit, column, edges, values, told):
    found = read.published_spectrum(
        table(tmp_path / "t.csv", axis, unit, column, edges, values), None, Conventions(**told)
    )
    np.testing.assert_allclose(found.spectrum.values, N, rtol=1e-12)
    np.testing.assert_allclose(found.spectrum.hist.axes[0].edges, M, rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(np.diag(found.spectrum.cov)), N / 10, rtol=1e-12)


@pytest.mark.parametrize(
    ("axis", "unit", "column", "message"),
    [
        ("p_T", "GeV", "dN/dp_T [GeV^-1]", r"axis 'p_T' \[GeV\] is no mass; .*observable = 'dN/dm'"),
        ("M", "GeV", "dN/dp_T [GeV^-1]", r"'dN/dp_T' is a density in pt as well"),
        ("M", "GeV", "d^2N/dM/dy [GeV^-1]", r"is a density in y as well: .*scale = the width"),
        ("M", "GeV", "1/p_T d2N/dp_TdM [GeV^-1]", r"is a density in pt as well"),
        ("M", "GeV", "M dN/dM", r"is m times a density.*observable = 'm dN/dm'.*'dN/dlnm'"),
        ("M", "GeV", "m_{ee} d$N$/d$m_{ee}$", r"is m times a density"),
        ("M^2", "GeV", "dN/dM^2 [GeV^-2]", r"axis 'M\^2' \[GeV\] does not fit its unit"),
        ("M", "GeV^2", "dN/dM [GeV^-1]", r"does not fit its unit"),
        ("M", "GeV", "dN/dM^2 [GeV^-1]", r"\[GeV\^-1\] cannot be dN/dm2"),
        ("m_T", "GeV", "dN/dm_T [GeV^-1]", r"axis 'm_T' \[GeV\] is no mass"),
        ("y", "GeV", "dN/dy", r"axis 'y' \[GeV\] is no mass"),
    ],
)
def test_what_is_no_density_in_mass_is_refused_with_the_key(tmp_path, axis, unit, column, message):
    with pytest.raises(InputFileError, match=message):
        read.published_spectrum(table(tmp_path / "t.csv", axis, unit, column, M, N))


@pytest.mark.parametrize(
    ("unit", "size", "power"),
    [("GeV2", 1, 2), ("GeV-1", 1, -1), ("MeV^-2", 1e6, -2), ("(GeV/c^2)^-1", 1, -1), ("(GeV)", 1, 1)],
)
def test_powers_of_units(unit, size, power):
    assert energy_power(unit) == (size, power)


def test_errors_of_one_label_get_numbers(tmp_path):
    head = "independent_variables:\n- header: {name: M, units: GeV}\n  values: [{low: 0.2, high: 0.5}]\n"
    errors = "{symerror: 1, label: sys}, {symerror: 2, label: sys}, {symerror: 3, label: stat}"
    rows = f"  values: [{{value: 10, errors: [{errors}]}}]\n"
    text = f"{head}dependent_variables:\n- header: {{name: dN/dM, units: GeV^-1}}\n{rows}"
    (tmp_path / "t.yaml").write_text(text)
    found = read.published_spectrum(read.hepdata(tmp_path / "t.yaml"))
    assert found.sources.names == ("table, sys", "table, sys 2", "table, stat")
    sizes = [float(np.sqrt(part.cov[0, 0])) for part in found.sources.parts]
    assert sizes == pytest.approx([0.3, 0.6, 0.9], rel=1e-12)
