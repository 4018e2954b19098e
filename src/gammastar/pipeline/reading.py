"""Mock files, input files, selected pairs and matched simulation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gammastar import config, read, select, simulate
from gammastar.core.errors import SteeringError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.resolve import resolve
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context, find_file, shipped
from gammastar.store.events import write_tree
from gammastar.store.manifest import digest, file_sha256

__all__ = [
    "Inputs",
    "inputs",
    "load_cuts",
    "load_schema",
    "match_stage",
    "select_stage",
    "simulate_stage",
    "write_mock",
]


@dataclass(frozen=True)
class Inputs:
    """The files of a run and their digests."""

    files: tuple[Path, ...]
    response: tuple[Path, ...]
    shas: tuple[str, ...]


def simulate_stage(ctx: Context) -> Arrays:
    """Write the mock files; keep what later stages need to know about them."""
    section = ctx.steering.simulate
    if section is None:
        return {}
    card = simulate.load_card(shipped(section.card, ctx.base, "cards"))

    def compute() -> Arrays:
        result: Arrays = {}
        sizes = {"data": section.n_pairs, "response": section.n_response}
        for name, n in sizes.items():
            events = simulate.simulate_events(
                card,
                n,
                kind="data" if name == "data" else "mc",
                prior="nominal" if name == "data" else section.response_prior,
                pairing=section.pairing,
                seed=ctx.seed,
                progress=_counter(ctx, f"MOCK {name}"),
            )
            path = ctx.folder / "input" / f"mock_{name}.root"
            write_mock(path, events)
            result |= {
                f"{name}_sha": np.array(file_sha256(path)),
                f"{name}_pot": np.array(events.meta["N_POT"]),
            }
        ctx.tell("simulate", None, "charge ratio R of simulated combinatorial pairs")
        combinatorial = simulate.simulate_events(
            card, section.n_pairs, kind="background", pairing=section.pairing, seed=ctx.seed + 1
        )
        found = (combinatorial.meta["r_factor"], combinatorial.meta["r_factor_sigma"])
        return result | {"r_factor": np.array(found)}

    key = ctx.book.key(section, card.digest)
    ctx.book.inputs[f"card {card.name}"] = card.digest
    result = ctx.book.arrays("simulate", key, compute)
    for kind in ("data", "response"):
        path = ctx.folder / "input" / f"mock_{kind}.root"
        if not path.is_file() or file_sha256(path) != str(result[f"{kind}_sha"]):
            msg = f"{path}: missing or changed since it was made; run without --resume"
            raise SteeringError(msg)
    return result


def _counter(ctx: Context, text: str) -> Callable[[int, int], None]:
    def count(done: int, total: int) -> None:
        ctx.tell("simulate", done / total, f"{text}: {done} of {total} dimuons")

    return count


def write_mock(path: Path, events: simulate.SimulatedEvents) -> None:
    """Write a mock sample as the trees ``events`` and ``meta``."""
    write_tree(path, {"events": events.branches, "meta": events.meta_branches()})


def inputs(ctx: Context, simulated: Arrays) -> Inputs:
    """Return the input files with their digests, which go into the manifest."""
    section = ctx.steering.read
    if simulated:
        files = [ctx.folder / "input" / "mock_data.root"]
        response = [ctx.folder / "input" / "mock_response.root"]
    else:
        names = () if section is None else section.files
        files = [path for name in names for path in find_file(name, ctx.base)]
        names = () if section is None else section.response
        response = [path for name in names for path in find_file(name, ctx.base)]
        if not files:
            msg = "read.files: empty, and there is no [simulate] section that makes the data"
            raise SteeringError(msg)
    shas = tuple(file_sha256(path) for path in (*files, *response))
    ctx.book.inputs |= {path.name: sha for path, sha in zip((*files, *response), shas, strict=True)}
    return Inputs(tuple(files), tuple(response), shas)


def load_schema(section: config.Read, base: Path) -> read.Schema:
    """Return the schema of a file, or of ``file.py:attribute``."""
    name = section.schema_file
    if name.endswith(".toml"):
        mapping = config.read_toml(base / name)
        return read.Schema.from_mapping(mapping)
    found = resolve(name, base)
    return found if isinstance(found, read.Schema) else read.Schema.from_mapping(found)


def load_cuts(section: config.Select, base: Path) -> select.Cuts:
    """Return the cuts of a section."""
    ghost = None
    if section.ghost_angle > 0 or section.ghost_excess > 0:
        ghost = select.GhostVeto(section.ghost_angle, section.ghost_excess)
    return select.Cuts(
        lepton=section.lepton,
        pair=section.pair,
        ghost=ghost,
        event_functions=tuple(resolve(name, base) for name in section.event_functions),
        pair_functions=tuple(resolve(name, base) for name in section.pair_functions),
    )


def _user_code(section: config.Select, schema: str, base: Path) -> str:
    names = {name.partition(":")[0] for name in (*section.event_functions, *section.pair_functions, schema)}
    return digest({name: file_sha256(base / name) for name in sorted(names)})


def select_stage(ctx: Context, given: Inputs) -> tuple[Pairs, Arrays]:
    """Return the selected pairs and the cutflow."""
    reading, section = ctx.steering.read, ctx.steering.select
    if reading is None or section is None:
        msg = "[read] and [select] are needed to read pairs"
        raise SteeringError(msg)
    schema, cuts = load_schema(reading, ctx.base), load_cuts(section, ctx.base)
    code = _user_code(section, reading.schema_file, ctx.base)
    key = ctx.book.key(section, digest(reading.model_dump(mode="json")), code, *given.shas)

    def compute() -> Arrays:
        parts, flows, n = [], [], 0
        for chunk in read.open_events([str(f) for f in given.files], schema, step=reading.step):
            part, flow = select.pairs(chunk, cuts)
            parts.append(part)
            flows.append(flow)
            n += len(chunk)
            ctx.tell("read", None, f"{n} events")
        pairs = Pairs.concatenate(parts)
        if not len(pairs):
            names = ", ".join(f.name for f in given.files)
            msg = f"{names}: no lepton pair passes the selection ({n} events read); see [select]"
            raise SteeringError(msg)
        rows = functools.reduce(lambda a, b: a + b, flows).rows()
        kept = {
            name: np.array([row[name] for row in rows]) for name in ("name", "n", "weight", "os", "pp", "mm")
        }
        fields = ("mass", "pt", "energy", "charge", "weight", "event")
        return {f: getattr(pairs, f) for f in fields} | {f"cutflow_{n}": v for n, v in kept.items()}

    arrays = ctx.book.arrays("select", key, compute)
    pairs = Pairs(
        *(arrays["mass"], arrays["pt"], arrays["energy"]),
        *(arrays["charge"], arrays["weight"], arrays["event"]),
    )
    return pairs, {k: v for k, v in arrays.items() if k.startswith("cutflow_")}


def match_stage(ctx: Context, given: Inputs) -> MatchedPairs:
    """Return the simulated virtual photons with what was reconstructed of them."""
    reading, section = ctx.steering.read, ctx.steering.select
    if reading is None or section is None or not given.response:
        msg = "read.response: no simulation with truth is given; [unfold] needs it"
        raise SteeringError(msg)
    schema, cuts = load_schema(reading, ctx.base), load_cuts(section, ctx.base)
    code = _user_code(section, reading.schema_file, ctx.base)
    key = ctx.book.key(section, digest(reading.model_dump(mode="json")), code, *given.shas, "match")
    fields = ("true", "reco", "weight", "event", "fakes", "fake_weight")

    def compute() -> Arrays:
        ctx.tell("read", None, "simulation with truth")
        files = [str(f) for f in given.response]
        found = read.matched(files, schema, lambda events: select.pairs(events, cuts)[0], step=reading.step)
        return {f: getattr(found, f) for f in fields}

    arrays = ctx.book.arrays("match", key, compute)
    return MatchedPairs(*(arrays[f] for f in fields))
