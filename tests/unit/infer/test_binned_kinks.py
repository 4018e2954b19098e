"""Templates that shapes pull to zero, as published likelihoods have them where few events were simulated."""

import numpy as np
import pyhf
import pytest
from data_sets import full_nll

from gammastar.core.errors import PhysicsError
from gammastar.infer.binned import fits
from gammastar.infer.binned.fits import fitted
from gammastar.infer.binned.model import binned_model

MU = {"name": "mu", "type": "normfactor", "data": None}
K = {"name": "k", "type": "normfactor", "data": None}


def norm(name, high, low):
    return {"name": name, "type": "normsys", "data": {"hi": high, "lo": low}}


def shape(name, high, low):
    return {"name": name, "type": "histosys", "data": {"hi_data": high, "lo_data": low}}


def sample(name, data, *modifiers):
    return {"name": name, "data": data, "modifiers": list(modifiers)}


def space(search, control, count):
    """MOCK: a search region and a control region of 55 counts that shares the factor k with it."""
    return {
        "channels": [{"name": "SR", "samples": search}, {"name": "CR", "samples": control}],
        "observations": [{"name": "SR", "data": [float(count)]}, {"name": "CR", "data": [55.0]}],
        "measurements": [{"name": "m", "config": {"poi": "mu", "parameters": []}}],
        "version": "1.0.0",
    }


def with_an_empty_template(count):
    """A background without simulated events, of 0.02 and up to 1.5: its shape leaves zero at −0.03 σ."""
    mc = {"name": "mc", "type": "staterror", "data": [0.5]}
    search = [
        sample("signal", [3.0], MU),
        sample("empty", [0.02], shape("zero", [1.5], [0.0]), norm("jes", 1.2, 0.9)),
        sample("top", [4.0], K, norm("jes", 1.3, 0.75), mc),
    ]
    control = [
        sample("top", [50.0], K, norm("jes", 1.1, 0.95)),
        sample("other", [9.0], norm("xs", 1.4, 0.8)),
    ]
    return space(search, control, count)


@pytest.mark.long
@pytest.mark.parametrize(("count", "on_the_kink"), [(0, True), (1, True), (2, True), (4, False)])
def test_minima_on_a_kink_are_found(count, on_the_kink):
    """No value of the shape's nuisance that is held has a lower minimum than the fit that leaves it free."""
    model = binned_model(with_an_empty_template(count))
    counts, held = model.counts[None, :], np.array([name == "zero" for name in model.names])
    found = fitted(model, counts, model.aux, strength=0.0)
    grid = np.linspace(-1.0, 1.0, 20_001)
    start = np.repeat(found.x, grid.size, axis=0)
    start[:, held] = grid[:, None]
    every = np.repeat(counts, grid.size, axis=0)
    scanned = fitted(model, every, model.aux, strength=0.0, start=start, held=held)
    assert found.nll[0] <= scanned.nll.min() + 1e-7
    assert found.nll[0] == pytest.approx(scanned.nll.min(), abs=1e-5)
    template = model.events.shape(found.x)[0, 1]
    assert (abs(template) < 1e-5) == on_the_kink


def test_nothing_is_negative_as_in_pyhf_with_clipped_samples():
    """Shapes and polynomials of a normsys below zero: ROOT and pyhf's `clip_sample_data` take zero."""
    search = [
        sample("signal", [3.0], MU, norm("theory", 1.1, 0.9)),
        sample("tail", [1.0], shape("one", [1.8], [0.3]), shape("two", [1.6], [0.2]), norm("jes", 1.1, 0.9)),
        sample("rare", [2.0], norm("huge", 1.02, 1e-3), norm("jes", 1.2, 0.7)),
        sample("top", [4.0], K),
    ]
    spec = space(search, [sample("top", [50.0], K, norm("jes", 1.1, 0.95))], 3)
    model, whole = binned_model(spec), pyhf.Workspace(spec)
    peer = whole.model(clip_sample_data=0.0)
    plain = whole.model()
    places = [peer.config.par_slice(name).start for name in model.names]
    rng = np.random.default_rng(1)
    points = np.where(np.isfinite(model.width), rng.normal(0.0, 1.5, (200, len(places))), 1.1)
    values, cut = np.zeros((200, len(places))), 0
    values[:, places] = points
    data = whole.data(peer)
    ours = full_nll(model, points, model.counts[None, :], model.aux)
    for x, value in zip(values, ours, strict=True):
        assert value == pytest.approx(-float(peer.logpdf(x, data)[0]), rel=1e-10)
        cut += float(plain.logpdf(x, data)[0]) != pytest.approx(-value, rel=1e-6)
    assert cut > 20  # points where a template was cut at all
    data = fits.Data(
        np.repeat(model.counts[None, :], 200, axis=0), np.repeat(model.aux, 200, axis=0), None, None
    )
    slopes = fits._State.at(model, points, data).gradient
    for k, step in enumerate(1e-6 * np.eye(len(places))):
        ends = [fits._nll(model, points + s * step, data) for s in (1.0, -1.0)]
        np.testing.assert_allclose(slopes[:, k], (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-4)


@pytest.mark.long
def test_a_fit_that_creeps_is_begun_again_with_shorter_steps(monkeypatch):
    """Steps from one side of a valley to the other gain nothing; what no fit ends is refused, by number."""
    model = binned_model(with_an_empty_template(4))
    counts, aux = np.repeat(model.counts[None, :], 3, axis=0), np.repeat(model.aux, 3, axis=0)
    wanted, ended, asked = fitted(model, counts, aux, strength=1.0), fits._minimised, []

    def creeping(model, data, x, damping):
        found = ended(model, data, x, damping)
        asked.append(len(x))
        if len(asked) == 1:
            found.nll[1::3] = np.inf
        return found

    monkeypatch.setattr(fits, "_minimised", creeping)
    again = fitted(model, counts, aux, strength=1.0)
    assert asked[0] == 6  # two starts each
    assert len(asked) > 1
    np.testing.assert_allclose(again.nll, wanted.nll, atol=1e-7)
    np.testing.assert_allclose(again.x, wanted.x, atol=1e-3)
    monkeypatch.setattr(fits, "_minimised", ended)
    monkeypatch.setattr(fits, "STEPS", 1)
    with pytest.raises(PhysicsError, match="3 of 3 fits did not converge"):
        fitted(model, counts, aux, strength=1.0)
