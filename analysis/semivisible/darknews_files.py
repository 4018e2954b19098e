"""Read the events of DarkNews from parquet and HepMC through a schema.

Lengths are converted from cm at the door, and times are left behind: component 0 of a position is a time in
seconds beside lengths in cm.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from darknews_events import MOMENTA, DarkEvents, DarkNewsSchema, load_schema

from gammastar.core.errors import BranchError, InputFileError, PhysicsError, require
from gammastar.core.files import ANY_SIZE, opened
from gammastar.core.records import FloatArray

_HAS_WEIGHTS = "{path}: the events have weights, which sum to the expected events; leave expected= out"


def _need(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise InputFileError(
            f"this file needs the package {package}: python3 -m pip install {package}"
        ) from error


def read_darknews(
    path: Path, schema: DarkNewsSchema | None = None, *, expected: float | None = None
) -> DarkEvents:
    """Read a file of DarkNews."""
    if expected is not None and not (np.isfinite(expected) and expected > 0):
        raise InputFileError(f"{path}: expected = {expected!r} events must be a positive number")
    chosen = load_schema() if schema is None else schema
    require(path.is_file(), f"{path}: there is no such file", InputFileError)
    if path.suffix == ".parquet":
        if expected is not None:
            raise BranchError(_HAS_WEIGHTS.format(path=path))
        return _parquet(path, chosen)
    if path.suffix in (".hepmc", ".hepmc2", ".hepmc3"):
        return _hepmc(path, chosen, expected)
    raise InputFileError(
        f"{path}: give .parquet or .hepmc3 (DarkNews: parquet=True or hepmc3=True); pickles are not read"
    )


def _parquet(path: Path, schema: DarkNewsSchema) -> DarkEvents:
    pa, pq = _need("pyarrow"), _need("pyarrow.parquet")
    names = schema.parquet
    try:
        there = set(pq.read_schema(path).names)
        keys = {key: [_column(names[key], str(k)) for k in range(4)] for key in MOMENTA}
        keys["production"] = [_column(names["production"], str(k)) for k in range(1, 4)]
        keys["weight"] = [_column(names["weight"], "")]
        if _column(names["photon"], "0") in there:
            raise BranchError(f"{path}: decays into a single photon have no lepton pair")
        missing = sorted({name for group in keys.values() for name in group} - there)
        if missing:
            raise BranchError(
                f"{path}: no columns {', '.join(missing[:3])}; DarkNews must write with sparse <= 1"
            )
        table = pq.read_table(path, columns=[name for group in keys.values() for name in group])
    except (pa.ArrowInvalid, OSError) as error:
        raise InputFileError(f"{path}: no readable parquet file ({error})") from error
    values = {
        key: np.column_stack([table.column(name).to_numpy().astype(np.float64) for name in group])
        for key, group in keys.items()
    }
    order = [list(names["components"]).index(component) for component in ("px", "py", "pz", "E")]
    return _checked(
        path,
        {key: values[key][:, order] for key in MOMENTA},
        values["production"] * schema.units["length"],
        values["weight"][:, 0],
    )


def _column(name: str, component: str) -> str:
    """Return a name as pandas writes a column of a two-level index."""
    return f"('{name}', '{component}')"


def _hepmc(path: Path, schema: DarkNewsSchema, expected: float | None) -> DarkEvents:
    hep = _need("pyhepmc")
    _complete(path)
    rows: list[tuple[FloatArray, FloatArray, float]] = []
    bare = True  # pyhepmc fills in ones where nothing was written, for each name of the header
    try:
        with hep.open(str(path)) as file:
            names: list[str] = []
            for event in file:
                names = names or list(event.run_info.weight_names)
                bare = bare and all(weight == 1.0 for weight in event.weights)
                rows.append(_event(path, event, schema, names))
    except (OSError, RuntimeError) as error:
        raise InputFileError(f"{path}: no readable HepMC file ({error})") from error
    require(rows, f"{path}: holds no event", InputFileError)
    momenta = np.array([row[0] for row in rows])
    origin = np.array([row[1] for row in rows]) * schema.units["length"]
    by_name = {key: momenta[:, k] for k, key in enumerate(MOMENTA)}
    weight = np.array([row[2] for row in rows])
    if bare and expected is None:
        raise BranchError(
            f"{path}: no weights: each of the {len(rows)} events weighs one, as DarkNews writes with "
            "hep_unweight=True; write weighted events, or give expected=, the sum of w_event_rate before "
            "unweighting"
        )
    if expected is not None:
        if not bare:
            raise BranchError(_HAS_WEIGHTS.format(path=path))
        weight = np.full(len(rows), expected / len(rows))
    return _checked(path, by_name, origin, weight)


def _complete(path: Path) -> None:
    """Refuse a listing without its last line: the library takes fewer events, or none, without a word."""
    with opened(path, ANY_SIZE) as file:
        file.seek(max(0, path.stat().st_size - 1024))
        last = file.read().strip().rpartition(b"\n")[2]
    if not last.endswith(b"END_EVENT_LISTING"):
        raise InputFileError(
            f"{path}: the listing of events has no end; the file was cut off or is no HepMC file"
        )


def _event(
    path: Path, event: Any, schema: DarkNewsSchema, names: list[str]
) -> tuple[FloatArray, FloatArray, float]:
    """Return the momenta (4, 4), the production point in the file's unit and the weight of one event."""
    rules = schema.hepmc
    final = rules["final_status"]
    wanted = (
        (rules["dark"], rules["parent_status"]),
        (rules["dark"], final),
        (rules["particle"], final),
        (rules["antiparticle"], final),
    )
    found = [[p for p in event.particles if p.pid in ids and p.status == status] for ids, status in wanted]
    counts = [len(group) for group in found]
    if counts != [1, 1, 1, 1]:
        there = dict(zip(MOMENTA, counts, strict=True))
        raise BranchError(
            f"{path}, event {event.event_number}: one particle of each kind expected, found {there}"
        )
    momenta = [(p.momentum.px, p.momentum.py, p.momentum.pz, p.momentum.e) for (p,) in found]
    vertex = found[0][0].production_vertex.position
    if not names and not event.weights:  # an unweighted file of another writer
        weight = 1.0
    elif rules["weight"] not in names or len(event.weights) != len(names):
        raise BranchError(
            f"{path}, event {event.event_number}: no weight {rules['weight']!r}; let DarkNews write it"
        )
    else:
        weight = float(event.weights[names.index(rules["weight"])])
    return np.array(momenta), np.array([vertex.x, vertex.y, vertex.z]), weight


def _checked(
    path: Path, momenta: Mapping[str, FloatArray], origin: FloatArray, weight: FloatArray
) -> DarkEvents:
    require(len(weight), f"{path}: holds no event", InputFileError)
    try:
        return DarkEvents(**momenta, origin=origin, weight=weight)
    except PhysicsError as error:
        raise InputFileError(f"{path}: {error}") from error
