"""Commands beside `run`: mock files, samples of a flow, a look at results and their digests."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gammastar.core.constants import M_E, M_MU
from gammastar.core.errors import StoreError, UserError
from gammastar.core.records import FloatArray
from gammastar.pipeline.checkpoint import load_arrays
from gammastar.pipeline.context import Tell
from gammastar.store.events import EventTable, write_events
from gammastar.store.guarded import check_chunks
from gammastar.store.manifest import digest, file_sha256, package_digest, read_json
from gammastar.store.records import read_spectrum

__all__ = ["sample_file", "show_results", "simulate_file", "verify_results"]


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


def sample_file(
    path: Path,
    n: int,
    output: Path,
    *,
    mass: float | None = None,
    spectrum: Path | None = None,
    seed: int = 1,
    decay: str | None = None,
    ctau: float = 0.0,
) -> str:
    """Draw virtual photons, or dark photons of the same kinematics, from a saved flow and write them.

    Parameters
    ----------
    path : Path
        Flow without suffix, or one of its two files.
    n : int
    output : Path
        ``.root``, ``.parquet``, ``.lhe``, ``.lhe.gz`` or ``.hepmc``.
    mass : float, optional
        One mass [GeV].
    spectrum : Path, optional
        ``spectrum.json`` whose masses are drawn instead.
    seed : int
        The same seed gives the same events.
    decay : {"ee", "mumu"}, optional
        Decay to these leptons.
    ctau : float
        Proper decay length [m]; 0 decays at the production vertex.

    Raises
    ------
    UserError
        If not exactly one of `mass` and `spectrum` is given, or the suffix is unknown.
    """
    from gammastar import flow

    if (mass is None) == (spectrum is None):
        msg = "give either --mass or --spectrum"
        raise UserError(msg)
    found = flow.load(path.with_suffix("") if path.suffix in {".safetensors", ".json"} else path)
    if not isinstance(found, flow.KinematicFlow):
        msg = f"{path}: a flow of the paper's preset has no numbered events; sample it in Python"
        raise UserError(msg)
    source: Any = mass
    if spectrum is not None:
        read = read_spectrum(spectrum)
        axis = next(i for i, axis in enumerate(read.hist.axes) if axis.name == "mass")
        others = tuple(i for i in range(read.hist.ndim) if i != axis)
        source = (np.asarray(read.hist.axes[axis].edges), np.clip(read.values.sum(axis=others), 0.0, None))
    events = flow.draw_events(found, n, seed=seed, mass=source)
    table = EventTable(
        number=events.number,
        p4=events.p4,
        mass=events.mass,
        weight=np.ones(n),
        origin=np.zeros((3, n)),
        daughters=_daughters(events, decay),
        decay=flow.decay_vertices(events, ctau) if decay is not None and ctau > 0 else None,
    )
    write_events(output, table, beam_energy=found.beam_energy)
    return f"{n} events in {output}"


def _daughters(events: Any, decay: str | None) -> tuple[tuple[int, FloatArray], ...]:
    from gammastar import flow

    if decay is None:
        return ()
    pdg, m_lepton = {"ee": (11, M_E), "mumu": (13, M_MU)}[decay]
    minus, plus = flow.two_leptons(events, m_lepton)
    return ((pdg, minus), (-pdg, plus))


def _manifest(folder: Path) -> Any:
    path = folder / "manifest.json"
    if not path.is_file():
        msg = f"{folder}: no manifest.json; is this the result folder of a run?"
        raise UserError(msg)
    return read_json(path)


def show_results(folder: Path) -> str:
    """Return the numbers of a result folder as text."""
    from gammastar.report.tables import Table, text_table

    manifest = _manifest(folder)
    lines = [f"{folder}" + ("  (MOCK data)" if manifest["mock"] else "")]
    if not manifest["finished"]:
        lines.append("this run is not finished")
    for name, value in manifest["numbers"].items():
        lines.append(f"{name}: {value}")
    for path in sorted(folder.glob("reach*.json")):
        content = read_json(path)
        table = {key: [row[key] for row in content["rows"]] for key in content["columns"]}
        lines += ["", f"{path.name}: {content['label']}", text_table(Table(table))]
    return "\n".join(lines)


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
        good = path.is_file() and file_sha256(path) == sha
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
