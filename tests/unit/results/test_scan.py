"""Published likelihoods tested exactly, asymptotically, or as the number of events asks; the command line."""

from __future__ import annotations

import json
import re
import tarfile

import numpy as np
import pyhf
import pytest
from builders import ROOT
from click.testing import CliRunner
from effects import poisson_counts
from scipy.stats import poisson

from gammastar.cli import app
from gammastar.core.errors import InputFileError, PhysicsError, SteeringError
from gammastar.infer import patchset, read_likelihood, scan, to_hs3, workspace
from gammastar.infer.counting import counting_cls
from gammastar.infer.histfactory.hs3 import from_hs3
from gammastar.infer.histfactory.likelihoods import Likelihood
from gammastar.infer.histfactory.modifiers import log_normal
from gammastar.infer.histfactory.workspaces import sample
from gammastar.infer.scanning import strength_limits, write_hs3
from gammastar.store.manifest import file_sha256, write_manifest

POT = float(np.log(1.2))


def likelihood(observed, background=0.5, sigma=0.3):
    space = workspace("c", background, sigma, observed, pot_search_sigma=POT)
    patches = patchset(space, [0.3, 0.3], [1e-6, 2e-6], [2.5, 5.0])
    named = {p["metadata"]["name"]: p["patch"] for p in patches["patches"]}
    return Likelihood(space, named, {}, ())


def test_exact_scan_is_the_enumeration():
    found = list(scan(likelihood([1]), method="exact"))
    for point, signal in zip(found, (2.5, 5.0), strict=True):
        wanted = counting_cls(signal, 1, 0.5, signal_sigma=POT, background_sigma=0.3, method="exact")
        assert point.observed == pytest.approx(float(wanted), abs=4 * point.error + 1e-3)
        assert "exact CLs" in point.method
        assert (np.diff(point.expected) >= 0).all()


def test_expected_bands_of_one_bin_without_nuisances():
    """Quantiles of a count: CLs(n) = P(≤ n | s + b)/P(≤ n | b) at the quantiles of n."""
    space = workspace("c", 3.0, 0.0, [3])
    space["channels"][0]["samples"][0]["data"] = [4.0]
    (point,) = scan(Likelihood(space, {}, {}, ()), method="exact", rng=np.random.default_rng(3))
    counts = poisson.ppf([0.022750, 0.158655, 0.5, 0.841345, 0.977250], 3.0)
    wanted = poisson.cdf(counts, 7.0) / poisson.cdf(counts, 3.0)
    np.testing.assert_allclose(point.expected, wanted, rtol=0.06, atol=2e-3)


@pytest.mark.long
def test_auto_averages_at_any_count():
    for counts, background in ([1], 0.5), ([60], 55.0):
        point = next(scan(likelihood(counts, background=background), method="auto"))
        assert point.method.startswith("exact CLs by enumeration")
        assert "averaged over nuisances" in point.method
    space = workspace("c", [0.5, 0.4], 0.3, [1, 0])
    space["channels"][0]["samples"] = [
        sample("signal", [1.0, 1.0], log_normal("pot", POT), signal=True),
        sample("background", [0.5, 0.4], poisson_counts("like_sign", [0.05, 0.04])),
    ]
    (point,) = scan(Likelihood(space, {}, {}, ()), method="auto")
    assert point.method.startswith("exact CLs, 8000 toys")
    assert "averaged over nuisances" in point.method


def test_a_masked_likelihood_has_no_observed_cls_in_any_method():
    for method in ("asymptotic", "exact"):
        point = next(scan(likelihood("masked", background=2.0), method=method))
        assert np.isnan(point.observed)
        assert np.isfinite(point.expected).all()


def test_command_line(tmp_path):
    space = likelihood([1]).workspace
    space["channels"][0]["samples"][0]["data"] = [2.5]
    (tmp_path / "model.json").write_text(json.dumps(to_hs3(space)))
    arguments = ["scan", str(tmp_path / "model.json"), "--method", "auto", "--hs3", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "exact CLs" in done.output
    written = json.loads((tmp_path / "out" / "workspace.json").read_text())
    assert (
        from_hs3(written)["observations"]
        == read_likelihood(tmp_path / "model.json").workspace["observations"]
    )


SMALL = ROOT / "analysis" / "na60_dimuon" / "small.toml"


def steering(path, method):
    keys = f'[infer]\nmethod = "{method}"\n'
    path.write_text(SMALL.read_text().replace("[infer]\n", keys))
    return str(path)


def scanned(folder, *arguments):
    space = likelihood([1]).workspace
    space["channels"][0]["samples"][0]["data"] = [2.5]
    (folder / "model.json").write_text(json.dumps(space))
    done = CliRunner().invoke(app, ["scan", str(folder / "model.json"), *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_scan_follows_the_convention_of_the_steering(tmp_path):
    """Averaged toys are the marginalised enumeration, fixed ones the plug-in; they differ by 0.02 here."""
    options = {"signal_sigma": POT, "background_sigma": 0.3}
    wanted = {
        "exact": float(counting_cls(2.5, 1, 0.5, method="exact", **options)),
        "marginalised": float(counting_cls(2.5, 1, 0.5, method="marginalised", **options)),
    }
    assert abs(wanted["exact"] - wanted["marginalised"]) > 0.004
    path = tmp_path / "steering.toml"
    for method, label in (("exact", "fixed auxiliaries"), ("marginalised", "averaged over nuisances")):
        said = scanned(tmp_path, "--steering", steering(path, method))
        assert label in said
        assert float(said.split("CLs ")[1].split()[0]) == pytest.approx(wanted[method], abs=4e-3)
    assert "averaged over nuisances" in scanned(tmp_path, "--steering", steering(path, "auto"))
    assert "fixed auxiliaries" in scanned(tmp_path, "--steering", str(path), "--method", "exact")


@pytest.mark.long
def test_scan_takes_statistic_and_toys(tmp_path):
    said = scanned(tmp_path, "--method", "exact", "--statistic", "qtilde", "--auxiliary", "randomised")
    assert "q̃μ, nuisances profiled, randomised auxiliaries" in said
    assert "asymptotic CLs" in scanned(tmp_path)
    with pytest.raises(SteeringError, match="cannot take 'fixed' toys"):
        scanned(tmp_path, "--method", "marginalised", "--auxiliary", "fixed")
    (tmp_path / "bare.toml").write_text('[analysis]\nname = "bare"\n')
    with pytest.raises(SteeringError, match=r"bare.toml: has no \[infer\]"):
        scanned(tmp_path, "--steering", str(tmp_path / "bare.toml"))


B, S = 0.025, 2.0  # background and signal of one bin in which nothing is seen


def folder_of_a_run(folder, method, *, observed=(0,), background=B, sign=True):
    """A workspace without nuisances and its patch set, as a run writes them, with what beside it says how."""
    space = workspace("c", background, 0.0, list(observed))
    patches = patchset(space, [0.3, 0.3], [1e-6, 2e-6], [S, 2 * S])
    if sign:
        patches["metadata"]["gammastar"] = {"method": method, "cl": 0.9}
    (folder / "workspace.json").write_text(json.dumps(space))
    (folder / "patchset.json").write_text(json.dumps(patches))
    return folder


def lines_of(folder, *arguments, name="workspace.json", patches="patchset.json"):
    extra = ["--patches", str(folder / patches)] if patches else []
    done = CliRunner().invoke(app, ["scan", str(folder / name), *extra, *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def cls_of(said, which=0):
    return float([line for line in said.splitlines() if " CLs " in line][which].split("CLs ")[1].split()[0])


def test_a_likelihood_is_tested_as_the_run_that_wrote_it_says(tmp_path):
    """Without nuisances exact CLs is a ratio of Poisson sums: e^−s if nothing is seen."""
    folder_of_a_run(tmp_path, "auto")
    said = lines_of(tmp_path)
    assert said.startswith("# as the run that wrote the patch set says: method = 'auto'")
    assert "90 % CL" in said
    for i in (0, 1):
        wanted = poisson.cdf(0, B + (i + 1) * S) / poisson.cdf(0, B)
        assert cls_of(said, i) == pytest.approx(wanted, rel=1e-5)
    assert "warning" not in said
    asked = lines_of(tmp_path, "--method", "asymptotic")
    assert cls_of(asked) < 0.7 * np.exp(-S)  # what it said before without a word
    assert "too small at fewer than 20 events, 0.025 are expected" in asked
    assert "warning: asymptotic formulae with fewer than 20 expected events at 2 of 2 signals" in asked


def test_toys_are_those_that_the_patch_set_names(tmp_path):
    """As patch sets of a joint likelihood do; what is asked for goes first."""
    folder_of_a_run(tmp_path, "exact")
    patches = json.loads((tmp_path / "patchset.json").read_text())
    patches["metadata"]["gammastar"] |= {"statistic": "qtilde", "auxiliary": "randomised"}
    (tmp_path / "patchset.json").write_text(json.dumps(patches))
    assert "q̃μ, nuisances profiled, randomised auxiliaries" in lines_of(tmp_path)
    assert "ratio s+b/b" in lines_of(tmp_path, "--statistic", "ratio")
    patches["metadata"]["gammastar"]["statistic"] = "guessed"
    (tmp_path / "patchset.json").write_text(json.dumps(patches))
    with pytest.raises(InputFileError, match="metadata of the patch set say how limits were set"):
        lines_of(tmp_path)


def test_the_method_of_the_folder_where_the_patch_set_says_nothing(tmp_path):
    folder_of_a_run(tmp_path, "", sign=False)
    foreign = lines_of(tmp_path)
    assert "asymptotic CLs" in foreign
    assert "warning: asymptotic formulae" in foreign
    (tmp_path / "steering.json").write_text(
        json.dumps({"analysis": {"name": "x"}, "infer": {"method": "marginalised", "cl": 0.95}})
    )
    sums = {path.name: file_sha256(path) for path in tmp_path.glob("*.json")}
    write_manifest(tmp_path, {"files": sums})
    said = lines_of(tmp_path)
    assert "steering.json says: method = 'marginalised'; excluded at 95 % CL" in said
    assert "averaged over nuisances" in said
    assert cls_of(said) == pytest.approx(np.exp(-S), rel=0.02)  # toys
    (tmp_path / "other.json").write_text((tmp_path / "workspace.json").read_text())  # not of the run
    assert "asymptotic CLs" in lines_of(tmp_path, name="other.json")


def test_no_warning_where_events_are_many(tmp_path):
    folder_of_a_run(tmp_path, "asymptotic", observed=(400,), background=400.0)
    said = lines_of(tmp_path)
    assert "asymptotic CLs" in said
    assert "warning" not in said
    assert "too small" not in said


def test_expected_events_are_those_under_the_signal():
    """A signal bin of three events beside a control region of 1000 is a search at three events."""
    space = workspace("c", [3.0, 1000.0], 0.1, [3, 1000])
    space["channels"][0]["samples"][0]["data"] = [5.0, 0.5]
    point = next(scan(Likelihood(space, {}, {}, ()), method="asymptotic"))
    assert point.events == pytest.approx(5.5**2 / (25 / 3 + 0.25 / 1000))
    assert point.doubtful


@pytest.mark.long
def test_few_events_against_toys_of_pyhf(tmp_path):
    """The exact engine and pyhf's own toys agree where the asymptotic formulae are far off."""
    import pyhf

    space = workspace("c", B, 0.0, [0])
    space["channels"][0]["samples"][0]["data"] = [S]
    (tmp_path / "workspace.json").write_text(json.dumps(space))
    model = pyhf.Workspace(space).model()
    calculator = pyhf.infer.calculators.ToyCalculator(
        [0, *model.config.auxdata], model, ntoys=120, track_progress=False
    )
    with_signal, without = calculator.distributions(1.0)
    seen = calculator.teststatistic(1.0)
    toys = float(calculator.pvalues(seen, with_signal, without)[2])
    arguments = ("--method", "exact", "--statistic", "qtilde", "--auxiliary", "randomised")
    said = lines_of(tmp_path, *arguments, patches=None)
    assert cls_of(said) == pytest.approx(toys, abs=5 * np.sqrt(0.135 * 0.865 / 120))
    assert cls_of(said) == pytest.approx(np.exp(-S), abs=0.01)


def mistaken(kind, folder):
    """A likelihood of one mistake, and what the error has to say."""
    space = json.loads((folder / "workspace.json").read_text())
    patches = json.loads((folder / "patchset.json").read_text())
    text, operations = json.dumps(space), patches["patches"][0]["patch"]
    without, other, two, far, below, same, guessed, listed = map(
        json.loads, [text] * 3 + [json.dumps(operations)] * 2 + [json.dumps(patches)] * 3
    )
    without["channels"][0]["samples"].pop(0)
    other["observations"][0]["data"] = [1.0]
    two["observations"][0]["data"] = [0.0, 1.0]
    far[1]["path"], below[1]["value"] = "/channels/7/samples/0/data", [-1.0]
    same["patches"][1]["metadata"]["name"] = same["patches"][0]["metadata"]["name"]
    guessed["metadata"]["gammastar"] = {"method": "guessed", "cl": 2}
    listed["metadata"]["gammastar"] = ["exact"]
    return {
        "background only": (without, None, "no sample carries the parameter of interest 'mu'.*--patches"),
        "waiting": (space, None, "signal 'signal' holds no events and waits for a patch; give the signals"),
        "another workspace": (other, patches, "belongs to another workspace.*digest"),
        "patch of another": (space, far, "does not fit the workspace"),
        "patch makes nonsense": (space, below, "bin 0 holds -1.0 events"),
        "no patch set": (space, {"rows": []}, "neither a patch set .* nor a patch"),
        "a number": (3, None, "holds no workspace"),
        "only patches": (operations, None, "holds patches but no workspace"),
        "deep": ("[" * 200_000 + "]" * 200_000, None, "nested too deep"),
        "cut off": (text[:-40], None, "not JSON"),
        "huge": (text.replace("[0.025]", "[1e999]"), None, "bin 0 holds inf events"),
        "digits": (text.replace("[0.025]", f"[{'1' * 5000}]"), None, "not JSON|events"),
        "counts": (two, None, "2 counts for 1 bins"),
        "twice": (space, same, "not a valid patch set"),
        "convention": (space, guessed, "method = 'guessed'"),
        "convention list": (space, listed, "must be an object with `method`"),
    }[kind]


KINDS = (
    *("background only", "waiting", "another workspace", "patch of another", "patch makes nonsense"),
    *("no patch set", "a number", "only patches", "deep", "cut off", "huge", "digits", "counts", "twice"),
    *("convention", "convention list"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_mistakes_are_errors_that_say_what_is_missing(tmp_path, kind):
    folder_of_a_run(tmp_path, "asymptotic")
    first, second, said = mistaken(kind, tmp_path)
    (tmp_path / "first.json").write_text(first if isinstance(first, str) else json.dumps(first))
    (tmp_path / "second.json").write_text(json.dumps(second))
    with pytest.raises(InputFileError, match=f"(?s){said}") as caught:
        lines_of(tmp_path, name="first.json", patches=None if second is None else "second.json")
    assert len(str(caught.value)) < 1000


def test_mistakes_in_archives_and_folders(tmp_path):
    folder_of_a_run(tmp_path, "asymptotic")
    (tmp_path / "workspace_2.json").write_text((tmp_path / "workspace.json").read_text())
    with pytest.raises(InputFileError, match=r"2 workspaces.*give one of these files as PATH"):
        read_likelihood(tmp_path)
    with pytest.raises(InputFileError, match=r"holds no JSON file.*--region"):
        read_likelihood(tmp_path, region="RegionA")
    (tmp_path / "notes.json").write_bytes(b'{"a": "\xff\xfe"}')
    (tmp_path / "workspace_2.json").unlink()
    assert len(read_likelihood(tmp_path).patches) == 2
    archive = tmp_path / "all.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "workspace.json")
    archive.write_bytes(archive.read_bytes()[:-60])
    with pytest.raises(InputFileError, match=r"damaged archive|not JSON"):
        read_likelihood(archive)


def test_a_patch_without_events_excludes_nothing():
    space = workspace("c", 3.0, 0.2, [2])
    patches = patchset(space, [0.3, 0.3], [1e-6, 2e-6], [0.0, 5.0])
    named = {p["metadata"]["name"]: p["patch"] for p in patches["patches"]}
    for method in ("asymptotic", "exact"):
        empty, full = scan(Likelihood(space, named, {}, ()), method=method)
        assert empty.observed == 1.0
        assert full.observed < 0.2


@pytest.mark.long
def test_the_limit_on_the_strength_is_where_pyhf_has_it():
    known = likelihood([50], background=45.0)
    (name,) = [name for name in known.patches if "5p70" in name]  # a signal of 5 events
    space = pyhf.Workspace(known.patched(name))
    model = space.model(
        modifier_settings={"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}}
    )
    observed, expected = strength_limits(known, name, cl=0.95)
    for k, limit in enumerate([*expected, observed]):
        seen, bands = pyhf.infer.hypotest(
            float(limit), space.data(model), model, test_stat="qtilde", return_expected_set=True
        )
        assert float([*bands, seen][k]) == pytest.approx(0.05, rel=2e-3)  # CLs falls faster than 1/μ there


def test_the_limit_without_background_or_event_is_that_of_the_exponential(tmp_path):
    """CLs = exp(−μ s) at n = b = 0."""
    space = workspace("c", 0.0, 0.0, [0])
    space["channels"][0]["samples"][0]["data"] = [4.0]
    (tmp_path / "w.json").write_text(json.dumps(space))
    words = ["scan", str(tmp_path / "w.json"), "--method", "exact", "--limit", "--cl", "0.9"]
    out = CliRunner().invoke(app, words, catch_exceptions=False).output
    found = re.search(r"mu < (\S+) expected (\S+) .* at 90 % CL", out)
    assert float(found[1]) == pytest.approx(np.log(10) / 4, rel=5e-3)
    assert "CLs 0.0183156" in out  # exp(-4)
    assert " excluded at 90 % CL" in out
    half = CliRunner().invoke(app, [*words[:4], "--strength", "0.5", "--json"], catch_exceptions=False)
    (tested,) = json.loads(half.output)["signals"]
    assert tested["cls"] == pytest.approx(np.exp(-2), rel=1e-3)
    assert tested["excluded"] is False  # at 95 %


@pytest.mark.parametrize("name", ["../out", "a/b", "a\\b", "..", "", "a\nb"])
def test_hs3_is_written_into_its_folder_alone(tmp_path, name):
    known = likelihood([1])
    good = next(iter(known.patches.values()))
    outside = Likelihood(known.workspace, {"good": good, name: good}, {}, ())
    with pytest.raises(PhysicsError, match="no name of a file"):
        write_hs3(outside, tmp_path / "in" / "hs3")
    assert not list(tmp_path.rglob("*"))


def test_a_patch_that_fails_does_not_end_a_scan(tmp_path):
    """A factor of −0.1 is no normalisation: the row says so, the next patch is tested."""
    space = workspace("c", 3.0, 0.2, [2])
    bad = {"name": "eff", "type": "normsys", "data": {"hi": 1.1, "lo": -0.1}}
    at = "/channels/0/samples/0/"
    five = {"op": "replace", "path": f"{at}data", "value": [5.0]}
    named = {"bad": [five, {"op": "add", "path": f"{at}modifiers/-", "value": bad}], "good": [five]}
    for method in ("asymptotic", "exact"):
        failed, good = scan(Likelihood(space, named, {}, ()), method=method)
        assert "not positive" in failed.failure
        assert np.isnan(failed.observed)
        assert good.observed < 0.2
    (tmp_path / "w.json").write_text(json.dumps(space))
    for name, patch in named.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(patch))
    said = CliRunner().invoke(app, ["scan", str(tmp_path)], catch_exceptions=False)
    assert said.exit_code == 0
    assert "bad failed: workspace with patch 'bad'" in said.output
    assert "warning: 1 of 2 signals failed" in said.output


def test_a_limit_that_fails_is_a_row(tmp_path, monkeypatch):
    """The CLs of a patch may be there and its limit not: other patches go on."""

    def limits(_, name, **__):
        if name == "bad":
            raise PhysicsError("1 of 2 fits did not converge")
        return 1.0, np.ones(5)

    monkeypatch.setattr("gammastar.results.scan.strength_limits", limits)
    space, at = workspace("c", 3.0, 0.2, [2]), "/channels/0/samples/0/data"
    (tmp_path / "w.json").write_text(json.dumps(space))
    for name in ("bad", "good"):
        (tmp_path / f"{name}.json").write_text(json.dumps([{"op": "replace", "path": at, "value": [5.0]}]))
    said = CliRunner().invoke(app, ["scan", str(tmp_path), "--limit"], catch_exceptions=False)
    assert "bad failed: 1 of 2 fits did not converge" in said.output
    assert "mu < 1 expected" in said.output
    assert said.exit_code == 0


@pytest.mark.long
def test_a_masked_search_prints_no_nan(tmp_path):
    space = likelihood("masked", background=2.0).workspace
    space["channels"][0]["samples"][0]["data"] = [4.0]
    (tmp_path / "w.json").write_text(json.dumps(space))
    for words in (["--limit"], ["--limit", "--method", "exact"]):
        said = CliRunner().invoke(app, ["scan", str(tmp_path / "w.json"), *words], catch_exceptions=False)
        assert "nan" not in said.output
        assert "CLs masked expected" in said.output


@pytest.mark.long
def test_asymptotic_cls_cut_templates_as_exact_ones_do():
    """A shape that leaves −1 event at −1σ: with 0 in its place CLs is that of pyhf with clipped samples."""
    strength = {"name": "mu", "type": "normfactor", "data": None}
    tail = {"name": "tail", "type": "histosys", "data": {"hi_data": [9.5, 5.0], "lo_data": [8.5, -1.0]}}
    samples = [
        {"name": "signal", "data": [4.0, 5.0], "modifiers": [strength]},
        {"name": "background", "data": [9.0, 2.0], "modifiers": [tail]},
        {"name": "other", "data": [0.5, 0.5], "modifiers": []},
    ]
    space = {
        "channels": [{"name": "c", "samples": samples}],
        "observations": [{"name": "c", "data": [7.0, 1.0]}],
        "measurements": [{"name": "m", "config": {"poi": "mu", "parameters": []}}],
        "version": "1.0.0",
    }
    peer = pyhf.Workspace(space)
    cut, whole = (
        pyhf.infer.hypotest(1.0, peer.data(m), m, return_expected_set=True)
        for m in (peer.model(clip_sample_data=clip) for clip in (0.0, None))
    )
    (point,) = scan(Likelihood(space, {}, {}, ()), method="asymptotic")
    wanted = [float(cut[0]), *map(float, cut[1])]
    assert [point.observed, *point.expected] == pytest.approx(wanted, rel=2e-3)
    assert point.observed != pytest.approx(float(whole[0]), rel=0.5)
