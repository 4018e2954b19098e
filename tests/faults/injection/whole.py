"""Whole runs of steering files that `check` accepts, drawn from the schema of the steering itself.

Each must finish, with page and manifest, or end with an error of ours that names section or key.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import functools
import gc
import importlib
import itertools
import json
import math
import os
import re
import shutil
import sys
import time
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import uproot
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from matplotlib.figure import Figure
from pydantic import AfterValidator, BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from gammastar import config, read, report
from gammastar.config.checks import examine_file
from gammastar.config.fields import _above_zero
from gammastar.config.steering import _models_in
from gammastar.core.errors import GammastarError
from gammastar.pipeline import run as pipeline_run
from gammastar.pipeline.run import run
from gammastar.read.files import kept_open
from gammastar.report import style as drawing
from gammastar.report.style import styled
from injection.adversarial import MORE, Late, keys, limited, quiet, sound, unseemly
from injection.kills import ROOT, SMALL
from injection.steerings import text

PATIENCE, MEMORY = 60.0, 4 << 30  # s of CPU, bytes
JOURNAL = "last.toml"
SEED = 20261125  # of the first portion of the campaign
MOST = 8  # keys that are changed at once
MADE, DRAWN = 5, 40  # in one of so many runs figures are made, and drawn
FLOWS = 24  # one of so many runs trains a flow
FITTED = 4  # one of so many runs begins with background and unfolding that are fitted
BOTH = 10  # in one of so many runs the check is called first; in the others the run makes it
NETWORK = {"bins": 2, "hidden": 4, "layers": 1, "epochs": 1, "epoch_size": 64, "batch": 64, "n_draws": 10}
DETECTORS = tuple(sorted(path.stem for path in (ROOT / "data" / "detectors").glob("*.toml")))
CHANNELS = ("pion_dalitz", "pseudoscalar_dalitz", "vector_dalitz", "vector_mesons", "jpsi", "bremsstrahlung")
AXES = {"mass": (0.2125, 1.1125), "pt": (0.0, 6.0), "energy": (0.2, 400.0), "angles": (0.2125, 1.1125)}
CELLS = {
    "joint.pt": [[0.0, 0.5, 6.0], [0.0, 6.0]],
    "joint.energy": [[0.2, 20.0, 400.0], [0.2, 400.0]],
}
TEXTS: dict[str, SearchStrategy[Any]] = {
    "analysis.title": st.sampled_from(["", "A title", "π⁰ → γγ", "<b>&amp;", "$x_1$ %d {0}"]),
    "subtract.method": st.sampled_from(["likelihood", "regions", "geometric mean", "sum", "mixed events"]),
    "unfold.method": st.sampled_from(["likelihood", "iterative", "tikhonov", "least squares", "omnifold"]),
    "predict.model": st.sampled_from(["dark_photon", "b_minus_l", "b_minus_3l_mu"]),
    "predict.bremsstrahlung": st.sampled_from(["qra_v2", "qra_v1", "na62", "fairship", "fww_vmd"]),
    "predict.mesons": st.sampled_from(["mesons_400gev", "mesons_70gev"]),
    "channels": st.sampled_from(CHANNELS),
    "predict.outside_domain": st.sampled_from(CHANNELS),
    "detectors": st.sampled_from(DETECTORS),
    "systematics.nuisances": st.sampled_from(["pot", "spectrum", "kinematics", "polarisation", "scaling"]),
    "infer.hepdata": st.just("ins1234567"),
    "interaction_length": st.sampled_from(["na62_dump", "ship_ecn3"]),
    "pair": st.sampled_from(["mass", "pt", "energy", "angle", "rapidity"]),
    "telescope": st.just("vertex_telescope"),
    "offset": st.just("angle"),
    "select.event": st.sampled_from(["L0", "target", "z"]),
    "data.event": st.sampled_from(["run", "block", "L0", "z"]),
    "select.lepton": st.sampled_from(["pt", "eta", "p", "theta", "pz", "chi2match"]),
    "runs.good": st.sampled_from(["good.json", "good.txt"]),
}
"""Of keys that are any text: what could be meant, by the end of their name."""
WORK = {
    "joint.n_toys": 50,
    "joint.n_couplings": 2,
    "joint.n_replicas": 10,
    **{f"flow.{key}": value * 4 for key, value in NETWORK.items()},
    "flow.members": 3,
    "n_masses": 12,
    "n_sample": 2000,
    "n_replicas": 20,
    "n_iterations": 40,
    "n_toys": 100,
    "bootstrap": 20,
    "mixed_pairs": 3000,
    "n_couplings": 40,
    "n_charges": 40,
    "n_template": 1000,
    "max_extra_masses": 4,
    "max_patches": 60,
}
"""Sizes that cost time alone: the largest that is drawn."""
JOINT = {"n_toys": 50, "n_couplings": 1, "n_replicas": 3}  # unless it is drawn
STEP = 200  # entries of a chunk at least
USUAL = {"ghost_angle": 1e-3, "ghost_excess": 1e-3, "pot": 1.2e11, "beam_energy": 400.0, "thickness": 0.01}
USUAL |= {"target_a": 207.2, "target_z": 82.0}
"""Sizes, not of the order of one, of what has no default or is off."""
FIXED = {"analysis.name", "simulate", "read.files", "read.response", "read.schema", "spectrum.table"}
FIXED |= {"select.event_functions", "select.pair_functions", "data.event_functions", "select.vertex"}
FIXED |= {"flow.device", "flow.preset", "select.scale_factors"}
FIXED |= {"subtract.corrections", "report.bounds", "systematics.own", "accept.millicharge_detectors"}
"""What names files or code, or is not small."""
Changes = dict[str, Any]
_DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


_WORDS = {part for place in keys() for part in place if "_" in part or part in config.STAGES}
NAMED = re.compile(rf"\b({'|'.join(_WORDS)})\b")


_STYLED = styled(len).__code__


@contextlib.contextmanager
def looked_at_once() -> Iterator[None]:
    """Keep what the check finds in files and schema, which stay as they are while the steering is drawn."""
    look, known = read.examine, {}

    def examine(file: Any, schema: Any, **options: Any) -> Any:
        key = (str(file), repr(schema), *sorted(options.items()))
        if key not in known:
            known[key] = look(file, schema, **options)
        return known[key]

    read.examine = examine
    try:
        yield
    finally:
        read.examine = look


class Enough(BaseException):
    """What ends the examples of hypothesis; no error."""


@contextlib.contextmanager
def in_one_process(*, makes: bool, draws: bool) -> Iterator[None]:
    """Draw figures in this process, or only make them, or neither: they are three quarters of a small run."""
    drawn, thresholds, sync = drawing.drawn, gc.get_threshold(), os.fsync
    os.fsync = lambda _: None  # what a loss of power leaves is not looked at here
    gc.set_threshold(10_000, 10, 100)  # as the command line does
    if not draws:
        drawing.drawn = lambda _, kind, **__: {"png": _DOT}.get(kind, b"<svg/>")
    functions = [] if makes else list(figure_functions())
    before = [cell.cell_contents for cell in functions]
    for cell in functions:
        cell.cell_contents = lambda *_, **__: _blank()
    try:
        yield
    finally:
        drawing.drawn, os.fsync = drawn, sync
        gc.set_threshold(*thresholds)
        for cell, function in zip(functions, before, strict=True):
            cell.cell_contents = function


@functools.cache
def _blank() -> Figure:
    figure = Figure()
    figure.subplots(2, 2)
    return figure


@functools.cache
def figure_functions() -> tuple[Any, ...]:
    """Return where every function of the report that makes a figure is kept by what gives it the style."""
    for path in Path(report.__file__).parent.glob("figures/*.py"):
        importlib.import_module(f"gammastar.report.figures.{path.stem}")
    modules = [module for name, module in sys.modules.items() if name.startswith("gammastar.report")]
    found = {id(value): value for module in modules for value in vars(module).values()}
    style = [one for one in found.values() if getattr(one, "__code__", None) is _STYLED]
    return tuple(one.__closure__[one.__code__.co_freevars.index("function")] for one in style)


def of_name(table: dict[str, Any], place: str) -> Any:
    """Return what a table says of a key, by its whole name or the end of it."""
    return next((value for name, value in table.items() if f".{place}".endswith(f".{name}")), None)


def magnitudes(place: str, rules: list[Any], usual: Any, whole: bool) -> SearchStrategy[Any]:
    """Draw numbers within bounds: near the usual one, of any sensible size, at the ends."""
    low, high = -math.inf, math.inf
    step = 1 if whole else 1e-9
    for rule in rules:
        if isinstance(rule, Ge | Gt):
            low = float(getattr(rule, "ge", getattr(rule, "gt", 0))) + (step if isinstance(rule, Gt) else 0)
        if isinstance(rule, Le | Lt):
            high = float(getattr(rule, "le", getattr(rule, "lt", 0))) - (step if isinstance(rule, Lt) else 0)
    low = max(low, STEP) if place == "read.step" else low
    most = of_name(WORK, place)
    high = high if most is None else min(high, max(most, low))
    start = float(usual) if isinstance(usual, int | float) and usual else of_name(USUAL, place) or 1.0

    def fitted(value: float) -> float:
        value = min(max(value, low), high)
        return (
            round(value) if whole else float(f"{value:.4g}") if low < float(f"{value:.4g}") < high else value
        )

    near = st.floats(-0.7, 0.7).map(lambda x: fitted(start * 10**x))
    far = st.floats(-6, 6).map(lambda x: fitted(start * 10**x))
    ends = [fitted(end) for end in (low, high) if math.isfinite(end) and abs(end) < 1e13]
    ends += [fitted(-start)] if low < 0 else []
    inside = st.floats(low, high).map(fitted) if math.isfinite(low) and high < 1e3 else near
    return st.one_of(near, near, inside, far, st.sampled_from(ends) if ends else near)


def axis(place: str, *, fewest: int = 2) -> SearchStrategy[Any]:
    """Draw edges: equal steps or a list, about the usual range or within it, few cells."""
    low, high = of_name(AXES, place) or AXES["mass"]
    width = high - low
    if (sound_ones := of_name(CELLS, place)) is not None:
        return st.sampled_from(sound_ones)
    points = st.lists(st.floats(0, 1.2), min_size=fewest, max_size=7, unique=True)
    listed = points.map(lambda xs: sorted({round(low + width * x, 4) for x in xs}))
    steps = st.builds(
        lambda n, a, b: {"bins": n, "low": round(low + a * width, 4), "high": round(low + b * width, 4)},
        *(
            st.integers(1, 24),
            st.sampled_from([0.0, 0.0, 0.01, 0.2, -0.1]),
            st.sampled_from([1.0, 1.0, 0.5, 1.5]),
        ),
    )
    return listed.filter(lambda xs: len(xs) >= fewest) if fewest > 2 else st.one_of(listed, steps)


def values(  # noqa: PLR0911 - one for each kind of type
    place: str, annotation: Any, rules: list[Any] | None = None, usual: Any = None
) -> SearchStrategy[Any]:
    """Return the values of a type of the steering's schema, within its bounds."""
    rules = list(rules or ())
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [r for rule in parts[1:] for r in (rule.metadata if isinstance(rule, FieldInfo) else [rule])]
        return values(place, parts[0], [*rules, *inner], usual)
    if any(isinstance(rule, BeforeValidator) for rule in rules):
        return axis(place)
    if origin is Literal:
        return st.sampled_from(parts)
    if origin in (Union, types.UnionType):
        kinds = [part for part in parts if part is not type(None)]
        return st.one_of(*(values(place, part, rules, usual) for part in kinds))
    if origin is tuple:
        return tuples(place, parts, rules, usual)
    if origin is dict:
        keys = of_name(TEXTS, place) if parts[0] is str else values(place, parts[0])
        inner = st.lists(keys, max_size=2, unique=True)
        return inner.flatmap(lambda ks: st.fixed_dictionaries({k: values(k, parts[1]) for k in ks}))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return model(place, annotation)
    if annotation is bool:
        return st.booleans()
    if annotation in (int, float):
        return magnitudes(place, rules, usual, annotation is int)
    known = of_name(TEXTS, place)
    return st.sampled_from(["100 kB", "1 MB", "32 MB"]) if known is None else known


def _positive(rule: Any) -> bool:
    return isinstance(rule, AfterValidator) and rule.func is _above_zero


def tuples(place: str, parts: tuple[Any, ...], rules: list[Any], usual: Any) -> SearchStrategy[Any]:
    """Draw a list; numbers rise."""
    least = max((rule.min_length for rule in rules if isinstance(rule, MinLen)), default=0)
    most = min((rule.max_length for rule in rules if isinstance(rule, MaxLen)), default=5)
    ranged = len(parts) == 2 and parts[1] is not Ellipsis
    first = usual[0] if isinstance(usual, list | tuple) and usual else 0.5
    items = values(place, parts[0], [Gt(0)] if any(_positive(rule) for rule in rules) else None, first)
    found = st.lists(
        items, min_size=2 if ranged else least, max_size=2 if ranged else min(most, 5), unique_by=str
    )
    return found.map(lambda xs: sorted(xs, key=lambda x: (isinstance(x, str), x)))


def model(place: str, kind: type[BaseModel]) -> SearchStrategy[Any]:
    """Draw a table: what it must hold, and some of what it may."""
    must, may = {}, {}
    for name, entry in kind.model_fields.items():
        key = entry.alias or name
        usual = of_name(MORE, place) or {}
        if f"{place}.{key}".removeprefix("select.") in FIXED:
            continue
        own = values(f"{place}.{key}", entry.annotation, entry.metadata, entry.default)
        if entry.is_required():
            must[key] = st.just(usual[key]) if key in usual else own
        else:
            may[key] = own
    few = st.lists(st.sampled_from(sorted(may)), max_size=2, unique=True)
    return few.flatmap(lambda keys: st.fixed_dictionaries(must | {key: may[key] for key in keys}))


def runs() -> SearchStrategy[Any]:
    """Draw what [read.runs] says of the runs: which are good, what a table has of each."""
    good = st.fixed_dictionaries({"good": TEXTS["runs.good"]})
    columns = st.sampled_from([["pot"], ["prescale"], ["pot", "prescale"]])
    table = columns.map(lambda found: {"table": "runs.csv", **{name: name for name in found}})
    block = st.sampled_from([{}, {}, {"table": "spills.csv", "block": "spill"}])
    return st.one_of(good, st.tuples(table, block, good | st.just({})).map(lambda x: x[0] | x[1] | x[2]))


@functools.cache
def places() -> dict[str, SearchStrategy[Any]]:
    """Return every key of the steering that is drawn, and its values."""
    found = {}
    for section, entry in config.Steering.model_fields.items():
        for name, own in _models_in(entry.annotation)[0].model_fields.items():
            place = f"{section}.{own.alias or name}"
            if not {section, place} & FIXED:
                found[place] = values(place, own.annotation, own.metadata, own.default)
    return found | {"read.runs": runs()}


@st.composite
def changes(draw: Any) -> Changes:
    """Draw several keys with values of theirs."""
    chosen = draw(st.lists(st.sampled_from(sorted(places())), min_size=3, max_size=MOST, unique=True))
    found = {place: draw(places()[place]) for place in chosen}
    if "infer.joint" in found or found.get("infer.likelihood") == "joint":  # one needs the other
        found |= {"infer.likelihood": "joint", "infer.joint": JOINT | draw(places()["infer.joint"])}
    return found


def exposures(folder: Path, run: Any, spill: Any) -> None:
    """Write what is known of the runs of the data: protons on target and prescale, which are good."""
    listed = sorted(set(run.tolist()))
    rows = sorted(set(zip(run.tolist(), spill.tolist(), strict=True)))
    table = "".join(f"{one},{5e9:g},{1 + one % 2}\n" for one in listed)
    spills = "".join(f"{one},{part},{4e8:g},{1 + one % 2}\n" for one, part in rows)
    (folder / "runs.csv").write_text(f"run,pot,prescale\n{table}", encoding="utf-8")
    (folder / "spills.csv").write_text(f"run,spill,pot,prescale\n{spills}", encoding="utf-8")
    (folder / "good.txt").write_text(f"{listed[0]} {listed[-1]}\n", encoding="utf-8")
    good = json.dumps({one: [[0, 20], [25, 99]] for one in listed})
    (folder / "good.json").write_text(good, encoding="utf-8")
    schema = (SMALL.parent / "schema.toml").read_text(encoding="utf-8")
    words = 'run = "run"\nblock = "burst"\nevent_columns = { L0 = "L0", target = "target", z = "PV_z" }\n'
    (folder / "words.toml").write_text(words + schema, encoding="utf-8")


def tiny(folder: Path) -> dict[str, Any]:
    """Return a steering of all stages on a few hundred pairs, and write those."""
    content = sound(folder)
    for name, every in (("na60_data", 8), ("na60_mc", 3)):
        path = folder / f"{name}.root"
        with uproot.open({str(path): None}) as file:
            part = file["events"].arrays()[::every]
        part["L0"] = part.event.to_numpy() % 8 + np.uint64(1 << 60)
        if name == "na60_data":
            part["run"] = part.run + part.burst // 15
            exposures(folder, part.run.to_numpy(), part.burst.to_numpy())
        names = [key for key in part.fields if not key.startswith("n")]
        with uproot.recreate(path, compression=None) as file:
            file.mktree("events", {key: part[key].type.content for key in names}).extend(
                {key: part[key] for key in names}
            )
    content["select"] |= {"mass": {"bins": 6, "low": 0.2125, "high": 1.1125}, "energy": [0.2, 20.0, 400.0]}
    content["read"]["schema"] = "words.toml"
    content["flow"] = dict(NETWORK)
    content["predict"] |= {"sampler": "flow", "n_sample": 200, "masses": [0.4, 0.77]}
    content["infer"] |= {"n_couplings": 15}
    content["report"] = {"flow_masses": [0.6]}
    return content


def without_flow(content: dict[str, Any]) -> dict[str, Any]:
    """Return a steering whose kinematics are those of the histogram: half the time."""
    content = {key: table for key, table in content.items() if key not in {"flow", "report"}}
    return content | {"predict": content["predict"] | {"sampler": "histogram"}, "report": {}}


def without_fits(content: dict[str, Any]) -> dict[str, Any]:
    """Return a steering whose background and unfolding need no fit."""
    unfold = {"method": "iterative", "n_iterations": 4, "efficiency_floor": 0.01, "n_replicas": 3}
    return content | {"subtract": {"method": "geometric mean", "weights": "signed"}, "unfold": unfold}


def changed(content: dict[str, Any], what: Changes) -> dict[str, Any]:
    """Return a steering with some keys changed."""
    content = copy.deepcopy(content)
    for place, value in what.items():
        section, _, key = place.partition(".")
        content.setdefault(section, {})[key] = value
    return content


@dataclass
class Ran:
    """How whole runs ended, and what went wrong with which changes."""

    checked: int = 0
    finished: int = 0
    refused: int = 0
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def runs(self) -> int:
        """Return how many were taken by the check, and run."""
        return self.finished + self.refused + len(self.wrong)


@contextlib.contextmanager
def noticed() -> Iterator[list[bool]]:
    """Yield a list that holds something once the check of a run took its steering."""
    taken: list[bool] = []
    check = pipeline_run._check

    def checked(*arguments: Any) -> None:
        check(*arguments)
        taken.append(True)

    pipeline_run._check = checked
    try:
        yield taken
    finally:
        pipeline_run._check = check


def attempt(folder: Path, content: dict[str, Any], found: Ran, *, both: bool = True) -> str:
    """Check a steering, run it if it is taken; return what is wrong, "" if nothing is.

    With `both` what `check` takes is taken by the run.
    """
    (folder / JOURNAL).write_text(text(content), encoding="utf-8")  # what a process was at when it died
    path, out = folder / "steering.toml", folder / "out"
    path.write_text(text(content), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    found.checked += 1
    try:
        with limited(PATIENCE, MEMORY), quiet(), noticed() as taken:
            if both and any(finding.level == "error" for finding in examine_file(path)[1]):
                return ""
            run(path, output=out)
    except GammastarError as error:
        message = str(error)
        if not taken:
            return f"taken by the check, refused by the run: {message}" if both else ""
        found.refused += 1
        found.said.append(message)
        return next(unseemly(message), "" if NAMED.search(message) else f"names no key: {message}")
    except Late:
        return f"takes more than {PATIENCE:g} s"
    except BaseException as error:  # noqa: BLE001 - sys.exit as well is what is looked for
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
    wrong = _unfinished(out)
    found.finished += not wrong
    return wrong


def _unfinished(out: Path) -> str:
    """Return what a run that ended without an error left undone."""
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    if not (out / "report.html").is_file() or not manifest.get("finished"):
        return "no page, or not finished"
    unforeseen = re.compile(r"report: .*: [A-Z]\w+(Error|Exception)\b")  # the page does without
    return next((str(note) for note in manifest["notes"] if unforeseen.match(str(note))), "")


def fewest(folder: Path, base: dict[str, Any], what: Changes, wrong: str) -> Changes:
    """Return as few of the changes as go wrong alike."""
    for place in list(what):
        fewer = {key: value for key, value in what.items() if key != place}
        if attempt(folder, changed(base, fewer), Ran())[:25] == wrong[:25]:
            what = fewer
    return what


def campaign(
    folder: Path, portion: int, *, n: int = 10**5, cpu: float = math.inf, rare: int = 1, shrink: bool = False
) -> Ran:
    """Check and run as many steering files, or so many seconds of CPU; what is costly so many times rarer."""
    found, base, begin = Ran(), tiny(folder), time.process_time()
    light = without_flow(base)
    last: set[str] = set()
    joint = itertools.count()

    @seed(portion)
    @settings(
        max_examples=100 * n,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(what=changes())
    def one(what: Changes) -> None:
        if found.runs >= n or time.process_time() - begin > cpu:
            raise Enough
        items = set(map(str, what.items()))
        if len(items & last) > len(items) // 3:  # hypothesis likes to change one value of an example before
            return
        last.clear()
        last.update(items)
        if what.get("infer.likelihood") == "joint" and next(joint) % rare:
            return
        k = found.runs
        start = light if k % (rare * FLOWS) else base
        if start is light:
            what = {place: value for place, value in what.items() if not place.startswith("flow.")}
        start = without_fits(start) if k % (rare * FITTED) else start
        with in_one_process(makes=k % (rare * MADE) == 0, draws=k % (rare * DRAWN) == 0):
            wrong = attempt(folder, changed(start, what), found, both=k % BOTH == 0)
            least = fewest(folder, start, what, wrong) if wrong and shrink else what
        if wrong:
            found.wrong.append(f"{least}: {wrong}"[:600])

    with contextlib.suppress(Enough), kept_open(), looked_at_once():
        one()
    found.seconds = time.process_time() - begin
    return found
