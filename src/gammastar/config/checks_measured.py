"""What can be known of the measured half before any work starts, and what all checks share.

Each check is a function that yields findings; what it raises as a mistake of the user is a finding too.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from gammastar.config.measured import Select
from gammastar.config.steering import Steering
from gammastar.core.documents import Finding, shortened
from gammastar.core.errors import GammastarError
from gammastar.core.files import folder_names, shipped
from gammastar.core.resolve import guarded, resolve
from gammastar.store.filesets import given_files, is_fileset, split_name
from gammastar.store.remote import Remote, unprotected

if TYPE_CHECKING:
    from gammastar.physics.detector import Stand
    from gammastar.read import Schema


Findings: TypeAlias = Iterator[Finding]

FIRST = 20_000  # entries that are looked at, of all files together
LEAST = 2_000  # of one file
LONGEST = 900  # characters of the error that stops a run


@dataclass
class Look:
    """What the checks share: the steering, the stages that will run, and what was opened already."""

    steering: Steering
    base: Path  # Folder of the steering file
    stages: Sequence[str]  # Those that will run
    open_files: bool = True  # Whether the entries of input files are looked at
    # Whether the run leaves out files that are missing or cannot be read; they are warnings then
    skip_bad: bool = False
    schema: Schema | None = None
    data: list[Path] = field(default_factory=list)
    response: list[Path] = field(default_factory=list)
    stands: dict[str, Stand] = field(default_factory=dict)

    def has(self, stage: str) -> bool:
        """Return whether a stage is in the steering and will run."""
        return stage in self.stages and getattr(self.steering, stage) is not None


def raised(where: str, error: BaseException) -> Finding:
    """Return the finding of an error; a place that the message names already is not named twice."""
    text = " ".join(str(error).split())[:LONGEST]
    if not isinstance(error, GammastarError):
        text = f"{type(error).__name__}: {text}"
    return Finding("error", where, text.removeprefix(f"{where}: ").removeprefix(f"{where} = "))


def wrong(where: str, text: str) -> Finding:
    """Return an error at a place."""
    return Finding("error", where, shortened(text, LONGEST))


def tried(where: str, make: Callable[[], Any]) -> tuple[Any, list[Finding]]:
    """Return what a function makes, or None and why not, whatever the code of a user raises."""
    try:
        with guarded():
            return make(), []
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of a user may raise anything
        return None, [raised(where, error)]


# Files and schema


def _card(look: Look) -> Findings:
    """Load the card of the mock data; what it needs must be installed."""
    from gammastar.mock import load_card

    section = look.steering.simulate
    if section is None:
        return
    try:
        card = load_card(shipped(section.card, look.base, "cards"), leave_out=section.leave_out)
    except GammastarError as error:
        yield hinted(raised("simulate.card", error), section.card, "cards")
        return
    card.with_prior(section.response_prior)
    if section.engine == "pythia" and importlib.util.find_spec("pythia8mc") is None:
        yield wrong("simulate.engine", "pythia8mc is not installed: pip install 'gammastar[simulate]'")


def hinted(finding: Finding, name: str, kind: str) -> Finding:
    """Add the shipped file of the nearest name."""
    near = difflib.get_close_matches(name, folder_names(kind), n=1, cutoff=0.6)
    return replace(finding, message=f"{finding.message}; did you mean {near[0]!r}?") if near else finding


def _found(look: Look, key: str, names: Iterable[str], into: list[Path]) -> Findings:
    """Look for files of names, patterns, URLs and filesets."""
    tree = "" if look.schema is None else look.schema.tree
    seen = set(into)
    for name in names:
        try:
            paths = given_files((name,), look.base, tree=tree).files
        except GammastarError as error:
            finding = raised(key, error)
            if look.skip_bad and not is_fileset(split_name(name)[0]):
                finding = replace(finding, level="warning")
            yield finding
            continue
        into.extend(path for path in paths if isinstance(path, Path) and path not in seen)
        seen.update(path for path in paths if isinstance(path, Path))
        remote = [path for path in paths if isinstance(path, Remote)]
        if remote and look.open_files:
            yield Finding("warning", key, f"{remote[0]} is not opened by the check: it is not a local file")


def _files(look: Look) -> Findings:
    section, simulated = look.steering.read, look.steering.simulate is not None
    if section is None or simulated:
        return
    if not section.files:
        yield wrong("read.files", "empty, and there is no [simulate] section that makes the data")
    yield from _found(look, "read.files", section.files, look.data)
    yield from _found(look, "read.response", section.response, look.response)
    if not section.response and _needs_truth(look):
        what = " and ".join(_needs_truth(look))
        yield wrong("read.response", f"no simulation with truth is given; {what} needs it")
    both = sorted({p.name for p in look.data} & {p.name for p in look.response})
    if both and set(look.data) & set(look.response):
        yield Finding("warning", "read.response", f"{both[0]} is data and response at once")


def protection(steering: Steering, base: Path) -> str:
    """Say in which input files a flipped bit is not noticed; "" if there are none, or none can be read."""
    section = steering.read
    if section is None:
        return ""
    try:
        from gammastar.config.measured import load_schema

        tree = load_schema(section, base).tree
        given = given_files((*section.files, *section.response), base, tree=tree, missing=True)
        return unprotected(given.files, given.listed, tree)
    except GammastarError:
        return ""  # a finding has said it


def _needs_truth(look: Look) -> list[str]:
    """Return the sections that take something from the simulation with truth."""
    found = ["[unfold]"] if look.has("unfold") else []
    section = look.steering.subtract
    if look.has("subtract") and section is not None:
        found += ["[subtract.charm]"] if section.charm is not None else []
        found += ["[[subtract.corrections]]"] if any(c.kind != "files" for c in section.corrections) else []
    return found


def _schema(look: Look) -> Findings:
    """Load the schema; [spectrum] must be of its leptons."""
    section = look.steering.read
    if section is None:
        return
    from gammastar.config.measured import load_schema
    from gammastar.read import builtin_names

    name = section.schema_file
    if not name.endswith(".toml") and ":" not in name and name not in builtin_names():
        near = difflib.get_close_matches(name, builtin_names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"those are {', '.join(builtin_names())}"
        yield wrong("read.schema", f"{name!r} is no file, no 'file.py:name' and no shipped schema; {hint}")
        return
    look.schema, found = tried("read.schema", lambda: load_schema(section, look.base))
    yield from found
    if look.schema is None:
        return
    spectrum = look.steering.spectrum
    if spectrum is not None and spectrum.lepton != look.schema.lepton:
        yield wrong(
            "spectrum.lepton", f"{spectrum.lepton!r}, but the schema reads lepton = {look.schema.lepton!r}"
        )
    if look.schema.truth is None and _needs_truth(look) and look.steering.simulate is None:
        what = " and ".join(_needs_truth(look))
        yield wrong("read.schema", f"has no [truth] table, but {what} needs true photons")


def _entries(look: Look) -> Findings:
    """Look at the first entries of every local input file."""
    schema = look.schema
    if schema is None or not look.open_files:
        return
    from gammastar import read

    truth = bool(_needs_truth(look)) and schema.truth is not None
    asked = [(path, False) for path in look.data] + [(path, truth) for path in look.response]
    each = max(LEAST, FIRST // max(len(asked), 1))
    for path, with_truth in asked:
        found = read.examine(path, schema, truth=with_truth, entries=each)
        yield from (replace(one, level="warning") for one in found) if look.skip_bad else found


# Selection


def _functions(look: Look) -> Findings:
    section = look.steering.select
    if section is not None:
        for key in ("event_functions", "pair_functions"):
            for name in getattr(section, key):
                yield from _function(f"select.{key}", name, look.base)


def _function(key: str, name: str, base: Path) -> Findings:
    """Look for a function of the user."""
    function, found = tried(key, functools.partial(resolve, name, base))
    yield from found
    if not found and not callable(function):
        yield wrong(key, f"{name!r} is {function!r}, not a function")


def _cuts(look: Look) -> Findings:
    """Look for the columns that cuts name in the schema."""
    section, schema = look.steering.select, look.schema
    if section is None or schema is None:
        return
    leptons = {"momentum", "energy", "theta", "pt", "eta", "px", "py", "pz", "mass", "charge"}
    leptons |= set(schema.lepton_columns)
    pairs = {"mass", "pt", "energy", "angle", "cos_theta", "phi_star", *schema.event_columns}
    pairs |= {f"{name}_{leg}" for name in schema.lepton_columns for leg in (1, 2)}
    pairs |= {"vertex_z", "vertex_distance", "vertex_impact"} if section.vertex else set()
    for name in section.vertex:
        if name not in schema.lepton_columns:
            has = ", ".join(sorted(schema.lepton_columns)) or "none"
            yield wrong(
                "select.vertex",
                f"the leptons have no column {name!r}; name it in lepton_columns of the schema, now {has}",
            )
    for table, known in (("lepton", leptons), ("pair", pairs)):
        for name in getattr(section, table):
            if name not in known:
                near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
                hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(sorted(known))}"
                yield wrong(f"select.{table}.{name}", f"the schema gives no such column; {hint}"[:LONGEST])


def _first(look: Look, files: Sequence[Path], *, truth: bool = False) -> Any:
    """Return the first entries of the first file, None if there are none or they cannot be read."""
    if look.schema is None or not files or not look.open_files:
        return None
    from gammastar import read

    try:
        chunk = next(read.open_events(files[0], look.schema, step=LEAST, truth=truth), None)
    except GammastarError:
        return None  # found where files are looked at
    return chunk if chunk is not None and len(chunk) else None


def _trial(look: Look) -> Findings:
    """Apply the selection to the first entries of the data: functions that fail, cuts that keep nothing."""
    section, chunk = look.steering.select, _first(look, look.data)
    if section is None or chunk is None or any(finding.level == "error" for finding in _cuts(look)):
        return
    if not (section.lepton or section.pair or section.event_functions or section.pair_functions):
        yield from _window(section, _kinematics(chunk), len(chunk))
        return
    from gammastar import select
    from gammastar.config.measured import load_cuts

    try:
        cuts = load_cuts(section, look.base)
    except GammastarError:
        return  # found where functions are looked at
    made, found = tried("select", lambda: select.pairs(chunk, cuts))
    if found:
        own = ", ".join((*section.event_functions, *section.pair_functions))
        yield replace(found[0], message=found[0].message + (f" (functions: {own})" if own else ""))
        return
    pairs, flow = made
    if len(pairs):
        yield from _window(section, [pairs.mass, pairs.pt, pairs.energy], len(chunk))
        return
    counts = [(row["name"], int(row["n"])) for row in flow.rows()]
    lost = next((name for name, left in counts if left == 0), "pairs")
    before = ", ".join(f"{left} {name}" for name, left in counts if left > 0)
    text = f"nothing of the first {len(chunk)} events is left after the step {lost!r} (before it: {before})"
    yield Finding("warning", f"{look.data[0].name}: select", text)


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


def _window(section: Select, kinematics: Sequence[Any], n: int) -> Findings:
    """Look for pairs inside each axis of the selection."""
    for name, values in zip(("mass", "pt", "energy"), kinematics, strict=True):
        edges = getattr(section, name)
        if len(values) and not ((values >= edges[0]) & (values < edges[-1])).any():
            low, high = float(values.min()), float(values.max())
            text = (
                f"none of the {len(values)} pairs of the first {n} events lies between {edges[0]:g} and "
                f"{edges[-1]:g} GeV; they have {low:.3g} to {high:.3g} GeV"
            )
            yield Finding("warning", f"select.{name}", text)


# Subtraction and unfolding


def _subtraction(look: Look) -> Findings:
    section, simulated = look.steering.subtract, look.steering.simulate is not None
    if section is None:
        return
    if section.own:
        yield from _function("subtract.method", section.method, look.base)
    if section.r_factor == "simulation" and not simulated:
        yield wrong("subtract.r_factor", "'simulation' needs [simulate]; give the number and its error")
    mixed = section.r_factor == "mixed" or section.method == "B4"
    if mixed and look.schema is not None and look.schema.layout == "pair":
        yield wrong(
            "subtract", "files of pairs hold no single leptons to mix; give r_factor and another method"
        )
    charm = section.charm
    if charm is not None:
        if charm.template == "simulation":
            if not simulated:
                yield wrong(
                    "subtract.charm.template",
                    "'simulation' needs [simulate]; give files of simulated charm instead",
                )
        else:
            yield from _templates(look, "subtract.charm.template", charm.template)
        yield from _offset(look, charm.offset)
    for correction in section.corrections:
        yield from _templates(look, f"subtract.corrections.{correction.name}.files", correction.files)


def _templates(look: Look, key: str, names: Sequence[str]) -> Findings:
    files: list[Path] = []
    yield from _found(look, key, names, files)
    if look.schema is not None and look.open_files:
        from gammastar import read

        for path in files:
            found = read.examine(path, look.schema, entries=LEAST)
            yield from (f for f in found if f.level == "error")


def _offset(look: Look, names: Sequence[str]) -> Findings:
    """Look for the columns of the vertex offset."""
    schema = look.schema
    if schema is None:
        return
    legs = {f"{name}_{leg}" for name in schema.lepton_columns for leg in (1, 2)}
    known = (
        set(schema.lepton_columns)
        if len(names) > 1
        else {"angle", "cos_theta", "phi_star", *schema.event_columns, *legs}
    )
    missing = [name for name in names if name not in known]
    if missing:
        yield wrong(
            "subtract.charm.offset",
            f"the pairs have no column {', '.join(missing)}; name it in lepton_columns of the schema, which "
            f"has {', '.join(sorted(schema.lepton_columns)) or 'none'}",
        )


def _grids(look: Look) -> Findings:
    """Compare coarse grids, control region and bootstrap with the axes of the selection."""
    section, select = look.steering.subtract, look.steering.select
    if section is None or select is None:
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
        fine = getattr(select, axis)
        centres = [(a + b) / 2 for a, b in itertools.pairwise(fine)]
        if not any(low <= x < high for x in centres):
            yield wrong(f"subtract.control.{axis}", f"no cell of select.{axis} has its centre in there")
    cells = math.prod(len(getattr(select, axis)) - 1 for axis in ("mass", "pt", "energy"))
    if section.bootstrap and section.bootstrap < cells + 2:
        yield wrong(
            "subtract.bootstrap", f"{section.bootstrap}: {cells} cells need at least {cells + 2} replicas"
        )


def _sources(look: Look) -> Findings:
    """Compare the sources that [systematics] names with what [subtract] gives."""
    section, subtracting = look.steering.unfold, look.steering.subtract
    if section is None or subtracting is None:
        return
    asked = look.steering.systematics
    plain = subtracting.method in ("B1", "B2", "B4") or subtracting.own
    for key, broken, text in (
        ("background", plain, f"subtract.method = {subtracting.method!r} has no R to vary"),
        ("charm", subtracting.charm is None, "there is no [subtract.charm]"),
        ("corrections", not subtracting.corrections, "there are no [[subtract.corrections]]"),
    ):
        if getattr(asked, key) and broken:
            yield wrong(f"systematics.{key}", text)


def _unfolding_method(look: Look) -> Findings:
    """Look for the function of the user that unfolds."""
    section = look.steering.unfold
    if section is not None and ".py:" in section.method:
        yield from _function("unfold.method", section.method, look.base)


def _true_axes(look: Look) -> Findings:
    """Look for simulated photons inside the true axes."""
    section, select = look.steering.unfold, look.steering.select
    if section is None or select is None or look.schema is None or look.schema.truth is None:
        return
    chunk = _first(look, look.response, truth=True)
    if chunk is None:
        return
    for name in ("mass", "pt", "energy"):
        edges = getattr(section, name, None) or getattr(select, name)
        values = chunk["truth"][name].to_numpy()
        inside = (values >= edges[0]) & (values < edges[-1])
        if not inside.any():
            yield Finding(
                "warning",
                f"unfold.{name}" if getattr(section, name, None) else f"select.{name}",
                f"no simulated photon of the first {len(chunk)} rows of {look.response[0].name} lies between "
                f"{edges[0]:g} and {edges[-1]:g} GeV",
            )


def _exposure(look: Look) -> Findings:
    section = look.steering.spectrum
    if section is not None and section.pot == "simulation" and look.steering.simulate is None:
        yield wrong("spectrum.pot", "'simulation' needs [simulate]; give the number of protons on target")


def _published(look: Look) -> Findings:
    """Read the published table, and the card of its kinematics."""
    section = look.steering.spectrum
    if section is None or section.table is None or section.pot == "simulation":
        return
    from gammastar.config.published import load_card_of, load_published

    if section.table.kinematics is not None:
        name, make = section.table.kinematics, functools.partial(load_card_of, section, look.base)
        yield from (hinted(f, name, "cards") for f in tried("spectrum.table.kinematics", make)[1])
    if look.open_files:
        load = functools.partial(load_published, section.table, look.base, section)
        found, wrong_ones = tried("spectrum.table", load)
        yield from wrong_ones
        notes = () if wrong_ones else found.notes[1:]
        yield from (Finding("warning", "spectrum.table", note) for note in notes)


CHECKS: dict[str, tuple[Callable[[Look], Findings], ...]] = {
    "simulate": (_card,),
    "read": (_schema, _files, _entries),
    "select": (_functions, _cuts, _trial),
    "subtract": (_subtraction, _grids),
    "unfold": (_unfolding_method, _sources, _true_axes),
    "spectrum": (_exposure, _published),
}
