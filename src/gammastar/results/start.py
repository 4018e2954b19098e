"""Where an analysis starts: ntuples or the published table of a user, or the record of a finished run."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gammastar import config, flow
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import SteeringError, UserError, require
from gammastar.core.files import shipped, write_whole
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import FloatArray
from gammastar.physics.detector import load_detector
from gammastar.pipeline import record as run_record
from gammastar.pipeline.cache import open_cache
from gammastar.pipeline.context import Context, RunState, Tell
from gammastar.pipeline.run import dark_half, writable
from gammastar.pipeline.stages import report
from gammastar.pipeline.stages.flow import read_spin
from gammastar.pipeline.stages.predict import read_trend
from gammastar.store.folder import working
from gammastar.store.manifest import digest, digest_of, read_spectrum

if TYPE_CHECKING:
    from gammastar import read

Edges: TypeAlias = dict[str, tuple[float, ...]]
STEP, STEPS = 50_000, 4  # entries of the file from which axes are proposed
SIMULATED = 500_000  # entries of the simulation from which efficiency and resolution come
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the pairs, at edges of the energy
STARTS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12)  # of the pairs, below the first edge
FLOOR = 0.01  # efficiency below which a cell is not in the domain, as unfold.efficiency_floor
ENOUGH = 10.0  # times the data, for a simulation whose own error does not matter
FEW = 100  # opposite-sign pairs below which nothing is proposed from them
HIGHEST = 1.2  # GeV, where most pairs lie below; above, dark photons hide under few pairs and other lines
WIDTH = 0.05  # GeV, of the bins in mass, unless the resolution is worse
WIDTHS = (WIDTH, 0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0)
MASS_BINS, RESOLUTIONS = 25, 1.5  # at most so many bins of mass, of at least so many standard deviations
DEFAULT: Edges = {
    "width": (WIDTH,),
    "mass": (0.2, 1.1),
    "pt": (0.0, 0.5, 1.0, 6.0),
    "energy": (1.0, 20.0, 40.0, 400.0),
}
TRUE = {"gen", "mc", "true", "truth", "sim"}
TRUTH = {"mass": {"m", "mass", "mll", "mmumu", "mee"}, "pt": {"pt", "qt"}, "energy": {"e", "energy", "en"}}


def begin(
    folder: str | Path,
    *,
    source: str | Path | None = None,
    simulation: str | Path | None = None,
    lepton: str | None = None,
    replace: bool = False,
) -> Iterator[str]:
    """Write ``steering.toml``, ``detector.toml`` and ``schema.toml`` to start from; yield what was done."""
    from gammastar.read.published import is_published

    folder = Path(folder)
    if source is not None and is_published(source):
        texts = {"steering.toml": _from_table(folder, Path(source), lepton)}
        texts["detector.toml"] = _template("detector")
        told: list[str] = []
    else:
        texts, told = _from_ntuples(folder, source, simulation, lepton)
    there = [name for name in texts if (folder / name).exists()]
    if there and not replace:
        names = " and ".join(there)
        raise UserError(f"{folder}: {names} would be overwritten; give another folder, or --force")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_whole(folder / name, text.encode())
        left = sum(line.split("#")[0].count('"?"') for line in text.splitlines())
        yield f"wrote {folder / name}" + (f"; {left} values to fill in, marked with ?" if left else "")
    yield from told
    yield f"then: gammastar check {folder / 'steering.toml'}"


def _template(name: str) -> str:
    return (resources.files("gammastar.results") / "start" / f"{name}.toml").read_text(encoding="utf-8")


def _from_ntuples(
    folder: Path, source: str | Path | None, simulation: str | Path | None, lepton: str | None
) -> tuple[dict[str, str], list[str]]:
    """Return the files, and what to say of their axes."""
    from gammastar import read

    schema, mapping, edges, note = _template("schema"), {}, dict(DEFAULT), ""
    told: list[str] = []
    trees = () if simulation is None else read.inspect(simulation)
    truth = _truth_branches(trees)
    if source is not None:
        found = read.describe(source, lepton=lepton)
        require(found.schemas, found.proposal, UserError)
        schema, mapping = found.proposal + "\n", dict(found.schemas[0].schema)
        pairs, photons = _first(source, mapping)
        edges, note = _axes(pairs, mapping)
        if simulation is not None and len(truth) == len(TRUTH) and len(pairs) >= FEW:
            matched, part = _simulated(simulation, mapping | {"truth": truth}, trees)
            edges, told = _seen(pairs, matched, edges)
            told += _price(photons, int(matched.reconstructed.sum()) / part)
    flavour = mapping.get("lepton", lepton or "mu")
    schema += "\n" + "\n".join(_truth(truth)) + "\n"
    low, high = edges["mass"][0], edges["mass"][-1]
    steering = Template(_template("steering")).substitute(
        name=_name(folder),
        files='"?"' if source is None else _beside(folder, source),
        response='"?"' if simulation is None else _beside(folder, simulation),
        note=note,
        mass=f"{{ bins = {round((high - low) / edges['width'][0])}, low = {low:g}, high = {high:g} }}",
        pt=_list(edges["pt"]),
        energy=_list(edges["energy"]),
        r_factor='"mixed"' if mapping.get("layout", "pair") != "pair" else "1.0",
        lepton=flavour,
    )
    return {"steering.toml": steering, "schema.toml": schema, "detector.toml": _template("detector")}, told


def _from_table(folder: Path, source: Path, lepton: str | None) -> str:
    """Return a steering file that starts from a published table: no ntuples, no flow."""
    from gammastar.read.published import describe_tables

    found = describe_tables(source)
    if not found.proposal:
        raise UserError(f"{source}: no table makes a mass spectrum: {'; '.join(found.reasons[:3])}")
    text = Template(_template("steering")).safe_substitute(name=_name(folder), lepton=lepton or "?")
    parts = re.split(r"(?m)^(?=\[)", text)
    kept = [part for part in parts if not re.match(r"\[(read|select|subtract|unfold|flow)\]", part)]
    place = next(i for i, part in enumerate(kept) if part.startswith("[predict]"))
    table = re.sub(r'(?m)^file = ".*"$', lambda _: f"file = {_beside(folder, source)}", found.proposal)
    modelled = (
        'kinematics = "?" # a card whose hadrons give q_T and energy at a mass: "na60_mock", or your own'
    )
    return "".join([*kept[:place], f"{table}\n{modelled}\n\n", *kept[place:]])


def _name(folder: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", folder.resolve().name).strip("_") or "mine"


def _beside(folder: Path, path: str | Path) -> str:
    """Return the name of a file as a steering in this folder writes it."""
    name = str(path)
    if "://" not in name:
        name = Path(os.path.relpath(name, folder)).as_posix()
    return f'"{name}"'


def _list(values: Iterable[float]) -> str:
    return f"[{', '.join(f'{value:g}' if value % 1 else f'{value:.1f}' for value in values)}]"


def _first(source: str | Path, mapping: dict[str, Any]) -> tuple[Pairs, float]:
    """Return the opposite-sign pairs of the first entries of a file, and the photons of all of it."""
    from gammastar import read, select

    events = read.open_events(source, read.load_schema(mapping), step=STEP)
    pairs, flow = select.collect(itertools.islice(events, STEPS))
    entries = sum(tree.entries for tree in read.inspect(source) if tree.name == mapping["tree"])
    photons = pairs.os.sum() - 2 * np.sqrt(float(pairs.pp.sum()) * float(pairs.mm.sum()))
    share = min(1.0, flow["events"].n / max(entries, 1)) if flow.steps else 1.0
    return pairs.select(pairs.os & np.isfinite(pairs.mass)), max(float(photons) / share, 0.0)


def _axes(chosen: Pairs, mapping: dict[str, Any]) -> tuple[Edges, str]:
    """Return edges with about as many pairs in each, and what they are."""
    if len(chosen) < FEW:
        return dict(DEFAULT), f"; {len(chosen)} opposite-sign pairs are too few to propose axes from"
    threshold = 2.0 * LEPTON_MASS[mapping["lepton"]]
    low = max(np.ceil(threshold * 1000) / 1000, float(f"{np.quantile(chosen.mass, 0.005):.2g}"))
    last = round(float(np.quantile(chosen.mass, 0.99)), 1)
    high = max(low + 0.3, last if np.median(chosen.mass) > HIGHEST else min(HIGHEST, last))
    return {
        "width": (WIDTH,),
        "mass": (low, high),
        "pt": _quantiles(chosen.pt, (0.0, 1 / 3, 2 / 3, 1.0)),
        "energy": _quantiles(chosen.energy, SHARES),
    }, f"; from {len(chosen)} opposite-sign pairs of the file, look at them"


def _simulated(
    source: str | Path, mapping: dict[str, Any], trees: Iterable[read.TreeSummary]
) -> tuple[MatchedPairs, float]:
    """Return the photons of the first entries of a simulation, and which part of it they are."""
    from gammastar import read, select

    entries = max((tree.entries for tree in trees if tree.name == mapping["tree"]), default=0)
    last = min(entries, SIMULATED)
    schema, cuts = read.load_schema(mapping), select.counting(select.Cuts())
    parts = read.open_matched(source, schema, cuts, step=STEP, entry_stop=last)
    return MatchedPairs.concatenate(list(parts)), last / max(entries, 1)


def _seen(pairs: Pairs, matched: MatchedPairs, edges: Edges) -> tuple[Edges, list[str]]:
    """Return axes with cells above the floor of the efficiency where pairs are, coarse as the resolution."""
    (low, high), found = edges["mass"], matched.reconstructed
    low = max(low, float(f"{np.quantile(matched.true[:, 0], 0.002):.2g}"))  # below, nothing is simulated
    inside = (matched.true[:, 0] >= low) & (matched.true[:, 0] < high)
    if (inside & found).sum() < FEW:
        return edges, []
    ratio = matched.reco[found, 0] / matched.true[found, 0]
    resolution = 0.25 * (low + high) * float(np.diff(np.quantile(ratio, (0.16, 0.84)))[0])
    wanted = max((high - low) / MASS_BINS, RESOLUTIONS * resolution)
    width = next((w for w in WIDTHS if w >= wanted), WIDTHS[-1])
    high = round(low + max(round((high - low) / width), 1) * width, 6)
    edges = edges | {"mass": (low, high)}
    inside = (matched.true[:, 0] >= low) & (matched.true[:, 0] < high)
    best, held, spectrum = edges, -1.0, 0.0
    for share in STARTS:
        cut = float(np.quantile(pairs.energy, share))
        first = (float(f"{cut:.2g}"),) if share else ()
        above = _quantiles(pairs.energy[pairs.energy >= cut], SHARES)[1:]
        energy = (edges["energy"][0], *first, *(x for x in above if x > sum(first)))
        tried = edges | {"energy": energy, "width": (width,)}
        mass = np.linspace(low, high, round((high - low) / width) + 1)
        bins = [mass, np.array(tried["pt"]), np.array(energy)]
        every, seen = (np.histogramdd(x, bins)[0] for x in (matched.true, matched.true[found]))
        good = seen >= FLOOR * every
        empty = not (seen * ~good)[..., len(first) :].any()
        kept = float(seen[good].sum() / (inside & found).sum())
        if empty or kept > held + 1e-3:
            best, held, spectrum = tried, kept, float(every[good].sum() / inside.sum())
        if empty:
            break
    text = (
        f"axes: {held:.1%} of the simulated pairs of these masses lie in cells of an efficiency above "
        f"{FLOOR:g}, {spectrum:.1%} of the simulated spectrum; the rest is extrapolated"
    )
    return best, [text]


def _price(n_data: float, n_simulated: float) -> list[str]:
    """Say what a small simulation costs."""
    times = n_simulated / max(n_data, 1.0)
    if times >= ENOUGH:
        return []
    text = (
        f"warning: the simulation has {n_simulated:.0f} pairs, {times:.2g} times the {n_data:.0f} photons "
        f"of the data; errors grow by a factor {np.sqrt(1 + 1 / max(times, 1e-3)):.2f}, with "
        f"{ENOUGH:g} times by 1.05"
    )
    return [text]


def _quantiles(values: FloatArray, shares: tuple[float, ...]) -> tuple[float, ...]:
    first, *inner, last = np.quantile(values, shares)
    digit = 10.0 ** np.floor(np.log10(last))
    ends = float(np.floor(first / digit) * digit), float(np.ceil(last / digit) * digit)
    return (ends[0], *sorted({float(f"{x:.2g}") for x in inner} - set(ends)), ends[1])


def _truth_branches(trees: Iterable[read.TreeSummary]) -> dict[str, str]:
    """Return the branches whose names say that they are of the generated photon."""
    found: dict[str, str] = {}
    for tree in trees:
        for name in tree.branches:
            apart = re.sub(r"([a-z])([A-Z])", r"\1_\2", name)  # genMass
            words = {word for text in (name, apart) for word in re.split(r"[^a-z]+", text.lower())}
            for key, meant in TRUTH.items():
                if words & TRUE and words & meant:
                    found.setdefault(key, name)
    return found


def _truth(found: Mapping[str, str]) -> Iterator[str]:
    """Yield the table [truth] of a schema."""
    yield "# The generated photon of each simulated row, read from the files of `response` alone:"
    yield "# its mass, q_T and energy in the unit of the file; rows without one hold no positive mass."
    yield "[truth]"
    yield from (f'{key} = "{found.get(key, "?")}"' for key in TRUTH)
    yield '# process = "…" # branch with a code of the process; signal = […] and fakes = […] say which count'


FEWEST = 10_000  # particles per mass
OF_RECORD = re.compile(
    r"(steering|spectrum)\.json|(domain|extrapolation|mass_counts|spin_density|flow.*)\.safetensors|flow.*\.json"
)


def reinterpret(
    results: Path,
    *,
    model: str | None = None,
    detector: Path | None = None,
    output: Path,
    tell: Tell,
    allow_partial: bool = False,
    trust_code: bool = False,
) -> Path:
    """Compute expected events and reach anew from the record of a finished run."""
    manifest = run_record.checked_record(results)
    steering, own = _steering(results, model, detector), () if model is None else (model,)
    if not trust_code:
        run_record.refuse_code(steering, results, own=own)
    if output.exists() and output.samefile(results):
        raise UserError(f"{output}: is the folder of the record; give another one with --output")
    writable(output)
    with working(output):
        cache = open_cache(output, resume=False, seed=steering.analysis.seed, mock=manifest["mock"])
        names = [name for name in manifest["files"] if OF_RECORD.fullmatch(name)]
        cache.enter({results / name: manifest["files"][name] for name in names})
        cache.partial |= manifest["partial"]
        ctx = Context(steering, Path().resolve(), output, cache, tell, allow_partial=allow_partial)
        run_record.tell_code(ctx, results, own=own)
        asked = run_record.kept_steering(results).accept
        if asked and steering.accept and asked.final_states != steering.accept.final_states:
            seen = ", ".join(steering.accept.final_states)
            cache.alarm(f"{detector}: sees {seen} alone; other final states of the run are left out")
        spectrum = read_spectrum(results / "spectrum.json")
        found = flow.load(results / "flow")
        with cache.write_on_exit():
            cache.done("spectrum", cache.key(None), digest_of(spectrum))
            cache.done("flow", cache.key(None), flow.digest(found.to_tensors()))
            spin = read_spin(results)
            if spin is not None:
                cache.done("spin", cache.key(None), digest(*spin.arrays().values()))
            state = RunState(
                spectrum=spectrum,
                training=run_record.read_domain(results / "domain.safetensors"),
                flow=found,
                spin=spin,
                record=results,
                trend=read_trend(results),
            )
            dark_half(ctx, state)
            if steering.report is not None:
                report.write(ctx, state)
            cache.finish()
    return output


def _shared_states(path: Path, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Return the final states of a run that another detector sees."""
    seen = load_detector(shipped(str(path), Path(), "detectors")).efficiency
    shared = tuple(state for state in asked if state in seen)
    text = f"{path}: has an efficiency for {', '.join(seen) or 'nothing'}, the run wants {', '.join(asked)}"
    require(shared, f"{text} ([accept] final_states); name one of these under [efficiency]", SteeringError)
    return shared


def _steering(results: Path, model: str | None, detector: Path | None) -> config.Steering:
    """Return the steering of the run with model and detector replaced, and without its measured half."""
    kept = run_record.kept_steering(results)
    missing = [f"[{name}]" for name in ("predict", "accept", "infer") if getattr(kept, name) is None]
    if missing or kept.predict is None or kept.accept is None or kept.infer is None:
        raise SteeringError(f"{results}: the run had no {' and no '.join(missing)}, which a reach needs")
    changes: dict[str, Any] = {}
    if model is not None:
        changes["predict"] = kept.predict.model_copy(update={"model": model})
    if detector is not None:
        states = _shared_states(detector, kept.accept.final_states)
        new = {"detectors": (str(detector),), "final_states": states}
        changes["accept"] = kept.accept.model_copy(update=new)
        share = kept.predict.n_sample / max(1, len(kept.accept.detectors))  # of one detector
        asked = {"n_sample": max(int(share), min(FEWEST, kept.predict.n_sample))}
        changes["predict"] = changes.get("predict", kept.predict).model_copy(update=asked)
        changes["infer"] = kept.infer.model_copy(update={"background": None, "background_sigma": 0.0})
    else:
        names = {
            key: tuple(
                str(run_record.kept_detector(results, name).resolve()) for name in getattr(kept.accept, key)
            )
            for key in ("detectors", "millicharge_detectors")
        }
        changes["accept"] = kept.accept.model_copy(update=names)
    return kept.model_copy(update=changes)
