"""MOCK control samples as ntuples, and the background estimate from them as the experiment makes it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rejection
from cuts import CONTROLS, STATES, Search, as_pairs
from random_pairs import random_pairs
from simulated_decays import track_collection
from tracking import Tracks, measure

from gammastar import read, select
from gammastar.core.files import data_path
from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray
from gammastar.core.sampling import stream
from gammastar.store.events import write_tree

HERE = Path(__file__).resolve().parent


def card() -> dict[str, Any]:
    """Return the card of the MOCK control samples."""
    return tomllib.loads(data_path("cards/na62_mock_control.toml").read_text())


def _vertices(numbers: dict[str, Any], n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return vertices (n, 3) and where they come from: 0 station, 1 window, 2 inside the tank."""
    shares = numbers["shares"]
    kind = rng.choice(3, size=n, p=[shares["stations"], shares["window"], shares["inside"]])
    station = rng.choice(numbers["stations"]["z"], size=n)
    z = np.select(
        [kind == 0, kind == 1],
        [
            station + numbers["stations"]["width"] * rng.standard_normal(n),
            numbers["window"]["z"] + numbers["window"]["width"] * rng.standard_normal(n),
        ],
        rng.uniform(105.0, 180.0, n),
    )
    low, high = numbers["radius"]
    r, phi = np.sqrt(rng.uniform(low**2, high**2, n)), rng.uniform(-np.pi, np.pi, n)
    return np.column_stack([r * np.cos(phi), r * np.sin(phi), z]), kind


def _momenta(numbers: dict[str, Any], slope: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return four-momenta (4, n) around a direction (2, n)."""
    n = slope.shape[1]
    least, mean = numbers["momentum"]
    total = least + mean * rng.standard_exponential(n)
    direction = np.vstack([slope + numbers["opening"] * rng.standard_normal((2, n)), np.ones(n)])
    direction /= np.linalg.norm(direction, axis=0)
    return np.vstack([total * direction, total])


def prompt_sample(search: Search, path: Path, *, n: int | None = None, seed: int = 1) -> int:
    """Write the MOCK control sample of interacting halo muons; returns the number of events written."""
    numbers, rng = card(), stream(seed, "halo")
    n = numbers["events"] if n is None else n
    vertex, kind = _vertices(numbers, n, rng)
    slope = numbers["slope"] * rng.standard_normal((2, n))
    modes = list(numbers["pairs"])
    mode = rng.choice(len(modes), size=n, p=[numbers["pairs"][name] for name in modes])
    parts, owners = [], []
    for code, name in enumerate(modes):  # kinds of pairs, not events
        mine = np.flatnonzero(mode == code)
        first, second = STATES.get(name) or CONTROLS[name]
        signs = rng.choice([-1, 1], size=len(mine))
        for leg, species in ((1, first), (-1, second)):
            p = _momenta(numbers, slope[:, mine], rng)
            for sign in (-1, 1):
                some = signs * leg == sign
                tracks, found = measure(
                    vertex[mine][some], p[:, some], sign, species, search.detector, search.card, rng
                )
                parts.append(tracks.select(found))
                owners.append(mine[some][found])
    extra = np.flatnonzero(rng.uniform(size=n) < numbers["third_track"])
    tracks, found = measure(
        vertex[extra], _momenta(numbers, slope[:, extra], rng), 1, "pi", search.detector, search.card, rng
    )
    owner = np.concatenate([*owners, extra[found]])
    tracks = Tracks.concatenate([*parts, tracks.select(found)])
    event, index = np.unique(owner, return_inverse=True)  # events without any track are not triggered
    keep = len(event)
    lav = (kind[event] == 0) & (rng.uniform(size=keep) < numbers["lav_efficiency"])
    anti0 = (kind[event] == 1) & (rng.uniform(size=keep) < numbers["anti0_efficiency"])
    branches = {
        "event": np.arange(keep, dtype=np.int64),
        "Track": track_collection(tracks, index.astype(np.int64), keep),
        "weight": np.ones(keep),
        "lav": lav.astype(np.float64),
        "anti0": anti0.astype(np.float64),
    }
    write_tree(path, {"events": branches})
    return keep


def selected_pairs(
    search: Search, path: Path, state: str, *, columns: tuple[str, ...] = (), blind: bool = True
) -> tuple[Pairs, select.Cutflow]:
    """Run the selection of one final state on an ntuple, up to the regions; blinded unless told otherwise."""
    schema = read.load_schema(HERE / "schema.toml")
    schema = read.Schema(
        **{name: getattr(schema, name) for name in schema.__dataclass_fields__ if name != "event_columns"},
        event_columns={name: name for name in columns},
    )
    functions: list[Callable[[Pairs], Any]] = list(search.before_region(state))
    if blind:

        def not_masked(pairs: Pairs) -> np.ndarray:
            return search.visible(pairs, state)

        functions.append(not_masked)
    return select.collect(read.open_events(path, schema), select.Cuts(pair_functions=functions))


@dataclass(frozen=True)
class Estimate:
    """The background of a channel from a control sample.

    counts: vertices per kind of pair in the fiducial volume; fractions: survivors of each condition;
    signal_region, control_region: expected events.
    """

    counts: dict[str, int]
    fractions: dict[str, rejection.PassFraction]
    signal_region: rejection.Expectation
    control_region: rejection.Expectation
    pairs: Pairs


def prompt_estimate(search: Search, path: Path, *, seed: int = 2, n: int = 400_000) -> Estimate:
    """Return the prompt background of the ee channel from the control sample.

    The control sample is simulation: it is not blinded.
    """
    columns = ("lav", "anti0")
    found = {
        state: selected_pairs(search, path, state, columns=columns, blind=False)[0]
        for state in ("ee", "mumu", *CONTROLS)
    }
    pairs = found["ee"]
    z, cda = search.tax(pairs)
    kept = {
        "LAV": pairs.columns["lav"] < 0.5,
        "ANTI0": pairs.columns["anti0"] < 0.5,
        "SR": search.in_signal_region(z, cda, "ee"),
        "CR": search.in_control_region(z, cda, "ee"),
    }
    total = len(pairs)
    fractions = {
        name: rejection.PassFraction(name, int(mask.sum()), max(total, 1)) for name, mask in kept.items()
    }
    expected = {
        region: rejection.expectation(
            max(float(total), 1.0),
            [fractions[name] for name in ("LAV", "ANTI0", region)],
            relative_sigma=0.5,
            n=n,
            rng=stream(seed, "prompt", region),
        )
        for region in ("SR", "CR")
    }
    counts = {state: len(selected) for state, selected in found.items()}
    return Estimate(counts, fractions, expected["SR"], expected["CR"], pairs)


def combinatorial_estimate(search: Search, *, n_max: int = 200_000, seed: int = 3) -> dict[str, tuple]:
    """Return expected random ee pairs (value, error) in the fiducial volume, CR and SR, from MOCK tracks."""
    numbers, rng = card(), stream(seed, "single")
    single = numbers["single"]
    n = int(single["tracks"])
    vertex, _ = _vertices(numbers, n, rng)
    p = _momenta(numbers, numbers["slope"] * rng.standard_normal((2, n)), rng)
    electron = rng.uniform(size=n) < single["electron_share"]
    parts = []
    for species, chosen in (("e", electron), ("mu", ~electron)):
        for sign in (-1, 1):
            some = np.flatnonzero(chosen)[sign > 0 :: 2]
            tracks, found = measure(
                vertex[some], p[:, some], sign, species, search.detector, search.card, rng
            )
            parts.append(tracks.select(found))
    tracks = Tracks.concatenate(parts)
    drawn = random_pairs(
        tracks.charge,
        window=single["window"],
        live_time=single["live_time"],
        downscaling=single["downscaling"],
        n_max=n_max,
        rng=rng,
    )
    pairs = as_pairs(tracks.select(drawn.first), tracks.select(drawn.second), drawn.weight)
    keep = np.logical_and.reduce([cut(pairs) for cut in search.before_region("ee")])
    z, cda = search.tax(pairs)
    regions = {
        "FV": keep,
        "CR": keep & search.in_control_region(z, cda, "ee"),
        "SR": keep & search.in_signal_region(z, cda, "ee"),
    }
    return {name: drawn.expected(mask) for name, mask in regions.items()}
