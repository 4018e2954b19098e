"""What a finished run holds: shown as a table, and verified."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gammastar.core.errors import StoreError, UserError
from gammastar.core.records import MassInterval
from gammastar.pipeline.cache import load_arrays, skipped_input_message
from gammastar.report.tables import masses_reached
from gammastar.store.filesets import identity, kind_of
from gammastar.store.folder import of_this_version, published, read_result
from gammastar.store.manifest import MANIFEST, digest, file_sha256, package_digest, read_manifest
from gammastar.store.pairs import check_chunks

REACH = re.compile(r"reach(_[^/]+)?\.json")


def _manifest(folder: Path) -> dict[str, Any]:
    if not (folder / MANIFEST).is_file():
        raise UserError(f"{folder}: no manifest.json; is this the result folder of a run?")
    return read_manifest(folder)


def show_results(folder: Path) -> str:
    """Return the numbers of a result folder as text."""
    from gammastar.report.tables import Table, text_table

    manifest = _manifest(folder)
    lines = [f"{folder}" + ("  (MOCK data)" if manifest.get("mock") else "")]
    if not manifest.get("finished"):
        lines.append("this run is not finished")
    if manifest["partial"]:
        lines.append(skipped_input_message(manifest["partial"]))
    for name, value in manifest["numbers"].items():
        lines.append(f"{name}: {value}")
    for file in sorted(name for name in manifest["files"] if REACH.fullmatch(name)):
        content = read_result(folder, file)
        with of_this_version(folder / file):
            label, rows = content["label"], content["rows"]
            names = content.get("columns") or [
                k for k, value in rows[0].items() if not isinstance(value, dict)
            ]
            table = {name: ["-" if row[name] is None else row[name] for row in rows] for name in names}
            reached = {
                part: masses_reached([MassInterval(**interval) for interval in intervals])
                for part, intervals in content.get("mass_intervals", {}).items()
            }
        lines += ["", f"{file}: {label}", *(f"{part}: {text}" for part, text in reached.items())]
        lines.append(text_table(Table(table)))
    return "\n".join(lines)


def _code(manifest: Any) -> str:
    known = manifest["code"]
    return f"{known[:16]}, {'that of this installation' if known == package_digest() else 'another one'}"


def _inputs(folder: Path, manifest: Any) -> Iterator[tuple[str, str, str]]:
    """Yield name, state and SHA-256 of every input; what is behind a URL or no file is not compared."""
    for name, sha in sorted(manifest["inputs"].items()):
        path = folder / name  # an absolute name stands for itself
        if "://" in name or name.startswith("card "):
            yield name, "not compared", sha
        elif not path.is_file():
            yield name, "not here", sha
        else:
            yield name, "ok" if identity(path, kind_of(sha)) == sha else "CHANGED", sha


def _stage(folder: Path, stage: str, entry: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the state of a kept stage, and which of its files are not what the run wrote."""
    path = folder / "stages" / f"{stage}.npz"
    if not entry["kept"]:
        return "not kept as arrays, recomputed by every run", []
    if not path.is_file():
        return "MISSING", [str(path)]
    arrays = load_arrays(path)
    wrong = [] if digest(arrays) == entry["content"] else [str(path)]
    if not wrong and "stored_parts" in arrays:
        parts = folder / "stages" / ("truth" if stage == "match" else "pairs")
        found = [file_sha256(part) for part in sorted(parts.glob("part-*.parquet"))]
        wrong += [] if found == arrays["stored_parts"].tolist() else [str(parts)]
    return f"{'CHANGED' if wrong else 'ok'} {entry['content'][:16]}", wrong


def verify_results(folder: Path) -> Iterator[str]:
    """Check every digest of the manifest, its own first, against the files and the inputs that are there."""
    manifest = _manifest(folder)
    yield f"configuration: {manifest['configuration'][:16] or 'not recorded'}, seed {manifest['seed']}"
    yield f"code: {_code(manifest)}"
    wrong = []
    if manifest["partial"]:
        yield skipped_input_message(manifest["partial"])
    for name, state, sha in _inputs(folder, manifest):
        wrong += [name] if state == "CHANGED" else []
        yield f"input {name}: {state} {sha[:16]}"
    for stage, entry in manifest["stages"].items():
        state, changed = _stage(folder, stage, entry)
        wrong += changed
        yield f"{stage}: {state}"
    n_chunks = check_chunks(folder)
    if n_chunks:
        yield f"chunks: {n_chunks} ok"
    for name, sha in manifest["files"].items():
        path, good = folder / name, False
        with contextlib.suppress(OSError):
            good = file_sha256(path) == sha
        wrong += [] if good else [str(path)]
        yield f"{name}: {'ok' if good else 'CHANGED or missing'} {sha[:16]}"
    strange = [name for name in published(folder) if name not in manifest["files"] | manifest["inputs"]]
    if strange:
        yield f"not of this run: {_told(strange)}"
    if not manifest["finished"]:
        wrong.append("the run is not finished")
    if wrong:
        raise StoreError(f"{folder}: {_told(wrong)}: not what the run wrote; run again")


def _told(names: Sequence[str], limit: int = 8) -> str:
    """Return names as a list that is cut."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
