"""Pseudo-experiments of the main job: they follow its steering, throw the prior, and know their errors."""

from __future__ import annotations

import sys
import tomllib

import numpy as np
import pytest
from builders import ROOT

from gammastar.config import Steering
from gammastar.core import constants
from gammastar.core.files import data_path
from gammastar.mock import load_card

FOLDER = ROOT / "analysis" / "na60_dimuon"


@pytest.fixture(scope="module")
def modules():
    sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]
    try:
        import pythia_campaigns
        from validation import trust_pythia
    finally:
        del sys.path[:2]
    return pythia_campaigns, trust_pythia


def test_campaigns_of_the_main_job_follow_its_steering(modules):
    pythia_campaigns = modules[0]
    given = tomllib.loads((FOLDER / "steering.toml").read_text())
    shared = pythia_campaigns.Common(given, None, None, (1.2, 0.01))
    made = pythia_campaigns.steering_of(shared, 1e12, 7)
    text = "".join(
        f"[{key}]\n" + "".join(f"{k} = {pythia_campaigns.toml(v)}\n" for k, v in table.items())
        for key, table in made.items()
    )
    assert tomllib.loads(text) == made
    parsed = Steering.model_validate(made)
    original = Steering.model_validate(given)
    assert parsed.unfold == original.unfold
    assert (parsed.select, parsed.simulate) == (original.select, None)
    assert parsed.spectrum == original.spectrum.model_copy(update={"pot": 1e12})
    masses = np.array(parsed.predict.masses)
    assert np.isin([constants.mass(223), constants.mass(333)], masses).all()
    assert (np.diff(masses) > 0).all()
    edges = given["select"]["mass"]
    assert edges["low"] < masses[0] < masses[-1] < edges["high"]


def test_prior_of_a_campaign_is_thrown_or_that_of_the_steering(modules):
    pythia_campaigns = modules[0]
    card = load_card(data_path("cards/na60_mock.toml"))
    thrown, fixed = pythia_campaigns.VARIANTS
    cards = [pythia_campaigns.response_card(card, thrown, "varied", seed) for seed in range(400)]
    log = np.log([one.mesons["eta"].p0 / card.mesons["eta"].p0 for one in cards])
    sigma = np.log(card.priors["varied"].p0)
    assert abs(log.mean()) < 4 * sigma / 20
    assert log.std() == pytest.approx(sigma, rel=0.15)
    same = pythia_campaigns.response_card(card, fixed, "varied", 1)
    assert same.mesons["eta"].p0 == pytest.approx(card.mesons["eta"].p0 * card.priors["varied"].p0)


def test_statistics_of_the_pulls_of_campaigns(modules):
    trust_pythia = modules[1]
    rng = np.random.default_rng(1)
    common = rng.normal(size=(400, 1))  # one number per campaign: masses move together
    common = (common - common.mean()) / common.std(ddof=1)
    pulls = 0.5 + 0.8 * np.repeat(common, 20, axis=1)
    assert trust_pythia.width(pulls) == pytest.approx(0.8)
    assert trust_pythia.rms(pulls) == pytest.approx(np.hypot(0.5, 0.8), rel=1e-3)
    # not of 8000 independent pulls
    assert trust_pythia.jackknife(np.mean, pulls) == pytest.approx(0.8 / 20, rel=1e-2)
