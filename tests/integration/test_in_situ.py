"""The search in situ alone, without flow, detector or limits of a dump, on the shipped MOCK files."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pyhf
import pytest
from builders import ROOT
from jsonpatch import apply_patch

from gammastar.pipeline.run import run
from gammastar.results.show import show_results, verify_results
from gammastar.store.manifest import read_json

SMALL = ROOT / "analysis" / "na60_dimuon"
LIMIT = '\n[systematics]\nnuisances = ["spectrum", "widths"]\n'


@pytest.fixture(scope="module")
def steering(tmp_path_factory):
    text = (SMALL / "small.toml").read_text().split("[flow]")[0]
    text = text.replace('"schema.toml"', f'"{SMALL / "schema.toml"}"')
    text = text.replace("[subtract]", '[subtract]\nweights = "signed"')
    path = tmp_path_factory.mktemp("in_situ") / "steering.toml"
    path.write_text(f"{text}\n[in_situ]\nn_masses = 50\nmass_scale = 0.001\n{LIMIT}")
    return path


@pytest.fixture(scope="module")
def results(steering, tmp_path_factory):
    return run(steering, output=tmp_path_factory.mktemp("run") / "results")


def rows(results):
    with (results / "reach_in_situ.csv").open() as file:
        return list(csv.DictReader(file))


def test_reach_bands_and_gaps(results):
    found = rows(results)
    assert len(found) == 50
    assert {row["part"] for row in found} == {"all"}
    seen = [row for row in found if row["blind"] == "False"]
    near = min(found, key=lambda row: abs(float(row["mass"]) - 0.7827))
    assert near["blind"] == "True"
    assert near["coupling_low"] == ""
    for row in seen:
        levels = [float(row[f"low_{name}"]) for name in ("m2", "m1", "median", "p1", "p2")]
        assert levels == sorted(levels)
        assert float(row["coupling_low"]) == pytest.approx(levels[2])
        # by hand: ε² = z √(σ² + spurious²) / S, an error of the signal of δ makes it 1/√(1 − z²δ²) larger
        z, delta = 1.6448536, float(row["signal_error"])
        sigma = np.hypot(float(row["sigma"]), float(row["spurious"]))
        limit = z * sigma / np.sqrt(1 - (z * delta) ** 2) / float(row["signal_per_coupling2"])
        assert levels[2] == pytest.approx(np.sqrt(limit), rel=1e-4)
    content = read_json(results / "reach_in_situ.json")
    assert content["label"].startswith("MOCK expected reach in situ")
    assert {"measurement", "hadronic width", "background"} <= set(content["signal_uncertainties"])


def test_every_patch_expects_its_limit(results):
    """pyhf finds CLs = 0.1 at the ε of the patch within 10 % of ε², three masses."""
    base, patches = (read_json(results / f"{name}_in_situ.json") for name in ("workspace", "patchset"))
    pyhf.PatchSet(patches).verify(base)
    chosen = patches["patches"][::20]
    for patch in chosen:
        space = pyhf.Workspace(apply_patch(base, patch["patch"]))
        model = space.model()
        data = space.data(model)
        low, high = (
            float(pyhf.infer.hypotest(mu, data, model, test_stat="qtilde", return_expected=True)[1])
            for mu in (0.9, 1.1)
        )
        assert low > 0.1 > high, patch["metadata"]


def test_numbers_are_kept_shown_and_verified(results, steering):
    assert "MOCK expected reach in situ" in show_results(results)
    assert any("in_situ: ok" in line for line in verify_results(results))
    numbers = read_json(results / "manifest.json")["numbers"]
    assert "GeV" in numbers["search in situ, smallest expected epsilon, 90 % CL"]
    before = rows(results)
    run(steering, output=results, resume=True)
    assert rows(results) == before


def test_protons_on_target_cancel(steering, results, tmp_path):
    text = (
        steering.read_text()
        .replace("pot = 1.1988e11", "pot = 5e12")
        .replace("n_masses = 50", "masses = [0.4, 0.6]")
    )
    text = text.replace(
        "mass_scale = 0.001", 'background = "polynomial"\nresolution = 0.02\nspurious = false'
    )
    limits = []
    for pot in ("5e12", "2e10"):
        path = tmp_path / f"{pot}.toml"
        path.write_text(text.replace("5e12", pot))
        shutil.copytree(results, tmp_path / pot)  # the pairs and their unfolding are the same
        limits.append([row["coupling_low"] for row in rows(run(path, output=tmp_path / pot, resume=True))])
    assert limits[0] == limits[1]
