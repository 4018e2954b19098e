"""Against pyhf, iminuit and published likelihoods."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pyhf
from data_sets import one_of
from iminuit import Minuit
from pyhf.infer.intervals.upper_limits import toms748_scan
from validation.infer_toys import POT, pair, row

from gammastar.infer import (
    Convention,
    asymptotic_limit,
    binned_channel,
    exact_cls,
    read_likelihood,
    scan,
    workspace,
)
from gammastar.infer.histfactory.workspaces import channels_of
from gammastar.infer.toys import ToyModel, Toys, draw, statistics, toy_model

ORACLE = Path(__file__).resolve().parents[2] / "tests" / "golden" / "roostats_oracle.py"
TESTDATA, ARCHIVE = "GAMMASTAR_TESTDATA", "pyhf-ins1748602-probability-models.tar.gz"
SBOTTOM = (
    ("RegionA", "sbottom_1300_205_60", 0.24443627759085326),
    ("RegionA", "sbottom_1400_950_60", 0.021373283911064852),
    ("RegionA", "sbottom_1500_850_60", 0.045367205665400624),
    ("RegionB", "sbottom_1400_550_60", 0.9744675266677597),
    ("RegionC", "sbottom_1600_850_60", 0.711023707425625),
)


def peer_rows(quick: bool) -> Iterator[dict]:
    yield from _asymptotic()
    yield from _fits(60 if quick else 200)
    yield from _tutorial()
    yield from _published(quick)
    yield from _roostats(quick)


def _roostats(quick: bool) -> Iterator[dict]:
    """CLs of two channels with four nuisances in RooStats' four ensembles, in a process of its own."""
    here = sys.executable if importlib.util.find_spec("ROOT") else ""
    python = os.environ.get("GAMMASTAR_ROOT_PYTHON", here)
    shared = {"pot": POT, "efficiency": 0.03}
    channels = [
        binned_channel(
            name,
            signal=signal,
            background=background,
            observed=observed,
            signal_sigma=shared,
            background_sigma={f"b_{name}": sigma},
        )
        for name, signal, background, observed, sigma in (
            ("one", [0.5, 1.5, 0.5], [1.0, 0.6, 0.4], [1, 1, 0], 0.3),
            ("two", [0.3, 0.9, 0.3], [0.5, 0.5, 1.0], [0, 1, 1], 0.5),
        )
    ]
    for statistic, auxiliaries in product(("ratio", "qtilde"), ("randomised", "fixed")):
        label = f"CLs of two channels, {statistic}, {auxiliaries} auxiliaries: deviation from RooStats [σ]"
        line = row(label, np.nan, 0.0, 3.0, "RooStats of ROOT 6.40, 20 000 toys per hypothesis")
        if quick or not python:
            yield line | {"skipped": "quick" if quick else "no interpreter with ROOT"}
            continue
        command = [python, str(ORACLE), "20000", statistic, auxiliaries]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peer = json.loads(done.stdout.splitlines()[-1])
        rng, convention = np.random.default_rng(1), Convention(statistic, auxiliaries)
        ours = exact_cls(channels, rng=rng, convention=convention, n_toys=100_000)
        yield line | {"ours": (ours.cls - peer["cls"]) / float(np.hypot(ours.error, peer["error"]))}


def _asymptotic() -> Iterator[dict]:
    """Largest relative difference of six limits (observed, bands) from pyhf's, two models."""
    worst = 0.0
    for counts, background, sigma in (([3], [3.0], 0.3), ([5, 7, 40], [4.0, 9.0, 35.0], 0.15)):
        spec = workspace("c", background, sigma, counts, pot_search_sigma=POT, poi_maximum=100.0)
        spec["channels"][0]["samples"][0]["data"] = [1.0] * len(counts)
        space = pyhf.Workspace(spec)
        model = space.model()
        observed, expected = toms748_scan(space.data(model), model, 0.01, 40, level=0.1, rtol=1e-6)
        ours = asymptotic_limit(channels_of(spec))
        peer = np.r_[float(observed), np.array(expected, float)]
        worst = max(worst, np.abs(np.r_[ours.observed, ours.expected] / len(counts) / peer - 1).max())
    yield row(
        "asymptotic limits and bands against pyhf, largest relative difference", worst, 0.0, 1e-4, "pyhf"
    )


def _fits(n: int) -> Iterator[dict]:
    """Profile fits against iminuit on toys."""
    model = toy_model(pair(2.0))
    toys = draw(model, np.zeros(4), 1.0, n, np.random.default_rng(8), randomise=True)
    ours, worst = statistics(model, toys, 1.0, "ratio"), 0.0
    for i in range(n):
        lowest = [_minuit(model, one_of(toys, i, 2), mu) for mu in (0.0, 1.0)]
        worst = max(worst, abs(ours[i] - (lowest[1] - lowest[0])))
    label = f"statistic of {n} toys, largest difference"
    yield row(label, worst, 0.0, 1e-4, "iminuit, Migrad")


def _minuit(model: ToyModel, one: Toys, mu: float) -> float:
    def twice_nll(theta):
        s, b = model.rates(np.asarray(theta), 1.0) * np.array([[mu], [1.0]])
        start, logs = one.offsets, 0.0
        for c in range(2):
            logs += np.log(s[c] * one.ratio[start[c] : start[c + 1]] + b[c]).sum()
        return 2 * (s.sum() + b.sum() - logs) + ((np.asarray(theta) - one.aux[0]) ** 2).sum()

    minuit = Minuit(twice_nll, np.zeros(4))
    minuit.tol = 1e-3
    minuit.migrad()
    return float(minuit.fval)


def _tutorial() -> Iterator[dict]:
    signal = {
        "name": "signal",
        "data": [12.0, 11.0],
        "modifiers": [{"name": "mu", "type": "normfactor", "data": None}],
    }
    uncorrelated = {"name": "uncorr_bkguncrt", "type": "shapesys", "data": [3.0, 7.0]}
    background = {"name": "background", "data": [50.0, 52.0], "modifiers": [uncorrelated]}
    spec = {
        "channels": [{"name": "singlechannel", "samples": [signal, background]}],
        "observations": [{"name": "singlechannel", "data": [51.0, 48.0]}],
        "measurements": [{"name": "Measurement", "config": {"poi": "mu", "parameters": []}}],
        "version": "1.0.0",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "2-bin_1-channel.json"
        path.write_text(json.dumps(spec))
        (point,) = scan(read_likelihood(path))
    yield row("CLs of pyhf's two-bin tutorial", point.observed, 0.052515, 5.3e-7, "pyhf, docs/examples/json")


def _published(quick: bool) -> Iterator[dict]:
    """CLs of the ATLAS sbottom likelihoods, HEPData 10.17182/hepdata.89408.v3/r2."""
    folder = os.environ.get(TESTDATA)
    found = (
        [p for p in (Path(folder) / ARCHIVE, Path(folder) / "likelihoods" / ARCHIVE) if p.is_file()]
        if folder
        else []
    )
    for region, name, value in SBOTTOM:
        line = row(f"CLs, {region}, {name}", np.nan, value, 2e-5 * value, "pyhf, tests/test_regression.py")
        if quick or not found:
            yield line | {"skipped": "quick" if quick else f"{TESTDATA} holds no {ARCHIVE}"}
            continue
        (point,) = scan(read_likelihood(found[0], region=region), [name])
        yield line | {"ours": point.observed}
