"""Inputs of a run: files with their digests, selected pairs, simulated photons matched to pairs."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import config, read, select
from gammastar.config.measured import load_cuts, load_runs, load_schema, run_files
from gammastar.core.errors import SteeringError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import Arrays, PairHists, effective_size
from gammastar.core.resolve import UserCode
from gammastar.physics.detector import COLUMNS
from gammastar.pipeline.context import Context, axes_of, needed
from gammastar.pipeline.stages.flow import columns_for_angles
from gammastar.select import scale_factors
from gammastar.select.cuts import warned
from gammastar.select.histogram import flat_suffices, of_sums, sums_of
from gammastar.store import filesets
from gammastar.store.manifest import digest, file_sha256
from gammastar.store.pairs import Job, Source, StoredPairs, Truth, collect_pairs, collect_truth
from gammastar.subtract.charm import offset_columns

FIELDS = ("mass", "pt", "energy", "charge", "weight", "event")
CUTFLOW = ("name", "n", "weight", "os", "pp", "mm")


@dataclass(frozen=True)
class Inputs:
    """The files of a run, sealed with their digests."""

    files: tuple[Path | filesets.Remote, ...]
    response: tuple[Path | filesets.Remote, ...]
    seal: filesets.Sealed

    @property
    def shas(self) -> tuple[str, ...]:
        """The SHA-256 of files and response, in this order."""
        return self.seal.shas


def inputs(ctx: Context, simulated: Arrays) -> Inputs:
    """Return the input files with their digests, which go into the manifest."""
    if simulated:
        files = (ctx.folder / "input" / f"mock_{name}.root" for name in ("data", "response"))
        data, truth = (filesets.Given((file,)) for file in files)
        kind, tree, skip = "sha256", "", False
    else:
        section: config.Read = needed(ctx.steering.read, "read")
        kind, tree = section.digest, load_schema(section, ctx.base).tree
        skip = ctx.executor is not None and ctx.executor.skip_bad
        named = (section.files, section.response)
        data, truth = (filesets.given_files(n, ctx.base, tree=tree, missing=skip) for n in named)
        _note_datasets(ctx, kind, {**data.datasets, **truth.datasets})
    both = filesets.Given(data.files + truth.files, {**data.said, **truth.said})
    run = None if ctx.executor is None else ctx.executor.map
    if ctx.executor is not None:
        ctx.executor.same_files([str(path) for path in both.files], ctx.folder / "chunks" / "pairs")
    seal = filesets.Sealed(
        both.files,
        lambda some: filesets.identities(replace(both, files=tuple(some)), kind, run, tree=tree, skip=skip),
    )
    n = len(data.files)
    filesets.alike(data.files, seal.shas[:n])
    filesets.alike(truth.files, seal.shas[n:])
    digests = zip(both.files, seal.shas, strict=True)
    readable = {path: sha for path, sha in digests if sha != filesets.UNREADABLE}
    filesets.check_listed(tuple(readable), tuple(readable.values()))
    ctx.cache.enter(readable)
    lack = "" if simulated else filesets.unprotected(tuple(readable), both.listed, tree)
    if lack:
        ctx.cache.methods["protection of the inputs"] = lack
    return Inputs(data.files, truth.files, seal)


def _note_datasets(ctx: Context, kind: str, datasets: Mapping[str, Mapping[str, Any]]) -> None:
    """Enter what identifies the inputs, and which datasets of filesets were read, into the manifest."""
    if kind == "uuid":
        ctx.cache.methods["identity of inputs"] = "UUID and size of each file; damaged bytes are not noticed"
    for name, metadata in datasets.items():
        words = {key: value for key, value in metadata.items() if key != "sha256"}
        text = f"; its metadata change no number: {json.dumps(words, sort_keys=True)}" if words else ""
        ctx.cache.methods[f"dataset {name}"[:200]] = f"read as it is{text}"[:1000]


@dataclass(frozen=True)
class _Reader:
    """What reads the pairs of a run: sections, schema, cuts, and the columns that later stages need."""

    ctx: Context
    step: Any
    schema: read.Schema
    cuts: select.Cuts
    code: str
    columns: tuple[str, ...]
    section: config.Select
    reading: config.Read
    of_data: functools.partial[select.Cuts]  # makes the cuts with those that simulation does not have

    @staticmethod
    def of(ctx: Context, columns: tuple[str, ...]) -> _Reader:
        reading, section = needed(ctx.steering.read, "read"), needed(ctx.steering.select, "select")
        schema, cuts = load_schema(reading, ctx.code), load_cuts(section, ctx.code)
        named = (*run_files(reading, ctx.base), *(ctx.base / one.file for one in section.scale_factors))
        files = {path: file_sha256(path) for path in named}
        ctx.cache.enter(files)
        code = digest(_user_code(section, reading.schema_file, ctx.code), *files.values())
        runs = load_runs(reading, ctx.base)
        of_data = functools.partial(load_cuts, section, ctx.code, data=True, runs=runs)
        return _Reader(ctx, reading.step, schema, cuts, code, columns, section, reading, of_data)

    def key(self, given: Inputs, *more: str) -> str:
        """Return the digest of everything that the pairs depend on."""
        how = digest(self.reading.model_dump(mode="json"), self.columns)
        return self.ctx.cache.key(self.section, how, self.code, *given.shas, *more)

    def job(self, kind: Any, paths: Sequence[Path | filesets.Remote], shas: Sequence[str]) -> Job:
        """Return what workers need to know."""
        folder = (self.ctx.folder / "chunks" / kind).resolve()
        sources = tuple(Source(str(path), sha) for path, sha in zip(paths, shas, strict=True))
        key = digest(self.section.model_dump(mode="json"), repr(self.schema), self.code)
        if kind == "pairs":
            return Job(kind, sources, self.schema, self.of_data, self.step, key, folder, self.columns)
        cuts = functools.partial(load_cuts, self.section, self.ctx.code)
        return Job(kind, sources, self.schema.of_simulation(), cuts, self.step, key, folder, self.columns)

    def pairs(self, given: Inputs, flows: list[select.Cutflow]) -> Iterator[Pairs]:
        """Yield the selected pairs; the cutflow is complete after the last ones."""
        job = self.job("pairs", given.files, given.shas[: len(given.files)])
        if self.ctx.executor is not None:
            self.ctx.tell("read", None, f"{len(given.files)} files, {self.ctx.executor.name}")
            parts, flow = self.ctx.executor.pairs(job)
            yield from parts
            flows.append(flow)
            return
        chunks = read.open_events([str(f) for f in given.files], self.schema, step=self.step)
        cuts = self.of_data()
        for chunk in self._told(chunks):
            part, flow = select.pairs(chunk, cuts)
            flows.append(flow)
            yield replace(part, columns=job.wanted(part))

    def histograms(self, given: Inputs, flows: list[select.Cutflow]) -> PairHists:
        """Return the pairs by charge in the axes of the steering; none of them is kept."""
        axes = axes_of(self.section)
        if self.ctx.executor is not None:
            self.ctx.tell("read", None, f"{len(given.files)} files, {self.ctx.executor.name}")
            job = self.job("pairs", given.files, given.shas[: len(given.files)])
            sums, flow = self.ctx.executor.histograms(replace(job, axes=axes))
            flows.append(warned(flow))
            return of_sums(sums, axes)
        cuts = self.of_data()
        reader: Any = read.open_flat if flat_suffices(axes, cuts) else read.open_events
        chunks = reader([str(f) for f in given.files], self.schema, step=self.step)
        hists, flow = select.histograms(self._told(chunks), axes, cuts)
        flows.append(flow)
        return hists

    def _told(self, chunks: Iterator[Any]) -> Iterator[Any]:
        """Yield chunks, events or flat columns, and tell how many events there were."""
        n = 0
        for chunk in chunks:
            n += len(chunk["weight"])
            self.ctx.tell("read", None, f"{n} events")
            yield chunk

    def truth(self, given: Inputs, flows: list[select.Cutflow]) -> Iterator[MatchedPairs]:
        """Yield simulated photons; the cutflow is complete after the last ones."""
        self.ctx.tell("read", None, "simulation with truth")
        job = self.job("truth", given.response, given.shas[len(given.files) :])
        if self.ctx.executor is not None:
            yield from self.ctx.executor.truth(job)
            flows.append(self.ctx.executor.flows["truth"])
            return
        files = [str(f) for f in given.response]
        cuts = select.counting(self.cuts, flows)
        for part in read.open_matched(files, self.schema.of_simulation(), cuts, step=self.step):
            yield replace(part, columns=job.wanted(part))


def _partial(ctx: Context, stage: str, kind: str) -> None:
    """Enter what the executor had to leave out."""
    executor = ctx.executor
    if executor is None:
        return
    ctx.cache.notes += [f"{executor.name}: {event}" for event in executor.events]
    executor.events.clear()
    skipped = [entry for entry in executor.skipped if entry["kind"] == kind]
    if skipped:
        lost = executor.lost_fraction(kind)
        ctx.cache.partial[stage] = {"lost_fraction": lost, "skipped": skipped}
        what = "protons on target" if kind == "pairs" else "simulated events"
        ctx.cache.notes.append(f"{len(skipped)} chunks or files skipped: {lost:.3%} of the {what} lost")


def _user_code(section: config.Select, schema: str, code: UserCode) -> str:
    """Return the digest of the user's part of the selection: functions, what they import, schema."""
    used = [*section.event_functions, *section.pair_functions]
    used += [] if section.data is None else section.data.event_functions
    plain = schema.endswith(".toml")
    used += [] if plain or schema in read.builtin_names() else [schema]
    return digest(used, code.shas(used), file_sha256(code.folder / schema) if plain else "")


def _columns(ctx: Context) -> tuple[str, ...]:
    """Return the pair columns that later stages need: vertex offset of the charm fit, decay angles."""
    section, angles = ctx.steering.subtract, columns_for_angles(ctx.steering)
    if section is None or section.charm is None:
        return angles
    return tuple(dict.fromkeys((*offset_columns(section.charm.offset), *angles)))


def columns_for_vertices(steering: config.Steering) -> tuple[str, ...]:
    """Return the pair columns that the displaced search needs, none without it."""
    return COLUMNS if steering.in_situ is not None and steering.in_situ.displaced is not None else ()


def select_stage(ctx: Context, given: Inputs) -> tuple[Pairs, Arrays]:
    """Return the selected pairs, or a sample of them, and the arrays of cutflow and stored pairs."""
    wanted = (*_columns(ctx), *columns_for_vertices(ctx.steering))
    reader = _Reader.of(ctx, tuple(dict.fromkeys(wanted)))

    def compute() -> Arrays:
        flows: list[select.Cutflow] = []
        folder, name = ctx.folder / "stages" / "pairs", ctx.steering.analysis.name
        pairs, stored, hists = Pairs.empty(), None, None
        if reader.section.keep_pairs:
            pairs, stored = collect_pairs(reader.pairs(given, flows), ctx.max_in_memory, folder, name)
        else:
            hists = reader.histograms(given, flows)
        flow = functools.reduce(lambda a, b: a + b, flows, select.Cutflow())
        _partial(ctx, "select", "pairs")
        if not (len(pairs) if hists is None else flow.steps[-1].n):
            names = ", ".join(f.name for f in given.files)
            n = flow["events"].n if flow.steps else 0
            msg = f"{names}: no lepton pair passes the selection ({n} events read); see [select]"
            raise SteeringError(msg)
        rows = flow.rows()
        return {
            **{name: getattr(pairs, name) for name in FIELDS},
            **{f"column_{name}": np.asarray(column) for name, column in pairs.columns.items()},
            **{f"cutflow_{name}": np.array([row[name] for row in rows]) for name in CUTFLOW},
            "cutflow_lost": np.array(select.lost_leptons(flow, reader.schema.sources())),
            "cutflow_runs": np.array(sorted(flow.runs.items()), dtype=np.int64).reshape(-1, 2),
            **({} if stored is None else stored.to_arrays()),
            **({} if hists is None else {"hists": sums_of(hists)}),
        }

    arrays = ctx.cache.arrays("select", reader.key(given), lambda: given.seal.read(given.files, compute))
    if lost := str(arrays.get("cutflow_lost", "")):  # results of an earlier version do not have it
        ctx.cache.alarm(lost)
    columns = {name: arrays[f"column_{name}"] for name in reader.columns}
    pairs = Pairs(**{name: arrays[name] for name in FIELDS}, columns=columns)
    if reader.schema.event and (again := select.repeated_events(pairs)):
        ctx.cache.alarm(again)
    return pairs, {k: v for k, v in arrays.items() if k.startswith(("cutflow_", "stored_", "hists"))}


def stored_pairs(ctx: Context, arrays: Arrays | None) -> StoredPairs | None:
    """Return the pairs that the selection left in files, None if all of them are in memory."""
    folder = ctx.folder / "stages" / "pairs"
    return StoredPairs.from_arrays(arrays or {}, folder, ctx.steering.analysis.name)


def match_stage(ctx: Context, given: Inputs) -> Truth:
    """Return simulated virtual photons with their reconstruction, above max_in_memory a sample."""
    columns, asked = _columns(ctx), ctx.steering.systematics
    if asked.polarisation or asked.radiation or asked.momentum_scale or asked.own:
        columns = tuple(dict.fromkeys((*columns, "cos_theta")))
    if ctx.steering.select is not None:
        columns += scale_factors.names_of(ctx.steering.select.scale_factors)
    reader = _Reader.of(ctx, columns)
    folder, name = ctx.folder / "stages" / "truth", f"{ctx.steering.analysis.name}, simulation"

    def compute() -> Arrays:
        flows: list[select.Cutflow] = []
        photons = scale_factors.corrected(reader.truth(given, flows))
        truth = collect_truth(photons, ctx.max_in_memory, folder, name)
        flow = functools.reduce(lambda a, b: a + b, flows, select.Cutflow())
        _partial(ctx, "match", "truth")
        rows = reader.schema.layout == "pair"  # of photons: without momenta where no pair was found
        lost = "" if rows else select.lost_leptons(flow, reader.schema.sources())
        return truth.to_arrays() | {"cutflow_lost": np.array(lost)}

    key = reader.key(given, "match")
    arrays = ctx.cache.arrays("match", key, lambda: given.seal.read(given.response, compute))
    if lost := str(arrays.get("cutflow_lost", "")):
        ctx.cache.alarm(f"simulation with truth: {lost}")
    return Truth.from_arrays(arrays, folder, name)


def match_simulation(ctx: Context, state: Any) -> None:
    """Read the simulation; say so where the stages that need it in memory have a sample."""
    state.truth = match_stage(ctx, state.inputs)
    state.matched = state.truth.sample
    stored = state.truth.stored
    if stored is not None:
        size = effective_size(state.matched.weight)
        ctx.cache.numbers["simulated pairs in files"] = f"{stored.rows.n}"
        ctx.cache.numbers["simulated pairs in memory"] = f"{len(state.matched)} (effective {size:.0f})"
        ctx.cache.notes.append(
            f"{stored.rows.n} simulated photons and fakes are more than select.max_in_memory: the response "
            f"is of all of them; OmniFold, line shapes and the extrapolation have {len(state.matched)} "
            f"photons (effective {size:.0f}) of {stored.rows.share:.3%} of the events, chosen by their hash"
        )
