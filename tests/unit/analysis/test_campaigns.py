"""Statistics of the pseudo-experiments: Gaussian cells of known covariance give unit pulls and 68 %."""

from __future__ import annotations

import re
import sys

import forks
import numpy as np
import pytest
from builders import ROOT

FOLDER = ROOT / "analysis" / "na60_dimuon"
N = 300


@pytest.fixture(scope="module")
def modules():
    sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]
    try:
        import campaign_report
        import campaign_truth
        import campaigns
    finally:
        del sys.path[:2]
    return campaign_report, campaign_truth, campaigns


@pytest.fixture(scope="module")
def known(modules):
    """Three masses of two by three cells; the last energy is not measured."""
    truth = modules[1]
    cells = np.full((3, 2, 3), 10.0) * np.array([1.0, 0.5, 0.1])
    domain = np.ones(cells.shape, dtype=bool)
    domain[..., 2] = False
    x = np.log10(truth.COUPLINGS)
    centre = np.array([-7.0, -6.9, -6.5])  # harder photons reach larger couplings
    events = 5.0 * np.exp(-0.5 * ((x[None, :] - centre[:, None]) / 0.4) ** 2)
    moved = np.ones((1, 2, *cells.shape))
    moved[:, 0, ..., 2], moved[:, 1, ..., 2] = 1 / 1.3, 1.3
    return truth.Truth(cells, domain, np.broadcast_to(events, (3, 2, 3, len(x))), moved)


@pytest.fixture(scope="module")
def results(known):
    rng = np.random.default_rng(5)
    size = known.cells.size
    root = 0.05 * known.cells.ravel()[:, None] * (np.eye(size) + 0.2)
    cov = root @ root.T
    found = []
    for _ in range(N):
        values = known.cells.ravel() + root @ rng.normal(size=size)
        shape = known.cells.copy()
        shape[..., 2] *= 1.3 ** rng.normal()
        found.append({"values": values, "cov": cov, "untuned": values, "shape": shape})
    return found


def test_pulls_and_coverage(modules, known, results):
    row = modules[0].summary("nominal", results, known)
    assert row["pull width"] == pytest.approx(1.0, abs=0.06)
    assert abs(row["pull mean"]) < 4 * row["pull mean error"]
    for side in ("lower", "upper"):
        assert row[f"coverage {side}, measured"] == pytest.approx(0.683, abs=0.06)
        assert 0.6 < row[f"coverage {side}, all"] < 0.8  # the thrown shape is log-normal, its error linear


def test_errors_down_and_up_are_those_of_each_direction(modules, known, results):
    """Cells outside that fall to 1/1.3 or rise to 1.3: the thrown simulation covers 68 % and not 61 %."""
    found = {**results[0], "cov": np.zeros_like(results[0]["cov"])}  # nothing but the extrapolation
    _, down, up = modules[0].signal(found, known, everything=True)
    assert up / down == pytest.approx(np.full(down.shape, 0.3 / (1 - 1 / 1.3)))
    measured = modules[0].signal(found, known, everything=False)
    assert not measured[1].any()
    assert not measured[2].any()


def test_campaigns_that_are_there_count(modules, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(modules[2], "make", lambda _output, _name, i: made.append(i))
    for i in (0, 7, 9):
        path = modules[2].place(tmp_path, "nominal", i)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    modules[2].produce(["nominal"], 5, tmp_path)
    assert made == [1, 2]


def test_estimated_correlation_is_that_of_the_pulls(modules, known, results):
    found, estimated = modules[0].correlation(results, known)
    assert np.abs(found - estimated).max() < 4 / np.sqrt(N)
    assert estimated[0, 1] > 0.3


def test_a_common_shift_has_its_impact(modules, known, results):
    more = [{**found, "values": 1.1 * found["values"]} for found in results]
    row = modules[0].impacts(results, more, known)
    assert row["rate"] == pytest.approx(0.1)
    assert row["lower"] < 0 < row["upper"]  # more signal widens the contour
    assert row["lower error"] < 0.01


def test_impacts_compare_campaigns_of_the_same_number(modules, known, results):
    """Some are missing, on both sides: each is compared with its own nominal campaign or not at all."""
    numbered = [found | {"index": i} for i, found in enumerate(results)]
    more = [found | {"values": 1.1 * found["values"]} for found in numbered[50:90]]
    row = modules[0].impacts(numbered[:60] + numbered[70:], more, known)
    assert row["n"] == 30
    assert row["rate"] == pytest.approx(0.1)


def test_kept_campaigns_are_not_made_again(modules, tmp_path, monkeypatch):
    campaigns = modules[2]
    made = []
    monkeypatch.setattr(campaigns, "make", lambda _, name, i: made.append((name, i)))
    campaigns.place(tmp_path, "R = 1", 1).parent.mkdir(parents=True)
    campaigns.place(tmp_path, "R = 1", 1).write_bytes(b"")
    campaigns.produce(["R = 1"], 3, tmp_path)
    assert made == [("R = 1", 0), ("R = 1", 2)]


def test_widths_of_every_mass_have_errors(modules, known, results, monkeypatch):
    monkeypatch.setattr(modules[0], "MASS", [0.2, 0.3, 0.4, 0.5])
    columns = modules[0].per_mass(results, known)
    width, error = np.array(columns["pull_width"]), np.array(columns["pull_width_error"])
    assert error == pytest.approx(width / np.sqrt(2 * N), rel=0.25)  # that of a Gaussian sample
    assert (np.abs(width - 1.0) < 4 * error).all()


def test_errors_that_follow_the_rate_shift_mean_pulls_without_a_bias(modules):
    """Counts: σ = √n, so that mean pulls lie at about −1/(2√n) although the counts are unbiased."""
    report, mean = modules[0], np.array([25.0, 100.0])
    counts = np.random.default_rng(8).poisson(mean, (40_000, 2))
    offsets, errors = counts - mean, np.sqrt(counts)
    assert report.bias(offsets) == pytest.approx(0.0, abs=4 / np.sqrt(40_000))
    expected = report.follows(offsets, errors)
    assert expected == pytest.approx(-0.5 / np.sqrt(mean), rel=0.1)
    assert (offsets / errors).mean(axis=0) == pytest.approx(expected, abs=0.03)


@pytest.mark.long
def test_toys_of_one_iteration_are_unbiased(modules):
    """With the true prior one iteration is linear in the data: pulls of mean 0 and width 1, R included."""
    sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]
    try:
        import campaign_bias as toys
    finally:
        del sys.path[:2]
    from gammastar.core.pairs import MatchedPairs

    rng, n = np.random.default_rng(3), 60_000
    true = np.stack([rng.uniform(0.3, 0.5, n), rng.uniform(0.0, 1.0, n), rng.uniform(8.0, 30.0, n)], axis=1)
    reco = true + rng.normal(0.0, [0.02, 0.05, 0.3], (n, 3))
    reco[rng.random(n) > 0.5 * true[:, 0] / 0.5] = np.nan
    empty = np.empty((0, 3)), np.empty(0)
    place = toys._place(reco)
    inside = place >= 0
    assert set(np.unique(place[inside])) <= set(range(toys.SIZE))
    point = reco[inside][0]
    at = [np.searchsorted(e, x, side="right") - 1 for e, x in zip(toys.EDGES, point, strict=True)]
    assert place[inside][0] == np.ravel_multi_index(at, toys.SHAPE)
    like = np.bincount(place[inside], minlength=toys.SIZE) * 0.05
    everything = MatchedPairs(true, reco, np.ones(n), np.arange(n), *empty)
    pool = toys.Pool(everything, place, 0.4, (1.2 * like, 0.8 * like), 1.1)
    domain = np.zeros(toys.SHAPE, dtype=bool)
    domain[2:5, :3, 2:6] = True
    known = modules[1].Truth(np.ones(toys.SHAPE), domain, np.empty(0), np.empty(0))
    made = np.array(list(toys._toys(pool, known, toys.Kind(20, n_iterations=1), rng)))
    pulls = made[:, 0] / made[:, 1]
    assert pulls.shape == (20, 3)
    assert np.abs(pulls.mean(axis=0)).max() < 3.5 / np.sqrt(20)
    assert pulls.std(axis=0) == pytest.approx(1.0, abs=0.5)


def test_what_debiasing_takes_away_is_told_from_the_same_seeds(modules, results, known):
    """Campaigns that leave a bias in: 2 % of every cell more, and a scatter that is 10 % smaller."""
    sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]
    try:
        from campaign_sets import finite
    finally:
        del sys.path[:2]
    base = [found | {"index": i} for i, found in enumerate(results)]
    mean = np.mean([found["values"] for found in results], axis=0)
    moved = 0.02 * known.cells.ravel()
    plain = [f | {"values": mean + 0.9 * (f["values"] - mean) + moved, "index": f["index"]} for f in base]
    text = finite(base, {"not debiased": plain[:N:2]}, known)
    offsets = modules[0].rates(base, known)[0]
    cells = np.where(known.domain, known.cells, 0.0).sum(axis=(1, 2))
    wanted = -np.mean(0.02 * cells / offsets.std(axis=0, ddof=1))
    taken, left, wider = (float(x) for x in re.findall(r"[+-]?[0-9]+[.][0-9]+(?= ±| %)", text))
    assert taken == pytest.approx(wanted, abs=0.02)
    assert left == pytest.approx((offsets / offsets.std(axis=0, ddof=1)).mean(), abs=6e-4)
    assert wider == pytest.approx(100 / 0.9 - 100, abs=0.06)
    assert "no campaigns" in finite(base, {}, known)


def test_mean_pulls_are_judged_with_their_correlation(modules, results, known):
    """Hotelling: pulls without a bias have a fair probability, common shifts of correlated masses too."""
    sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]
    try:
        import campaign_page as page
    finally:
        del sys.path[:2]
    pulls = modules[0].pulls(results, known)
    chance = float(re.search(r"probability of (\S+)", page._together(pulls, "mean pulls"))[1])
    assert 1e-3 < chance <= 1
    assert float(re.search(r"probability of (\S+)", page._together(pulls + 0.5, "mean pulls"))[1]) < 1e-6
    offsets, errors = modules[0].rates(results, known)
    moved = offsets + 0.5 * offsets.std(axis=0)
    table = page._compared(moved, {"shifted": np.array([moved, errors])})
    assert float(table.split("|")[-3]) == pytest.approx(0.0, abs=0.05)


@pytest.mark.slow
def test_campaigns_made_by_dask_are_those_made_here(modules, tmp_path):
    pytest.importorskip("distributed")
    script = f"""
import sys; sys.path[:0] = [{str(FOLDER)!r}, {str(FOLDER.parent)!r}]
from pathlib import Path
import campaigns
from gammastar.facility import open_executor

if __name__ == "__main__":
    with open_executor(dask="local") as executor:
        campaigns.produce(["nominal"], 2, Path("dask"), executor=executor)
    campaigns.produce(["nominal"], 2, Path("here"))
"""
    (tmp_path / "both.py").write_text(script)
    forks.server.run("both.py", cwd=tmp_path, check=True)
    there, here = (modules[2].kept("nominal", 2, tmp_path / name) for name in ("dask", "here"))
    assert len(there) == len(here) == 2
    for one, other in zip(there, here, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)
