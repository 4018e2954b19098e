"""Runs of the data: lists of good ones, and tables of what each was exposed to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gammastar.core.errors import InputFileError, require
from gammastar.core.files import from_json, read_columns, text_of
from gammastar.core.records import FloatArray
from gammastar.read.events import open_tree
from gammastar.read.files import opened
from gammastar.read.schema import Schema

Blocks = tuple[tuple[int, int], ...]
RUNS = re.compile(r"(\d+)(?:\s*-\s*(\d+))?$")
MOST_OF_RANGE = 1_000_000  # runs


def good_runs(path: Path) -> dict[int, Blocks]:
    """Return the runs of a list, JSON of CMS or text, with ranges of blocks; no range is the whole run."""
    try:
        text = text_of(path)
        found = _certified(from_json(text)) if path.suffix.lower() == ".json" else _listed(text)
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read ({error.strerror or error}); give its path") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InputFileError(f"{path}: is no list of runs ({error})") from error
    require(found, f"{path}: lists no run", InputFileError)
    return found


def _certified(content: Any) -> dict[int, Blocks]:
    found = {}
    for run, ranges in content.items():
        blocks = tuple((int(first), int(last)) for first, last in ranges)
        if not blocks or any(first > last for first, last in blocks):
            raise ValueError(f"run {run}: {ranges!r} must be a list of [first, last] block")
        found[int(run)] = blocks
    return found


def _listed(text: str) -> dict[int, Blocks]:
    found: dict[int, Blocks] = {}
    for line in text.splitlines():
        for word in re.sub(r"\s*-\s*", "-", line.partition("#")[0]).replace(",", " ").split():
            match = RUNS.fullmatch(word)
            if match is None:
                raise ValueError(f"{word!r} is neither a run nor a range of runs as 4010-4025")
            first, last = int(match[1]), int(match[2] or match[1])
            if not first <= last < first + MOST_OF_RANGE:
                raise ValueError(f"{word!r} must rise, by fewer than {MOST_OF_RANGE} runs")
            found |= dict.fromkeys(range(first, last + 1), ())
    return found


def run_table(path: Path, columns: Sequence[str], tree: str = "") -> Mapping[str, FloatArray]:
    """Return columns of a CSV table, or of a tree of a ROOT file: numbers that are finite and not negative.

    The first column is the run.
    """
    if tree:
        with opened(str(path)) as file:
            source = open_tree(file, tree, str(path))
            absent = [name for name in columns if name not in source.keys()]  # noqa: SIM118 - of a TTree
            require(not absent, f"{path}: tree {tree!r} has no branch {', '.join(absent)}", InputFileError)
            table = np.stack(
                [source[name].array(library="np").astype(np.float64) for name in columns], axis=1
            )
    else:
        table = read_columns(path, columns, what="the table of runs", extra=True)
    good = np.isfinite(table).all() and (table >= 0).all() and (table[:, 0] % 1 == 0).all()
    text = f"{path}: {', '.join(columns)} must be finite, not negative, and runs whole numbers"
    require(len(table) and good, text, InputFileError)
    return dict(zip(columns, table.T, strict=True))


def run_numbers(path: Path, schema: Schema) -> tuple[int, ...]:
    """Return the runs of a file."""
    with opened(str(path)) as file:
        rows = open_tree(file, schema.tree, str(path))[schema.run].array(library="np")
    return tuple(np.unique(rows.astype(np.int64)).tolist())
