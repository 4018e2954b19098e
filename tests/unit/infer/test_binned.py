"""Workspaces with any nuisances: the likelihood of pyhf, its fits, and CLs known from sums."""

import json

import joint_models
import numpy as np
import pyhf
import pytest
from click.testing import CliRunner
from data_sets import full_nll
from feldman_cousins import counting_interval
from scipy.stats import chi2, nbinom, poisson

from gammastar.cli import app
from gammastar.core.errors import PhysicsError
from gammastar.infer import Convention, scan, to_hs3
from gammastar.infer.binned import fits
from gammastar.infer.binned.fits import fitted
from gammastar.infer.binned.model import binned_model
from gammastar.infer.binned.toys import (
    BinnedToys,
    binned_cls,
    binned_limits,
    drawn,
    goodness_of_fit,
    likelihood_scan,
    statistic_of,
    strength_interval,
)
from gammastar.infer.counting import counting_cls
from gammastar.infer.histfactory.likelihoods import Likelihood
from gammastar.infer.joint.expectation import arrays_of, joint_workspace
from gammastar.infer.joint.limits import joint_cls
from gammastar.infer.scanning import strength_limits

MU = {"name": "mu", "type": "normfactor", "data": None}
LUMI = {"name": "lumi", "type": "lumi", "data": None}
LUMINOSITY = {"name": "lumi", "auxdata": [1.0], "sigmas": [0.02], "bounds": [[0.9, 1.1]], "inits": [1.0]}


def norm(name, high, low):
    return {"name": name, "type": "normsys", "data": {"hi": high, "lo": low}}


def shape(name, high, low):
    return {"name": name, "type": "histosys", "data": {"hi_data": high, "lo_data": low}}


def bins(kind, name, errors):
    return {"name": name, "type": kind, "data": errors}


def space(channels, counts, *parameters):
    """Channels as {name: [(sample, yields, modifiers), …]}."""
    names = ("name", "data", "modifiers")
    return {
        "channels": [
            {"name": c, "samples": [dict(zip(names, sample, strict=True)) for sample in samples]}
            for c, samples in channels.items()
        ],
        "observations": [{"name": c, "data": list(map(float, counts[c]))} for c in channels],
        "measurements": [{"name": "m", "config": {"poi": "mu", "parameters": list(parameters)}}],
        "version": "1.0.0",
    }


def everything(seen=(2, 0)):
    """MOCK: a signal and a control region with every kind of nuisance, as analyses publish them."""
    factor = {"name": "mu_tt", "type": "normfactor", "data": None}
    top = [factor, norm("jes", 1.1, 0.95), shape("theory", [1.8, 0.5], [1.3, 0.25])]
    other = [LUMI, norm("xs", 1.3, 0.8)]
    search = [
        ("signal", [2.0, 1.0], [MU, LUMI, norm("jes", 1.08, 0.9), bins("staterror", "mc", [0.1, 0.08])]),
        ("top", [1.5, 0.4], [*top, bins("staterror", "mc", [0.2, 0.1])]),
        ("other", [0.5, 0.3], [*other, bins("shapesys", "fakes", [0.2, 0.15])]),
    ]
    control = [
        ("top", [40.0, 20.0], [factor, norm("jes", 1.05, 0.97), bins("staterror", "mc_cr", [1.5, 1.0])]),
        ("other", [5.0, 3.0], other),
    ]
    return space({"SR": search, "CR": control}, {"SR": seen, "CR": (47, 21)}, LUMINOSITY)


def one_bin(count, *modifiers, background=0.8, signal=3.0):
    samples = [("signal", [signal], [MU]), ("background", [background], list(modifiers))]
    return space({"c": samples}, {"c": [count]})


def of_pyhf(spec):
    """Return pyhf's model and data, and where our parameters stand in its list."""
    whole = pyhf.Workspace(spec)
    model, places = whole.model(), []
    for name in binned_model(spec).names:
        base, _, index = name.removesuffix("]").partition("[")
        places.append(model.config.par_slice(base).start + int(index or 0))
    return model, whole.data(model), np.array(places)


def test_the_likelihood_is_that_of_pyhf():
    spec = everything()
    model, (peer, data, places) = binned_model(spec), of_pyhf(spec)
    rng, values = np.random.default_rng(1), np.array(peer.config.suggested_init())
    points = np.where(
        np.isfinite(model.width) & (model.centre == 0.0),
        rng.normal(0.0, 1.0, (20, len(places))),
        rng.uniform(0.8, 1.2, (20, len(places))),
    )
    ours = full_nll(model, points, model.counts[None, :], model.aux)
    for x, value in zip(points, ours, strict=True):
        values[places] = x
        assert value == pytest.approx(-float(peer.logpdf(values, data)[0]), rel=1e-12)


def whole(layout, bends):
    """Return a symmetric matrix of all parameters, with those that fits eliminate."""
    found = np.zeros((layout.places.size + 1,) * 2)
    found[np.ix_(layout.core, layout.core)] = bends.core[0]
    for block, cross, own in zip(layout.local, bends.cross[0], bends.blocks[0], strict=True):
        found[np.ix_(block, layout.core)], found[np.ix_(layout.core, block)] = cross, cross.T
        found[np.ix_(block, block)] = own
    return found[:-1, :-1]


@pytest.mark.parametrize("name", ["all", *joint_models.MODELS])
def test_gradient_and_hessian(name):
    """Parameters of single bins are eliminated in all of these; the blocks that are left out are zero."""
    spec = everything() if name == "all" else joint_workspace(joint_models.MODELS[name])
    model, rng = binned_model(spec), np.random.default_rng(2)
    layout, p = model.events.layout, len(model.names)
    assert layout.local.size > 0
    free = np.isfinite(model.width) & (model.centre == 0.0)
    x = np.where(free, rng.normal(0.0, 0.8, p), rng.uniform(0.6, 1.4, p))
    steps = 1e-5 * np.array([1.0, -1.0])[:, None, None] * np.eye(p)
    points = (x + steps).reshape(2 * p, p)
    data = fits.Data(*(np.repeat(a, 2 * p, axis=0) for a in (model.counts[None], model.aux)), points, points)
    rise = -np.diff(fits._nll(model, points, data).reshape(2, p), axis=0)[0] / 2e-5
    bent = -np.diff(fits._State.at(model, points, data).gradient.reshape(2, p, p), axis=0)[0] / 2e-5
    found = fits._State.at(model, x[None], data.of(slice(0, 1)))
    np.testing.assert_allclose(found.gradient[0], rise, atol=1e-7)
    np.testing.assert_allclose(whole(layout, found.hessian), bent, atol=1e-8 * np.abs(bent).max())
    assert np.linalg.eigvalsh(whole(layout, found.scoring)).min() > 0.0


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.5])
def test_fits_are_those_of_pyhf(strength):
    spec = everything()
    model, (peer, data, _) = binned_model(spec), of_pyhf(spec)
    found = fitted(model, model.counts[None, :], model.aux, strength=strength)
    _, wanted = pyhf.infer.mle.fixed_poi_fit(strength, data, peer, return_fitted_val=True)
    ours = full_nll(model, found.x, model.counts[None, :], model.aux)[0]
    assert ours == pytest.approx(float(wanted) / 2.0, abs=2e-6)
    assert ours <= float(wanted) / 2.0 + 1e-8  # never above that of another minimiser


@pytest.mark.long
@pytest.mark.parametrize(("auxiliary", "method"), [("fixed", "exact"), ("averaged", "marginalised")])
def test_one_bin_against_enumeration(auxiliary, method):
    spec = one_bin(1, norm("b", 1.4, 1 / 1.4))
    rng, convention = np.random.default_rng(2), Convention("ratio", auxiliary)
    found, expected = binned_cls(spec, rng=rng, convention=convention, n_toys=20_000)
    wanted = counting_cls(3.0, 1, 0.8, background_sigma=np.log(1.4), method=method)
    assert found.cls == pytest.approx(float(wanted), abs=4 * found.error)
    assert (np.diff(expected) >= 0).all()
    assert auxiliary in found.method


@pytest.mark.long
def test_counted_backgrounds_average_to_negative_binomials():
    """A Poisson mean measured by τ counts has a gamma posterior, and counts over it are negative binomial."""
    background, error, signal = 1.2, 0.4, 3.5
    spec = one_bin(2, bins("shapesys", "side", [error]), background=background, signal=signal)
    tau = (background / error) ** 2
    p = tau / (tau + background)
    n = np.arange(3)
    alone = nbinom.pmf(n, tau + 1.0, p)
    wanted = (alone @ poisson.cdf(2 - n, signal)) / alone.sum()
    convention = Convention("qtilde", "averaged")
    found, _ = binned_cls(spec, rng=np.random.default_rng(3), convention=convention, n_toys=20_000)
    assert found.cls == pytest.approx(wanted, abs=4 * found.error)


@pytest.mark.long
def test_a_control_region_fixes_its_background():
    """10⁶ counts beside the search: CLs of a known background; the control region breaks ties in half."""
    factor = {"name": "k", "type": "normfactor", "data": None}
    channels = {
        "SR": [("signal", [3.0], [MU]), ("background", [1.0], [factor])],
        "CR": [("background", [1e6], [factor])],
    }
    spec = space(channels, {"SR": [1], "CR": [1e6]})
    both = [poisson.cdf(1, mean) - 0.5 * poisson.pmf(1, mean) for mean in (4.0, 1.0)]
    wanted = both[0] / both[1]
    for convention in (Convention("ratio", "fixed"), Convention("ratio", "averaged")):
        found, _ = binned_cls(spec, rng=np.random.default_rng(4), convention=convention, n_toys=10_000)
        assert found.cls == pytest.approx(wanted, abs=4 * found.error + 2e-3)


@pytest.mark.long
def test_limits_cross_where_cls_is_the_level():
    """Without events and known background CLs = e^−s: ln 20 of 2.5 at 95 %."""
    spec = one_bin(0, bins("shapesys", "side", [1e-4]), signal=2.5)
    observed, expected = binned_limits(spec, cl=0.95, n_toys=20_000)
    assert observed == pytest.approx(np.log(20.0) / 2.5, rel=0.03)
    assert (np.diff(expected) >= 0).all()
    through, _ = strength_limits(Likelihood(spec, {}, {}, ()), "workspace", cl=0.95, method="exact")
    assert through == pytest.approx(np.log(20.0) / 2.5, rel=0.08)


def test_auto_acts_on_its_own_warning():
    """No event in the search and thousands beside it: asymptotic CLs of a signal is too small."""
    factor = {"name": "k", "type": "normfactor", "data": None}
    channels = {
        "SR": [("signal", [2.3], [MU]), ("background", [0.5], [factor, bins("staterror", "mc", [0.1])])],
        "CR": [("background", [2000.0], [factor])],
    }
    likelihood = Likelihood(space(channels, {"SR": [0], "CR": [2000]}), {}, {}, ())
    (point,) = scan(likelihood, method="auto")
    (weak,) = scan(likelihood, method="asymptotic")
    assert point.method.startswith("exact CLs")
    assert not point.doubtful
    assert weak.doubtful
    assert point.observed == pytest.approx(np.exp(-2.3), abs=4 * point.error)
    assert weak.observed < 0.7 * point.observed


@pytest.mark.long
def test_auto_averages_at_any_error_of_the_signal():
    for size in (1.05, 1.6):
        samples = [
            ("signal", [3.0], [MU, norm("rate", size, 1 / size)]),
            ("background", [0.8], [bins("staterror", "mc", [0.1])]),
        ]
        spec = space({"c": samples}, {"c": [1]})
        (point,) = scan(Likelihood(spec, {}, {}, ()), method="auto")
        assert "averaged over nuisances" in point.method


def test_templates_below_zero_are_cut_as_in_root():
    spec = one_bin(0, shape("tail", [1.6], [0.0]), background=0.8)
    model = binned_model(spec)
    below = model.expected(np.array([[0.0, -3.0], [0.0, 3.0]]))
    np.testing.assert_allclose(below[:, 0], [0.0, 3.2])
    found = fitted(model, np.array([[0.0]]), model.aux, strength=0.0)
    assert found.x[0, 1] == pytest.approx(-0.8, abs=1e-5)  # ½α² + 0.8 α: no need to go below zero


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (one_bin(0, LUMI), "auxdata and sigmas"),
        (one_bin(0, norm("b", 1.2, -0.1)), "must be positive"),
        (one_bin(0, shape("b", [np.nan], [0.1])), "not finite"),
        (one_bin(0, {"name": "b", "type": "custom", "data": None}), "not of HistFactory"),
    ],
)
def test_refused(spec, word):
    with pytest.raises(PhysicsError, match=word):
        binned_cls(spec, rng=np.random.default_rng(1))


@pytest.mark.long
def test_command_line_tests_every_kind_of_nuisance(tmp_path):
    (tmp_path / "all.json").write_text(json.dumps(everything()))
    arguments = ["scan", str(tmp_path / "all.json"), "--method", "exact", "--statistic", "qtilde"]
    said = CliRunner().invoke(app, arguments, catch_exceptions=False).output
    assert "exact CLs, 8000 toys, q̃μ" in said
    assert "warning" not in said


@pytest.mark.parametrize(
    ("count", "background", "interval"),
    [(0, 0.0, (0.0, 2.44)), (3, 0.0, (1.10, 7.42)), (3, 3.0, (0.0, 4.42)), (10, 3.0, (2.63, 13.50))],
)
def test_published_intervals_of_counts(count, background, interval):
    """Feldman and Cousins, Phys. Rev. D 57 (1998) 3873, Table IV (90 %)."""
    assert counting_interval(count, background) == pytest.approx(interval, abs=0.011)


@pytest.mark.long
def test_intervals_of_a_workspace_are_those_of_the_count():
    """Steps of the count make p jump at the ends; 2000 toys put them within a few per cent."""
    low, high = strength_interval(one_bin(5, background=1.0, signal=1.0), rng=np.random.default_rng(1))
    wanted = counting_interval(5, 1.0)
    assert low == pytest.approx(wanted[0], abs=0.15)
    assert high == pytest.approx(wanted[1], abs=0.5)


def test_scans_of_the_likelihood():
    """One bin without nuisances: 2 (ν − n − n ln(ν/n)) above the best fit; with all, pyhf's fits."""
    mu = np.array([0.0, 0.5, 2.0])
    mean = 3.0 * mu + 0.8
    wanted = 2.0 * (mean - 4.0 - 4.0 * np.log(mean / 4.0))
    np.testing.assert_allclose(likelihood_scan(one_bin(4), mu), wanted, atol=1e-7)
    spec = everything((6, 2))
    peer, data, _ = of_pyhf(spec)
    nll = [pyhf.infer.mle.fixed_poi_fit(m, data, peer, return_fitted_val=True)[1] for m in (0.0, 2.0)]
    ours = likelihood_scan(spec, [0.0, 2.0])
    assert ours[0] - ours[1] == pytest.approx(float(nll[0] - nll[1]), abs=1e-5)
    with pytest.raises(PhysicsError, match="not negative"):
        likelihood_scan(spec, [-1.0])


def test_goodness_of_fit():
    """Many counts: χ² of the bins that are left. Few: the p-value of the toys, enumerated in one bin."""
    rng = np.random.default_rng(6)
    samples = [("signal", [1.0] * 6, [MU]), ("background", [400.0] * 6, [])]
    counts = rng.poisson(400.0, 6)
    fit = goodness_of_fit(space({"c": samples}, {"c": counts}), rng=rng, strength=0.0)
    chi = np.sum((counts - 400.0) ** 2 / 400.0)
    assert fit.statistic == pytest.approx(chi, rel=0.1)
    assert fit.freedom == 6
    assert fit.p_value == pytest.approx(chi2.sf(fit.statistic, 6), abs=4 * fit.error + 0.01)
    fit = goodness_of_fit(one_bin(3), rng=rng, strength=0.0, n_toys=20_000)
    n = np.arange(60)
    with np.errstate(divide="ignore", invalid="ignore"):
        worse = 2.0 * (0.8 - n + np.where(n > 0, n * np.log(n / 0.8), 0.0))
    wanted = poisson.pmf(n, 0.8)[worse >= worse[3] - 1e-9].sum()
    assert fit.p_value == pytest.approx(wanted, abs=4 * fit.error)


def test_hs3_refuses_what_root_reads_otherwise():
    low = one_bin(0, shape("tail", [1.6], [0.0]), background=0.8)
    with pytest.raises(PhysicsError, match="where ROOT reads zero and pyhf a negative number"):
        to_hs3(low)
    two = one_bin(0, shape("a", [1.0], [0.6]), shape("b", [1.0], [0.58]), background=0.8)
    with pytest.raises(PhysicsError, match="at 3 standard deviations"):
        to_hs3(two)  # each alone stays positive, both together do not
    for bad in (norm("b", float("nan"), 0.9), bins("shapesys", "b", [float("inf")])):
        with pytest.raises(PhysicsError, match="not finite"):
            to_hs3(one_bin(0, bad))
    assert to_hs3(one_bin(0, shape("a", [1.0], [0.6]), background=0.8))["distributions"]


@pytest.mark.long
def test_command_line_fits(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(one_bin(4)))
    arguments = ["scan", str(tmp_path / "one.json"), "--goodness", "--interval", "--cl", "0.9", "--json"]
    found = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).output)["signals"][0]
    assert found["goodness"]["p_value"] > 0.5  # the signal takes up the excess
    wanted = np.array(counting_interval(4, 0.8)) / 3.0
    assert found["mu_interval"] == pytest.approx(wanted, abs=0.25)


def several_ways(rng, shapes=10, size=0.5):
    """Return a workspace in which three free backgrounds, whose shapes move, describe any three counts."""

    def sample(name, data, free):
        modifiers = [{"name": free, "type": "normfactor", "data": None}]
        for k in range(0 if name == "signal" else shapes):
            shift = rng.normal(size=3) * size * np.array(data)
            ends = {"hi_data": (data + shift).tolist(), "lo_data": (data - shift).tolist()}
            modifiers.append({"name": f"shape{k}", "type": "histosys", "data": ends})
        return {"name": name, "data": list(data), "modifiers": modifiers}

    samples = [
        sample("signal", [1.0, 2.0, 4.0], "mu"),
        sample("a", [6.0, 4.0, 2.0], "norm_a"),
        sample("b", [3.0, 4.0, 3.0], "norm_b"),
        sample("c", [3.0, 1.0, 3.0], "norm_c"),
    ]
    return {
        "channels": [{"name": "search", "samples": samples}],
        "observations": [{"name": "search", "data": [10.0, 9.0, 8.0]}],
        "measurements": [{"name": "limit", "config": {"poi": "mu", "parameters": []}}],
        "version": "1.0.0",
    }


@pytest.mark.long
def test_the_lowest_of_several_minima_is_found():
    rng = np.random.default_rng(2)
    model, n = binned_model(several_ways(rng)), 40
    counts = rng.poisson(model.counts, (n, 3)).astype(float)
    aux = np.where(np.isfinite(model.width), rng.normal(size=(n, len(model.start))), model.aux)
    found = fitted(model, counts, aux, strength=1.0).nll
    width, lowest = np.where(np.isfinite(model.width), 1.0, 0.5), found
    for _ in range(4):
        start = np.clip(model.start + width * rng.normal(size=aux.shape), model.low, model.high)
        lowest = np.minimum(lowest, fitted(model, counts, aux, strength=1.0, start=start).nll)
    assert np.mean(found - lowest > 1e-3) < 0.06  # from the nominal start alone 10 to 15 %


@pytest.mark.long
def test_free_fits_of_toys_are_no_worse_than_those_without_signal():
    """Three pairs: μ n_j has minima with and without signal; the conditional fit leads to the other one."""
    spec = joint_workspace(joint_models.model(3.0))
    model, convention = binned_model(spec), Convention("qtilde", "randomised")
    data = BinnedToys(model.counts[None, :], model.aux)
    toys = drawn(model, data, 0.0, convention, 60, np.random.default_rng(1))
    q = statistic_of(model, toys, 2.0, convention)
    none = fitted(model, toys.counts, toys.aux, strength=0.0)
    starts = (None, none.x)
    two = [fitted(model, toys.counts, toys.aux, strength=2.0, start=start).nll for start in starts]
    assert np.mean(q < 2.0 * (np.min(two, axis=0) - none.nll) - 0.02) < 0.02


@pytest.mark.long
def test_a_joint_workspace_is_scanned_exactly():
    one, convention = joint_models.model(10.0), Convention("qtilde", "randomised")
    rng = np.random.default_rng(1)
    found, _ = binned_cls(joint_workspace(one), 3.0, rng=rng, convention=convention, n_toys=100)
    wanted = joint_cls(arrays_of(one), one.data, 3.0, 500, rng)
    assert found.cls == pytest.approx(wanted.cls, abs=4.0 * np.hypot(found.error, wanted.error))
    fixed, _ = binned_cls(joint_workspace(one), rng=rng, n_toys=50)
    assert 0.3 < fixed.cls < 1.0


def test_both_minima_of_one_sided_nuisances_are_found():
    """Shapes that fall short in both directions: −α is as good as α, and one start finds either."""
    b = np.array([3.0, 2.0, 1.0])
    ends = [b * up for up in ([1.3, 1.1, 0.75], [0.7, 1.2, 0.8], [1.25, 0.8, 1.1], [0.8, 0.85, 1.3])]
    shapes = [shape(f"s{k}", (b + 0.8 * (end - b)).tolist(), end.tolist()) for k, end in enumerate(ends)]
    samples = [("signal", [0.5, 1.0, 2.0], [MU]), ("background", b.tolist(), shapes)]
    model, n = binned_model(space({"c": samples}, {"c": [3, 2, 2]})), 60
    rng = np.random.default_rng(1)
    counts = rng.poisson(b, (n, 3)).astype(float)
    aux = np.where(np.isfinite(model.width), rng.normal(size=(n, len(model.start))), model.aux)
    found = fitted(model, counts, aux, strength=1.0).nll
    for _ in range(6):
        start = aux + np.where(np.isfinite(model.width), rng.normal(size=aux.shape), 0.0)
        start[:, model.poi] = 1.0
        other = fitted(model, counts, aux, strength=1.0, start=start, further=False).nll
        assert (found < other + 0.01).all()
