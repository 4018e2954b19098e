"""Files to start from: steering, schema and detector for the ntuples, or the published table, of a user."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from gammastar import read, select
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import UserError
from gammastar.core.files import write_whole
from gammastar.core.records import FloatArray
from gammastar.read.published import describe_tables, is_published

STEP, STEPS = 50_000, 4  # entries of the file from which axes are proposed
FEW = 100  # opposite-sign pairs below which nothing is proposed from them
HIGHEST = 1.2  # GeV; above, dark photons hide under few pairs and other lines
DEFAULT = {"mass": (0.2, 1.1), "pt": (0.0, 0.5, 1.0, 6.0), "energy": (1.0, 20.0, 40.0, 400.0)}
TRUE = {"gen", "mc", "true", "truth", "sim"}
TRUTH = {
    "mass": {"m", "mass", "mll", "mmumu", "mee"},
    "pt": {"pt", "qt"},
    "energy": {"e", "energy", "en"},
}


def begin(
    folder: str | Path,
    *,
    source: str | Path | None = None,
    simulation: str | Path | None = None,
    lepton: str | None = None,
    replace: bool = False,
) -> Iterator[str]:
    """Write ``steering.toml``, ``detector.toml`` and ``schema.toml`` to start from; yield what was done."""
    folder = Path(folder)
    if source is not None and is_published(source):
        texts = {"steering.toml": _from_table(folder, Path(source), lepton)}
        texts["detector.toml"] = _template("detector")
    else:
        texts = _from_ntuples(folder, source, simulation, lepton)
    there = [name for name in texts if (folder / name).exists()]
    if there and not replace:
        msg = f"{folder}: {' and '.join(there)} would be overwritten; give another folder, or --force"
        raise UserError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_whole(folder / name, text.encode())
        left = sum(line.split("#")[0].count('"?"') for line in text.splitlines())
        yield f"wrote {folder / name}" + (f"; {left} values to fill in, marked with ?" if left else "")
    yield f"then: gammastar check {folder / 'steering.toml'}"


def _template(name: str) -> str:
    return (resources.files("gammastar.results") / "start" / f"{name}.toml").read_text(encoding="utf-8")


def _from_ntuples(
    folder: Path, source: str | Path | None, simulation: str | Path | None, lepton: str | None
) -> dict[str, str]:
    schema, mapping, edges, note = _template("schema"), {}, dict(DEFAULT), ""
    if source is not None:
        found = read.describe(source, lepton=lepton)
        if not found.schemas:
            raise UserError(found.proposal)
        schema, mapping = found.proposal + "\n", dict(found.schemas[0].schema)
        edges, note = _axes(source, mapping)
    flavour = mapping.get("lepton", lepton or "mu")
    schema += "\n" + "\n".join(_truth(() if simulation is None else read.inspect(simulation))) + "\n"
    low, high = edges["mass"][0], edges["mass"][-1]
    steering = Template(_template("steering")).substitute(
        name=_name(folder),
        files='"?"' if source is None else _beside(folder, source),
        response='"?"' if simulation is None else _beside(folder, simulation),
        note=note,
        mass=f"{{ bins = {round((high - low) / 0.05)}, low = {low:g}, high = {high:g} }}",
        pt=_list(edges["pt"]),
        energy=_list(edges["energy"]),
        lepton=flavour,
    )
    return {"steering.toml": steering, "schema.toml": schema, "detector.toml": _template("detector")}


def _from_table(folder: Path, source: Path, lepton: str | None) -> str:
    """Return a steering file that starts from a published table: no ntuples, no flow."""
    found = describe_tables(source)
    if not found.proposal:
        msg = f"{source}: no table makes a mass spectrum: {'; '.join(found.reasons[:3])}"
        raise UserError(msg)
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


def _axes(source: str | Path, mapping: dict[str, Any]) -> tuple[dict[str, tuple[float, ...]], str]:
    """Return edges with about as many pairs in each, from the first entries of a file, and what they are."""
    events = read.open_events(source, read.load_schema(mapping), step=STEP)
    pairs, _ = select.collect(itertools.islice(events, STEPS))
    chosen = pairs.select(pairs.os & np.isfinite(pairs.mass))
    if len(chosen) < FEW:
        return dict(DEFAULT), f"; {len(chosen)} opposite-sign pairs are too few to propose axes from"
    threshold = 2.0 * LEPTON_MASS[mapping["lepton"]]
    low = max(np.ceil(threshold * 1000) / 1000, float(f"{np.quantile(chosen.mass, 0.005):.2g}"))
    high = max(low + 0.3, min(HIGHEST, round(float(np.quantile(chosen.mass, 0.99)), 1)))
    return {
        "mass": (low, high),
        "pt": _quantiles(chosen.pt, (0.0, 1 / 3, 2 / 3, 1.0)),
        "energy": _quantiles(chosen.energy, (0.0, 0.25, 0.5, 0.75, 1.0)),
    }, f"; from {len(chosen)} opposite-sign pairs of the file, look at them"


def _quantiles(values: FloatArray, shares: tuple[float, ...]) -> tuple[float, ...]:
    first, *inner, last = np.quantile(values, shares)
    digit = 10.0 ** np.floor(np.log10(last))
    ends = float(np.floor(first / digit) * digit), float(np.ceil(last / digit) * digit)
    return (ends[0], *sorted({float(f"{x:.2g}") for x in inner} - set(ends)), ends[1])


def _truth(trees: tuple[read.TreeSummary, ...]) -> Iterator[str]:
    """Yield the table [truth] of a schema, with the branches whose names say what they are."""
    found: dict[str, str] = {}
    for tree in trees:
        for name in tree.branches:
            apart = re.sub(r"([a-z])([A-Z])", r"\1_\2", name)  # genMass
            words = {word for text in (name, apart) for word in re.split(r"[^a-z]+", text.lower())}
            for key, meant in TRUTH.items():
                if words & TRUE and words & meant:
                    found.setdefault(key, name)
    yield "# The generated photon of each simulated row, read from the files of `response` alone:"
    yield "# its mass, q_T and energy in the unit of the file; rows without one hold no positive mass."
    yield "[truth]"
    yield from (f'{key} = "{found.get(key, "?")}"' for key in TRUTH)
    yield '# process = "…" # branch with a code of the process; signal = […] and fakes = […] say which count'
