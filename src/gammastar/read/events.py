"""Chunks of events through a schema, from nested branches and from flat rows; simulated events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import BranchError, InputFileError
from gammastar.core.pairs import MatchedPairs, Pairs, blank
from gammastar.core.records import BoolArray, FloatArray
from gammastar.core.sampling import mixed as mixed_bits
from gammastar.read.branches import (
    Charges,
    Chosen,
    check_sign,
    choose,
    has_missing,
    listed,
    number_type,
    numbers,
    typed,
    typename,
)
from gammastar.read.files import check_entries, compare_checksums, expand, is_rntuple, opened
from gammastar.read.schema import Branch, RowFilter, Schema, Truth

MAX_WEIGHT = 1e100  # weight: sums of their squares stay finite
TREE_CLASSES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple", "ROOT::Experimental::RNTuple")


def open_events(
    files: str | Path | Sequence[str | Path],
    schema: Schema,
    *,
    step: str | int = "100 MB",
    truth: bool = False,
    entry_start: int = 0,
    entry_stop: int | None = None,
) -> Iterator[ak.Array]:
    """Yield the events of files in chunks, in double precision and GeV; columns of integers stay integers.

    Parameters
    ----------
    files : path, glob pattern or a list of these
        ROOT files with a TTree or RNTuple.
    schema : Schema
        What the branches mean.
    step : str or int
        Size of a chunk in memory, or its number of entries.
    truth : bool
        Read the truth branches of the schema as well.
    entry_start, entry_stop : int
        Range of entries of each file; all of them by default.

    Yields
    ------
    ak.Array
        Fields ``lepton`` (a list per event of px, py, pz, mass [GeV], charge and the schema's lepton
        columns), ``event`` (int64 identifier), ``weight``, the schema's event columns under ``columns``, and
        with `truth` the record ``truth`` (mass, pt, energy [GeV], process); ``run`` and ``block`` where the
        schema names them. An empty tree yields nothing.

    Raises
    ------
    InputFileError
        If a file is missing, damaged or truncated, or a weight is not finite or beyond 1e100.
    BranchError
        If a tree or branch is missing; the message lists near names.

    Notes
    -----
    Leptons with kinematics that are not finite stay in; the selection masks and counts them.
    """
    if truth and schema.truth is None:
        raise BranchError(f"truth was asked for, but the schema of tree {schema.tree!r} has no [truth] table")
    first, signs = 0, Charges(schema)
    for path in expand(files):
        rows = entry_start
        for arrays in _raw(path, schema, step, truth=truth, entries=(entry_start, entry_stop)):
            yield _events(arrays, schema, path, first + rows, signs, truth=truth)
            rows += len(arrays)
        first += rows


def _raw(
    path: str, schema: Schema, step: str | int, *, truth: bool, entries: tuple[int, int | None]
) -> Iterator[ak.Array]:
    """Yield the branches of one file as they are; whatever goes wrong in here is the file's fault."""
    with opened(path) as file:
        tree = open_tree(file, schema.tree, path)
        branches = chosen(tree, schema, path, truth=truth)
        start, stop = entries
        stop = int(tree.num_entries) if stop is None else stop
        check_entries(tree, branches.options, path)
        total, rows = stop - start, 0
        if total > 0:
            chunk = {**branches.options, "entry_start": start, "entry_stop": stop}
            for arrays in tree.iterate(step_size=step, library="ak", **chunk):
                yield branches.rows(arrays)
                rows += len(arrays)
        if rows != total:
            msg = f"{path}: {rows} of {total} entries of tree {schema.tree!r} were read; it is damaged"
            raise InputFileError(msg)


def open_tree(file: Any, name: str, path: str) -> Any:
    """Return a tree of an open file."""
    trees = [key for key, kind in file.classnames(cycle=False).items() if kind in TREE_CLASSES]
    if not trees:
        raise InputFileError(f"{path}: holds no TTree or RNTuple; it is empty or damaged")
    plain, _, cycle = name.partition(";")
    if plain not in trees:
        raise BranchError(f"{path}: there is no tree {name!r}; it has {listed(sorted(set(trees)))}")
    cycles = [key.rpartition(";")[2] for key in file.keys(cycle=True) if key.rpartition(";")[0] == plain]
    if cycle and cycle not in cycles:
        msg = f"{path}: there is no tree {name!r}; tree {plain!r} has the cycles {', '.join(cycles)}"
        raise BranchError(msg)
    tree = file[name]
    if is_rntuple(tree):
        compare_checksums(tree, path)
    return tree


def chosen(tree: Any, schema: Schema, path: str, *, truth: bool = False) -> Chosen:
    """Return which branches of a tree a schema reads."""
    members = {}
    if schema.collection:
        members[schema.collection] = [str(branch) for branch in schema.kinematics.values()]
    return choose(tree, schema.branches(truth=truth), (path, schema.tree), members)


def _events(
    arrays: ak.Array, schema: Schema, path: str, first: int, signs: Charges, *, truth: bool
) -> ak.Array:
    rows = np.arange(first, first + len(arrays), dtype=np.int64)
    if schema.row_filter:
        keep = np.ones(len(arrays), dtype=bool)
        for rule in schema.row_filter:
            keep &= _passes(arrays, rule, path)
        arrays, rows = arrays[keep], rows[keep]
    fields: dict[str, Any] = {
        "lepton": _leptons(arrays, schema, path, signs, truth=truth),
        "event": _event_id(arrays, schema.event, rows, path),
        "weight": _weight(arrays, schema, path),
    }
    for key in ("run", "block"):
        if getattr(schema, key):
            fields[key] = _whole(arrays, getattr(schema, key), path)
    if schema.event_columns:
        columns = {key: _flat(arrays, name, path, typed) for key, name in schema.event_columns.items()}
        fields["columns"] = ak.zip(columns, depth_limit=1)
    if truth and schema.truth is not None:
        names = {key: getattr(schema.truth, key) for key in ("mass", "pt", "energy")}
        values = {key: schema.unit * _flat(arrays, name, path) for key, name in names.items()}
        if schema.truth.process:
            values["process"] = _flat(arrays, schema.truth.process, path).astype(np.int64)
        fields["truth"] = ak.zip(values, depth_limit=1)
    return ak.zip(fields, depth_limit=1)


def _passes(arrays: ak.Array, rule: RowFilter, path: str) -> npt.NDArray[np.bool_]:
    branch = arrays[rule.branch]
    is_text = "string" in str(ak.type(branch))
    plain = is_text or number_type(branch) is not None
    if branch.ndim != 1 or not plain or is_text != isinstance(rule.equals, str):
        raise BranchError(
            f"{path}: row_filter on branch {rule.branch!r} of type {typename(branch)} "
            f"compares with {rule.equals!r}"
        )
    return np.asarray(ak.to_numpy(ak.fill_none(branch == rule.equals, False)), dtype=bool)


def _flat(
    arrays: ak.Array, name: str, path: str, made: Callable[[ak.Array, str, str], ak.Array] | None = None
) -> npt.NDArray[Any]:
    """Return one number per event, in double precision or as `made` makes it."""
    branch = arrays[name]
    msg = f"{path}: branch {name!r} of type {typename(branch)} must hold one number per row"
    if number_type(branch) is None:
        raise BranchError(msg)
    try:
        values = numbers(branch) if made is None else made(branch, name, path)
        return np.asarray(ak.to_numpy(values)).reshape(len(arrays))
    except (ValueError, TypeError) as error:
        raise BranchError(msg) from error


def _whole(arrays: ak.Array, name: str, path: str) -> npt.NDArray[Any]:
    """Return one integer per event; floating numbers are taken where they are whole."""
    values = _flat(arrays, name, path, typed)
    if values.dtype.kind in "iu":
        return values
    if not (np.abs(values) < 2.0**53).all() or (values % 1 != 0).any():
        raise BranchError(f"{path}: branch {name!r} of type {typename(arrays[name])} must hold whole numbers")
    return values.astype(np.int64)


def _event_id(
    arrays: ak.Array, names: tuple[str, ...], rows: npt.NDArray[np.int64], path: str
) -> npt.NDArray[np.int64]:
    """Return one identifier per event, never negative: the branch itself, or a 63-bit mix.

    Of several branches, and of numbers that are negative or beyond 63 bits, which would be negative: negative
    identifiers are given to simulated rows beside the data, and −1 to what belongs to no event.
    """
    if not names:
        return rows
    branches = []
    for name in names:
        branch = arrays[name]
        values = ak.to_numpy(branch) if branch.ndim == 1 else np.empty(0)
        if has_missing(branch) or not np.issubdtype(values.dtype, np.integer):
            msg = f"{path}: event branch {name!r} of type {typename(branch)} must hold one integer per row"
            raise BranchError(msg)
        branches.append(values.astype(np.int64))
    if len(branches) == 1:
        beyond = branches[0] < 0
        mixed = mixed_bits(branches[0].view(np.uint64)) >> np.uint64(1)
        return np.where(beyond, mixed.astype(np.int64), branches[0])
    mixed = np.zeros(len(arrays), dtype=np.uint64)
    for values in branches:
        mixed = mixed_bits(mixed ^ values.view(np.uint64))
    return (mixed >> np.uint64(1)).astype(np.int64)


def _weight(arrays: ak.Array, schema: Schema, path: str) -> npt.NDArray[np.float64]:
    weight = np.ones(len(arrays))
    for name in filter(None, (schema.weight, schema.prescale)):
        weight = weight * _flat(arrays, name, path)
        wrong = int(np.sum(~(np.abs(weight) <= MAX_WEIGHT)))
        if wrong:
            msg = f"{path}: {wrong} weights of {name!r} are not finite, or beyond {MAX_WEIGHT:g}"
            raise InputFileError(msg)
    return weight


def _leptons(arrays: ak.Array, schema: Schema, path: str, signs: Charges, *, truth: bool) -> ak.Array:
    def lepton(key: str, branch: Branch, *, column: bool = False) -> ak.Array:
        if isinstance(branch, tuple):
            legs = [_flat(arrays, name, path, typed if column else None) for name in branch]
            kinds = [str(leg.dtype) for leg in legs]
            if np.result_type(*legs).kind == "f" and any(leg.dtype.str[1:] in ("i8", "u8") for leg in legs):
                msg = f"{path}: lepton column {key!r} joins {branch[0]!r} and {branch[1]!r} of types "
                raise BranchError(f"{msg}{kinds[0]} and {kinds[1]}, which no type holds without loss of bits")
            return ak.from_regular(ak.from_numpy(np.stack(legs, axis=1)))
        if schema.collection and key in schema.kinematics:
            array = _member(arrays[schema.collection], branch, schema.collection, path)
        else:
            array = arrays[branch]
        if array.ndim != 2 or number_type(array) is None:
            msg = f"{path}: branch {branch!r} of type {typename(array)} must hold a list of numbers per row"
            raise BranchError(msg)
        return typed(array, branch, path) if column else numbers(array)

    sign = "charge" if schema.charge else "pdg_id"
    source: Branch = getattr(schema, sign)
    for name in source if isinstance(source, tuple) else (source,):
        check_sign(arrays[name], name, schema, path)
    kinematics = {key: lepton(key, branch) for key, branch in schema.kinematics.items()}
    columns = {key: lepton(key, branch, column=True) for key, branch in schema.lepton_columns.items()}
    if truth and schema.truth is not None and schema.truth.lepton:
        columns["from_photon"] = lepton("from_photon", schema.truth.lepton)
    charge = signs.of(lepton(sign, source), path)
    try:
        return ak.zip(_momentum(kinematics, schema) | {"charge": charge} | columns)
    except ValueError as error:
        named = {**schema.kinematics, sign: source, **schema.lepton_columns}
        lists = {**kinematics, sign: charge, **columns}
        raise BranchError(
            f"{path}: the lepton branches hold lists of different length in the same event: "
            f"{_odd_lists(lists, named)}; are they of one collection?"
        ) from error


def _odd_lists(lists: Mapping[str, ak.Array], named: Mapping[str, Branch]) -> str:
    """Return the branches whose lists have another length than those of most branches."""
    counts = {key: tuple(ak.to_list(ak.num(array[:1000]))) for key, array in lists.items()}
    usual = max(counts.values(), key=list(counts.values()).count)
    odd = [str(named.get(key, key)) for key, found in counts.items() if found != usual]
    return listed(list(dict.fromkeys(odd))) if odd else listed([str(named.get(key, key)) for key in lists])


def _member(objects: ak.Array, member: str, collection: str, path: str) -> ak.Array:
    for part in [member] if member in objects.fields else member.split("."):
        if part not in objects.fields:
            has = listed(objects.fields) or "none"
            raise BranchError(f"{path}: objects of {collection!r} have no member {member!r}; they have {has}")
        objects = objects[part]
    return objects


def _momentum(kinematics: dict[str, ak.Array], schema: Schema) -> dict[str, ak.Array]:
    """Return px, py, pz, mass [GeV]; a stored energy that is not finite makes the lepton not finite."""

    def in_gev(key: str) -> ak.Array:
        return kinematics[key] if schema.unit == 1.0 else schema.unit * kinematics[key]

    def size() -> ak.Array:
        return in_gev("p") if "p" in kinematics else schema.unit / np.abs(kinematics["q_over_p"])

    if "px" in kinematics:
        px, py, pz = (in_gev(key) for key in ("px", "py", "pz"))
    elif "tx" in kinematics:
        tx, ty = kinematics["tx"], kinematics["ty"]
        pz = size() / np.sqrt(1 + tx**2 + ty**2)
        px, py = tx * pz, ty * pz
    else:
        angle, phi = kinematics["theta" if "theta" in kinematics else "eta"], kinematics["phi"]
        if "theta" in kinematics:
            sine, cotangent = np.sin(angle), 1 / np.tan(angle)
        else:
            sine, cotangent = 1 / np.cosh(angle), np.sinh(angle)
        pt = in_gev("pt") if "pt" in kinematics else size() * sine
        px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * cotangent
    mass = in_gev("mass") if "mass" in kinematics else ak.full_like(px, LEPTON_MASS[schema.lepton])
    if "E" in kinematics:
        mass = mass + 0.0 * kinematics["E"]
    return {"px": px, "py": py, "pz": pz, "mass": mass}


Flat = Mapping[str, npt.NDArray[Any]]


def open_flat(
    files: str | Path | Sequence[str | Path],
    schema: Schema,
    *,
    step: str | int = "100 MB",
    entry_start: int = 0,
    entry_stop: int | None = None,
) -> Iterator[Flat]:
    """Yield the leptons of files chunk by chunk as flat arrays in the precision of the file.

    Parameters
    ----------
    step, entry_start, entry_stop
        As for `open_events`.

    Yields
    ------
    mapping of str to NDArray
        ``offsets`` (n_events + 1,) where the leptons of each event begin; ``px``, ``py``, ``pz``, ``mass``
        [GeV] and ``charge`` (n_leptons,); ``weight`` (n_events,). For ``select.histograms``, which computes
        in double precision.

    Raises
    ------
    InputFileError, BranchError
        As `open_events`.

    Notes
    -----
    Lists of px, py, pz are handed on without a copy; every other layout goes through `open_events`.
    """
    cartesian = {"px", "py", "pz"} <= set(schema.kinematics)
    lean = schema.layout == "jagged" and cartesian and bool(schema.charge) and not schema.row_filter
    lean = lean and schema.positive is None
    if not lean or schema.unit != 1.0 or "E" in schema.kinematics:
        for events in open_events(files, schema, step=step, entry_start=entry_start, entry_stop=entry_stop):
            yield _flattened(events)
        return
    for path in expand(files):
        for arrays in _raw(path, schema, step, truth=False, entries=(entry_start, entry_stop)):
            yield _columns(arrays, schema, path)


def _flattened(events: ak.Array) -> Flat:
    counts = np.asarray(ak.to_numpy(ak.num(events.lepton)), dtype=np.int64)
    flat = ak.flatten(events.lepton)
    result = {name: np.asarray(ak.to_numpy(flat[name])) for name in ("px", "py", "pz", "mass", "charge")}
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return result | {"offsets": offsets, "weight": np.asarray(ak.to_numpy(events.weight))}


def _columns(arrays: ak.Array, schema: Schema, path: str) -> Flat:
    names = {
        key: str(schema.kinematics[key]) for key in ("px", "py", "pz", "mass") if key in schema.kinematics
    }
    names["charge"] = str(schema.charge)
    result: dict[str, npt.NDArray[Any]] = {}
    offsets: npt.NDArray[Any] = np.zeros(0)
    for key, name in names.items():
        if key == "charge":
            check_sign(arrays[name], name, schema, path)
        found, result[key] = _list(arrays[name], name, path)
        offsets = found if len(result) == 1 else offsets
        if not np.array_equal(found, offsets):
            msg = f"{path}: the lepton branches hold lists of different length in the same event ({name!r})"
            raise BranchError(msg)
    if "mass" not in result:
        result["mass"] = np.broadcast_to(LEPTON_MASS[schema.lepton], len(result["px"]))
    plain = not (schema.weight or schema.prescale)
    weight = np.broadcast_to(1.0, len(arrays)) if plain else _weight(arrays, schema, path)
    return result | {"offsets": offsets, "weight": weight}


def _list(branch: ak.Array, name: str, path: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return offsets and content of a list of numbers, without a copy where they are packed."""
    if branch.ndim != 2 or number_type(branch) is None:
        msg = f"{path}: branch {name!r} of type {typename(branch)} must hold a list of numbers per row"
        raise BranchError(msg)
    layout = branch.layout
    if number_type(branch) == np.bool_ or has_missing(branch):
        layout = numbers(branch).layout
    listed_numbers = isinstance(layout, ak.contents.ListOffsetArray)
    if not (listed_numbers and layout.content.is_numpy and int(layout.offsets[0]) == 0):
        layout = ak.to_packed(layout, highlevel=False)
        if isinstance(layout, ak.contents.RegularArray):
            layout = layout.to_ListOffsetArray64(True)
    offsets = np.asarray(layout.offsets.data)
    return offsets, np.asarray(layout.content.data)[: int(offsets[-1])]


LINK = "from_photon"
IntArray = npt.NDArray[np.int64]


def matched(
    files: str | Path | Sequence[str | Path],
    schema: Schema,
    cuts: Callable[[ak.Array], Pairs],
    *,
    step: str | int = "100 MB",
    entry_start: int = 0,
    entry_stop: int | None = None,
) -> MatchedPairs:
    """Match reconstructed pairs to the generated virtual photons.

    Parameters
    ----------
    schema : Schema
        With a truth table.
    cuts : function of events that returns the selected Pairs
        The selection of the data, ``select.counting(cuts)``.
    step : str or int
        Size of a chunk in memory, or its number of entries.
    entry_start, entry_stop : int
        Range of entries of each file; with `entry_stop` given, a range without any photon is no error.

    Returns
    -------
    MatchedPairs
        One row per virtual photon. A photon is reconstructed if the row holds a selected opposite-sign pair
        of its two leptons; without a branch that links leptons to the photon, the pair nearest to its true
        mass is taken.

    Raises
    ------
    BranchError
        If the schema has no truth, or a branch is missing.
    InputFileError
        If a file is damaged, or no row holds a virtual photon.

    Notes
    -----
    Other opposite-sign pairs of the same row are combinatorial: like-sign subtraction removes them from data,
    so they are neither reconstructed photons nor fakes. Fakes are the pairs of the processes that the schema
    lists under ``truth.fakes``.
    """
    chunks = open_matched(files, schema, cuts, step=step, entry_start=entry_start, entry_stop=entry_stop)
    return MatchedPairs.concatenate(list(chunks))


def open_matched(
    files: str | Path | Sequence[str | Path],
    schema: Schema,
    cuts: Callable[[ak.Array], Pairs],
    *,
    step: str | int = "100 MB",
    entry_start: int = 0,
    entry_stop: int | None = None,
) -> Iterator[MatchedPairs]:
    """Yield what `matched` returns chunk by chunk, so that a simulation of any size can be read.

    Parameters
    ----------
    files, schema, cuts, step, entry_start, entry_stop
        As for `matched`.

    Raises
    ------
    BranchError
        If the schema has no truth, or a branch is missing.
    InputFileError
        If a file is damaged, or, after the last chunk, if no row held a virtual photon.
    """
    if schema.truth is None:
        msg = f"the schema of tree {schema.tree!r} has no [truth] table; simulated events need one"
        raise BranchError(msg)
    n, known = 0, schema.truth
    for events in open_events(
        files, schema, step=step, truth=True, entry_start=entry_start, entry_stop=entry_stop
    ):
        part = _match(events, known, cuts)
        n += len(part)
        yield part
    if not n and entry_stop is None:
        raise InputFileError(
            f"{files}: no row holds a virtual photon (truth.mass = {known.mass!r} is never positive, "
            f"or truth.signal = {list(known.signal)} never occurs)"
        )


def _match(events: ak.Array, truth: Truth, cuts: Callable[[ak.Array], Pairs]) -> MatchedPairs:
    n = len(events)
    true = np.stack(
        [np.asarray(ak.to_numpy(events.truth[key])) for key in ("mass", "pt", "energy")], axis=1
    ).reshape(n, 3)
    process = np.asarray(ak.to_numpy(events.truth.process)) if truth.process else np.zeros(n, np.int64)
    photon: BoolArray = np.isfinite(true).all(axis=1) & (true[:, 0] > 0)
    if truth.signal:
        photon &= np.isin(process, truth.signal)
    # Rows stand in for event identifiers, so that a pair finds its way back to its row.
    pairs = cuts(ak.with_field(events, np.arange(n, dtype=np.int64), "event"))
    pairs = pairs.select(pairs.os)
    fake = pairs.select(np.isin(process[pairs.event], truth.fakes) & ~photon[pairs.event])
    candidate = pairs.select(photon[pairs.event])
    if truth.lepton:
        candidate = _linked(candidate)
    reco = np.full((n, 3), np.nan)
    # the pair of each row that is nearest in mass to the photon
    order = np.lexsort((np.abs(candidate.mass - true[candidate.event, 0]), candidate.event))
    best = order[np.unique(candidate.event[order], return_index=True)[1]]
    row = candidate.event[best]
    reco[row] = _kinematics(candidate)[best]
    columns = {}
    for name, column in candidate.columns.items():
        columns[name] = blank(n, column.dtype)
        columns[name][row] = column[best]
    return MatchedPairs(
        true=true[photon],
        reco=reco[photon],
        weight=np.asarray(ak.to_numpy(events.weight))[photon],
        event=np.asarray(ak.to_numpy(events.event))[photon],
        fakes=_kinematics(fake),
        fake_weight=fake.weight,
        columns={name: column[photon] for name, column in columns.items()},
    )


def _kinematics(pairs: Pairs) -> FloatArray:
    return np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)


def _linked(pairs: Pairs) -> Pairs:
    """Return the pairs whose two leptons both come from the photon."""
    try:
        first, second = (pairs.columns[f"{LINK}_{leg}"] for leg in (1, 2))
    except KeyError as error:
        msg = f"the selection must hand on the lepton column {LINK!r}; its pairs have {list(pairs.columns)}"
        raise BranchError(msg) from error
    return pairs.select((first != 0) & (second != 0))
