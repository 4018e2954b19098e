from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("zuko")

import torch

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.pairs import Pairs
from gammastar.flow import FlowOptions, fit, fit_pairs, load, save
from gammastar.flow.network import (
    Gaussianiser,
    from_unbounded,
    inside_limits,
    make_gaussianiser,
    to_unbounded,
)

pytestmark = pytest.mark.flow

BEAM = 400.0
QUICK = FlowOptions(epochs=6, epoch_size=40_000, hidden=64)


def kinematics(mass, rng, *, scale=0.15, slope=0.15, y=4.2):
    """Truth: pt ~ Gamma(2.2) of scale `scale + slope m`, rapidity normal around `y − 0.3 m`, E < beam."""
    pt = rng.gamma(2.2, scale + slope * mass)
    energy = np.hypot(mass, pt) * np.cosh(np.abs(rng.normal(y - 0.3 * mass, 0.6)))
    keep = energy < BEAM
    return mass[keep], pt[keep], energy[keep]


def signal_mass(n, rng):
    mass = np.where(rng.random(n) < 0.6, 0.22 + rng.exponential(0.25, n), rng.normal(0.776, 0.04, n))
    return mass[(mass > 0.22) & (mass < 1.1)]


@pytest.fixture(scope="module")
def weighted_flow():
    """A flow on pairs thinned by an acceptance and weighted with its inverse."""
    rng = np.random.default_rng(11)
    mass, pt, energy = kinematics(signal_mass(160_000, rng), rng)
    efficiency = 0.25 + 0.75 * (1.0 - np.exp(-pt / 0.4))
    seen = rng.random(len(pt)) < efficiency
    return fit(
        mass[seen],
        pt[seen],
        energy[seen],
        1.0 / efficiency[seen],
        beam_energy=BEAM,
        options=QUICK,
        rng=np.random.default_rng(3),
    )


def test_unbounded_variables_and_back():
    rng = np.random.default_rng(1)
    mass, pt, energy = kinematics(signal_mass(2000, rng), rng)
    u1, u2, _ = to_unbounded(mass, pt, energy, BEAM)
    pt_back, energy_back = from_unbounded(mass, u1, u2, BEAM)
    np.testing.assert_allclose(pt_back, pt, rtol=1e-11)
    np.testing.assert_allclose(energy_back, energy, rtol=1e-10)


def test_jacobian_is_the_derivative():
    mass, pt, energy, step = np.array([0.6]), np.array([0.8]), np.array([55.0]), 1e-6
    u1, u2, log_jacobian = to_unbounded(mass, pt, energy, BEAM)
    up1, _, _ = to_unbounded(mass, pt + step, energy, BEAM)
    _, up2, _ = to_unbounded(mass, pt, energy + step, BEAM)
    # u1 does not depend on the energy, so the determinant is the product of the diagonal.
    determinant = (up1 - u1) / step * (up2 - u2) / step
    np.testing.assert_allclose(np.exp(log_jacobian), determinant, rtol=1e-5)


def test_every_point_of_the_plane_is_physical():
    u1, u2 = (a.ravel() for a in np.meshgrid(np.linspace(-60, 60, 41), np.linspace(-60, 60, 41)))
    mass = np.full(u1.size, 0.5)
    pt, energy = from_unbounded(mass, u1, u2, BEAM)
    assert (pt > 0).all()
    assert (energy >= np.hypot(mass, pt)).all()
    assert (energy < BEAM).all()


@pytest.mark.parametrize("signed", [False, True])
def test_gaussianiser_makes_normal_scores(signed):
    rng = np.random.default_rng(2)
    x = rng.gamma(2.0, 1.0, 40_000)
    weight = np.ones(x.size)
    if signed:  # an exponential contamination in both signs
        extra = rng.exponential(0.5, 20_000)
        x, weight = np.concatenate([x, extra]), np.concatenate([weight, np.repeat([1.0, -1.0], 10_000)])
    one = make_gaussianiser(x, weight)
    test = np.sort(rng.gamma(2.0, 1.0, 40_000))
    z, log_slope = one.forward(test)
    assert abs(z.mean()) < 0.03
    assert abs(z.std() - 1.0) < 0.03
    assert (np.diff(z) > 0).all()
    np.testing.assert_allclose(one.inverse(z), test, rtol=1e-8, atol=1e-9)
    far = np.linspace(-30.0, 60.0, 4001)
    numeric = np.gradient(one.forward(far)[0], far)
    analytic = np.exp(one.forward(far)[1])
    np.testing.assert_allclose(numeric[[5, -5]], analytic[[5, -5]], rtol=1e-6)
    np.testing.assert_allclose(one.inverse(one.forward(far)[0]), far, atol=1e-7)
    assert np.isfinite(log_slope).all()


def test_gaussianiser_of_discrete_and_of_single_values():
    rng = np.random.default_rng(4)
    levels = make_gaussianiser(rng.integers(0, 5, 5000).astype(float), np.ones(5000))
    assert (np.diff(levels.x) > 0).all()
    single = make_gaussianiser(np.full(100, 0.7), np.ones(100))
    assert single.forward(np.array([0.7]))[0] == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(PhysicsError, match="increasing"):
        Gaussianiser(np.zeros(2), np.arange(2.0), np.ones(2))


@pytest.mark.long
@pytest.mark.parametrize("mass", [0.25, 0.5, 0.776, 1.05])
def test_density_integrates_to_one(weighted_flow, mass):
    # Independent quadrature in (ln pt, y), over all but the outermost tails.
    log_pt = np.linspace(np.log(1e-5), np.log(300.0), 161)
    share = np.linspace(0.0, 1.0, 163)[1:-1]
    pt = np.exp(log_pt)[:, None]
    mt = np.hypot(mass, pt)
    y_max = np.arccosh(BEAM / mt)
    y = share * y_max
    energy = mt * np.cosh(y)
    density = np.exp(
        weighted_flow.log_prob(np.full(energy.shape, mass), np.broadcast_to(pt, energy.shape), energy)
    )
    inner = np.trapezoid(density * mt * np.sinh(y) * y_max, share, axis=1)
    assert np.trapezoid(inner * pt[:, 0], log_pt) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.long
@pytest.mark.parametrize("mass", [0.35, 0.6, 0.776])
def test_weighted_training_recovers_truth(weighted_flow, mass):
    rng = np.random.default_rng(5)
    _, pt_true, energy_true = kinematics(np.full(80_000, mass), rng)
    pt, energy = weighted_flow.sample(np.full(60_000, mass), rng)
    assert pt.mean() == pytest.approx(pt_true.mean(), rel=0.02)
    assert energy.mean() == pytest.approx(energy_true.mean(), rel=0.03)
    for quantile in (0.1, 0.5, 0.9):
        assert np.quantile(pt, quantile) == pytest.approx(np.quantile(pt_true, quantile), rel=0.04)
        assert np.quantile(energy, quantile) == pytest.approx(np.quantile(energy_true, quantile), rel=0.04)


@pytest.mark.long
def test_samples_follow_the_density(weighted_flow):
    rng = np.random.default_rng(6)
    mass = np.full(25_000, 0.5)
    pt, energy = weighted_flow.sample(mass, rng)
    # E[1/p] over a box is the box's area: tests sampler against density without knowing either.
    box = (pt > 0.2) & (pt < 0.9) & (energy > 12.0) & (energy < 60.0)
    inverse = np.where(box, np.exp(-weighted_flow.log_prob(mass, pt, energy)), 0.0)
    area = 0.7 * 48.0
    assert inverse.mean() == pytest.approx(area, abs=4.0 * inverse.std() / np.sqrt(mass.size))


@pytest.mark.long
def test_samples_respect_the_limits(weighted_flow):
    rng = np.random.default_rng(7)
    low, high = weighted_flow.mass_range
    mass = rng.uniform(low, high, 15_000)
    pt, energy = weighted_flow.sample(mass, rng)
    assert inside_limits(mass, pt, energy, BEAM).all()
    assert np.isfinite(weighted_flow.log_prob(mass, pt, energy)).all()


@pytest.mark.long
def test_density_vanishes_outside_the_limits(weighted_flow):
    outside = weighted_flow.log_prob(
        np.full(4, 0.5), np.array([1.0, 0.0, 1.0, 1.0]), np.array([1.1, 9.0, 400.0, 500.0])
    )
    assert (outside == -np.inf).all()


@pytest.mark.parametrize("mass", [0.1, 1.5, np.nan])
def test_mass_outside_the_range(weighted_flow, mass):
    with pytest.raises(PhysicsError, match="outside the range"):
        weighted_flow.sample(np.array([0.5, mass]), np.random.default_rng(1))


def test_sampling_is_reproducible(weighted_flow):
    mass = np.linspace(0.3, 1.0, 20_000)
    first = weighted_flow.sample(mass, np.random.default_rng(8))
    again = weighted_flow.sample(mass, np.random.default_rng(8))
    other = weighted_flow.sample(mass, np.random.default_rng(9))
    np.testing.assert_array_equal(first, again)
    assert (first[0] != other[0]).mean() > 0.99
    assert len(weighted_flow.sample(np.empty(0), np.random.default_rng(1))[0]) == 0


@pytest.mark.long
def test_signed_weights_recover_the_signal():
    rng = np.random.default_rng(12)

    def background(n):
        mass = 0.22 + rng.gamma(2.0, 0.18, n)
        return kinematics(mass[mass < 1.1], rng, scale=0.07, slope=0.0, y=3.4)

    signal = kinematics(signal_mass(40_000, rng), rng)
    # One background pair to three of signal; like-sign pairs of both charges, 7 to 3, with the weights of the
    # charge-ratio estimate: -w for ++ and -1/w for --, w² = N--/N++.
    n_pp, n_mm = 7 * 1100, 3 * 1100
    os_background = background(int(2 * np.sqrt(n_pp * n_mm)))
    pp, mm = background(n_pp), background(n_mm)
    ratio = np.sqrt(n_mm / n_pp)
    parts = [signal, os_background, pp, mm]
    weight = np.concatenate(
        [np.full(len(part[0]), w) for part, w in zip(parts, [1.0, 1.0, -ratio, -1.0 / ratio], strict=True)]
    )
    mass, pt, energy = (np.concatenate(column) for column in zip(*parts, strict=True))
    event = np.arange(len(mass)) // 2
    pairs = Pairs(mass, pt, energy, np.zeros(len(mass), np.int8), weight, event)
    epochs = []
    flow = fit_pairs(
        pairs,
        beam_energy=BEAM,
        options=QUICK,
        rng=np.random.default_rng(2),
        progress=lambda *state: epochs.append(state),
    )
    assert epochs[0][:2] == (0, QUICK.epochs)
    assert flow.report.negative_fraction > 0.1
    assert flow.report.effective_size < len(mass)
    for at in (0.35, 0.6, 0.776):
        _, pt_true, energy_true = kinematics(np.full(50_000, at), rng)
        drawn, drawn_energy = flow.sample(np.full(50_000, at), rng)
        assert drawn.mean() == pytest.approx(pt_true.mean(), rel=0.035)
        assert drawn_energy.mean() == pytest.approx(energy_true.mean(), rel=0.05)


def small_sample(n=4000):
    rng = np.random.default_rng(21)
    return kinematics(signal_mass(n, rng), rng)


TINY = FlowOptions(epochs=2, epoch_size=4096, hidden=16, bins=8)


def test_training_is_reproducible_and_leaves_torch_alone():
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    flows = [
        fit(*small_sample(), beam_energy=BEAM, options=TINY, rng=np.random.default_rng(s)) for s in (1, 1, 2)
    ]
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads
    first, again, other = (flow.to_tensors()["transform.transforms.0.hyper.0.weight"] for flow in flows)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert flows[0].report == flows[1].report


@pytest.mark.parametrize(("epochs", "batch"), [(1, 8192), (1, 1024), (2, 1024), (3, 512)])
def test_shortest_trainings_run(epochs, batch):
    options = FlowOptions(epochs=epochs, batch=batch, hidden=16, bins=8)
    flow = fit(*small_sample(3000), beam_energy=BEAM, options=options, rng=np.random.default_rng(1))
    assert len(flow.report.train_loss) == epochs
    assert np.isfinite(flow.report.train_loss).all()


def test_mass_flattening_changes_the_weights_only():
    mass, pt, energy = small_sample()
    options = FlowOptions(epochs=2, epoch_size=4096, mass_flattening=1.0, mass_range=(0.25, 1.0))
    flow = fit(mass, pt, energy, beam_energy=BEAM, options=options, rng=np.random.default_rng(1))
    assert flow.mass_range == (0.25, 1.0)
    assert flow.report.n_pairs == ((mass >= 0.25) & (mass <= 1.0)).sum()
    assert flow.report.effective_size < 0.9 * flow.report.n_pairs


def test_unusable_training_samples():
    mass, pt, energy = small_sample()
    rng = np.random.default_rng(1)
    with pytest.raises(PhysicsError, match=r"1 of .* outside the physical limits"):
        fit(mass, pt, np.append(energy[:-1], 401.0), beam_energy=BEAM, rng=rng)
    with pytest.raises(PhysicsError, match="effective sample size"):
        fit(mass[:100], pt[:100], energy[:100], beam_energy=BEAM, rng=rng)
    with pytest.raises(PhysicsError, match="must be positive"):
        fit(mass, pt, energy, -np.ones(mass.size), beam_energy=BEAM, rng=rng)
    with pytest.raises(PhysicsError, match="different lengths"):
        fit(mass, pt[1:], energy, beam_energy=BEAM, rng=rng)
    with pytest.raises(PhysicsError, match="not finite"):
        fit(mass, pt, energy, np.full(mass.size, np.nan), beam_energy=BEAM, rng=rng)
    with pytest.raises(PhysicsError, match=r"FlowOptions\.bins"):
        FlowOptions(bins=0)


def test_saved_flow_is_bit_identical(weighted_flow, tmp_path):
    save(weighted_flow, tmp_path / "deep" / "flow.v1")
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["flow.v1.json", "flow.v1.safetensors"]
    loaded = load(tmp_path / "deep" / "flow.v1")
    mass = np.linspace(0.3, 1.0, 10_000)
    first = weighted_flow.sample(mass, np.random.default_rng(1))
    second = loaded.sample(mass, np.random.default_rng(1))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(weighted_flow.log_prob(mass, *first), loaded.log_prob(mass, *first))
    assert loaded.report == weighted_flow.report
    assert loaded.mass_range == weighted_flow.mass_range


def test_damaged_files_are_refused(weighted_flow, tmp_path):
    stem = tmp_path / "flow"
    with pytest.raises(InputFileError, match="no file"):
        load(stem)
    save(weighted_flow, stem)
    tensors, card = tmp_path / "flow.safetensors", tmp_path / "flow.json"
    content, text = tensors.read_bytes(), card.read_text()

    flipped = bytearray(content)
    flipped[-9] ^= 1
    for damaged in (bytes(flipped), content[:-100], b"", b"not a tensor file"):
        tensors.write_bytes(damaged)
        with pytest.raises(InputFileError, match="damaged"):
            load(stem)
    tensors.write_bytes(content)

    changed = json.loads(text) | {"beam_energy": 401.0}
    for damaged in (text[:-20], json.dumps(changed), "[]", "{}", text.replace("gammastar-flow-2", "other")):
        card.write_text(damaged)
        with pytest.raises(InputFileError):
            load(stem)
    card.write_text(text)
    assert load(stem).beam_energy == BEAM
