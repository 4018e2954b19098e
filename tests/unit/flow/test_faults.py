"""What the flow does with input that it cannot use, and with a loss that is not a number."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

pytest.importorskip("torch")
pytest.importorskip("zuko")

import torch

from gammastar import flow
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.flow import FlowOptions, FlowVariations, draw_events, fit, fit_ensemble
from gammastar.flow.options import Table
from gammastar.flow.training import Part, optimise

pytestmark = pytest.mark.flow
BEAM = 400.0
SMALL = FlowOptions(epochs=2, epoch_size=2048, hidden=8, bins=4, batch=512, octaves=2)


def columns(n=3000):
    rng = np.random.default_rng(1)
    mass = rng.uniform(0.3, 1.0, n)
    pt = rng.gamma(2.0, 0.2, n)
    return mass, pt, np.hypot(mass, pt) * np.cosh(rng.uniform(2.5, 4.5, n))


@pytest.fixture(scope="module")
def ensemble():
    table = Table(*columns(), np.ones(3000), np.arange(3000))
    return fit_ensemble(table, beam_energy=BEAM, options=SMALL, members=2, seed=1)


@pytest.mark.parametrize("fault", ["nan mass", "zero weights", "one pair outside"])
def test_refused_pairs(fault):
    mass, pt, energy = columns()
    weight = np.ones(len(mass))
    if fault == "nan mass":
        mass[7] = np.nan
        match = "physical limits"
    elif fault == "zero weights":
        weight[:] = 0.0
        match = "effective sample size"
    else:
        energy[3] = 0.5 * mass[3]
        match = r"1 of 3000 pairs lie outside"
    with pytest.raises(PhysicsError, match=match):
        fit(mass, pt, energy, weight, beam_energy=BEAM, options=SMALL, rng=np.random.default_rng(1))


def test_masses_outside_the_range(ensemble):
    rng, member = np.random.default_rng(1), ensemble.members[0]
    with pytest.raises(PhysicsError, match=r"0\.2 GeV"):
        member.sample(np.array([0.5, 0.2]), rng)
    with pytest.raises(PhysicsError, match=r"1\.3 GeV"):
        member.log_prob(1.3, 0.4, 20.0)
    with pytest.raises(PhysicsError, match="outside the range of the flow"):
        draw_events(member, 10, seed=1, mass=1.3)
    wide = fit(*columns(), beam_energy=BEAM, options=FlowOptions(epochs=1, epoch_size=4096), rng=rng)
    narrow = fit_ensemble(
        Table(*columns(), np.ones(3000), np.arange(3000)),
        beam_energy=BEAM,
        options=FlowOptions(epochs=1, epoch_size=1024, hidden=4, bins=4, mass_range=(0.4, 0.8)),
        members=2,
        seed=1,
    )
    with pytest.raises(PhysicsError, match="mass_range"):
        FlowVariations(wide, narrow)


def test_a_loss_that_becomes_nan_keeps_the_last_good_parameters(caplog):
    parameter = torch.zeros(1)
    calls = []

    def log_density(x, context):
        del context
        calls.append(len(x))
        broken = float("nan") if len(calls) > 30 else 0.0
        return -((x[:, 0] - parameter) ** 2) + broken

    x = np.full((2000, 1), 3.0)
    parts = [Part.of(x, x, np.ones(2000), np.zeros(2000))] * 2
    options = FlowOptions(epochs=9, epoch_size=1000, batch=100, learning_rate=0.05, schedule="constant")
    course = optimise([parameter], log_density, parts, options, rng=np.random.default_rng(1))
    assert course.stopped.startswith("diverged in epoch 2")
    assert course.best_epoch == 1
    assert "the parameters of the best epoch are kept" in caplog.text
    assert np.isfinite(course.validation_loss).all()
    # 20 steps of Adam at 0.05 from zero towards three
    assert 0.8 < float(parameter.detach()) < 1.1
    with pytest.raises(PhysicsError, match="lower it"):
        optimise([parameter], log_density, parts, options, rng=np.random.default_rng(1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_though_all_digests_fit(ensemble, tmp_path, value):
    """Digests are no signature: whoever edits a flow can compute them anew."""
    flow.save(ensemble.members[0], tmp_path / "flow")
    tensors = load_file(tmp_path / "flow.safetensors")
    name = max(tensors, key=lambda key: tensors[key].size)
    tensors[name].flat[0] = value
    save_file(tensors, tmp_path / "flow.safetensors")
    card = json.loads((tmp_path / "flow.json").read_text())
    card["digest"] = flow.digest(tensors)
    del card["digest_card"]
    card["digest_card"] = hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()
    (tmp_path / "flow.json").write_text(json.dumps(card))
    with pytest.raises(InputFileError, match=re.escape(name) + ".*not finite"):
        flow.load(tmp_path / "flow")
