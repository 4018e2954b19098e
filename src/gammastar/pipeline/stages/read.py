"""Reading: pairs of the data, and simulated photons with what was reconstructed."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import config, read, select
from gammastar.core.errors import SteeringError
from gammastar.core.pairs import Pairs
from gammastar.core.resolve import UserCode
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.stages.flow import columns_for_angles
from gammastar.pipeline.stages.input_files import (
    UNREADABLE,
    Given,
    alike,
    given_files,
    identities,
    load_cuts,
    load_schema,
)
from gammastar.pipeline.stages.stored import FIELDS, Truth, collect_pairs, collect_truth, truth_of
from gammastar.store.chunks import Job, Source
from gammastar.store.manifest import digest, file_sha256
from gammastar.store.remote import Remote, Sealed, check_listed

__all__ = [
    "Inputs",
    "inputs",
    "match_stage",
    "select_stage",
]


@dataclass(frozen=True)
class Inputs:
    """The files of a run, sealed with their digests."""

    files: tuple[Path | Remote, ...]
    response: tuple[Path | Remote, ...]
    seal: Sealed

    @property
    def shas(self) -> tuple[str, ...]:
        """The SHA-256 of files and response, in this order."""
        return self.seal.shas


def inputs(ctx: Context, simulated: Arrays) -> Inputs:
    """Return the input files with their digests, which go into the manifest."""
    section = ctx.steering.read
    if simulated:
        data, truth = (Given((ctx.folder / "input" / f"mock_{name}.root",)) for name in ("data", "response"))
        kind, tree, skip = "sha256", "", False
    else:
        if section is None or not section.files:
            msg = "read.files: empty, and there is no [simulate] section that makes the data"
            raise SteeringError(msg)
        kind, tree = section.digest, load_schema(section, ctx.base).tree
        skip = ctx.farm is not None and ctx.farm.skip_bad
        data, truth = (
            given_files(names, ctx.base, tree=tree, missing=skip)
            for names in (section.files, section.response)
        )
        _note_datasets(ctx, kind, {**data.datasets, **truth.datasets})
    both = Given(data.files + truth.files, {**data.said, **truth.said})
    run = None if ctx.farm is None else ctx.farm.map
    if ctx.farm is not None:
        ctx.farm.same_files([str(path) for path in both.files], ctx.folder / "chunks" / "pairs")
    seal = Sealed(
        both.files,
        lambda some: identities(replace(both, files=tuple(some)), kind, run, tree=tree, skip=skip),
    )
    n = len(data.files)
    alike(data.files, seal.shas[:n])
    alike(truth.files, seal.shas[n:])
    readable = {path: sha for path, sha in zip(both.files, seal.shas, strict=True) if sha != UNREADABLE}
    check_listed(tuple(readable), tuple(readable.values()))
    ctx.book.enter(readable)
    return Inputs(data.files, truth.files, seal)


def _note_datasets(ctx: Context, kind: str, datasets: Mapping[str, Mapping[str, Any]]) -> None:
    """Enter what identifies the inputs, and which datasets of filesets were read, into the manifest."""
    if kind == "uuid":
        ctx.book.methods["identity of inputs"] = "UUID and size of each file; damaged bytes are not noticed"
    for name, metadata in datasets.items():
        words = {key: value for key, value in metadata.items() if key != "sha256"}
        text = f"; its metadata change no number: {json.dumps(words, sort_keys=True)}" if words else ""
        ctx.book.methods[f"dataset {name}"[:200]] = f"read as it is{text}"[:1000]


def _job(ctx: Context, kind: Any, paths: tuple[Path | Remote, ...], shas: tuple[str, ...]) -> Job:
    """Return what workers need to know."""
    reading, section = ctx.steering.read, ctx.steering.select
    if reading is None or section is None:
        msg = "[read] and [select] are needed to read pairs"
        raise SteeringError(msg)
    folder = (ctx.folder / "chunks" / kind).resolve()
    schema = load_schema(reading, ctx.code)
    code = _user_code(section, reading.schema_file, ctx.code)
    sources = tuple(Source(str(path), sha) for path, sha in zip(paths, shas, strict=True))
    key = digest(section.model_dump(mode="json"), repr(schema), code)
    return Job(
        kind, sources, schema, functools.partial(load_cuts, section, ctx.code), reading.step, key, folder
    )


def _partial(ctx: Context, stage: str, kind: str) -> None:
    """Enter what the farm had to leave out."""
    farm = ctx.farm
    if farm is None:
        return
    ctx.book.notes += [f"{farm.name}: {event}" for event in farm.events]
    farm.events.clear()
    skipped = [entry for entry in farm.skipped if entry["kind"] == kind]
    if skipped:
        lost = farm.lost_fraction(kind)
        ctx.book.partial[stage] = {"lost_fraction": lost, "skipped": skipped}
        what = "protons on target" if kind == "pairs" else "simulated events"
        ctx.book.notes.append(f"{len(skipped)} chunks or files skipped: {lost:.3%} of the {what} lost")


def _user_code(section: config.Select, schema: str, code: UserCode) -> str:
    """Return the digest of the user's part of the selection: functions, what they import, schema."""
    used = [*section.event_functions, *section.pair_functions]
    plain = schema.endswith(".toml")
    used += [] if plain or schema in read.builtin_names() else [schema]
    return digest(used, code.shas(used), file_sha256(code.folder / schema) if plain else "")


def _kept_columns(ctx: Context) -> tuple[str, ...]:
    """Return the pair columns that later stages need: vertex offset of the charm fit, decay angles."""
    section, angles = ctx.steering.subtract, columns_for_angles(ctx.steering)
    if section is None or section.charm is None:
        return angles
    names = section.charm.offset
    offset = names if len(names) == 1 else tuple(f"{name}_{leg}" for name in names for leg in (1, 2))
    return tuple(dict.fromkeys((*offset, *angles)))


def _with_columns(columns: Mapping[str, Any], wanted: Sequence[str]) -> Arrays:
    missing = [name for name in wanted if name not in columns]
    if missing:
        known = ", ".join(columns) or "none"
        msg = f"subtract.charm.offset: the pairs have no column {', '.join(missing)}; they have {known}"
        raise SteeringError(msg)
    return {f"column_{name}": np.asarray(columns[name]) for name in wanted}


def select_stage(ctx: Context, given: Inputs) -> tuple[Pairs, Arrays]:
    """Return the selected pairs, or a sample of them, and the arrays of cutflow and stored pairs.

    Where charm fit or spin density need columns of the pairs, chunks are read here and not on workers.
    """
    reading, section = ctx.steering.read, ctx.steering.select
    if reading is None or section is None:
        msg = "[read] and [select] are needed to read pairs"
        raise SteeringError(msg)
    schema, cuts = load_schema(reading, ctx.code), load_cuts(section, ctx.code)
    code = _user_code(section, reading.schema_file, ctx.code)
    wanted = _kept_columns(ctx)
    key = ctx.book.key(section, digest(reading.model_dump(mode="json"), wanted), code, *given.shas)

    flows: list[select.Cutflow] = []

    def serial() -> Iterator[Pairs]:
        n = 0
        for chunk in read.open_events([str(f) for f in given.files], schema, step=reading.step):
            part, flow = select.pairs(chunk, cuts)
            columns = {name: part.columns[name] for name in wanted if name in part.columns}
            flows.append(flow)
            n += len(chunk)
            ctx.tell("read", None, f"{n} events")
            yield replace(part, columns=columns)

    def compute() -> Arrays:
        stored: Arrays = {}
        flows.clear()
        if ctx.farm is None or wanted:
            pairs, stored = collect_pairs(ctx, serial())
            flow = functools.reduce(lambda a, b: a + b, flows, select.Cutflow())
        else:
            ctx.tell("read", None, f"{len(given.files)} files, {ctx.farm.name}")
            found, flow = ctx.farm.pairs(_job(ctx, "pairs", given.files, given.shas[: len(given.files)]))
            pairs, stored = collect_pairs(ctx, found)
            _partial(ctx, "select", "pairs")
        lost = select.lost_leptons(flow, schema.sources())
        if not len(pairs):
            names = ", ".join(f.name for f in given.files)
            n = flow["events"].n if flow.steps else 0
            msg = f"{names}: no lepton pair passes the selection ({n} events read); see [select]"
            raise SteeringError(msg)
        rows = flow.rows()
        kept = {
            name: np.array([row[name] for row in rows]) for name in ("name", "n", "weight", "os", "pp", "mm")
        }
        fields = ("mass", "pt", "energy", "charge", "weight", "event")
        arrays = {f: getattr(pairs, f) for f in fields} | {f"cutflow_{n}": v for n, v in kept.items()}
        arrays["cutflow_lost"] = np.array(lost)
        return arrays | stored | _with_columns(pairs.columns, wanted)

    arrays = ctx.book.arrays("select", key, lambda: given.seal.read(given.files, compute))
    if lost := str(arrays.get("cutflow_lost", "")):  # results of an earlier version do not have it
        ctx.book.alarm(lost)
    pairs = Pairs(
        *(arrays["mass"], arrays["pt"], arrays["energy"]),
        *(arrays["charge"], arrays["weight"], arrays["event"]),
        {name: arrays[f"column_{name}"] for name in wanted},
    )
    if schema.event and (again := select.repeated_events(pairs)):
        ctx.book.alarm(again)
    return pairs, {k: v for k, v in arrays.items() if k.startswith(("cutflow_", "stored_"))}


def match_stage(ctx: Context, given: Inputs) -> Truth:
    """Return the simulated virtual photons with what was reconstructed of them.

    Of more than ``select.max_in_memory`` of them a sample is in memory and all are in files.
    """
    reading, section = ctx.steering.read, ctx.steering.select
    if reading is None or section is None or not given.response:
        msg = "read.response: no simulation with truth is given; [unfold] needs it"
        raise SteeringError(msg)
    schema, cuts = load_schema(reading, ctx.code), load_cuts(section, ctx.code)
    code = _user_code(section, reading.schema_file, ctx.code)
    wanted = _kept_columns(ctx)
    unfolding = ctx.steering.unfold
    if unfolding is not None and (unfolding.systematics.polarisation or unfolding.systematics.fsr):
        wanted = tuple(dict.fromkeys((*wanted, "cos_theta")))
    key = ctx.book.key(section, digest(reading.model_dump(mode="json"), wanted), code, *given.shas, "match")
    flows: list[select.Cutflow] = []

    def compute() -> Arrays:
        ctx.tell("read", None, "simulation with truth")
        flows.clear()
        if ctx.farm is None or wanted:
            files = [str(f) for f in given.response]
            parts = read.open_matched(files, schema, select.counting(cuts, flows), step=reading.step)
            found, stored = collect_truth(ctx, parts, wanted)
        else:
            job = _job(ctx, "truth", given.response, given.shas[len(given.files) :])
            found, stored = collect_truth(ctx, ctx.farm.truth(job), wanted)
            flows.append(ctx.farm.flows["truth"])
            _partial(ctx, "match", "truth")
        flow = functools.reduce(lambda a, b: a + b, flows, select.Cutflow())
        arrays = {f: getattr(found, f) for f in FIELDS}
        arrays["cutflow_lost"] = np.array(select.lost_leptons(flow, schema.sources()))
        return arrays | stored | _with_columns(found.columns, wanted)

    arrays = ctx.book.arrays("match", key, lambda: given.seal.read(given.response, compute))
    if lost := str(arrays.get("cutflow_lost", "")):
        ctx.book.alarm(f"simulation with truth: {lost}")
    return truth_of(ctx, arrays, wanted)
