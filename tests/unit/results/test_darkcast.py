"""Exported limits of Darkcast, read as strictly as its own reader does, and the physics in them."""

from __future__ import annotations

import ast
import json
import math
import runpy
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import brentq

from gammastar.core.constants import CTAU_PER_GEV
from gammastar.core.files import data_path
from gammastar.physics.detector import load_detector
from gammastar.physics.geometry import Cone, Cylinder
from gammastar.physics.qed import RTable, dark_photon_ctau
from gammastar.results.export import length_ratio, write_darkcast

MESONS = {"pi0", "eta", "eta'", "omega", "rho0", "phi", "gamma"}
FERMIONS = {"e", "mu", "tau", "nue", "numu", "nutau", "u", "d", "s", "c", "b", "t"}
STATES = {"visible", "invisible", "hadrons", "total", *(f"{x}_{x}" for x in FERMIONS)}
R_TABLE = RTable.read(data_path("measurements/r_ratio.csv"))


def parse_table(path):
    """Read bounds: labels, then rows of as many numbers; masses rise, 0 < lower < upper."""
    raw = path.read_bytes()
    raw.decode("ascii")
    assert raw.endswith(b"\n")
    assert b"\r" not in raw
    first, *rest = raw.decode().splitlines()
    labels = first.replace("#", "").split()
    assert labels[0] == "mass"
    assert labels[1:] == ["lower", "upper"]
    rows = [line.split("#")[0].split() for line in rest]
    assert rows
    assert all(len(row) == len(labels) for row in rows)
    table = np.array(rows, dtype=float)
    assert np.isfinite(table).all()
    assert (np.diff(table[:, 0]) > 0).all()  # a regular grid in mass: no mass twice
    assert (table[:, 1] > 0).all()
    assert (table[:, 1] < table[:, 2]).all()
    return table


def parse_module(path, monkeypatch):
    """Run the module with a package that knows what may be said; return what it says."""
    raw = path.read_bytes()
    raw.decode("ascii")  # without a coding line
    imports = [node for node in ast.walk(ast.parse(raw)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [name.name for node in imports for name in node.names] == ["darkcast"]

    def production(name):
        parts = name.split("_")
        known = (
            name == "p_brem"
            or name in MESONS
            or (len(parts) == 2 and (parts[0] in FERMIONS) and parts[1] in {"brem", parts[0]})
            or (len(parts) == 2 and set(parts) <= MESONS)
        )
        assert known, name
        return name

    def efficiency(t0=0.0, t1=None, lratio=None, rvals=False):
        assert lratio is not None
        assert not rvals
        assert t1 is None
        assert t0 == 0.0
        assert lratio > 0
        return lratio

    models = {"dark_photon", "B_boson", "B-L_boson", "protophobic"}
    darkcast = SimpleNamespace(
        Model=lambda name: {name: name for name in models}[name],
        Production=production,
        Datasets=lambda name: parse_table(path.parent / name),
        Efficiency=efficiency,
    )
    monkeypatch.setitem(sys.modules, "darkcast", darkcast)
    module = SimpleNamespace(**runpy.run_path(str(path)))
    assert isinstance(module.notes, str)
    assert isinstance(module.bibtex, str)
    assert module.model == "dark_photon"
    assert module.decay
    assert set(module.decay) <= STATES
    return module


def record(folder, rows, *, mock=True):
    columns = ("mass", "coupling_low", "coupling_high", "part")
    (folder / "reach_x.json").write_text(
        json.dumps({"rows": [dict(zip(columns, row, strict=True)) for row in rows]})
    )
    return SimpleNamespace(folder=folder, mock=mock)


def test_a_gap_in_mass_stays_a_gap(tmp_path):
    """The reader draws straight lines between masses: in the gap its band must have no width."""
    rows = [(m, 1e-7, 1e-6, "all") for m in (0.3, 0.4)] + [(m, 1e-5, 1e-4, "all") for m in (0.7, 0.8)]
    found = record(tmp_path, rows)
    path = tmp_path / "reach_x.json"
    content = json.loads(path.read_text())
    ends = ("low", "high", "low_coupling", "high_coupling", "low_closed", "high_closed")
    content["mass_intervals"] = {
        "all": [
            dict(zip(ends, values, strict=True))
            for values in ((0.3, 0.45, 3e-7, 2e-7, False, True), (0.7, 0.8, 3e-5, 3e-5, False, False))
        ]
    }
    path.write_text(json.dumps(content))
    written = write_darkcast(found, "x", load_detector(data_path("detectors/nucal.toml")), tmp_path / "out")
    mass, low, high = np.loadtxt(written[0], skiprows=1).T
    assert (np.diff(mass) > 0).all()
    assert (low < high).all()
    for inside, width in ((0.35, 10.0), (0.75, 10.0), (0.5, 1.0), (0.69, 1.0)):
        edges = [np.exp(np.interp(inside, mass, np.log(edge))) for edge in (low, high)]
        assert edges[1] / edges[0] == pytest.approx(width, rel=1e-3)


def beam_dump_edges(mass, momentum, near, far, factor):
    """Edges of g² (e^(−near/d) − e^(−far/d)) = factor times its top, for one momentum."""

    def events(log_g):
        g = 10**log_g
        length = momentum / mass * dark_photon_ctau(mass, g, R_TABLE)
        return math.log(g**2 * (math.exp(-near / length) - math.exp(-far / length)) + 1e-300)

    grid = np.linspace(-9, -3, 601)
    values = np.array([events(x) for x in grid])
    top, level = int(values.argmax()), values.max() + math.log(factor)
    low = brentq(lambda x: events(x) - level, -9.0, grid[top])
    high = brentq(lambda x: events(x) - level, grid[top], grid[values > -600][-1])
    return 10**low, 10**high


def proper_time(table, lratio, mass):
    """Solve both edges for the proper time to the volume [m], equation 2.24 of arXiv:1801.04847."""
    _, g0, g1 = table[np.argmin(np.abs(table[:, 0] - mass))]
    tau0, tau1 = (dark_photon_ctau(mass, g, R_TABLE) for g in (g0, g1))

    def difference(log_t):
        t = math.exp(log_t)
        decays = [
            2 * math.log(g) + math.log(math.exp(-t / tau) - math.exp(-t * (1 + lratio) / tau) + 1e-300)
            for g, tau in ((g1, tau1), (g0, tau0))
        ]
        return decays[0] - decays[1]

    return math.exp(brentq(difference, math.log(1e-3 * tau1), math.log(300 * tau1)))


def test_darkcast_finds_the_momentum_that_made_the_edges(tmp_path, monkeypatch):
    """Edges of particles of 60 GeV: with our lratio, Darkcast's proper time is distance × m/p."""
    detector = load_detector(data_path("detectors/ship_ecn3.toml"))
    near, far = detector.volume.chord(np.array([detector.target.position]), np.array([[0.0, 0.0, 1.0]]))[0]
    masses = (0.25, 0.4, 0.6)
    rows = [(m, *beam_dump_edges(m, 60.0, near, far, 0.01), "all") for m in masses]
    table, module = write_darkcast(record(tmp_path, rows), "x", detector, tmp_path / "out")
    said = parse_module(module, monkeypatch)
    assert said.decay == ["e_e", "mu_mu"]
    assert "MOCK" in said.notes
    assert said.efficiency == pytest.approx((far - near) / near, rel=1e-3)
    for mass in masses:
        t0 = proper_time(parse_table(table), said.efficiency, mass)
        assert near * mass / t0 == pytest.approx(60.0, rel=0.01)
    assert pytest.approx(CTAU_PER_GEV, rel=1e-6) == 1.973269804e-16  # m: proper times from widths


def test_odd_rows_are_left_out_and_islands_joined(tmp_path):
    detector = load_detector(data_path("detectors/ship_ecn3.toml"))
    rows = [
        (0.5, 1e-7, 2e-7, "all"),
        (0.3, 1e-7, 1e-6, "all"),
        (0.3, 2e-6, 3e-6, "all"),
        (0.4, None, 1e-6, "all"),
        (0.6, 1e-7, 1e-7, "all"),
        (0.7, 1e-8, 1e-5, "measured"),
    ]
    table, _ = write_darkcast(record(tmp_path, rows), "x", detector, tmp_path)
    np.testing.assert_allclose(parse_table(table), [[0.3, 1e-7, 3e-6], [0.5, 1e-7, 2e-7]])
    assert write_darkcast(record(tmp_path, rows[:1]), "x", detector, tmp_path) == []


def test_names_that_a_module_cannot_hold(tmp_path, monkeypatch):
    detector = load_detector(data_path("detectors/ship_ecn3.toml"))
    odd = replace(detector, name='Größe """ \\N{x}', efficiency={"mumu": 0.5})
    rows = [(0.3, 1e-7, 1e-6, "all"), (0.5, 1e-7, 2e-7, "all")]
    _, module = write_darkcast(record(tmp_path, rows, mock=False), "x", odd, tmp_path)
    said = parse_module(module, monkeypatch)
    assert said.decay == ["mu_mu"]
    assert "MOCK" not in said.notes
    none = replace(detector, efficiency={"gammagamma": 1.0})
    assert write_darkcast(record(tmp_path, rows), "x", none, tmp_path) == []


def test_length_of_a_volume_beside_the_beam():
    detector = replace(load_detector(data_path("detectors/ship_ecn3.toml")), planes=())
    beside = replace(detector, volume=Cylinder(radius=1.0, z0=100.0, z1=150.0, x=5.0))
    assert length_ratio(beside) == pytest.approx(0.5, rel=0.03)
    ring = replace(detector, volume=Cone(0.01, 0.02, 50.0, 150.0))
    assert length_ratio(ring) == pytest.approx(2.0, rel=1e-3)
    thin = replace(detector, target=replace(detector.target, thickness=0.1))
    assert length_ratio(replace(thin, volume=Cylinder(radius=1.0, z0=-1.0, z1=10.0))) == np.inf
