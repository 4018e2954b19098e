"""Names and signatures in the face of every room: what notebooks and scripts of users call.

``python3 tests/unit/test_public_api.py`` writes ``tests/data/api.txt`` anew; the changelog names what moved.
"""

import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gammastar

ROOT = Path(__file__).resolve().parents[2]
PINNED = ROOT / "tests" / "data" / "api.txt"
PACKAGES = (path.parent.name for path in (ROOT / "src" / "gammastar").glob("*/__init__.py"))
ROOMS = ["", *sorted([*PACKAGES, "background", "testing"])]


def signature(thing):
    """Return the arguments of a function or class, the type of anything else; without types of arguments."""
    if not callable(thing) or not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return f": {type(thing).__name__}"
    if fields := getattr(thing, "model_fields", None):
        return (
            "("
            + ", ".join(f"{n}" if f.is_required() else f"{n}={f.default!r}" for n, f in fields.items())
            + ")"
        )
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):  # written in C, or a type alias
        return ""
    empty = inspect.Parameter.empty
    plain = [value.replace(annotation=empty) for value in found.parameters.values()]
    text = str(found.replace(parameters=plain, return_annotation=empty))
    return re.sub(r"<(\w+) ([\w.]+)[^>]*>", r"<\1 \2>", text)  # no addresses in memory


def face(room):
    """Return one line per name of a room, in the order of its face."""
    module = importlib.import_module(f"gammastar.{room}" if room else "gammastar")
    names = getattr(module, "__all__", [])
    return [f"{room}.{name}{signature(getattr(module, name))}".lstrip(".") for name in names]


@pytest.mark.parametrize(
    "room", [pytest.param(r, marks=pytest.mark.flow) if r == "flow" else r for r in ROOMS]
)
def test_the_face_of_a_room_is_the_pinned_one(room):
    pinned = [
        line for line in PINNED.read_text().splitlines() if line.split("(")[0].rpartition(".")[0] == room
    ]
    now = face(room)
    gone, new = (sorted(set(a) - set(b)) for a, b in ((pinned, now), (now, pinned)))
    assert pinned == now, (
        f"gammastar.{room}: {len(gone)} lines left, {len(new)} are new, or another order; if it should "
        "be so, say it in the changelog and run python3 tests/unit/test_public_api.py\n"
        + "\n".join([f"- {line}" for line in gone] + [f"+ {line}" for line in new])
    )


@pytest.mark.flow
def test_every_room_is_pinned():
    pinned = {line.split("(")[0].rpartition(".")[0] for line in PINNED.read_text().splitlines()}
    assert pinned == {room for room in ROOMS if face(room)}


def functions(room):
    """Return every function of the face of a room by its name, those of its classes among them."""
    module, found = importlib.import_module(f"gammastar.{room}" if room else "gammastar"), {}
    for name in getattr(module, "__all__", []):
        thing = getattr(module, name)
        if inspect.isclass(thing) and thing.__module__.startswith("gammastar"):
            own = {f"{name}.{key}": getattr(value, "__func__", value) for key, value in vars(thing).items()}
            found |= {key: value for key, value in own.items() if inspect.isfunction(value)}
        elif inspect.isfunction(thing):
            found[name] = thing
    return found


@pytest.mark.parametrize(
    "room",
    [pytest.param(r, marks=pytest.mark.flow) if r == "flow" else r for r in ("", "config", *gammastar.ROOMS)],
)
def test_paths_may_be_texts_and_types_are_stated(room):
    """No function asks for a `Path`, and each public one has the types that a checker elsewhere needs."""
    for name, function in functions(room).items():
        if name.rpartition(".")[2].startswith("_") and not name.endswith("__init__"):
            continue
        known = dict(inspect.signature(function).parameters)
        known.pop("self", None), known.pop("cls", None)
        for argument, parameter in known.items():
            kind = str(parameter.annotation)
            assert parameter.annotation is not inspect.Parameter.empty, (
                f"{room}.{name}: {argument} has no type"
            )
            alone = re.search(r"(?<![\w.])Path\b", kind) and not re.search(r"\bstr\b|Pathlike", kind)
            assert not alone, f"{room}.{name}: {argument} takes {kind} alone"


USE = """
from pathlib import Path

import numpy as np
from typing_extensions import assert_type

import gammastar as gs
from gammastar.core.records import Reach, Spectrum


def widest(folder: str | Path) -> float:
    found = gs.load(folder)
    assert_type(found, gs.Results)
    spectrum: Spectrum = found.spectrum
    reach: Reach = found.reach["detector"]
    pt, energy = found.flow.sample(0.5, 1)
    assert gs.read.load_schema("mine.toml").lepton == "mu"
    return float(np.ptp(reach.mass) + spectrum.values.sum() + pt.sum() + energy.sum())


wrong: int = gs.load("x")
"""


@pytest.mark.slow
def test_a_project_elsewhere_is_checked_against_our_types(tmp_path):
    """mypy --strict finds the one mistake of a small package outside the repository, and nothing else."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "use.py").write_text(USE)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "mine"],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    (found,) = re.findall(r"error: (.*)", run.stdout)
    assert found.startswith('Incompatible types in assignment (expression has type "Results"')


def test_the_package_says_that_it_is_typed_and_is_light_to_import():
    assert (ROOT / "src" / "gammastar" / "py.typed").is_file()
    code = "import sys, gammastar; dir(gammastar); print(len(sys.modules), 'numpy' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, heavy = out.stdout.split()
    assert heavy == "False"
    assert int(count) < 200


if __name__ == "__main__":
    PINNED.write_text("".join(f"{line}\n" for room in ROOMS for line in face(room)))
