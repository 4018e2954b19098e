"""Malformed flow and workspace files: bits, lengths, contents, pickles; nothing runs or loads in silence."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as decode
from safetensors.numpy import save as encode

from gammastar import flow, infer
from gammastar.core.errors import GammastarError
from gammastar.core.sampling import stream
from gammastar.store.folder import read_result
from gammastar.store.manifest import file_sha256, write_json, write_manifest
from injection.damage import pickle_bomb


@dataclass
class Loaded:
    """What a campaign of malformed model files found."""

    files: int = 0
    silent: list[str] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)


def trained(stem: Path) -> None:
    """Train a tiny flow and save it."""
    rng = stream(19, "tiny flow")
    n = 400
    mass = rng.uniform(0.3, 1.0, n)
    pt = rng.gamma(2.0, 0.3, n)
    energy = np.sqrt(mass**2 + pt**2) + rng.exponential(20.0, n) + 5.0
    options = flow.FlowOptions(bins=4, hidden=8, layers=1, epochs=1, epoch_size=256, batch=128)
    found = flow.fit(mass, pt, energy, np.ones(n), beam_energy=400.0, options=options, rng=rng)
    flow.save(found, stem)


def bytes_of(data: bytes, n: int, *names: str) -> Iterator[tuple[str, bytes]]:
    """Yield damaged copies of a file."""
    rng = stream(23, *names)
    for i in range(n):
        copy_ = bytearray(data)
        for position in rng.integers(0, len(data), 1 if i % 2 else 10):
            copy_[position] ^= 1 << int(rng.integers(8))
        yield f"bits {i}", bytes(copy_)
        yield f"truncated {i}", data[: int(rng.integers(0, len(data)))]


def tensors(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield flows with another architecture or wrong numbers."""
    sound = decode(data)
    for name, array in sound.items():
        yield f"without {name}", encode({k: v for k, v in sound.items() if k != name})
        if array.size:
            nan = array.copy()
            nan.flat[0] = np.nan if array.dtype.kind == "f" else 7
            yield f"nan in {name}", encode(sound | {name: nan})
            yield f"{name} longer", encode(sound | {name: np.concatenate([array.ravel(), array.ravel()])})


def cards(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield JSON files with a key less, of another type, or not finite."""
    sound = json.loads(data)
    for key in sound:
        yield f"without {key}", json.dumps({k: v for k, v in sound.items() if k != key}).encode()
        for wrong in (None, float("nan"), [], {"a": 1}, "text"):
            yield f"{key} = {wrong}", json.dumps(sound | {key: wrong}).encode()


def workspaces(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield workspaces that are JSON and say something else."""
    yield from cards(data)
    sound = json.loads(data)
    for value in (float("nan"), float("inf"), -1.0, "1e-6", None, 1e300):
        changed = copy.deepcopy(sound)
        changed["channels"][0]["samples"][0]["data"][0] = value
        yield f"data = {value}", json.dumps(changed).encode()
    yield "deep", b'{"channels": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    yield "doubled key", data.rstrip()[:-1] + b', "channels": []}'


def _attempt(
    found: Loaded, what: str, load: Callable[[], Any], same: Callable[[Any], bool], mark: Path
) -> None:
    found.files += 1
    try:
        result = load()
    except GammastarError:
        pass
    except Exception as error:  # noqa: BLE001 - whatever else comes out is what is looked for
        found.crashed.append(f"{what}: {type(error).__name__}: {str(error)[:100]}")
    else:
        if not same(result):
            found.silent.append(what)
    if mark.exists():
        found.executed.append(what)
        mark.unlink()


def attack_flows(folder: Path, n: int) -> Loaded:
    """Load damaged copies of a flow."""
    found, mark, stem = Loaded(), folder / "executed", folder / "bad"
    trained(folder / "sound")
    original = flow.load(folder / "sound")
    expected = flow.digest(original.to_tensors())
    parts = {suffix: (folder / f"sound{suffix}").read_bytes() for suffix in (".safetensors", ".json")}

    def same(result: Any) -> bool:
        return bool(flow.digest(result.to_tensors()) == expected and result.card() == original.card())

    every: list[tuple[str, str, bytes]] = []
    for suffix, data in parts.items():
        every += [(suffix, what, bad) for what, bad in bytes_of(data, n, suffix)]
        every += [(suffix, "pickle", pickle_bomb(mark)), (suffix, "empty", b"")]
    every += [(".safetensors", what, bad) for what, bad in tensors(parts[".safetensors"])]
    every += [(".json", what, bad) for what, bad in cards(parts[".json"])]
    for suffix, what, bad in every:
        for other, data in parts.items():
            stem.with_suffix(other).write_bytes(bad if other == suffix else data)
        _attempt(found, f"{suffix} {what}", lambda: flow.load(stem), same, mark)
    return found


def attack_workspaces(folder: Path, n: int) -> Loaded:
    """Load damaged copies of a workspace that a manifest knows."""
    found, mark = Loaded(), folder / "executed"
    shutil.rmtree(folder / "results", ignore_errors=True)
    path = folder / "results" / "workspace.json"
    spec = infer.workspace("counting", 0.5, 0.3, [1], pot_search_sigma=0.2)
    write_json(path, spec)
    write_manifest(path.parent, {"files": {path.name: file_sha256(path)}})
    data = path.read_bytes()
    expected = read_result(path.parent, path.name)
    every = [*bytes_of(data, n, "workspace"), *workspaces(data)]
    every += [("pickle", pickle_bomb(mark)), ("empty", b"")]
    for what, bad in every:
        path.write_bytes(bad)
        load = lambda: read_result(path.parent, path.name)  # noqa: E731
        _attempt(found, f"workspace {what}", load, lambda result: bool(result == expected), mark)
    return found
