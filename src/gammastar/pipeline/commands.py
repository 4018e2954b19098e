"""Commands beside `run`: mock files, samples of a flow, a look at results and their digests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gammastar.core.errors import PhysicsError, StoreError, UserError
from gammastar.core.rng import stream
from gammastar.pipeline.checkpoint import load_arrays
from gammastar.pipeline.context import shipped
from gammastar.store.events import write_tree
from gammastar.store.manifest import digest, file_sha256, read_json

__all__ = ["sample_file", "show_results", "simulate_file", "verify_results"]


def simulate_file(
    card: str, n: int, output: Path, *, kind: Any, prior: str, pairing: Any, seed: int
) -> Iterator[str]:
    """Write mock events of a card; yield lines that say what was made, with the placeholders of the card."""
    from gammastar import simulate
    from gammastar.pipeline import reading

    loaded = simulate.load_card(shipped(card, Path(), "cards"))
    events = simulate.simulate_events(loaded, n, kind=kind, prior=prior, pairing=pairing, seed=seed)
    reading.write_mock(output, events)
    yield f"MOCK {kind} events of card {loaded.name!r}: {len(events)} in {output}"
    yield f"protons on target: {float(events.meta['N_POT']):.6g}"
    if "r_factor" in events.meta:
        r_factor, sigma = events.meta["r_factor"], events.meta["r_factor_sigma"]
        yield f"R of the combinatorial background: {r_factor:.4f} ± {sigma:.4f}"
    placeholders = sorted(key for key, source in loaded.provenance.items() if source.tag == "placeholder")
    yield f"placeholders of the card: {', '.join(placeholders) or 'none'}"


def sample_file(path: Path, mass: float, n: int, output: Path, *, seed: int) -> str:
    """Draw virtual photons of one mass from a saved flow and write them as a tree.

    Raises
    ------
    UserError
        If the suffix of `output` is not ``.root``.
    """
    from gammastar import flow

    if output.suffix != ".root":
        msg = f"{output}: the suffix {output.suffix!r} is not known; use .root"
        raise UserError(msg)
    found = flow.load(path.with_suffix("") if path.suffix in {".safetensors", ".json"} else path)
    low, high = found.mass_range
    if not low <= mass <= high:
        msg = f"--mass {mass:g}: the flow was trained between {low:g} and {high:g} GeV"
        raise PhysicsError(msg)
    rng = stream(seed, "sample", f"{mass!r}")
    pt, energy = found.sample(np.full(n, mass), rng)
    phi = rng.uniform(-np.pi, np.pi, n)
    pz = np.sqrt(np.maximum(energy**2 - mass**2 - pt**2, 0.0))
    branches = {
        "px": pt * np.cos(phi),
        "py": pt * np.sin(phi),
        "pz": pz,
        "E": energy,
        "mass": np.full(n, mass),
    }
    write_tree(output, {"events": branches})
    return f"{n} virtual photons of {mass:g} GeV in {output}"


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


def verify_results(folder: Path) -> Iterator[str]:
    """Check every digest of the manifest against the files.

    Raises
    ------
    StoreError
        If a stage or file was changed since the run.
    """
    manifest = _manifest(folder)
    wrong = []
    for stage, entry in manifest["stages"].items():
        path = folder / "stages" / f"{stage}.npz"
        if not path.is_file():
            yield f"{stage}: not kept as arrays, recomputed by every run"
            continue
        good = digest(load_arrays(path)) == entry["content"]
        wrong += [] if good else [str(path)]
        yield f"{stage}: {'ok' if good else 'CHANGED'} {entry['content'][:16]}"
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
