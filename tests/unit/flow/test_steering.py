"""The flow as the steering asks for it: options, device, members, an interrupted training."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("zuko")

from builders import decay_like

from gammastar import config, flow
from gammastar.config.measured import FlowSection
from gammastar.core.errors import InputFileError, SteeringError
from gammastar.flow import saved_digests
from gammastar.flow.options import Table
from gammastar.pipeline.stages.flow import flow_options, train_flow, train_members

pytestmark = pytest.mark.flow
RANGE = (0.25, 1.1)
SMALL = {"epochs": 3, "epoch_size": 2048, "hidden": 12, "bins": 6, "batch": 512}


def table(n=4000, seed=1):
    mass, pt, energy = decay_like(n, np.random.default_rng(seed), mass=RANGE)
    return Table(mass, pt, energy, np.ones(n), np.arange(n))


def trained(section, folder, tell=lambda *_: None):
    """As the stage trains them: flow and members."""
    options, where = flow_options(section, RANGE), {"folder": folder, "seed": 5}
    train_flow(options, table(), 400.0, tell=tell, **where)
    if section.members:
        tell("flow", None, "members")
    train_members(section.members, options, table(), 400.0, **where)
    return saved_digests(folder)


def test_defaults_fill_what_is_not_given():
    assert flow_options(FlowSection(), RANGE).hidden == flow.FlowOptions().hidden
    given = flow_options(FlowSection(hidden=20, min_window_pairs=5.0), RANGE)
    assert (given.hidden, given.min_window_pairs, given.mass_range) == (20, 5.0, RANGE)


def test_refused_sections(monkeypatch):
    monkeypatch.setattr(flow, "has_cuda", lambda: False)
    with pytest.raises(SteeringError, match="no CUDA device"):
        flow_options(FlowSection(device="cuda"), RANGE)
    content = {"analysis": {"name": "a"}, "flow": {"members": 1}}
    with pytest.raises(SteeringError, match=r"flow\.members"):
        config.parse(content)


@pytest.mark.long
def test_killed_training_leaves_no_model_and_is_repeated(tmp_path):
    section = FlowSection(**SMALL, members=2)
    whole = trained(section, tmp_path / "whole")

    def kill(*told):
        if told[2].startswith("epoch 2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(section, tmp_path / "again", kill)
    assert not (tmp_path / "again" / "flow.json").exists()
    assert trained(section, tmp_path / "again") == whole
    assert saved_digests(tmp_path / "again") == whole


@pytest.mark.long
def test_members_weight_a_sample_of_the_flow(tmp_path):
    trained(FlowSection(**SMALL, members=4), tmp_path)
    found = flow.load_variations(tmp_path)
    assert len(found) == 4
    rng = np.random.default_rng(1)
    mass = np.full(20_000, 0.6)
    pt, energy = found.nominal.sample(mass, rng)
    weight = found.weights(mass, pt, energy)
    # a density over another one averages to one over a sample of the other
    assert weight.mean(axis=1) == pytest.approx(1.0, abs=5 * (weight.std(axis=1) / np.sqrt(len(pt))).max())
    trained(FlowSection(**SMALL), tmp_path)  # another run without members leaves none of the old
    assert flow.load_variations(tmp_path) is None


def test_another_format_and_a_flipped_bit_are_refused(tmp_path):
    trained(FlowSection(**SMALL), tmp_path)
    card = tmp_path / "flow.json"
    good, tensors = card.read_text(), (tmp_path / "flow.safetensors").read_bytes()
    card.write_text(json.dumps(json.loads(good) | {"format": "gammastar-flow-0"}))
    with pytest.raises(InputFileError, match="format"):
        flow.load(tmp_path / "flow")
    card.write_text(good.replace('"beam_energy": 400.0', '"beam_energy": 401.0'))
    with pytest.raises(InputFileError, match="digest"):
        flow.load(tmp_path / "flow")
    card.write_text(good)
    for position in (len(tensors) // 2, len(tensors) - 5):
        flipped = bytearray(tensors)
        flipped[position] ^= 4
        (tmp_path / "flow.safetensors").write_bytes(bytes(flipped))
        with pytest.raises(InputFileError, match=r"damaged|digest"):
            flow.load(tmp_path / "flow")
