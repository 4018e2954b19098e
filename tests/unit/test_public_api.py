"""Names and signatures in the face of every room: what notebooks and scripts of users call.

``python3 tests/unit/test_public_api.py`` writes ``tests/data/api.txt`` anew; the changelog names what moved.
"""

import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PINNED = ROOT / "tests" / "data" / "api.txt"
PACKAGES = (path.parent.name for path in (ROOT / "src" / "gammastar").glob("*/__init__.py"))
ROOMS = ["", *sorted([*PACKAGES, "background"])]


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


if __name__ == "__main__":
    PINNED.write_text("".join(f"{line}\n" for room in ROOMS for line in face(room)))
