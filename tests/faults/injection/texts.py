"""Files of events, pairs, stages and results that were cut off at random places."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyhepmc

from gammastar.core.errors import GammastarError
from gammastar.core.pairs import Pairs
from gammastar.core.sampling import stream
from gammastar.pipeline.cache import load_arrays
from gammastar.store.manifest import digest, read_json, write_json
from gammastar.store.pairs import read_pairs, write_pairs

sys.path.append(str(Path(__file__).resolve().parents[3] / "analysis" / "semivisible"))
from darknews_events import DarkEvents
from darknews_files import read_darknews

EVENTS = 40
MOMENTA = ("parent", "daughter", "particle", "antiparticle")
Kind = tuple[Path, Callable[[Path], str]]


def dark_events() -> DarkEvents:
    """Return particles that fly forward and the parents that their momenta add up to."""
    rng = stream(37, "dark events")
    p4 = {}
    for name in MOMENTA[1:]:
        p = rng.normal(0.0, 0.3, (EVENTS, 3)) + np.array([0.0, 0.0, 2.0])
        p4[name] = np.column_stack([p, np.sqrt(0.1**2 + (p**2).sum(axis=1))])
    p4["parent"] = sum(p4.values(), np.zeros((EVENTS, 4)))
    return DarkEvents(**p4, origin=rng.uniform(-1, 1, (EVENTS, 3)), weight=rng.uniform(0.1, 2.0, EVENTS))


def write_parquet(path: Path, events: DarkEvents) -> None:
    """Write events as DarkNews does."""
    names = ("P_decay_N_parent", "P_decay_N_daughter", "P_decay_ell_minus", "P_decay_ell_plus")
    columns = {
        f"('{name}', '{k}')": getattr(events, key)[:, c]
        for name, key in zip(names, MOMENTA, strict=True)
        for k, c in enumerate((3, 0, 1, 2))
    }
    columns["('pos_scatt', '0')"] = np.full(EVENTS, 1.8e-6)
    columns |= {f"('pos_scatt', '{k + 1}')": 100.0 * events.origin[:, k] for k in range(3)}
    columns["('w_event_rate', '')"] = events.weight
    pq.write_table(pa.table(columns), path)


def write_hepmc(path: Path, events: DarkEvents) -> None:
    """Write events as DarkNews does."""
    run = pyhepmc.GenRunInfo()
    run.weight_names = ["w_event_rate"]
    with pyhepmc.open(str(path), "w") as file:
        for k in range(EVENTS):
            event = pyhepmc.GenEvent(pyhepmc.Units.GEV, pyhepmc.Units.CM)
            event.event_number, event.run_info = k, run
            place = pyhepmc.GenVertex((*(100.0 * events.origin[k]), 1e-6))
            place.add_particle_in(pyhepmc.GenParticle((0, 0, 1, 1), 14, 4))
            parent = pyhepmc.GenParticle(tuple(events.parent[k]), 5915, 2)
            place.add_particle_out(parent)
            gone = pyhepmc.GenVertex((0, 0, 1e7, 2e-3))
            gone.add_particle_in(parent)
            for name, pid in (("daughter", 5914), ("particle", 11), ("antiparticle", -11)):
                gone.add_particle_out(pyhepmc.GenParticle(tuple(getattr(events, name)[k]), pid, 1))
            event.add_vertex(place)
            event.add_vertex(gone)
            event.weights = [events.weight[k]]
            file.write(event)


def _dark(path: Path) -> str:
    found = read_darknews(path)
    return digest({name: getattr(found, name) for name in (*MOMENTA, "origin", "weight")})


def _pairs(path: Path) -> str:
    parts = [part.pairs for part in read_pairs([path])]
    return digest([{name: getattr(part, name) for name in ("mass", "pt", "event")} for part in parts])


def kinds(folder: Path) -> dict[str, Kind]:
    """Write one sound file of every kind; return them with functions that read them and return a digest."""
    rng, events = stream(41, "texts"), dark_events()
    paths = {name: folder / name for name in ("events.hepmc3", "events.parquet", "stage.npz", "result.json")}
    write_hepmc(paths["events.hepmc3"], events)
    write_parquet(paths["events.parquet"], events)
    n = 2000
    charge = rng.choice(np.array([-2, 0, 2], dtype=np.int8), n)
    pairs = Pairs(*rng.uniform(0.3, 1.0, (3, n)), charge, np.ones(n), np.arange(n))
    (part,) = write_pairs(folder / "pairs", [pairs])
    arrays: dict[str, Any] = {"values": rng.random(2000), "cov": rng.random((30, 30))}
    np.savez(paths["stage.npz"], allow_pickle=False, **arrays)
    write_json(paths["result.json"], {"values": rng.random(500).tolist(), "finished": True})
    return {
        "HepMC events": (paths["events.hepmc3"], _dark),
        "Parquet events": (paths["events.parquet"], _dark),
        "Parquet pairs": (part, _pairs),
        "kept stages": (paths["stage.npz"], lambda path: digest(load_arrays(path))),
        "JSON results": (paths["result.json"], lambda path: digest(read_json(path))),
    }


def campaign(folder: Path, n: int) -> dict[str, tuple[int, list[str], list[str]]]:
    """Return by kind how many files were cut off, which were read nevertheless, and untyped errors."""
    found: dict[str, tuple[int, list[str], list[str]]] = {}
    for kind, (path, load) in kinds(folder).items():
        data, expected = path.read_bytes(), load(path)
        silent: list[str] = []
        crashed: list[str] = []
        for length in stream(43, kind).integers(0, len(data), n):
            path.write_bytes(data[:length])
            try:
                if load(path) != expected:
                    silent.append(f"{length} of {len(data)} bytes")
            except GammastarError:
                continue
            except Exception as error:  # noqa: BLE001 - whatever else comes out is what is looked for
                crashed.append(f"{length} of {len(data)} bytes: {type(error).__name__}")
        found[kind] = n, silent, crashed
    return found
