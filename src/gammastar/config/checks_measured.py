"""What can be known of the measured half before any work starts, and what all checks share.

Each check takes what all of them share and the section of its stage, and yields findings; a mistake of the
user that it raises is a finding too.
"""

from __future__ import annotations

import difflib
import importlib.util
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from gammastar.config import measured
from gammastar.config.measured import load_card_of, load_published
from gammastar.config.steering import Steering
from gammastar.core.errors import GammastarError
from gammastar.core.files import Finding, folder_names, shipped, shortened
from gammastar.core.resolve import resolve, user_code_errors
from gammastar.store.filesets import Remote, given_files, is_fileset, split_name, unprotected

if TYPE_CHECKING:
    from gammastar.physics.detector import DetectorLike
    from gammastar.read import Schema

FIRST_ENTRIES = 20_000  # looked at, of all files together
FIRST_OF_FILE = 2_000  # entries at least
MOST_REPLICATED = 50_000_000  # cells of all replicas: 1.6 GB
LONGEST = 900  # characters of the error that stops a run
AXES = ("mass", "pt", "energy")


@dataclass
class CheckContext:
    """What the checks share: the steering, the stages that will run, and what was opened already."""

    steering: Steering
    base: Path  # folder of the steering file
    stages: Sequence[str]  # those that will run
    open_files: bool = True  # whether the entries of input files are looked at
    skip_bad: bool = False  # a run that leaves out files that cannot be read: they are warnings
    schema: Schema | None = None
    data: list[Path] = field(default_factory=list)
    response: list[Path] = field(default_factory=list)
    detectors: dict[str, DetectorLike] = field(default_factory=dict)

    def has(self, stage: str) -> bool:
        """Return whether a stage is in the steering and will run."""
        return stage in self.stages and getattr(self.steering, stage) is not None

    @property
    def theory(self) -> bool:
        """Whether the rate comes from theory alone."""
        return self.steering.predict is not None and self.steering.predict.source == "theory"

    @property
    def simulated(self) -> bool:
        """Whether the run makes its data."""
        return self.steering.simulate is not None


Findings: TypeAlias = Iterator[Finding]
Check: TypeAlias = Callable[[CheckContext, Any], Findings]


def raised(where: str, error: BaseException) -> Finding:
    """Return the finding of an error; a place that the message names already is not named twice."""
    text = " ".join(str(error).split())[:LONGEST]
    if not isinstance(error, GammastarError):
        text = f"{type(error).__name__}: {text}"
    return Finding("error", where, text.removeprefix(f"{where}: ").removeprefix(f"{where} = "))


def wrong(where: str, text: str) -> Finding:
    """Return an error at a place."""
    return Finding("error", where, shortened(text, LONGEST))


def tried(where: str, make: Callable[..., Any], *arguments: Any) -> tuple[Any, list[Finding]]:
    """Return what a function makes, or None and why not, whatever the code of a user raises."""
    try:
        with user_code_errors():
            return make(*arguments), []
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of a user may raise anything
        return None, [raised(where, error)]


def near(name: str, known: Iterable[str], otherwise: str = "", *, cutoff: float = 0.5) -> str:
    """Return a question for the nearest of the known names, or something else if none is near."""
    matches = difflib.get_close_matches(name, sorted(known), n=1, cutoff=cutoff)
    return f"did you mean {matches[0]!r}?" if matches else otherwise


def hinted(finding: Finding, name: str, kind: str) -> Finding:
    """Add the shipped file of the nearest name."""
    hint = near(name, folder_names(kind), cutoff=0.6)
    return replace(finding, message=f"{finding.message}; {hint}") if hint else finding


def listed(values: Iterable[float]) -> str:
    """Return the first few numbers as a text."""
    return ", ".join(f"{value:g}" for value in itertools.islice(values, 5))


# Files and schema


def _card(ctx: CheckContext, section: measured.Simulate) -> Findings:
    """Load the card of the mock data; what it needs must be installed."""
    from gammastar.mock import load_card

    try:
        card = load_card(shipped(section.card, ctx.base, "cards"), leave_out=section.leave_out)
    except GammastarError as error:
        yield hinted(raised("simulate.card", error), section.card, "cards")
        return
    card.with_prior(section.response_prior)
    if section.engine == "pythia" and importlib.util.find_spec("pythia8mc") is None:
        yield wrong("simulate.engine", "pythia8mc is not installed: pip install 'gammastar[simulate]'")


def _look_for(ctx: CheckContext, key: str, names: Iterable[str], into: list[Path]) -> Findings:
    """Look for files of names, patterns, URLs and filesets."""
    tree = "" if ctx.schema is None else ctx.schema.tree
    for name in names:
        try:
            paths = given_files((name,), ctx.base, tree=tree).files
        except GammastarError as error:
            left_out = ctx.skip_bad and not is_fileset(split_name(name)[0])
            yield replace(raised(key, error), level="warning" if left_out else "error")
            continue
        known = set(into)
        into.extend(path for path in paths if isinstance(path, Path) and path not in known)
        remote = [path for path in paths if isinstance(path, Remote)]
        if remote and ctx.open_files:
            yield Finding("warning", key, f"{remote[0]} is not opened by the check: it is not a local file")


def _files(ctx: CheckContext, section: measured.Read) -> Findings:
    if ctx.simulated:
        return
    if not section.files:
        yield wrong("read.files", "empty, and there is no [simulate] section that makes the data")
    yield from _look_for(ctx, "read.files", section.files, ctx.data)
    yield from _look_for(ctx, "read.response", section.response, ctx.response)
    if not section.response and _needs_truth(ctx):
        what = " and ".join(_needs_truth(ctx))
        yield wrong("read.response", f"no simulation with truth is given; {what} needs it")
    both = sorted(path.name for path in set(ctx.data) & set(ctx.response))
    if both:
        yield Finding("warning", "read.response", f"{both[0]} is data and response at once")


def protection(steering: Steering, base: Path) -> str:
    """Say in which input files a flipped bit is not noticed; "" if there are none, or none can be read."""
    section = steering.read
    if section is None:
        return ""
    try:
        tree = measured.load_schema(section, base).tree
        given = given_files((*section.files, *section.response), base, tree=tree, missing=True)
        return unprotected(given.files, given.listed, tree)
    except GammastarError:
        return ""  # a finding has said it


def _needs_truth(ctx: CheckContext) -> list[str]:
    """Return the sections that take something from the simulation with truth."""
    needs = ["[unfold]"] if ctx.has("unfold") else []
    section = ctx.steering.subtract
    if ctx.has("subtract") and section is not None:
        needs += ["[subtract.charm]"] if section.charm is not None else []
        needs += ["[[subtract.corrections]]"] if any(c.kind != "files" for c in section.corrections) else []
    return needs


def _schema(ctx: CheckContext, section: measured.Read) -> Findings:
    """Load the schema; [spectrum] must be of its leptons."""
    from gammastar.read import builtin_names

    name, known = section.schema_file, builtin_names()
    if not name.endswith(".toml") and ":" not in name and name not in known:
        hint = near(name, known, f"those are {', '.join(known)}")
        yield wrong("read.schema", f"{name!r} is no file, no 'file.py:name' and no shipped schema; {hint}")
        return
    ctx.schema, findings = tried("read.schema", measured.load_schema, section, ctx.base)
    yield from findings
    if ctx.schema is None:
        return
    spectrum, lepton = ctx.steering.spectrum, ctx.schema.lepton
    if spectrum is not None and spectrum.lepton != lepton:
        yield wrong("spectrum.lepton", f"{spectrum.lepton!r}, but the schema reads lepton = {lepton!r}")
    if ctx.schema.truth is None and _needs_truth(ctx) and not ctx.simulated:
        what = " and ".join(_needs_truth(ctx))
        yield wrong("read.schema", f"has no [truth] table, but {what} needs true photons")


def _entries(ctx: CheckContext, _: measured.Read) -> Findings:
    """Look at the first entries of every local input file."""
    if ctx.schema is None or not ctx.open_files:
        return
    from gammastar import read

    truth = bool(_needs_truth(ctx)) and ctx.schema.truth is not None
    files = [(path, False) for path in ctx.data] + [(path, truth) for path in ctx.response]
    entries = max(FIRST_OF_FILE, FIRST_ENTRIES // max(len(files), 1))
    for path, with_truth in files:
        schema = ctx.schema.of_simulation() if path in ctx.response else ctx.schema
        for finding in read.examine(path, schema, truth=with_truth, entries=entries):
            yield replace(finding, level="warning") if ctx.skip_bad else finding


# Selection


def _functions(ctx: CheckContext, section: measured.Select) -> Findings:
    for key in ("event_functions", "pair_functions"):
        for name in getattr(section, key):
            yield from _function(ctx, f"select.{key}", name)
    for name in () if section.data is None else section.data.event_functions:
        yield from _function(ctx, "select.data.event_functions", name)
    yield from tried("select.scale_factors", measured.load_scale_factors, section, ctx.base)[1]


def _loaded_runs(ctx: CheckContext) -> tuple[Any, list[Finding]]:
    reading = ctx.steering.read
    return tried("read.runs", measured.load_runs, reading, ctx.base) if reading else (None, [])


def _runs(ctx: CheckContext, section: measured.Read) -> Findings:
    """Read the files of [read.runs] and the runs of the data: the table must have all that are kept."""
    runs, findings = _loaded_runs(ctx)
    yield from findings
    if runs is None or ctx.schema is None or section.runs is None:
        return
    for key in ("run", "block") if section.runs.block else ("run",):
        if not getattr(ctx.schema, key):
            yield wrong("read.runs", f"the schema names no branch of {key}s: give its key {key}")
            return
    spectrum = ctx.steering.spectrum
    if section.runs.pot and spectrum is not None and spectrum.pot != "runs":
        yield Finding("warning", "read.runs.pot", 'is not used: [spectrum] pot = "runs" takes it')
    from gammastar.read.runs import run_numbers

    found: set[int] = set()
    for path in ctx.data if ctx.open_files else ():
        numbers, problems = tried(f"{path.name}: run", run_numbers, path, ctx.schema)
        yield from problems
        found |= set(() if problems else numbers)
    kept = found if runs.good is None else found & set(runs.good)
    if found and not kept:
        some = ", ".join(map(str, sorted(found)[:5]))
        yield wrong("read.runs.good", f"none of the {len(found)} runs of the data is good ({some}, …)")
    elif found and section.runs.table:
        yield from tried("read.runs", runs.demand, kept)[1]


def _function(ctx: CheckContext, key: str, name: str) -> Findings:
    """Look for a function of the user."""
    function, findings = tried(key, resolve, name, ctx.base)
    yield from findings
    if not findings and not callable(function):
        yield wrong(key, f"{name!r} is {function!r}, not a function")


def _pair_columns(schema: Schema) -> set[str]:
    legs = {f"{name}_{leg}" for name in schema.lepton_columns for leg in (1, 2)}
    return {"angle", "cos_theta", "phi_star", *schema.event_columns, *legs}


def _cuts(ctx: CheckContext, section: measured.Select) -> Findings:
    """Look for the columns that cuts name in the schema."""
    schema = ctx.schema
    if schema is None:
        return
    for name in section.vertex:
        if name not in schema.lepton_columns:
            has = ", ".join(sorted(schema.lepton_columns)) or "none"
            text = f"the leptons have no column {name!r}; name it in lepton_columns of the schema, now {has}"
            yield wrong("select.vertex", text)
    momenta = {"momentum", "energy", "theta", "pt", "eta", "px", "py", "pz", "mass", "charge"}
    vertex = {"vertex_z", "vertex_distance", "vertex_impact"} if section.vertex else set()
    both = (schema, schema.of_simulation())
    of_events, simulated = (set(s.event_columns) | ({"run", "block"} if s.run else set()) for s in both)
    for name in set(section.event) & (of_events - simulated):
        text = "simulation has no runs, so that no cut may act on them: name it under [select.data.event]"
        yield wrong(f"select.event.{name}", text)
    for name in () if section.data is None else section.data.event:
        if name not in of_events:
            hint = near(name, of_events, f"use one of {', '.join(sorted(of_events)) or 'none'}")
            yield wrong(f"select.data.event.{name}", f"the events have no such column; {hint}"[:LONGEST])
    for table, known in (
        ("event", of_events),
        ("lepton", momenta | set(schema.lepton_columns)),
        ("pair", {*AXES} | _pair_columns(schema) | vertex),
    ):
        for name in getattr(section, table):
            if name not in known:
                hint = near(name, known, f"use one of {', '.join(sorted(known))}", cutoff=0.6)
                yield wrong(f"select.{table}.{name}", f"the schema gives no such column; {hint}"[:LONGEST])


def _first(ctx: CheckContext, files: Sequence[Path], *, truth: bool = False, simulated: bool = False) -> Any:
    """Return the first entries of the first file, None if there are none or they cannot be read."""
    if ctx.schema is None or not files or not ctx.open_files:
        return None
    from gammastar import read

    try:
        schema = ctx.schema.of_simulation() if truth or simulated else ctx.schema
        chunk = next(read.open_events(files[0], schema, step=FIRST_OF_FILE, truth=truth), None)
    except GammastarError:
        return None  # a finding of the files
    return chunk if chunk is not None and len(chunk) else None


def _trial(ctx: CheckContext, section: measured.Select) -> Findings:
    """Apply the selection to the first entries of the data: functions that fail, cuts that keep nothing."""
    chunk = _first(ctx, ctx.data)
    if chunk is None or any(finding.level == "error" for finding in _cuts(ctx, section)):
        return
    runs, unreadable = _loaded_runs(ctx)
    only = section.data or measured.DataOnly()
    own = (*section.event_functions, *only.event_functions, *section.pair_functions)
    if unreadable or any(finding.level == "error" for finding in _functions(ctx, section)):
        return
    asked = (section.event, section.lepton, section.pair, section.scale_factors, only.event, own, runs)
    if not any(asked):
        yield from _window(section, _kinematics(chunk), len(chunk))
        return
    from gammastar import select

    def selected(events: Any, data: bool) -> Any:
        return select.pairs(events, measured.load_cuts(section, ctx.base, data=data, runs=runs))

    functions = f" (functions: {', '.join(own)})" if own else ""
    simulated = _first(ctx, ctx.response, simulated=True)
    if simulated is not None:
        functions_of_simulation = f"{functions} in {ctx.response[0].name}, the simulation"
        for finding in tried("select", selected, simulated, False)[1]:
            yield replace(finding, message=finding.message + functions_of_simulation)
    made, findings = tried("select", selected, chunk, True)
    if findings:
        yield replace(findings[0], message=findings[0].message + functions)
        return
    pairs, flow = made
    if len(pairs):
        yield from _window(section, [pairs.mass, pairs.pt, pairs.energy], len(chunk))
        return
    counts = [(row["name"], int(row["n"])) for row in flow.rows()]
    lost = next((name for name, left in counts if left == 0), "pairs")
    before = ", ".join(f"{left} {name}" for name, left in counts if left > 0)
    text = f"nothing of the first {len(chunk)} events is left after the step {lost!r} (before it: {before})"
    yield Finding("warning", f"{ctx.data[0].name}: select", text)


def _kinematics(chunk: Any) -> list[Any]:
    """Return mass, pt and energy [GeV] of all pairs; in columns alone, as what compiles takes seconds."""
    import awkward as ak
    import numpy as np

    lepton = chunk["lepton"]
    counts = ak.num(lepton).to_numpy()
    pairs = ak.argcombinations(lepton["px"], 2)
    start = np.repeat(np.cumsum(counts) - counts, ak.num(pairs).to_numpy())
    legs = [start + ak.flatten(leg).to_numpy() for leg in ak.unzip(pairs)]
    p = {key: ak.flatten(lepton[key]).to_numpy() for key in ("px", "py", "pz", "mass")}
    own = np.sqrt(p["px"] ** 2 + p["py"] ** 2 + p["pz"] ** 2 + p["mass"] ** 2)
    px, py, pz, energy = (sum(each[leg] for leg in legs) for each in (p["px"], p["py"], p["pz"], own))
    square = px**2 + py**2
    return [np.sqrt(np.maximum(energy**2 - square - pz**2, 0.0)), np.sqrt(square), energy]


def _window(section: measured.Select, kinematics: Sequence[Any], n: int) -> Findings:
    """Look for pairs inside each axis of the selection."""
    for name, values in zip(AXES, kinematics, strict=True):
        edges = getattr(section, name)
        if len(values) and not ((values >= edges[0]) & (values < edges[-1])).any():
            text = (
                f"none of the {len(values)} pairs of the first {n} events lies between {edges[0]:g} and "
                f"{edges[-1]:g} GeV; they have {float(values.min()):.3g} to {float(values.max()):.3g} GeV"
            )
            yield Finding("warning", f"select.{name}", text)


# Subtraction and unfolding


def _subtraction(ctx: CheckContext, section: measured.Subtract) -> Findings:
    if section.own:
        yield from _function(ctx, "subtract.method", section.method)
    if section.r_factor == "simulation" and not ctx.simulated:
        yield wrong("subtract.r_factor", "'simulation' needs [simulate]; give the number and its error")
    mixed = section.r_factor == "mixed" or section.way.mixes
    if mixed and ctx.schema is not None and ctx.schema.layout == "pair":
        text = "files of pairs hold no single leptons to mix; give r_factor and another method"
        yield wrong("subtract", text)
    charm = section.charm
    if charm is not None:
        key = "subtract.charm.template"
        if charm.template != "simulation":
            yield from _templates(ctx, key, charm.template)
        elif not ctx.simulated:
            yield wrong(key, "'simulation' needs [simulate]; give files of simulated charm instead")
        yield from _offset(ctx, charm.offset)
    for correction in section.corrections:
        yield from _templates(ctx, f"subtract.corrections.{correction.name}.files", correction.files)


def _templates(ctx: CheckContext, key: str, names: Sequence[str]) -> Findings:
    files: list[Path] = []
    yield from _look_for(ctx, key, names, files)
    if ctx.schema is not None and ctx.open_files:
        from gammastar import read

        for path in files:
            findings = read.examine(path, ctx.schema, entries=FIRST_OF_FILE)
            yield from (finding for finding in findings if finding.level == "error")


def _offset(ctx: CheckContext, names: Sequence[str]) -> Findings:
    """Look for the columns of the vertex offset."""
    if ctx.schema is None:
        return
    columns = set(ctx.schema.lepton_columns)
    known = columns if len(names) > 1 else columns | _pair_columns(ctx.schema)
    missing = [name for name in names if name not in known]
    if missing:
        text = (
            f"the pairs have no column {', '.join(missing)}; name it in lepton_columns of the schema, which "
            f"has {', '.join(sorted(columns)) or 'none'}"
        )
        yield wrong("subtract.charm.offset", text)


def _grids(ctx: CheckContext, section: measured.Subtract) -> Findings:
    """Compare coarse grids, control region and bootstrap with the axes of the selection."""
    select = ctx.steering.select
    if select is None:
        return
    for key in ("coarse", "r_coarse"):
        for axis, edges in getattr(section, key).items():
            fine = getattr(select, axis)
            size = 1e-9 * (fine[-1] - fine[0])
            cut = [x for x in edges if fine[0] < x < fine[-1] and min(abs(x - e) for e in fine) > size]
            if cut:
                text = f"{cut[0]:g} is no edge of select.{axis}: a coarse region must not cut a cell"
                yield wrong(f"subtract.{key}.{axis}", text)
    for axis, (low, high) in section.control.items():
        centres = [(a + b) / 2 for a, b in itertools.pairwise(getattr(select, axis))]
        if not any(low <= x < high for x in centres):
            yield wrong(f"subtract.control.{axis}", f"no cell of select.{axis} has its centre in there")
    cells = math.prod(len(getattr(select, axis)) - 1 for axis in AXES)
    if section.bootstrap and section.bootstrap < cells + 2:
        text = f"{section.bootstrap}: {cells} cells need at least {cells + 2} replicas"
        yield wrong("subtract.bootstrap", text)
    elif (size := section.bootstrap * cells) > MOST_REPLICATED:
        text = f"{section.bootstrap} replicas of {cells} cells take {size / 3e7:.2g} GB; at most "
        text += f"{MOST_REPLICATED // cells} replicas, or fewer cells in [select]"
        yield wrong("subtract.bootstrap", text)


def _varied(ctx: CheckContext, _: measured.Unfold) -> Findings:
    """Compare the sources that [systematics] names with what [subtract] gives."""
    subtract = ctx.steering.subtract
    if subtract is None:
        return
    no_ratio = not subtract.way.takes_r
    for key, broken, text in (
        ("background", no_ratio, f"subtract.method = {subtract.method!r} has no R to vary"),
        ("charm", subtract.charm is None, "there is no [subtract.charm]"),
        ("corrections", not subtract.corrections, "there are no [[subtract.corrections]]"),
    ):
        if getattr(ctx.steering.systematics, key) and broken:
            yield wrong(f"systematics.{key}", text)


def _unfolding_method(ctx: CheckContext, section: measured.Unfold) -> Findings:
    """Look for the function of the user that unfolds, and for what trains OmniFold."""
    if ".py:" in section.method:
        yield from _function(ctx, "unfold.method", section.method)
    if section.method == "omnifold" and importlib.util.find_spec("sklearn") is None:
        yield wrong("unfold.method", "scikit-learn is missing: pip install 'gammastar[omnifold]'")


def _true_axes(ctx: CheckContext, section: measured.Unfold) -> Findings:
    """Look for simulated photons inside the true axes."""
    select = ctx.steering.select
    if select is None or ctx.schema is None or ctx.schema.truth is None:
        return
    chunk = _first(ctx, ctx.response, truth=True)
    for name in AXES if chunk is not None else ():
        own = getattr(section, name, None)
        edges = own or getattr(select, name)
        values = chunk["truth"][name].to_numpy()
        if not ((values >= edges[0]) & (values < edges[-1])).any():
            rows = f"the first {len(chunk)} rows of {ctx.response[0].name}"
            text = f"no simulated photon of {rows} lies between {edges[0]:g} and {edges[-1]:g} GeV"
            yield Finding("warning", f"{'unfold' if own else 'select'}.{name}", text)


def _published(ctx: CheckContext, section: measured.SpectrumSection) -> Findings:
    """Look at the exposure; read the published table, and the card of its kinematics."""
    reading = ctx.steering.read
    if section.pot == "runs" and (reading is None or reading.runs is None or not reading.runs.pot):
        yield wrong("spectrum.pot", "'runs' needs [read.runs] with a table and its column pot")
    if section.pot == "simulation" and not ctx.simulated:
        yield wrong("spectrum.pot", "'simulation' needs [simulate]; give the number of protons on target")
    if section.table is None or isinstance(section.pot, str):
        return
    if section.table.kinematics is not None:
        _, findings = tried("spectrum.table.kinematics", load_card_of, section, ctx.base)
        yield from (hinted(finding, section.table.kinematics, "cards") for finding in findings)
    if ctx.open_files:
        table, findings = tried("spectrum.table", load_published, section.table, ctx.base, section)
        yield from findings
        for note in () if findings else table.notes[1:]:
            yield Finding("warning", "spectrum.table", note)


CHECKS: dict[str, tuple[Check, ...]] = {
    "simulate": (_card,),
    "read": (_schema, _files, _entries, _runs),
    "select": (_functions, _cuts, _trial),
    "subtract": (_subtraction, _grids),
    "unfold": (_unfolding_method, _varied, _true_axes),
    "spectrum": (_published,),
}
