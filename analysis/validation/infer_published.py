"""Published likelihoods of ATLAS against pyhf: ln L anywhere, the fits, and exact CLs of most.

They are looked for below the folder of GAMMASTAR_TESTDATA, or `likelihoods` in it, where the archive of
HEPData 10.17182/hepdata.89408.v3/r2 lies: source distributions of PyPI, unpacked, that carry likelihoods
among their tests, from `pip download --no-deps --no-binary :all: mapyde==0.5.0 simplify==0.1.10
pyhf-combine-converter==0.0.5`; and `simplified/NAME.json`, which `simplify convert --dummy-signal
-o NAME.json` makes of the background-only files. Signals are those of the files, or else MOCK.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyhf
import torch
from data_sets import full_nll
from validation.infer_atlas import MEASURED, archive, as_ours
from validation.infer_peers import ARCHIVE, TESTDATA
from validation.infer_toys import row

from gammastar.infer import Convention, read_likelihood
from gammastar.infer.binned.fits import fitted
from gammastar.infer.binned.model import BinnedModel, binned_model
from gammastar.infer.binned.toys import BinnedToys, binned_cls, statistic_of

CONVENTION = Convention("qtilde", "randomised")
POINTS = 20
SLIGHT = 4e-4  # of −ln L: less changes q̃ by less than the rows ask for
MANY, SOME = (4_000, 500), (2_000, 150)
PEER = "pyhf 0.7.6, samples clipped at zero"
CONVERTER = "pyhf_combine_converter-0.0.5/test/big_model"


@dataclass(frozen=True)
class Published:
    """Where a likelihood lies, its patch or the regions of a MOCK signal, and the strength that is tested."""

    label: str
    path: str
    region: str | None = None
    patch: str | None = None
    mock: tuple[str, float] | None = None  # regions, and events over the root of the background
    strength: float = 1.0
    near: bool = False  # pyhf's fits begin at ours
    toys: tuple[int, int] = (0, 0)  # of each hypothesis: ours, and pyhf's


FULL = (
    Published("sbottom RegionA", ARCHIVE, "RegionA", "sbottom_1300_205_60", toys=SOME),
    Published("sbottom RegionB", ARCHIVE, "RegionB", "sbottom_1400_550_60", toys=SOME),
    Published("sbottom RegionC", ARCHIVE, "RegionC", "sbottom_1600_850_60", toys=SOME),
    Published("bottom-squarks.json", f"{CONVERTER}/bottom-squarks.json"),
    Published(
        "1Lbb SRLMEM",
        "simplify-0.1.10/tests/helpers/reference/BkgOnly.json",
        mock=("SR", 0.8),
        toys=SOME,
    ),
    Published("Slepton_bkgonly", "mapyde-0.5.0/likelihoods/Slepton_bkgonly.json", mock=("SR", 0.3)),
    Published("Higgsino_2L_bkgonly", "mapyde-0.5.0/likelihoods/Higgsino_2L_bkgonly.json", mock=("SR", 0.3)),
    Published("four tops", f"{CONVERTER}/workspace_Comb.json", strength=3.0, near=True),
)
NAMES = {"sbottom_RegionA": 1.0, "sbottom_RegionB": 1.0, "sbottom_RegionC": 1.0, "1Lbb": 1.0, "slepton": 0.4}
SIMPLIFIED = (
    *(
        Published(f"simplified {name}", f"simplified/{name}.json", mock=("SR", size), toys=MANY)
        for name, size in NAMES.items()
    ),
    Published(
        "simplified 1Lbb of the package",
        "simplify-0.1.10/tests/helpers/reference/simplified_BkgOnly.json",
        mock=("SR", 1.0),
        toys=MANY,
    ),
)


def published_rows(quick: bool) -> Iterator[dict]:
    for published in (*FULL, *SIMPLIFIED):
        found = _found(published.path)
        if quick or found is None:
            why = "quick" if quick else f"{TESTDATA} holds no {published.path}"
            yield row(f"q̃ of the data, {published.label}", np.nan, np.nan, 1e-3, PEER) | {"skipped": why}
            continue
        spec = _spec(published, found)
        yield from _by_fits(published, spec)
        if published.toys != (0, 0):
            yield from _by_toys(published, spec)


def _found(path: str) -> Path | None:
    if path == ARCHIVE:
        return archive()
    folder = os.environ.get(TESTDATA)
    places = [] if folder is None else [Path(folder) / path, Path(folder) / "likelihoods" / path]
    return next((place for place in places if place.is_file()), None)


def _spec(published: Published, found: Path) -> dict[str, Any]:
    likelihood = read_likelihood(found, region=published.region)
    if published.patch is not None:
        return likelihood.patched(published.patch)
    spec = copy.deepcopy(likelihood.workspace)
    return spec if published.mock is None else _with_mock(spec, *published.mock)


def _with_mock(spec: dict[str, Any], regions: str, size: float) -> dict[str, Any]:
    """Add a MOCK signal, with an uncertainty of its own, to the regions of a background-only likelihood."""
    poi = spec["measurements"][0]["config"]["poi"] = "mu_mock"
    for channel in spec["channels"]:
        if not channel["name"].startswith(regions):
            continue
        background = np.sum([sample["data"] for sample in channel["samples"]], axis=0)
        modifiers = [
            {"name": poi, "type": "normfactor", "data": None},
            {"name": "mock_theory", "type": "normsys", "data": {"hi": 1.1, "lo": 0.92}},
        ]
        events = (size * np.sqrt(background)).tolist()
        channel["samples"].append({"name": "MOCK", "data": events, "modifiers": modifiers})
        channel["samples"] = [s for s in channel["samples"] if s["name"] != "Signal"]
    return json.loads(json.dumps(spec))


class _Peer:
    """pyhf's model of a likelihood, and where our parameters stand in it."""

    def __init__(self, spec: dict[str, Any], own: BinnedModel, *, gradients: bool) -> None:
        optimizer = pyhf.optimize.scipy_optimizer(maxiter=100_000)
        pyhf.set_backend("pytorch" if gradients else "numpy", optimizer, precision="64b")
        space = pyhf.Workspace(spec)
        self.model = space.model(clip_sample_data=0.0)
        self.data = pyhf.tensorlib.astensor(space.data(self.model))
        self.places = np.empty(len(own.names), dtype=int)
        config, names = self.model.config, list(own.names)
        for name in config.par_order:
            begin = config.par_slice(name).start
            for j in range(config.param_set(name).n_parameters):
                self.places[names.index(name if name in names else f"{name}[{j}]")] = begin + j
        self.bounds = [list(pair) for pair in config.suggested_bounds()]
        self.bounds[config.poi_index] = [0.0, 10.0]

    def nll(self, x: np.ndarray) -> float:
        values = np.empty(len(x))
        values[self.places] = x
        return -float(self.model.logpdf(pyhf.tensorlib.astensor(values), self.data)[0])

    def statistic(self, data: Any, strength: float, start: np.ndarray | None = None) -> Any:
        config = self.model.config
        begin = config.suggested_init()
        if start is not None:
            begin = np.array(begin)
            begin[self.places] = start
            begin = begin.tolist()
        of = (strength, data, self.model, begin, self.bounds, config.suggested_fixed())
        return pyhf.infer.test_statistics.qmu_tilde(*of, return_fitted_pars=True)


def _by_fits(published: Published, spec: dict[str, Any]) -> Iterator[dict]:
    own, mu = binned_model(spec), published.strength
    peer = _Peer(spec, own, gradients=True)
    size = f"{published.label}, {own.counts.size} bins, {int((~own.fixed).sum())} free parameters"
    points = _anywhere(own)
    ours = full_nll(own, points, own.counts[None, :], own.aux)
    theirs = np.array([peer.nll(x) for x in points])
    away = np.abs(ours / theirs - 1.0).max()
    yield row(f"largest relative difference of ln L at {POINTS} points, {size}", away, 0.0, 1e-8, PEER)
    data = BinnedToys(own.counts[None, :], own.aux)
    seen, spent = _clocked(lambda: float(statistic_of(own, data, mu, CONVENTION)[0]))
    fits = [fitted(own, data.counts, data.aux, strength=room) for room in (mu, (0.0, mu))]
    start = fits[1].x[0] if published.near else None
    (wanted, pars), peer_spent = _clocked(lambda: peer.statistic(peer.data, mu, start))
    how = f"{PEER}, torch, SLSQP{', begun at our fit' if published.near else ''}; μ = {mu:g}"
    yield row(f"q̃ of the data, {published.label}", seen, float(wanted), 2e-4, how)
    for word, fit, theirs_at in zip(("fixed", "free"), fits, pars, strict=True):
        found = [peer.nll(x) for x in (fit.x[0], np.asarray(theirs_at)[peer.places])]
        if word == "free" and fit.x[0, own.poi] >= mu:
            continue  # theirs goes beyond the strength, where q̃ is zero
        text = f"our least −ln L above pyhf's, μ {word}, {published.label}"
        yield row(text, max(found[0] - found[1], 0.0), 0.0, 2e-5, how)
    text = f"CPU of q̃ of the data, pyhf's over ours, {published.label}"
    yield row(text, peer_spent / spent, 1.0, np.nan, f"{how}; ours {spent:.2g} s") | MEASURED


def _clocked(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    found = work()
    return found, time.process_time() - started


def _anywhere(own: BinnedModel) -> np.ndarray:
    """Return random parameters, constrained ones by their measurements."""
    rng, shape = np.random.default_rng(1), (POINTS, len(own.names))
    width = np.where(np.isfinite(own.tau), own.tau**-0.5, own.width)
    centre = np.where(np.isfinite(own.tau), 1.0, own.centre)
    drawn = np.where(
        np.isfinite(width), centre + width * rng.normal(size=shape), rng.uniform(0.5, 1.5, shape)
    )
    low, high = np.maximum(own.low, np.where(np.isfinite(own.tau), 0.1, -np.inf)), own.high
    return np.where(own.fixed, own.start, np.clip(drawn, low, high))


def _by_toys(published: Published, spec: dict[str, Any]) -> Iterator[dict]:
    """Compare exact CLs with those of pyhf's own toys of the same likelihood."""
    rng, label, (n, n_peer) = np.random.default_rng(3), published.label, published.toys
    (ours, _), spent = _clocked(lambda: binned_cls(spec, rng=rng, convention=CONVENTION, n_toys=n))
    own = binned_model(spec)
    many = published in FULL  # parameters: pyhf needs derivatives
    peer, where = _Peer(spec, own, gradients=many), "torch" if many else "numpy"
    np.random.seed(7)  # noqa: NPY002 - pyhf draws from the global generator
    torch.manual_seed(7)

    same: list[tuple[np.ndarray, ...]] = []

    def of_toys() -> list[float]:
        seen, begun = peer.statistic(peer.data, 1.0)
        tails = []
        for strength in (1.0, 0.0):
            at = begun[0] if strength else pyhf.infer.mle.fixed_poi_fit(0.0, peer.data, peer.model)
            at = pyhf.tensorlib.astensor(np.array(at))
            toys = peer.model.make_pdf(at).sample((n_peer,))
            every = [peer.statistic(toy, 1.0) for toy in toys]
            q = np.array([float(value) for value, _ in every])
            pars = np.array([[np.asarray(x)[peer.places] for x in fits] for _, fits in every])
            same.append((np.asarray(toys), q, pars[:, 0], pars[:, 1]))
            tails.append(float((q >= float(seen) - 1e-4).mean()))
        return tails

    tails, peer_spent = _clocked(of_toys)
    toys, wanted, *theirs_at = (np.concatenate(part) for part in zip(*same, strict=True))
    sets = as_ours(spec, own, peer.model, toys)
    again = statistic_of(own, sets, 1.0, CONVENTION)
    rooms = 1.0, (0.0, 1.0)
    found = [fitted(own, sets.counts, sets.aux, strength=room).x for room in rooms]
    above, free_above = (
        full_nll(own, x, sets.counts, sets.aux) - full_nll(own, peer_x, sets.counts, sets.aux)
        for x, peer_x in zip(found, theirs_at, strict=True)
    )
    text = f"share of pyhf's {len(toys)} toys with our −ln L more than 0.001 above its own, μ = 1, {label}"
    how = f"{PEER}, {where}, SLSQP; the most {max(float(above.max()), 0.0):.2g}, below by {-above.min():.2g}"
    yield row(text, np.mean(above > 1e-3), 0.0, 0.02, how)
    apart = np.abs(again - wanted) > 1e-3
    text = f"share of pyhf's {len(toys)} toys whose q̃ differs by more than 0.001, {label}"
    yield row(text, np.mean(apart), 0.0, np.nan, f"{PEER}, {where}, SLSQP") | MEASURED
    # beyond the strength pyhf's q̃ is zero, whatever minimum there is below it
    higher = (above < -SLIGHT) | (free_above < -SLIGHT) | (theirs_at[1][:, own.poi] > 1.0)
    text = f"the same where neither of pyhf's fits ends above ours, {label}"
    yield row(text, np.mean(apart & ~higher), 0.0, 0.02, f"{PEER}, {where}, SLSQP")
    theirs = tails[0] / tails[1]
    error = theirs * np.sqrt(sum((1.0 - p) / max(p, 1 / n_peer) / n_peer for p in tails))
    how = f"{PEER}, {where}, SLSQP, {n_peer} toys of each hypothesis: ± {error:.2g}; ours ± {ours.error:.2g}"
    bound = 4.0 * float(np.hypot(error, ours.error))
    yield row(f"exact CLs, {n} toys, {label}", ours.cls, theirs, bound, how)
    text = f"toys per CPU second over pyhf's, {label}"
    ratio = (n / spent) / (n_peer / peer_spent)
    yield row(text, ratio, 1.0, np.nan, f"{how}; ours {2 * n / spent:.3g} per second") | MEASURED
