"""The inference of a run on planes known in closed form: steering keys, blinding, files, figures."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyhf
import pytest
from hs3_likelihood import hs3_nll
from scipy.optimize import brentq

from gammastar import config
from gammastar.core.errors import SteeringError, StoreError
from gammastar.core.records import Exposure
from gammastar.core.signal import Effect, Rate, SignalPlane
from gammastar.core.sources import Source, Sources
from gammastar.infer import counting_limit, discovery_yield, expected_limits, read_likelihood, upper_limit
from gammastar.infer.counting_search import MEDIAN
from gammastar.pipeline.cache import open_cache
from gammastar.pipeline.context import Context, RunState
from gammastar.pipeline.stages.accept import detectors, millicharge_detectors
from gammastar.pipeline.stages.infer import counting_search, infer_stage, millicharge_stage
from gammastar.pipeline.stages.report import reach_sections
from gammastar.results.show import show_results

MASS, COUPLING = np.linspace(0.22, 0.8, 12), np.geomspace(1e-8, 1e-5, 61)
POT_SIGMA = 0.1
EXPOSURE = Exposure(400.0, 207.2, 82.0, 0.01, 1e12, POT_SIGMA)


def plane():
    signal = 2e28 * np.exp(-MASS[:, None] / 0.12) * COUPLING**4
    signal = signal * np.exp(-(COUPLING**2) * MASS[:, None] ** 2 / 1e-13)
    cov = np.diag(np.linspace(0.02, 0.3, 12) ** 2)
    rate = Rate(MASS, np.ones(12), cov, Sources((Source("measurement", "spectrum", cov),)))
    members = signal * np.array([0.95, 1.0, 1.05])[:, None, None]
    flow = Effect("flow", "kinematics", "replicas", members)
    many = np.full(signal.shape, 1e3)
    return SignalPlane(rate, COUPLING, signal, 0.3 * signal, 0.02 * signal, many, (flow,))


def everything():
    """Return the plane with every error that a yield can have."""
    own = plane()
    signal = own.signal
    effects = (
        Effect("protons on target of the search", "pot", "relative", np.array([[0.2]])),
        Effect("scaling with A", "scaling", "relative", np.array([[0.25]])),
        Effect("spin", "polarisation", "ends", signal * np.array([0.93, 1.07])[:, None, None]),
        Effect(
            "extrapolation",
            "extrapolation",
            "relative",
            np.broadcast_to(np.linspace(0.1, 0.5, 12)[:, None], signal.shape),
        ),
    )
    return replace(own, effects=(*own.effects, *effects), mc_error=0.15 * signal)


LITTLE = {"submission": False, "discovery": [], "max_patches": 3}  # of what most tests do not look at
OLD = {"nuisances": "nuisances", "extrapolation_sigma": "extrapolation"}


def context(folder, *, extrapolate=True, mock=False, detectors=None, **keys):
    sources = {new: keys.pop(old) for old, new in OLD.items() if old in keys}
    content = {
        "analysis": {"name": "planes", "seed": 1, "mock": mock},
        "predict": {"source": "theory", "channels": ["bremsstrahlung"], "beam_energy": 400.0},
        "accept": {"detectors": ["na62_dump"]} if detectors is None else detectors,
        "infer": {"background": 0.4, "background_sigma": 0.3} | LITTLE | keys,
    }
    folder.mkdir(exist_ok=True)
    cache = open_cache(folder, resume=False, seed=1, mock=mock)
    cache.done("accept", cache.key(None), "planes")
    steering = config.Steering.model_construct(
        analysis=config.parse({"analysis": content["analysis"]}).analysis,
        accept=config.Accept(**content["accept"]),
        infer=config.Infer(**content["infer"]),
        systematics=config.Systematics(**sources),
        spectrum=None if extrapolate else SimpleNamespace(extrapolate=False, lepton="mu"),
    )
    return Context(steering, folder, folder, cache, lambda *_: None)


def searched(folder, *, mock=False, **keys):
    ctx = context(folder, mock=mock, **keys)
    planes = {"na62_dump": plane()}
    found = infer_stage(ctx, planes, EXPOSURE)
    return ctx, RunState(planes=planes, searches=found), found["na62_dump"]


def table(folder):
    with (folder / "reach.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_masked_search_has_expected_results_only(tmp_path):
    _, _, search = searched(tmp_path, discovery=config.Infer().discovery)
    assert search.observed is None
    assert np.isnan(search.significance)
    assert np.isnan(search.limit.observed)
    rows = table(tmp_path)
    parts = {row["part"] for row in rows}
    assert parts == {"all", "measured domain", "discovery, 3 sigma", "discovery, 5 sigma"}
    name = json.loads((tmp_path / "workspace.json").read_text())["measurements"][0]["name"]
    assert name == "limit_masked"
    first = rows[0]
    assert float(first["low_error_sample"]) == pytest.approx(0.02 / (4 * np.log(10)), rel=0.05)
    slope = float(first["low_error_sample"]) ** 2 + float(first["low_error_interpolation"]) ** 2
    error = float(first["coupling_low"]) * np.log(10) * np.sqrt(slope)
    assert float(first["coupling_low_error"]) == pytest.approx(error, rel=1e-3)
    assert first["method"].startswith("exact CLs")


def test_an_observation_gives_an_observed_contour(tmp_path):
    _, _, search = searched(tmp_path, observed=[3])
    sigma = float(np.hypot(POT_SIGMA, search.detector.pot_sigma))
    assert np.exp(sigma) > 1.25  # beyond, nuisances are averaged
    wanted = counting_limit(3, 0.4, signal_sigma=sigma, background_sigma=0.3, method="marginalised")
    assert "nuisances averaged" in search.limit.method
    assert search.observed is not None
    assert search.limit.observed == pytest.approx(float(wanted), rel=1e-9)
    assert search.observed.limit[0] == pytest.approx(float(wanted), rel=1e-9)
    assert search.reach.limit[0] == pytest.approx(search.limit.expected[2])  # expected stays expected
    assert 2.0 < search.significance < 3.0
    assert "observed" in {row["part"] for row in table(tmp_path)}


@pytest.mark.long
def test_an_observation_of_mock_data_excludes_nothing(tmp_path):
    ctx, made, search = searched(tmp_path, mock=True, observed=[3])
    assert search.observed is None
    assert np.isnan(search.significance)
    (section,) = reach_sections(ctx, made)
    assert any("MOCK" in " ".join(t.get_text() for t in f.axes[0].texts) for _, f in section.figures)


def test_discoveries_and_projections(tmp_path):
    _, _, search = searched(tmp_path, discovery=[5.0], projections=[1.4e18], nuisances=[])
    wanted = discovery_yield(0.4, 0.3, significance=5.0)
    np.testing.assert_allclose(search.discovery[5.0].limit, wanted)
    ratio = search.projections[1.4e18].limit[0] / search.reach.limit[0]
    assert 1 / 11 < ratio < 1 / 3  # ten times more: between no background and sqrt(10)
    assert search.impacts is not None
    assert search.impacts.names == ("background",)


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "background"), [("auto", 4.0), ("exact", 0.4), ("marginalised", 0.0), ("asymptotic", 40.0)]
)
def test_projection_to_the_same_protons_on_target_is_the_reach(tmp_path, method, background):
    """Same method, same nuisances, same masses: the contour of the run itself."""
    pot = searched(tmp_path / "a")[2].detector.pot
    keys = {"nuisances": ["pot", "spectrum", "kinematics"], "background": background, "method": method}
    _, _, search = searched(tmp_path / "b", projections=[pot, 2 * pot], discovery=[], **keys)
    np.testing.assert_allclose(search.projections[pot].limit, search.reach.limit, rtol=1e-9)
    np.testing.assert_allclose(search.projections[pot].edges, search.reach.edges, rtol=1e-9)
    rows = [row for row in table(tmp_path / "b") if row["part"].startswith("projection")]
    words = {
        "auto": "nuisances averaged",
        "marginalised": "nuisances averaged",
        "asymptotic": "asymptotic CLs",
        "exact": "fixed auxiliaries",
    }
    assert all(words[method] in row["method"] for row in rows)


@pytest.mark.long
def test_limits_are_averaged_unless_asymptotic_ones_are_asked_for(tmp_path):
    averaged = searched(tmp_path / "a", background=40.0)[2].limit
    asked = searched(tmp_path / "b", background=40.0, method="asymptotic")[2].limit
    assert "nuisances averaged" in averaged.method
    assert asked.method.startswith("asymptotic")
    assert asked.expected[2] == pytest.approx(averaged.expected[2], rel=0.1)
    half = searched(tmp_path / "c", background=40.0, method="mid-p")[2].limit
    assert "averaged, mid-P" in half.method
    assert half.expected[2] < averaged.expected[2]


@pytest.mark.long
def test_uncertainties_of_the_signal_enter_limits_and_patches(tmp_path):
    keys = {"nuisances": ["pot", "spectrum", "kinematics", "extrapolation"], "extrapolation_sigma": 0.4}
    _, _, plain = searched(tmp_path / "a")
    _, _, search = searched(tmp_path / "b", **keys)
    assert set(search.spreads) == {"measurement", "flow", "extrapolation"}
    both = np.isfinite(search.reach.edges[:, 0])
    assert (search.reach.edges[both, 0] > plain.reach.edges[both, 0]).all()
    levels = np.atleast_1d(search.reach.limit)[both]
    assert levels[-1] > levels[0] > plain.reach.limit[0]  # the error of the spectrum grows with the mass
    likelihood = read_likelihood(tmp_path / "b" / "workspace.json", patches=tmp_path / "b" / "patchset.json")
    patch = next(iter(likelihood.patches.values()))
    names = {step["value"]["name"] for step in patch if step["op"] == "add"}
    assert names == {"measurement", "flow", "extrapolation", "signal_mc"}
    assert search.impacts is not None
    assert search.impacts.names[0] == "extrapolation"


EVERY = ("pot", "spectrum", "kinematics", "polarisation", "scaling", "extrapolation", "sample")
MODIFIERS = {
    "pot": {"pot_calibration", "pot_search_NA62_dump"},
    "sample": {"signal_mc"},
    "spectrum": {"measurement"},
    "kinematics": {"flow"},
    "polarisation": {"spin"},
    "scaling": {"scaling_with_A"},
    "extrapolation": {"extrapolation"},
}


def charged(folder, **keys):
    """Return context, results and plane of millicharged particles in the bars: b = 0.1 ± 0.05."""
    ctx = context(folder, detectors={"detectors": [], "millicharge_detectors": ["mcp_bars"]}, **keys)
    found = millicharge_stage(ctx, {"mcp_bars": everything()}, EXPOSURE)["mcp_bars"]
    detector = millicharge_detectors(ctx)["mcp_bars"]
    return found, counting_search(ctx, detector, everything(), EXPOSURE, main=False)


def dark(folder, **keys):
    """Return results and plane of dark photons with every error: b = 0.4, ln kappa = 0.3."""
    ctx = context(folder, **keys)
    found = infer_stage(ctx, {"na62_dump": everything()}, EXPOSURE)["na62_dump"]
    return found, counting_search(ctx, detectors(ctx)["na62_dump"], everything(), EXPOSURE, main=True)


def patched(folder, suffix=""):
    """Yield mass, coupling and the workspace of each patch as pyhf applies it."""
    patches = pyhf.PatchSet(json.loads((folder / f"patchset{suffix}.json").read_text()))
    space = json.loads((folder / f"workspace{suffix}.json").read_text())
    for patch in patches:
        mass, coupling = patch.values
        yield mass, coupling, patches.apply(space, patch.name)


def log_kappas(space):
    (signal, _) = space["channels"][0]["samples"]
    return {m["name"]: np.log(m["data"]["hi"]) for m in signal["modifiers"] if m["type"] == "normsys"}


def at(mass, coupling):
    return int(np.argmin(np.abs(MASS - mass))), int(np.argmin(np.abs(np.log(COUPLING / coupling))))


@pytest.mark.long
@pytest.mark.parametrize("extrapolate", [True, False])
@pytest.mark.parametrize(("run", "suffix"), [(dark, ""), (charged, "_mcp_bars")])
@pytest.mark.parametrize("nuisances", [EVERY, ("pot",), ("scaling", "sample"), ("sample",)])
def test_workspace_and_patches_hold_the_nuisances_of_the_limit(tmp_path, run, suffix, nuisances, extrapolate):
    """Signal and ln κ of every patch, in quadrature, are the limit of the run, by enumeration."""
    _, search = run(
        tmp_path, nuisances=list(nuisances), extrapolate=extrapolate, method="exact", max_patches=9
    )
    _, expected, _ = search.limits()
    expected = np.broadcast_to(expected, (12, 61, 5))
    some = 0
    for mass, coupling, space in patched(tmp_path, suffix):
        i, j = at(mass, coupling)
        sigmas = log_kappas(space)
        wanted = set().union(*(MODIFIERS[name] for name in nuisances)) | {"signal_mc"}
        if not extrapolate:
            wanted -= {"extrapolation"}
        if run is charged:
            wanted -= {"pot_search_NA62_dump"}
        assert set(sigmas) == wanted
        counted = [v for k, v in sigmas.items() if k != "signal_mc" or "sample" in nuisances]
        signal, background = space["channels"][0]["samples"]
        assert signal["data"] == pytest.approx([plane().signal[i, j] * (1.0 if extrapolate else 0.3)])
        (norm,) = background["modifiers"]
        own = expected_limits(
            background["data"][0],
            signal_sigma=float(np.sqrt(np.sum(np.square(counted)))),
            background_sigma=float(np.log(norm["data"]["hi"])),
            randomise_pot=True,
            method="exact",
        )
        np.testing.assert_allclose(expected[i, j], own, rtol=3e-4)
        some += 1
    assert some > 4


@pytest.mark.long
@pytest.mark.parametrize(("run", "suffix"), [(dark, ""), (charged, "_mcp_bars")])
def test_pyhf_on_workspace_and_patch_gives_the_limit_of_the_run(tmp_path, run, suffix):
    keys = {"nuisances": list(EVERY), "method": "asymptotic", "max_patches": 3}
    _, search = run(tmp_path, **keys, **({"background": 30.0} if run is dark else {}))
    _, expected, _ = search.limits()
    for mass, coupling, spec in patched(tmp_path, suffix):
        i, j = at(mass, coupling)
        space = pyhf.Workspace(spec)
        model = space.model(modifier_settings={"normsys": {"interpcode": "code1"}})
        events = spec["channels"][0]["samples"][0]["data"][0]
        strength = expected[i, j, MEDIAN] / events  # excluded at the level of the run
        bounds = model.config.suggested_bounds()
        bounds[model.config.poi_index] = (0.0, 20 * strength + 20)
        _, found = pyhf.infer.hypotest(
            strength, space.data(model), model, test_stat="qtilde", return_expected=True, par_bounds=bounds
        )
        assert float(found) == pytest.approx(0.1, abs=1e-3)


@pytest.mark.long
def test_millicharged_limits_follow_the_steering(tmp_path):
    """[infer] nuisances and method, [spectrum] extrapolate: as for dark photons."""
    none, _ = charged(tmp_path / "a", nuisances=[], method="exact")
    kappa = float(np.log1p(0.5))
    assert none.reach.limit == pytest.approx(
        float(expected_limits(0.1, background_sigma=kappa, method="exact")[2])
    )
    scaling, _ = charged(tmp_path / "b", nuisances=["scaling"], method="exact")
    asked = {"background_sigma": kappa, "signal_sigma": np.log1p(0.25), "method": "exact"}
    wanted = expected_limits(0.1, **asked, randomise_pot=True)
    assert scaling.limit.expected == pytest.approx(wanted)
    assert scaling.reach.limit == pytest.approx(float(wanted[2]))
    averaged, _ = charged(tmp_path / "c", nuisances=["scaling"], method="marginalised")
    assert "nuisances averaged" in averaged.limit.method
    assert averaged.limit.expected[2] != pytest.approx(float(wanted[2]), rel=1e-3)
    large, _ = charged(tmp_path / "d", nuisances=[], method="asymptotic")
    assert large.limit.method.startswith("asymptotic")
    inside, _ = charged(tmp_path / "e", nuisances=[], method="exact", extrapolate=False)
    np.testing.assert_allclose(inside.reach.edges, inside.measured.edges)
    np.testing.assert_allclose(none.measured.edges, inside.measured.edges)
    both = np.isfinite(inside.reach.edges[:, 0])
    every = dict(zip(none.reach.mass.tolist(), none.reach.edges[:, 0], strict=True))
    low = [every[m] for m in inside.reach.mass[both]]
    ratio = inside.reach.edges[both, 0] / low
    assert ratio[0] == pytest.approx(0.3**-0.25, rel=0.02)  # the signal goes as Q⁴ here
    with (tmp_path / "b" / "reach_mcp_bars.csv").open(encoding="utf-8") as file:
        assert float(next(csv.DictReader(file))["limit"]) == pytest.approx(float(wanted[2]), rel=1e-4)
    content = json.loads((tmp_path / "b" / "reach_mcp_bars.json").read_text())
    assert content["signal_uncertainties"]["scaling with A"] == pytest.approx(np.log1p(0.25))


def test_exports_and_submission(tmp_path):
    searched(tmp_path, exports=["hs3", "xml"], submission=True, observed=[1], discovery=[5.0])
    document = json.loads((tmp_path / "hs3.json").read_text())
    assert np.isfinite(hs3_nll(document, {"mu": 1.0}))
    assert (tmp_path / "histfactory" / "limit.xml").is_file()
    submission = (tmp_path / "hepdata" / "submission.yaml").read_text()
    for name in ("Contour", "Contour, observed", "Contour, discovery, 5 sigma"):
        assert json.dumps(name) in submission
    assert "symerror" in (tmp_path / "hepdata" / "contour.yaml").read_text()


@pytest.mark.long
def test_figures_of_the_page(tmp_path):
    ctx, made, _ = searched(tmp_path, projections=[1.4e18])
    (section,) = reach_sections(ctx, made)
    names = [figure.get_label() for _, figure in section.figures]
    assert names == ["reach_na62_dump", "projections_na62_dump", "impacts_na62_dump"]
    assert section.tables[0].columns["contour"][-1] == "1.4e+18 POT"
    ctx, made, search = searched(tmp_path, nuisances=["spectrum"], observed=[1])
    assert search.levels is not None
    assert (np.diff(search.levels[:, 3]) > 0).all()  # the error of the spectrum grows with the mass
    assert np.isfinite(search.levels[:, 0]).all()
    (section,) = reach_sections(ctx, made)
    assert "limit_na62_dump" in [figure.get_label() for _, figure in section.figures]


def test_keys_are_checked():
    for keys in ({"method": "toys"}, {"discovery": [-1.0]}, {"exports": ["yaml"]}):
        with pytest.raises(SteeringError, match=next(iter(keys))):
            config.parse({"analysis": {"name": "x", "seed": 1}, "infer": keys})


def events(mass, coupling):
    return 2e28 * np.exp(-mass / 0.12) * coupling**4 * np.exp(-(coupling**2) * mass**2 / 1e-13)


@pytest.mark.long
def test_each_edge_has_its_own_limit_and_method(tmp_path, monkeypatch):
    """The uncertainty falls along the coupling; at each edge the closed yield is the limit of that point."""

    def share(coupling):  # of the measured domain
        return np.clip((np.log10(coupling) + 8.0) / 3.0, 0.0, 1.0)

    own = plane()
    own = replace(own, in_domain=own.signal * share(COUPLING))
    monkeypatch.setitem(globals(), "plane", lambda: own)
    keys = {"nuisances": ["pot", "extrapolation"], "extrapolation_sigma": 0.8}
    _, _, search = searched(tmp_path, **keys)
    rows = [row for row in table(tmp_path) if row["part"] == "all" and row["coupling_low"]]
    assert len(rows) > 5
    pot = float(np.hypot(POT_SIGMA, search.detector.pot_sigma))
    for row in rows[::3]:
        for side in ("low", "high"):
            mass, coupling = float(row["mass"]), float(row[f"coupling_{side}"])
            sigma = np.hypot(pot, np.log1p(0.8 * (1.0 - share(coupling))))
            wanted = upper_limit(0.4, 0.3, "masked", signal_sigma=sigma).expected[2]
            assert float(row[f"limit_{side}"]) == pytest.approx(wanted, rel=0.01)
            assert events(mass, coupling) == pytest.approx(wanted, rel=0.02)
            kappa = float(row[f"method_{side}"].split("signal κ ")[1].split(",")[0])
            assert kappa == pytest.approx(np.exp(sigma), rel=0.01)
        assert float(row["limit_low"]) > 1.02 * float(row["limit_high"])
        assert float(row["coupling_low"]) < float(row["coupling_peak"]) < float(row["coupling_high"])


def shown(ctx):
    ctx.cache.finish()
    return show_results(ctx.folder)


@pytest.mark.long
def test_files_and_words_hold_every_interval_of_masses(tmp_path):
    ctx, made, search = searched(tmp_path)
    (section,) = reach_sections(ctx, made)
    ctx.cache.numbers |= section.numbers
    limit = search.limit.expected[2]
    end = brentq(lambda m: events(m, np.sqrt(2e-13) / m) - limit, 0.3, 0.8)
    (interval,) = json.loads((tmp_path / "reach.json").read_text())["mass_intervals"]["all"]
    assert interval["low"] == MASS[0]
    assert interval["high"] == pytest.approx(end, abs=1e-3)
    assert (interval["low_closed"], interval["high_closed"]) == (False, True)
    said = f"reached from 0.220 GeV (clipped, the scan ends) to {interval['high']:.3f} GeV (tip at coupling"
    assert said in " ".join(section.paragraphs)
    assert ctx.cache.numbers["reach, NA62 dump"].startswith(said)
    assert f"all: {said}" in shown(ctx)


def test_nothing_reached_is_said_everywhere(tmp_path, monkeypatch):
    own = plane()
    effects = tuple(replace(effect, values=1e-9 * effect.values) for effect in own.effects)
    planes = {name: 1e-9 * getattr(own, name) for name in ("signal", "in_domain", "mc_error")}
    faint = replace(own, effects=effects, **planes)
    monkeypatch.setitem(globals(), "plane", lambda: faint)
    ctx, made, search = searched(tmp_path)
    assert search.reach.intervals == ()
    (section,) = reach_sections(ctx, made)
    ctx.cache.numbers |= section.numbers
    assert any("Nothing is reached" in line for line in section.paragraphs)
    said = shown(ctx)
    assert "reach, NA62 dump: nothing is reached" in said
    assert "all: nothing is reached" in said
    (tmp_path / "reach_chi.json").write_text('{"label": "x", "rows": 3}')
    with pytest.raises(StoreError, match=r"reach_chi.json: is not what a run"):
        shown(ctx)
