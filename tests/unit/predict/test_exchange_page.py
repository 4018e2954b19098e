"""The page on other tools does what it says: its numbers by FORESEE's recipe, on the files that it makes."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import tomllib

import foresee_recipe
import numpy as np
import pytest
from builders import ROOT

from gammastar.config import Steering
from gammastar.core.constants import ALPHA, BRANCHING, GEV2_MB, M_E, mass
from gammastar.physics.millicharge import vector_branching
from gammastar.predict import DarkPhoton
from gammastar.predict.models import r_table

PAGE = (ROOT / "docs" / "howto" / "exchange.md").read_text()


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (folder / "page.py").write_text("\n".join(code))
    out = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        runpy.run_path("page.py")
    return folder, out.getvalue().splitlines()


def events(lines, start):
    found = re.search(r": ([\d.]+) ± ([\d.]+) events", next(line for line in lines if line.startswith(start)))
    return float(found[1]), float(found[2])


@pytest.mark.long
def test_dark_photons_in_faser2(printed):
    folder, lines = printed
    columns = np.loadtxt(folder / "files/hadrons/14TeV/FORMULA/FORMULA_14TeV_221.txt").T
    m, epsilon, model = 0.3, 1e-6, DarkPhoton(r_table())
    factor = 2 * BRANCHING["eta -> gamma gamma"].value * (1 - (m / mass(221)) ** 2) ** 3
    factor *= epsilon**2 * model.branching(m)["ee"] * 3e6
    ctau = float(np.ravel(model.ctau(m, [epsilon]))[0])
    wanted, error = foresee_recipe.decays(columns, mass(221), m, ctau, np.random.default_rng(2))
    found, own = events(lines, "FASER2")
    spread = np.hypot(factor * error, own)
    assert spread < 0.02 * found
    assert found == pytest.approx(factor * wanted, abs=4 * spread + 0.003 * found)


@pytest.mark.long
def test_millicharged_particles_with_both_thresholds(printed):
    folder, lines = printed
    columns = np.loadtxt(folder / "files/hadrons/14TeV/FORMULA/FORMULA_14TeV_443.txt").T
    branching = float(vector_branching([1.0], mass(443), BRANCHING["jpsi -> e e"].value)[0])
    scale = 3.754e29 * 7 * 1e-4 * 1e-4 * GEV2_MB * 1e-27 * 2 * np.pi * ALPHA**2 / M_E  # electrons × Q² σ
    factor = 2 * branching * 1e-4 * 3e6 * scale
    wanted, error = foresee_recipe.recoils(columns, mass(443), 1.0, (0.03, 1.0), np.random.default_rng(3))
    found, own = events(lines, "millicharged")
    spread = np.hypot(factor * error, own)
    assert spread < 0.03 * found
    assert found == pytest.approx(factor * wanted, abs=4 * spread + 0.01 * found)


def test_the_card_goes_round(printed):
    _, lines = printed
    assert any("imax 1" in line for line in lines)
    assert any("[1.0]" in line for line in lines)


def test_the_sections_are_those_of_a_steering_file():
    base = {"analysis": {"name": "page"}}
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for code in blocks:
        Steering.model_validate(base | tomllib.loads(code))
