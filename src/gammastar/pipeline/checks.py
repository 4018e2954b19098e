"""What can be known of a run before any work starts: from the steering, the small files, the first entries.

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

from gammastar import config
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.documents import Finding, shortened
from gammastar.core.errors import BranchError, GammastarError, InputFileError
from gammastar.core.files import folder_names, is_folder, shipped
from gammastar.core.resolve import guarded, resolve
from gammastar.store.filesets import given_files, is_fileset, split_name
from gammastar.store.remote import Remote

if TYPE_CHECKING:
    from gammastar.physics.detector import Stand
    from gammastar.read import Schema

__all__ = ["Findings", "check_steering", "examine_file", "listing"]

Findings: TypeAlias = Iterator[Finding]

NOMINAL_BEAM = 400.0  # GeV; only whether the channels can be made is looked at
FIRST = 20_000  # entries that are looked at, of all files together
LEAST = 2_000  # of one file
ALIKE = 3  # findings of one kind in many files that are shown
LONGEST = 900  # characters of the error that stops a run


@dataclass
class Look:
    """What the checks share: the steering, the stages that will run, and what was opened already.

    Attributes
    ----------
    steering : Steering
    base : Path
        Folder of the steering file.
    stages : sequence of str
        Those that will run.
    open_files : bool
        Whether the entries of input files are looked at.
    skip_bad : bool
        Whether the run leaves out files that are missing or cannot be read; they are warnings then.
    """

    steering: config.Steering
    base: Path
    stages: Sequence[str]
    open_files: bool = True
    skip_bad: bool = False
    schema: Schema | None = None
    data: list[Path] = field(default_factory=list)
    response: list[Path] = field(default_factory=list)
    stands: dict[str, Stand] = field(default_factory=dict)

    def has(self, stage: str) -> bool:
        """Return whether a stage is in the steering and will run."""
        return stage in self.stages and getattr(self.steering, stage) is not None


def examine_file(path: Path) -> tuple[config.Steering | None, tuple[Finding, ...]]:
    """Check a steering file and every file that it names.

    Parameters
    ----------
    path : Path

    Returns
    -------
    steering : Steering or None
        As far as it can be understood.
    findings : tuple of Finding
        Errors first. Mistakes of the user never raise.
    """
    steering, found = config.examine(path)
    if steering is None:
        return None, found
    wrong = [finding.where for finding in found]
    further = check_steering(steering, path.resolve().parent)
    # a key that was left out is not missing
    known = [f for f in further if not any(f.where == w or f.where.startswith(f"{w}.") for w in wrong)]
    return steering, _sorted([*found, *known])


def check_steering(
    steering: config.Steering,
    base: Path,
    *,
    stages: Sequence[str] = config.STAGES,
    open_files: bool = True,
    skip_bad: bool = False,
) -> tuple[Finding, ...]:
    """Return all that is wrong, or looks wrong, with a steering and the files that it names.

    Parameters
    ----------
    steering : Steering
    base : Path
        Folder of the steering file.
    stages : sequence of str
        Those that will run; the others are not looked at.
    open_files : bool
        Look at the first entries of the input files. Files behind URLs are never opened.
    skip_bad : bool
        The run leaves out input files that are missing or cannot be read: warnings, no errors.

    Returns
    -------
    tuple of Finding
        Errors first.
    """
    look = Look(steering, base, stages, open_files, skip_bad)
    found: list[Finding] = []
    for stage, checks in CHECKS.items():
        if look.has(stage):
            for check in checks:
                found += _guarded(stage, check, look)
    return _sorted(found)


def listing(findings: Iterable[Finding]) -> str:
    """Return the errors among findings, one line each, as the text of one error."""
    lines = [f"{finding.where}: {finding.message}" for finding in findings if finding.level == "error"]
    shown: list[str] = []
    for line in lines:
        if shown and sum(map(len, shown)) + len(line) > LONGEST:
            break
        shown.append(line)
    left = len(lines) - len(shown)
    more = [f"… and {left} more; `gammastar check` lists them"] if left else []
    return "\n".join([*shown, *more])


def _sorted(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings without repeats, errors first; of one kind in many files the first few."""
    unique = sorted(dict.fromkeys(found), key=lambda finding: finding.level)
    kept: list[Finding] = []
    alike: dict[tuple[str, str], int] = {}
    for finding in unique:
        kind = (finding.level, finding.key) if ": " in finding.where else (finding.where, finding.message)
        alike[kind] = alike.get(kind, 0) + 1
        if alike[kind] <= ALIKE:
            kept.append(finding)
    for (level, key), n in alike.items():
        if n > ALIKE:
            last = next(i for i, f in reversed(list(enumerate(kept))) if (f.level, f.key) == (level, key))
            kept[last] = replace(kept[last], message=f"{kept[last].message} … and {n - ALIKE} more files")
    return tuple(kept)


def _guarded(where: str, check: Callable[[Look], Findings], look: Look) -> list[Finding]:
    """Collect the findings of one check; a mistake that it raises ends it, and nothing else."""
    found: list[Finding] = []
    try:
        found.extend(check(look))
    except GammastarError as error:
        finding = _raised(where, error)
        left_out = look.skip_bad and isinstance(error, InputFileError | BranchError)
        found.append(replace(finding, level="warning") if left_out else finding)
    return found


def _raised(where: str, error: BaseException) -> Finding:
    """Return the finding of an error; a place that the message names already is not named twice."""
    text = " ".join(str(error).split())[:LONGEST]
    if not isinstance(error, GammastarError):
        text = f"{type(error).__name__}: {text}"
    return Finding("error", where, text.removeprefix(f"{where}: ").removeprefix(f"{where} = "))


def _wrong(where: str, text: str) -> Finding:
    return Finding("error", where, shortened(text, LONGEST))


def _tried(where: str, make: Callable[[], Any]) -> tuple[Any, list[Finding]]:
    """Return what a function makes, or None and why not, whatever the code of a user raises."""
    try:
        with guarded():
            return make(), []
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of a user may raise anything
        return None, [_raised(where, error)]


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
        yield _hinted(_raised("simulate.card", error), section.card, "cards")
        return
    card.with_prior(section.response_prior)
    if section.engine == "pythia" and importlib.util.find_spec("pythia8mc") is None:
        yield _wrong("simulate.engine", "pythia8mc is not installed: pip install 'gammastar[simulate]'")


def _hinted(finding: Finding, name: str, kind: str) -> Finding:
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
            finding = _raised(key, error)
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
        yield _wrong("read.files", "empty, and there is no [simulate] section that makes the data")
    yield from _found(look, "read.files", section.files, look.data)
    yield from _found(look, "read.response", section.response, look.response)
    if not section.response and _needs_truth(look):
        what = " and ".join(_needs_truth(look))
        yield _wrong("read.response", f"no simulation with truth is given; {what} needs it")
    both = sorted({p.name for p in look.data} & {p.name for p in look.response})
    if both and set(look.data) & set(look.response):
        yield Finding("warning", "read.response", f"{both[0]} is data and response at once")


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
        yield _wrong("read.schema", f"{name!r} is no file, no 'file.py:name' and no shipped schema; {hint}")
        return
    look.schema, found = _tried("read.schema", lambda: load_schema(section, look.base))
    yield from found
    if look.schema is None:
        return
    spectrum = look.steering.spectrum
    if spectrum is not None and spectrum.lepton != look.schema.lepton:
        yield _wrong(
            "spectrum.lepton", f"{spectrum.lepton!r}, but the schema reads lepton = {look.schema.lepton!r}"
        )
    if look.schema.truth is None and _needs_truth(look) and look.steering.simulate is None:
        what = " and ".join(_needs_truth(look))
        yield _wrong("read.schema", f"has no [truth] table, but {what} needs true photons")


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
    if section is None:
        return
    for key in ("event_functions", "pair_functions"):
        for name in getattr(section, key):
            function, found = _tried(f"select.{key}", functools.partial(resolve, name, look.base))
            yield from found
            if not found and not callable(function):
                yield _wrong(f"select.{key}", f"{name!r} is {function!r}, not a function")


def _cuts(look: Look) -> Findings:
    """Look for the columns that cuts name in the schema."""
    section, schema = look.steering.select, look.schema
    if section is None or schema is None:
        return
    leptons = {"momentum", "energy", "theta", "pt", "eta", "px", "py", "pz", "mass", "charge"}
    leptons |= set(schema.lepton_columns)
    pairs = {"mass", "pt", "energy", "angle", "cos_theta", "phi_star", *schema.event_columns}
    pairs |= {f"{name}_{leg}" for name in schema.lepton_columns for leg in (1, 2)}
    for table, known in (("lepton", leptons), ("pair", pairs)):
        for name in getattr(section, table):
            if name not in known:
                near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
                hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(sorted(known))}"
                yield _wrong(f"select.{table}.{name}", f"the schema gives no such column; {hint}"[:LONGEST])


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
    made, found = _tried("select", lambda: select.pairs(chunk, cuts))
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
    """Return mass, pt and energy [GeV] of all pairs; in awkward alone, as what compiles takes seconds."""
    import awkward as ak
    import numpy as np

    first, second = ak.unzip(ak.combinations(chunk["lepton"], 2))
    px, py, pz = (ak.flatten(first[k] + second[k]).to_numpy() for k in ("px", "py", "pz"))
    each = [np.sqrt(leg.px**2 + leg.py**2 + leg.pz**2 + leg.mass**2) for leg in (first, second)]
    energy = ak.flatten(each[0] + each[1]).to_numpy()
    square = px**2 + py**2
    return [np.sqrt(np.maximum(energy**2 - square - pz**2, 0.0)), np.sqrt(square), energy]


def _window(section: config.Select, kinematics: Sequence[Any], n: int) -> Findings:
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
    if section.r_factor == "simulation" and not simulated:
        yield _wrong("subtract.r_factor", "'simulation' needs [simulate]; give the number and its error")
    mixed = section.r_factor == "mixed" or section.method == "B4"
    if mixed and look.schema is not None and look.schema.layout == "pair":
        yield _wrong(
            "subtract", "files of pairs hold no single leptons to mix; give r_factor and another method"
        )
    charm = section.charm
    if charm is not None:
        if charm.template == "simulation":
            if not simulated:
                yield _wrong(
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
        yield _wrong(
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
                yield _wrong(f"subtract.{key}.{axis}", text)
    for axis, (low, high) in section.control.items():
        fine = getattr(select, axis)
        centres = [(a + b) / 2 for a, b in itertools.pairwise(fine)]
        if not any(low <= x < high for x in centres):
            yield _wrong(f"subtract.control.{axis}", f"no cell of select.{axis} has its centre in there")
    cells = math.prod(len(getattr(select, axis)) - 1 for axis in ("mass", "pt", "energy"))
    if section.bootstrap and section.bootstrap < cells + 2:
        yield _wrong(
            "subtract.bootstrap",
            f"{section.bootstrap}: {cells} cells need at least {cells + 2} replicas",
        )


def _sources(look: Look) -> Findings:
    """Compare the sources that [unfold.systematics] names with what [subtract] gives."""
    section, subtracting = look.steering.unfold, look.steering.subtract
    if section is None or subtracting is None:
        return
    asked = section.systematics
    plain = subtracting.method in ("B1", "B2", "B4")
    for key, broken, text in (
        ("background", plain, f"subtract.method = {subtracting.method!r} has no R to vary"),
        ("charm", subtracting.charm is None, "there is no [subtract.charm]"),
        ("corrections", not subtracting.corrections, "there are no [[subtract.corrections]]"),
    ):
        if getattr(asked, key) and broken:
            yield _wrong(f"unfold.systematics.{key}", text)


def _unfolding_method(look: Look) -> Findings:
    """Look for the function of the user that unfolds."""
    section = look.steering.unfold
    if section is None or ".py:" not in section.method:
        return
    function, found = _tried("unfold.method", functools.partial(resolve, section.method, look.base))
    yield from found
    if not found and not callable(function):
        yield _wrong("unfold.method", f"{section.method!r} is {function!r}, not a function")


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
        yield _wrong("spectrum.pot", "'simulation' needs [simulate]; give the number of protons on target")


# The dark half


def _beam(look: Look) -> float | None:
    """Return the beam energy of the production [GeV]."""
    predict, spectrum = look.steering.predict, look.steering.spectrum
    if predict is not None and predict.source == "theory":
        return predict.beam_energy
    return None if spectrum is None else spectrum.beam_energy


def _production(look: Look) -> Findings:
    section = look.steering.predict
    if section is None:
        return
    if section.source == "spectrum" and section.sampler == "flow" and look.steering.flow is None:
        yield _wrong("predict.sampler", "'flow' needs the section [flow]; or set it to 'histogram'")
    if section.model != "dark_photon":
        yield from _model(look, section)
    yield from _tables(look, section)
    if section.channels or section.outside or section.millicharge is not None:
        yield from _channels(look, section)
    yield from _masses(look, section)


def _tables(look: Look, section: config.Predict) -> Findings:
    """Look for the preset and the table that are named, whether a channel takes them or not."""
    from gammastar.physics import bremsstrahlung
    from gammastar.physics.mesons import MesonTable

    if "bremsstrahlung" in section.model_fields_set:
        yield from _tried("predict.bremsstrahlung", lambda: bremsstrahlung.preset(section.bremsstrahlung))[1]
    if "mesons" in section.model_fields_set:
        path = functools.partial(shipped, section.mesons, look.base, "measurements")
        yield from _tried("predict.mesons", lambda: MesonTable.read(path()))[1]


def _model(look: Look, section: config.Predict) -> Findings:
    """Make the model; one of a user must keep the contract of its kind."""
    from gammastar.physics.vectors import CHARGES
    from gammastar.predict import make_model

    name = section.model
    if ":" not in name and name not in CHARGES:
        known = ("dark_photon", *CHARGES)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
        yield _wrong("predict.model", f"{name!r} is neither shipped nor of the form 'file.py:name'; {hint}")
        return
    model, found = _tried("predict.model", lambda: make_model(name, look.base))
    yield from (f if repr(name) in f.message else replace(f, message=f"{name!r}: {f.message}") for f in found)
    if found or name in CHARGES:
        return
    from gammastar.testing import ContractError, check_model

    masses = section.masses[:3] or (0.3, 0.6)
    broken: list[Finding] = []
    try:
        with guarded():
            check_model(model, masses=masses)
    except ContractError as error:
        text = " ".join(str(error).split())
        broken = [_wrong("predict.model", f"{name!r}: {text}"[:LONGEST])]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of a user may raise anything
        broken = [_wrong("predict.model", f"{name!r}: {_raised('', error).message}")]
    yield from broken


def _channels(look: Look, section: config.Predict) -> Findings:
    """Make every theory channel, which reads its tables; none may hold a process of another."""
    from gammastar import predict
    from gammastar.pipeline.stages.predict import theory_options
    from gammastar.predict import theory_channel

    beam = _beam(look) or NOMINAL_BEAM
    charged = () if section.millicharge is None else section.millicharge.channels
    axis = _measured_masses(look)
    beside: list[Any] = []  # channels and outside together must leave no process twice
    for key, names in (
        ("predict.channels", section.channels),
        ("predict.outside", section.outside),
        ("predict.millicharge.channels", charged),
    ):
        made: list[Any] = []
        for name in names:
            make = functools.partial(theory_channel, name, theory_options(section, look.base), beam)
            channel, found = _tried(key, make)
            made += [] if found else [channel]
            yield from found
            if ":" in name and not found:
                yield from _contract(key, name, channel, section)
        if section.source == "spectrum" and key != "predict.millicharge.channels" and made:
            limits = axis or (0.0, math.inf)
            if key == "predict.outside":
                made = [predict.Outside(channel, lambda *at: at[1] < 0, limits) for channel in made]
            beside += made
            made = [_Measured(limits), *beside]
        _, found = _tried(key, functools.partial(predict.check_exclusive, made))
        yield from found
    if section.outside and look.steering.spectrum is not None and not look.steering.spectrum.extrapolate:
        yield _wrong(
            "predict.outside", "counts nothing with spectrum.extrapolate = false: leave one of them out"
        )
    inferring = look.steering.infer
    if section.outside and inferring is not None and "theory" not in inferring.nuisances:
        text = "without 'theory' among infer.nuisances the limits do not know the error of these channels"
        yield Finding("warning", "predict.outside", text)


class _Measured:
    """Stands for the measured virtual photons where overlaps are looked for."""

    group = "virtual_photon"

    def __init__(self, mass_range: tuple[float, float]) -> None:
        from gammastar.predict.channel import held

        self.mass_range, self.processes = mass_range, held(mass_range)


def _contract(key: str, name: str, channel: Any, section: config.Predict) -> Findings:
    from gammastar.testing import ContractError, check_channel

    broken: list[Finding] = []
    try:
        with guarded():
            check_channel(channel, masses=section.masses[:2] or (0.3, 0.5), n=500)
    except ContractError as error:
        broken = [_wrong(key, f"{name!r}: {' '.join(str(error).split())}"[:LONGEST])]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of a user may raise anything
        broken = [_raised(key, error)]
    yield from broken


def _measured_masses(look: Look) -> tuple[float, float] | None:
    """Return the first and the last mass at which the spectrum gives a rate [GeV]."""
    unfold, select = look.steering.unfold, look.steering.select
    edges = getattr(unfold, "mass", None) or getattr(select, "mass", None)
    if edges is None:
        return None
    predicting = look.steering.predict
    smeared = unfold is not None and unfold.preset.startswith("smeared")
    if smeared or (predicting is not None and predicting.mass_dependence == "bins"):
        return 0.5 * (edges[0] + edges[1]), 0.5 * (edges[-2] + edges[-1])
    section = look.steering.spectrum
    threshold = 0.0 if section is None else 2 * LEPTON_MASS[section.lepton]
    return max(edges[0], threshold), edges[-1]


def _masses(look: Look, section: config.Predict) -> Findings:
    """Compare the masses of the scan with those at which a rate exists."""
    if section.source == "theory":
        if not section.masses and section.mass_range is None:
            yield _wrong(
                "predict.masses", "source = 'theory' has no masses of its own: give masses or mass_range"
            )
        return
    known = _measured_masses(look)
    if section.channels or known is None or look.steering.spectrum is None:
        return
    low, high = known
    asked = section.masses or section.mass_range or known
    key = "predict.masses" if section.masses else "predict.mass_range"
    outside = [m for m in asked if not low - 1e-9 <= m <= high + 1e-9]
    if outside:
        text = (
            f"{', '.join(f'{m:g}' for m in outside[:5])} GeV: the spectrum gives rates from {low:.4g} to "
            f"{high:.4g} GeV, between the centres of its first and last mass bin"
        )
        yield _wrong(key, text)
    threshold = 2 * LEPTON_MASS[look.steering.spectrum.lepton]
    below = [m for m in asked if m < threshold and m not in outside]
    if below:
        text = f"{below[0]:g} GeV lies below the threshold of the measured leptons, {threshold:.4g} GeV"
        yield _wrong(key, text)


def _angles(look: Look) -> Findings:
    """Compare the regions of the spin density with the pairs and with the masses of the scan."""
    section, select, known = look.steering.flow, look.steering.select, _measured_masses(look)
    if section is None or section.angles is None or select is None or known is None:
        return
    low, high = section.angles[0], section.angles[-1]
    if low >= select.mass[-1] or high <= select.mass[0]:
        first, last = select.mass[0], select.mass[-1]
        yield _wrong(
            "flow.angles", f"{low:g} to {high:g} GeV: select.mass goes from {first:g} to {last:g} GeV"
        )
        return
    predict = look.steering.predict
    asked = known if predict is None else predict.masses or predict.mass_range or known
    beside = [m for m in asked if not low - 1e-9 <= m <= high + 1e-9]
    if beside and predict is not None and predict.source == "spectrum":
        masses = ", ".join(f"{m:g}" for m in beside[:5])
        yield Finding("warning", "flow.angles", f"{masses} GeV: beside the regions, follows the nearest one")


def _detectors(look: Look) -> Findings:
    """Load every detector and compare it with beam, final states and target of the run."""
    section = look.steering.accept
    if section is None:
        return
    from gammastar.physics.detector import load_detector
    from gammastar.physics.millicharge import load_millicharge_detector

    kinds: tuple[tuple[str, Callable[[Path], Any]], ...] = (
        ("detectors", load_detector),
        ("millicharge_detectors", load_millicharge_detector),
    )
    stems: list[str] = []  # of both kinds: the run keeps a copy of each file under its stem
    for key, load in kinds:
        for name in getattr(section, key):
            where = f"accept.{key}"
            try:
                path = shipped(name, look.base, "detectors")
                found = load(path)
            except GammastarError as error:
                yield _hinted(_raised(where, error), name, "detectors")
                continue
            if path.stem in stems:
                yield _wrong(where, f"two detectors are named {path.stem!r}; their results would be one")
            stems.append(path.stem)
            look.stands[path.stem] = found
            yield from _beside(look, where, path.name, found)
            if key == "detectors":
                yield from _states(where, path.name, found, section)


def _beside(look: Look, where: str, name: str, found: Any) -> Findings:
    """Compare beam and target of a detector with those of the production."""
    beam, section, predict = _beam(look), look.steering.accept, look.steering.predict
    if beam is not None and not math.isclose(beam, found.beam_energy, rel_tol=1e-3):
        theory = predict is not None and predict.source == "theory"
        own = "predict.beam_energy" if theory else "spectrum.beam_energy"
        yield _wrong(
            where,
            f"{name} stands at {found.beam_energy:g} GeV, {own} is {beam:g} GeV: no scaling carries a rate "
            "to another beam",
        )
    if section is None or predict is None or predict.source == "theory":
        return
    if section.target_scaling is None and look.steering.spectrum is not None:
        yield _wrong(
            "accept.target_scaling",
            f"is needed to carry the rate of the measured target (A = {look.steering.spectrum.target_a:g}) "
            f"to that of {name} (A = {found.target.a:g}): 'per_interaction' or 'power'",
        )


def _states(where: str, name: str, found: Any, section: config.Accept) -> Findings:
    """Compare the final states and planes of a detector with what is asked of it."""
    unknown = [state for state in section.final_states if state not in found.efficiency]
    if unknown:
        yield _wrong(
            where,
            f"{name} has no efficiency for {' and '.join(unknown)} of accept.final_states; it has "
            f"{', '.join(found.efficiency) or 'none'}",
        )
    z0, z1 = (getattr(found.volume, key, math.nan) for key in ("z0", "z1"))
    for plane in found.planes:
        if z0 < plane.z < z1:
            yield Finding(
                "warning",
                where,
                f"{name}: the plane {plane.name!r} at z = {plane.z:g} m stands inside the decay volume "
                f"({z0:g} to {z1:g} m): decays behind it are not seen",
            )


def _shown_masses(look: Look) -> Findings:
    """Find masses that a figure is asked for and that nothing is known of."""
    known = _measured_masses(look)
    if known is None or (look.steering.predict is not None and look.steering.predict.source == "theory"):
        return
    for section, key in ((look.steering.accept, "acceptance_masses"), (look.steering.report, "flow_masses")):
        if section is None or key not in section.model_fields_set:
            continue
        outside = [f"{m:g}" for m in getattr(section, key) if not known[0] <= m <= known[1]]
        if outside:
            where = f"{'accept' if section is look.steering.accept else 'report'}.{key}"
            text = f"{', '.join(outside)} GeV: outside the spectrum ({known[0]:.4g} to {known[1]:.4g} GeV)"
            yield Finding("warning", where, f"{text}, so nothing is shown there")


def _depths(look: Look) -> Findings:
    section = look.steering.accept
    if section is None or not isinstance(section.interaction_length, dict):
        return
    unknown = [name for name in section.interaction_length if name not in look.stands]
    if unknown and look.stands:
        known = ", ".join(look.stands)
        yield _wrong(
            "accept.interaction_length", f"{', '.join(unknown)}: no detector of this name; they are {known}"
        )


def _inference(look: Look) -> Findings:
    section = look.steering.infer
    if section is None:
        return
    if not isinstance(section.observed, str) and len(section.observed) != 1:
        n = len(section.observed)
        yield _wrong("infer.observed", f"{n} counts; give one, that of the first detector")
    if section.existing_limits is not None and not is_folder(look.base / section.existing_limits):
        folder = look.base / section.existing_limits
        yield _wrong("infer.existing_limits", f"{folder} is no folder of files of limits")


Check: TypeAlias = Callable[[Look], Findings]
CHECKS: dict[str, tuple[Check, ...]] = {
    "simulate": (_card,),
    "read": (_schema, _files, _entries),
    "select": (_functions, _cuts, _trial),
    "subtract": (_subtraction, _grids),
    "unfold": (_unfolding_method, _sources, _true_axes),
    "spectrum": (_exposure,),
    "flow": (_angles,),
    "predict": (_production,),
    "accept": (_detectors, _depths, _shown_masses),
    "infer": (_inference,),
    "report": (_shown_masses,),
}
