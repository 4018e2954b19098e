"""Tables of EventCalc as a production channel; files made from formulas by numpy alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from builders import ROOT
from scipy.integrate import dblquad

from gammastar.core.errors import InputFileError
from gammastar.testing import check_channel

sys.path.append(str(ROOT / "analysis" / "validation"))
from eventcalc_tables import EventCalcTables

ANGLES = np.concatenate([[1e-5, 1e-3], np.arange(0.005, 0.3, 0.005)])
ENERGIES = np.concatenate([np.arange(0.5, 20, 0.5), np.arange(20, 401, 5.0)])
TOP = 300.0  # GeV, largest energy at small angles; it falls with the angle


def law(theta, energy):
    return theta / 0.02**2 * np.exp(-theta / 0.02) * np.exp(-energy / 30.0) / 30.0


def top(theta):
    return TOP * np.exp(-theta / 0.1)


def eventcalc(folder, name="DP-central", masses=(0.1, 0.2, 0.4), yields=lambda m: 3.0 - 5.0 * m):
    nodes = [(m, t, e, law(t, e)) for m in masses for t in ANGLES for e in ENERGIES]
    limits = [(m, t, top(t)) for m in masses for t in ANGLES]
    fine = np.linspace(masses[0], masses[-1], 31)
    np.savetxt(folder / f"DoubleDistr-{name}.txt", nodes, delimiter="\t")
    np.savetxt(folder / f"Emax-{name}.txt", limits, delimiter="\t")
    np.savetxt(folder / f"Total-yield-{name}.txt", np.stack([fine, yields(fine)], 1), delimiter="\t")
    return folder / name


def test_eventcalc_yield_times_what_the_density_holds(tmp_path):
    channel = EventCalcTables.read(eventcalc(tmp_path))
    m = 0.25
    held = dblquad(lambda e, t: law(t, e), ANGLES[0], ANGLES[-1], m, top, epsabs=1e-8)[0]
    assert 0.9 < held < 0.999
    rate, cov = channel.rate([m, 0.05])
    assert rate[0] == pytest.approx((3.0 - 5.0 * m) * held, rel=0.02)  # straight lines between the nodes
    assert rate[1] == 0.0
    assert not cov.any()
    check_channel(channel, masses=(0.12, 0.3))


def test_eventcalc_angles_and_energies(tmp_path):
    channel = EventCalcTables.read(eventcalc(tmp_path))
    sample = channel.produce(0.3, n=200_000, rng=np.random.default_rng(4))
    w = sample.weight / sample.weight.sum()
    norm, angle, energy = (
        dblquad(lambda e, t, k=k: law(t, e) * (1, t, e)[k], ANGLES[0], ANGLES[-1], 0.3, top, epsabs=1e-7)[0]
        for k in range(3)
    )
    assert w @ np.asarray(sample.p4.theta) == pytest.approx(angle / norm, rel=0.02)
    assert w @ np.asarray(sample.p4.E) == pytest.approx(energy / norm, rel=0.02)
    assert (np.asarray(sample.p4.E)[w > 0] <= 1.001 * top(np.asarray(sample.p4.theta)[w > 0] - 0.005)).all()


def test_the_band_of_eventcalc_is_that_of_its_three_yields(tmp_path):
    path = eventcalc(tmp_path)
    for side, factor in (("lower", 0.5), ("upper", 2.0)):
        table = np.loadtxt(tmp_path / "Total-yield-DP-central.txt")
        np.savetxt(tmp_path / f"Total-yield-DP-{side}.txt", table * [1.0, factor])
    rate, cov = EventCalcTables.read(path).rate([0.2, 0.3])
    np.testing.assert_allclose(np.sqrt(np.diag(cov)), 0.75 * rate, rtol=1e-9)


def test_holes_and_other_files_are_refused(tmp_path):
    path = eventcalc(tmp_path)
    file = tmp_path / "DoubleDistr-DP-central.txt"
    whole = file.read_text().splitlines()
    file.write_text("\n".join(whole[:-7] + whole[-6:]))
    with pytest.raises(InputFileError, match="every node"):
        EventCalcTables.read(path)
    file.write_text("1 2 3\n")
    with pytest.raises(InputFileError, match="expected 4 columns"):
        EventCalcTables.read(path)
    file.write_text("\n".join(whole))
    file.rename(tmp_path / "DoubleDistr-other.txt")
    with pytest.raises(InputFileError, match="Emax-other"):
        EventCalcTables.read(tmp_path / "other")
