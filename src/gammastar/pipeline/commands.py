"""Commands beside `run`: mock files, samples of a flow, a look at results and their digests."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gammastar.core.errors import StoreError, UserError
from gammastar.core.records import MassInterval
from gammastar.pipeline.checkpoint import load_arrays
from gammastar.pipeline.context import Tell
from gammastar.pipeline.reach_files import masses_reached
from gammastar.store.guarded import check_chunks
from gammastar.store.manifest import digest, file_sha256, package_digest, read_json
from gammastar.store.remote import identity, kind_of

__all__ = ["show_results", "simulate_file", "verify_results"]


def simulate_file(
    card: str,
    n: int,
    output: Path,
    *,
    seed: int,
    cache: Path | None = None,
    resume: bool = False,
    tell: Tell | None = None,
    **options: Any,
) -> list[str]:
    """Write mock events of a card; return lines that say what was made, with the placeholders of the card.

    Parameters
    ----------
    card : str
        A file, or the name of a shipped card.
    n : int
    output : Path
    seed : int
    cache : Path, optional
        Folder where finished blocks stay. Without, they lie beside the output until it is complete.
    resume : bool
        Go on from the blocks that an interrupted run left beside the output.
    tell : callable, optional
        Progress.
    **options
        Those of `simulate.simulate_events` (kind, prior, pairing, engine, workers), ``compression`` and
        ``layout`` of the file.
    """
    from gammastar import simulate
    from gammastar.pipeline import simulating

    start = time.perf_counter()
    loaded, _, notes = simulating.tuned(card, Path(), seed)
    folder = cache or output.with_name(f"{output.name}.parts")
    if cache is None and not resume and folder.is_dir():
        shutil.rmtree(folder)
    written = {key: options.pop(key) for key in ("compression", "layout") if key in options}
    blocks = simulate.simulate_blocks(
        loaded, n, seed=seed, cache=folder, progress=_progress(tell, output), **options
    )
    meta = simulating.write_blocks(output, blocks, **written)
    if cache is None:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.perf_counter() - start
    lines = [f"MOCK {meta['kind']} events of card {loaded.name!r}: {meta['n_events']} in {output}"]
    lines += [f"protons on target: {float(meta['N_POT']):.6g}"]
    if "r_factor" in meta:
        r_factor, sigma = meta["r_factor"], meta["r_factor_sigma"]
        lines.append(f"R of the combinatorial background: {r_factor:.4f} ± {sigma:.4f}")
    lines += [f"content sha256: {meta['content_sha256']}"]
    lines += [f"{seconds:.1f} s, {meta['n_events'] / seconds:.0f} events per second", *notes]
    found = sorted(key for key, source in loaded.provenance.items() if source.tag == "placeholder")
    return [*lines, f"placeholders of the card: {', '.join(found) or 'none'}"]


def _progress(tell: Tell | None, output: Path) -> Callable[[int, int], None] | None:
    if tell is None:
        return None
    return lambda done, total: tell("simulate", done / total, f"{output.name}: {done} of {total}")


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        msg = f"{folder}: no manifest.json; is this the result folder of a run?"
        raise UserError(msg)
    content = read_json(path)
    if not isinstance(content, dict):
        msg = f"{path}: is not the manifest of a run"
        raise StoreError(msg)
    return content


def show_results(folder: Path) -> str:
    """Return the numbers of a result folder as text."""
    from gammastar.report.tables import Table, text_table

    manifest = _manifest(folder)
    lines = [f"{folder}" + ("  (MOCK data)" if manifest.get("mock") else "")]
    if not manifest.get("finished"):
        lines.append("this run is not finished")
    for name, value in manifest.get("numbers", {}).items():
        lines.append(f"{name}: {value}")
    for path in sorted(folder.glob("reach*.json")):
        content = read_json(path)
        try:
            label, rows = content["label"], content["rows"]
            names = content.get("columns") or [
                name for name in rows[0] if not isinstance(rows[0][name], dict)
            ]
            table = {name: [_cell(row[name]) for row in rows] for name in names}
            found = {
                part: masses_reached([MassInterval(**interval) for interval in intervals])
                for part, intervals in content.get("mass_intervals", {}).items()
            }
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            msg = f"{path}: is not the reach of a run of this version ({type(error).__name__}: {error})"
            raise StoreError(msg) from error
        lines += ["", f"{path.name}: {label}", *(f"{part}: {text}" for part, text in found.items())]
        lines.append(text_table(Table(table)))
    return "\n".join(lines)


def _cell(value: Any) -> Any:
    """Return a value of a table; what is not reached is a dash."""
    return "-" if value is None else value


def _code(manifest: Any) -> str:
    known = manifest.get("code", "")
    return f"{known[:16]}, {'that of this installation' if known == package_digest() else 'another one'}"


def _inputs(folder: Path, manifest: Any) -> list[tuple[Path, str]]:
    """Return the inputs whose place is known, with their SHA-256: mock files and those of the filesets."""
    found = {folder / "input" / name: sha for name, sha in manifest["inputs"].items()}
    known = {path: sha for path, sha in found.items() if path.is_file()}
    for path in sorted(folder.glob("chunks/*/fileset_*.json")):
        for dataset in read_json(path).values():
            sums = dataset["metadata"]["sha256"].items()
            known |= {Path(name): sha for name, sha in sums if sha and "://" not in name}
    return sorted(known.items())


def verify_results(folder: Path) -> Iterator[str]:
    """Check every digest of the manifest against the files, inputs included where they are known.

    Raises
    ------
    StoreError
        If an input, stage, chunk or file was changed since the run.
    """
    manifest = _manifest(folder)
    yield f"configuration: {manifest.get('configuration', 'not recorded')[:16]}, seed {manifest['seed']}"
    yield f"code: {_code(manifest)}"
    wrong = []
    for path, sha in _inputs(folder, manifest):
        good = path.is_file() and identity(path, kind_of(sha)) == sha
        wrong += [str(path)] if path.is_file() and not good else []
        yield f"input {path.name}: {'ok' if good else 'CHANGED' if path.is_file() else 'not here'} {sha[:16]}"
    for stage, entry in manifest["stages"].items():
        path = folder / "stages" / f"{stage}.npz"
        if not path.is_file():
            yield f"{stage}: not kept as arrays, recomputed by every run"
            continue
        good = digest(load_arrays(path)) == entry["content"]
        wrong += [] if good else [str(path)]
        yield f"{stage}: {'ok' if good else 'CHANGED'} {entry['content'][:16]}"
    n_chunks = check_chunks(folder)
    if n_chunks:
        yield f"chunks: {n_chunks} ok"
    for name, sha in manifest["files"].items():
        path = folder / name
        good = path.is_file() and file_sha256(path) == sha
        wrong += [] if good else [str(path)]
        yield f"{name}: {'ok' if good else 'CHANGED or missing'} {sha[:16]}"
    if not manifest["finished"]:
        wrong.append("the run is not finished")
    if wrong:
        msg = f"{folder}: {', '.join(wrong)}: not what the run wrote; run again"
        raise StoreError(msg)
