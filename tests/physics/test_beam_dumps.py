"""Past beam dumps: the table of mesons at 70 GeV and the recomputed limits that are shipped."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from builders import ROOT

from gammastar.core.files import data_path
from gammastar.physics.mesons import MesonTable
from gammastar.report.figures.limits import existing_limits, read_limit

FOLDER = ROOT / "analysis" / "beam_dumps"


@pytest.fixture(scope="module")
def production():
    spec = importlib.util.spec_from_file_location("beam_dump_yields", FOLDER / "dump_yields.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_mesons_grow_with_the_beam_energy():
    low, high = (MesonTable.read(data_path(f"measurements/mesons_{e}gev.toml")).mesons for e in (70, 400))
    for name, meson in low.items():
        assert 0.3 < meson.multiplicity / high[name].multiplicity < 0.75
        assert meson.y_width < high[name].y_width
    # Charged particles at 69 GeV: 5.9 per event, of which two are protons; pions of each charge are as many.
    assert low["pi0"].multiplicity == pytest.approx(2.4, abs=0.4)


@pytest.mark.long
def test_inputs_move_the_edges_as_the_decay_law_says(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import sensitivity

    found = {name: shift for (name, _), shift in sensitivity.shifts("nucal", n=3_000).items()}
    masses = np.array(sensitivity.MASSES["nucal"])
    light, heavy = int(masses.argmin()), int(masses.argmax())
    protons = found["protons, efficiency or limit"]
    assert protons[:, light, 0] == pytest.approx([np.log10(1.5) / 4, -np.log10(1.5) / 4], abs=0.005)
    pions = found["yield of π⁰"]
    assert pions[1, light, 0] == pytest.approx(-np.log10(2) / 4, abs=0.01)
    assert (pions[:, heavy] == 0).all()
    down, up = sensitivity.reaches(found)
    assert (down[:, 1] < 0.15).all()
    assert up[light, 0] > abs(protons[0, light, 0])
    table = sensitivity.markdown("nucal", {(name, ""): shift for name, shift in found.items()})
    assert table.count("all in quadrature") == 2
    assert "Below 0.015" in table


def test_lighter_nuclei_make_fewer_mesons(production):
    copper, iron = (production.mesons(400.0, a).mesons["eta"].a_factor for a in (63.55, 55.85))
    assert 1.0 < iron < copper < 2.1
    assert production.mesons(400.0, production.TABLE_A).mesons["eta"].a_factor == pytest.approx(2.1)


@pytest.mark.parametrize(("name", "mass"), [("charm", 0.05), ("nucal", 0.05), ("nucal", 0.3)])
def test_the_shipped_limits_are_what_is_computed(production, name, mass):
    points = read_limit(data_path(f"bounds/dark_photon_{name}_recomputed.toml")).polygon
    half = len(points) // 2
    shipped = [
        np.interp(np.log(mass), np.log(side[:, 0]), np.log10(side[:, 1]))
        for side in (points[:half], points[half:][::-1])
    ]
    found = production.edges(production.variant(name), [mass], 15_000)[0]
    assert found == pytest.approx(shipped, abs=0.04)


def test_a_recomputed_limit_is_no_observation():
    recomputed = [limit for limit in existing_limits() if "recomputed" in limit.name]
    assert [limit.name for limit in recomputed] == ["CHARM (recomputed)", "NuCal (recomputed)"]
    assert {limit.kind for limit in recomputed} == {"recomputed"}
    assert all(limit.assumption for limit in recomputed)


@pytest.mark.long
def test_electrons_alone_live_longer(production):
    case = production.variant("charm", "flux")
    minimal = production.predict.DarkPhoton(
        production.RTable.read(data_path("measurements/r_ratio.csv")),
    )
    assert case.model.ctau(0.1, 1e-6) == pytest.approx(minimal.ctau(0.1, 1e-6), rel=1e-6)
    assert case.model.ctau(0.3, 1e-6) > 1.5 * minimal.ctau(0.3, 1e-6)
    inside = production.in_solid_angle(case.detector, "eta", 100_000)
    assert inside == pytest.approx(0.0059, rel=0.1)


def test_nucal_reaches_above_the_published_curve_by_the_form_factor_of_the_proton(production):
    """A point-like proton ends near the published 0.62 GeV; ρ and ω of the form factor carry it beyond."""
    point = production.edges(production.variant("nucal", "paper point-like"), [0.5, 0.7, 0.775], 5_000)
    assert np.isfinite(point[0]).all()
    assert np.isnan(point[1:]).all()
    full = production.events(production.variant("nucal", "brem"), [0.7, 0.775, 0.85], 5_000).max(axis=1)
    assert full.min() > production.LIMITS["nucal"]
    assert full[1] > 5 * full[[0, 2]].max()


@pytest.mark.parametrize("name", ["charm", "nucal"])
def test_the_shipped_areas_end_by_themselves(production, name):
    """The last mass is where the events run out, not where the computation stopped."""
    limit = read_limit(data_path(f"bounds/dark_photon_{name}_recomputed.toml")).polygon
    last = limit[:, 0].max()
    beyond = production.events(production.variant(name), [last, 1.1 * last], 15_000).max(axis=1)
    assert beyond[0] > 0.8 * production.LIMITS[name]
    assert beyond[1] < 1.1 * production.LIMITS[name]
