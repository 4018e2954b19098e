"""Results, kept stages and documents in which somebody changed something, and the digests as well."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar import flow, infer
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.mock import load_card
from gammastar.physics.detector import load_detector
from gammastar.physics.mesons import MesonTable
from gammastar.physics.millicharge import load_millicharge_detector
from gammastar.pipeline.record import kept_steering
from gammastar.pipeline.run import run
from gammastar.read import load_schema
from gammastar.report.figures.limits import read_limit
from gammastar.results.show import show_results, verify_results
from gammastar.store.filesets import read_fileset
from gammastar.store.manifest import (
    digest,
    file_sha256,
    read_manifest,
    read_spectrum,
    write_json,
    write_manifest,
)
from injection import adversarial, steerings
from injection.adversarial import RUN, Tried
from injection.hostile import VALUES
from injection.kills import ROOT, contents
from injection.models import trained
from injection.steerings import Raw, toml

sys.path.append(str(ROOT / "analysis" / "na62_dump"))
from tracking import load_spectrometer

Array = npt.NDArray[Any]
JSON = (
    "null",
    "true",
    "0",
    "-1",
    "1e308",
    "1e400",
    "NaN",
    "[]",
    "{}",
    '""',
    '"x"',
    "[[1]]",
    '{"a": 1}',
    "9" * 400,
)
DOCUMENTS: dict[str, Callable[[Path], Any]] = {
    "detectors/na62_dump.toml": load_detector,
    "detectors/mcp_bars.toml": load_millicharge_detector,
    "cards/na60_mock.toml": load_card,
    "cards/na62_spectrometer.toml": load_spectrometer,
    "measurements/mesons_400gev.toml": MesonTable.read,
    "bounds/dark_photon_faser_2023.toml": read_limit,
}


SPACE = infer.workspace("counting", 0.5, 0.3, [1], pot_search_sigma=0.2)
REACH = {
    "label": "x",
    "rows": [{"mass": 0.3, "coupling_low": 1e-7}],
    "columns": ["mass"],
    "mass_intervals": {},
}
FILESET = {"a": {"files": {"/x/y.root": "events"}, "metadata": {"n": 1}}}
SPECTRUM = {
    "axes": [{"metadata": {"name": "mass"}, "edges": [0.1, 0.2]}],
    "storage": {"values": [1.0], "variances": [1.0]},
    "metadata": {"exposure": None, "quantity": "x"},
    "covariance": [[1.0]],
    "domain": [True],
}


def changes(array: Array) -> Iterator[tuple[str, Array | None]]:
    """Yield what may become of a kept array; None: it is gone."""
    yield "missing", None
    if array.dtype.kind == "f" and array.size:
        one, every = array.copy(), np.full_like(array, np.nan)
        one.flat[0] = np.nan
        yield from (("nan", one), ("all nan", every))
    if array.ndim:
        yield from (("longer", np.concatenate([array, array])), ("empty", array[:0]))
    yield from (("a number", np.array(1.0)), ("a text", np.array("x")), ("a cube", np.zeros((2, 2, 2))))


def try_stages(folder: Path, n: int, portion: int) -> Tried:
    """Resume runs of which a kept array was changed, and its digests: errors, or the same numbers."""
    path, found, rng = folder / "steering.toml", Tried(), stream(61, "stages", portion)
    path.write_text(adversarial.text(adversarial.sound(folder)))
    once = run(path, output=folder / "once")
    expected = contents(once)
    kept = {file.stem: dict(np.load(file)) for file in sorted(once.glob("stages/*.npz"))}
    every = [(s, name, *c) for s, arrays in kept.items() for name in arrays for c in changes(arrays[name])]
    for i in rng.choice(len(every), min(n, len(every)), replace=False):
        stage, name, what, array = every[int(i)]
        target = folder / "out"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(once, target)
        arrays = {k: v for k, v in kept[stage].items() if k != name} | (
            {} if array is None else {name: array}
        )
        np.savez(target / "stages" / f"{stage}.npz", allow_pickle=False, **arrays)
        manifest = read_manifest(target)
        manifest["stages"][stage]["content"] = digest(arrays)
        write_manifest(target, manifest)

        def resumed(stage: str = stage, what: str = what, target: Path = target) -> Iterator[str]:
            run(path, output=target, resume=True)
            now = contents(target)
            others = [key for key in expected if key != stage and now.get(key) != expected[key]]
            if "nan" in what and others:
                yield f"other numbers in {', '.join(others[:3])}"

        found.attempt(f"{stage}.npz: {name} {what}", resumed, RUN)
    return found


def places(content: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where values are in a document; of long lists the first few."""
    items = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content[:4] if isinstance(content, list) else ())
    )
    for key, value in items:
        yield (*here, key)
        yield from places(value, (*here, key))


def _with(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(content)
    node = changed
    for part in place[:-1]:
        node = node[part]
    node[place[-1]] = value
    return changed


def try_documents(folder: Path, every: int) -> Tried:
    """Read detectors, cards, schemas and limits with hostile values, one of `every`."""
    found = Tried()
    sources = {data_path(name): load for name, load in DOCUMENTS.items()}
    sources |= {ROOT / "analysis" / "open_dimuon" / "nano.toml": load_schema}
    for source, load in sources.items():
        content, path = tomllib.loads(source.read_text()), folder / source.name
        for i, place in enumerate(places(content)):
            for name, raw in list(VALUES.items())[i % every :: every]:
                changed = _with(content, place, Raw(raw))
                path.write_text("".join(f"{toml(k)} = {toml(v)}\n" for k, v in changed.items()))
                found.attempt(
                    f"{source.name}: {'.'.join(map(str, place))} = {name}", partial(_named, load, path)
                )
    return found


def _named(load: Callable[[Path], Any], path: Path) -> Iterator[str]:
    """Read a file; yield what is wrong if an error does not name it."""
    try:
        load(path)
    except adversarial.GammastarError as error:
        if path.stem not in str(error):
            yield f"unnamed: {error}"


def try_json(folder: Path, every: int) -> Tried:
    """Read the JSON of results with hostile values, with and without new digests."""
    found, results = Tried(), folder / "results"
    trained(folder / "flow")
    write_json(folder / "space.json", SPACE)
    patches = infer.patchset(SPACE, np.array([0.3, 0.4]), np.full(2, 1e-6), np.full(2, 2.0))
    steering = json.loads(json.dumps(steerings.plain()))
    readers: dict[str, tuple[Any, Callable[[Path], Any]]] = {
        "workspace.json": (SPACE, infer.read_likelihood),
        "patchset.json": (patches, lambda path: infer.read_likelihood(folder / "space.json", patches=path)),
        "fileset.json": (FILESET, read_fileset),
        "spectrum.json": (SPECTRUM, read_spectrum),
        "flow.json": (
            json.loads((folder / "flow.json").read_text()),
            lambda path: flow.load(path.with_suffix("")),
        ),
        "reach.json": (REACH, lambda path: show_results(path.parent)),
        "steering.json": (steering, lambda path: kept_steering(path.parent)),
    }
    results.mkdir(exist_ok=True)
    shutil.copy(folder / "flow.safetensors", results / "flow.safetensors")
    for name, (content, load) in readers.items():
        path = results / name
        for i, place in enumerate(places(content)):
            for raw in JSON[i % every :: every]:
                mark = "\u0001here\u0001"
                text = json.dumps(_with(content, place, mark)).replace(json.dumps(mark), raw)
                path.write_text(text)
                write_manifest(results, {"finished": True, "files": {name: file_sha256(path)}})
                found.attempt(
                    f"{name}: {'.'.join(map(str, place))} = {raw[:20]}", partial(_named, load, path)
                )
        path.unlink()
    return found


def try_manifests(folder: Path, every: int) -> Tried:
    """Verify and show a folder whose manifest has hostile values, with a digest of itself that fits."""
    found, results = Tried(), folder / "manifests"
    (results / "stages").mkdir(parents=True)
    np.savez(results / "stages" / "select.npz", mass=np.ones(3))
    stage = {"key": "k", "content": digest({"mass": np.ones(3)}), "kept": True}
    loss = {"select": {"lost_fraction": 0.1, "skipped": [{"file": "x.root"}]}}
    content = {
        "finished": True,
        "inputs": {"/x.root": "0" * 64},
        "stages": {"select": stage},
        "files": {},
        "partial": loss,
        "versions": {"a": "1"},
        "numbers": {"n": "1"},
        "notes": ["x"],
        "methods": {},
        "configuration": "c",
        "code": "d",
        "seed": 1,
        "mock": True,
    }
    for i, place in enumerate(places(content)):
        for raw in JSON[i % every :: every]:
            try:
                write_manifest(results, _with(content, place, json.loads(raw)))
            except ValueError:  # NaN is not written
                continue
            for command in (lambda: list(verify_results(results)), lambda: [show_results(results)]):
                work = lambda c=command: (c(), ())[1]  # noqa: E731
                found.attempt(f"manifest: {'.'.join(map(str, place))} = {raw[:20]}", work)
    return found


def try_folders() -> Tried:
    """Run the hand-made attacks of the tests on folders of results."""
    tests = ROOT / "tests" / "faults" / "test_result_folders.py"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-rf", str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    failed = re.findall(r"^FAILED \S+::(\S+)", done.stdout, re.MULTILINE)
    wrong = counts.get("failed", 0) + counts.get("error", 0)
    return Tried(
        counts.get("passed", 0) + wrong, failed or ["no test ran"] * (not counts) or ["error"] * wrong
    )
