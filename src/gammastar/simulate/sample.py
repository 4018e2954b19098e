"""A mock sample: branches, record, digest of the content, several blocks as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import awkward as ak
import numpy as np

__all__ = ["ContentDigest", "SimulatedEvents", "combined_meta", "joined", "shifted"]

ADDED = ("N_POT", "n_generated", "n_events", "n_bursts")


class ContentDigest:
    """SHA-256 of names, types and values of branches and of the record: of blocks as of the whole."""

    def __init__(self) -> None:
        self._parts: dict[str, Any] = {}

    def _add(self, name: str, values: Any) -> None:
        array = np.ascontiguousarray(values)
        if name not in self._parts:
            self._parts[name] = hashlib.sha256(f"{name} {array.dtype.str}".encode())
        self._parts[name].update(array.tobytes())

    def update(self, branches: Mapping[str, Any]) -> None:
        """Take the entries of a block."""
        for name, values in branches.items():
            members = getattr(values, "fields", [])
            if not members:
                self._add(name, values)
                continue
            self._add(f"n{name}", ak.to_numpy(ak.num(values)).astype(np.int64))
            for member in members:
                self._add(f"{name}.{member}", ak.to_numpy(ak.flatten(values[member])))

    def hexdigest(self, meta: Mapping[str, Any]) -> str:
        """Return the digest of what was taken and of the record of the sample."""
        total = hashlib.sha256()
        for name in sorted(self._parts):
            total.update(f"{name} {self._parts[name].hexdigest()}".encode())
        total.update(json.dumps(dict(meta), sort_keys=True, default=float).encode())
        return total.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedEvents:
    """A mock sample.

    Attributes
    ----------
    branches : mapping of str to array, equal lengths
        ``Muon`` is a jagged record array (px, py, pz [GeV], charge, chi2match, dx, dy [µm]; with truth also
        motherPdg, gen_px, gen_py, gen_pz, motherIdx (the same for muons of one photon) and decayZ [cm],
        where the muon was born, along the beam from the interaction), the others are flat. Weights are
        ``weight × prescale``.
    meta : mapping
        Exposure, sums of weights per process, seed, card digest, background and its R.
    """

    branches: Mapping[str, Any]
    meta: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.branches["event"])

    @property
    def digest(self) -> str:
        """SHA-256 of the content: names, types and values of all branches, and the record."""
        total = ContentDigest()
        total.update(self.branches)
        return total.hexdigest(self.meta)

    def meta_branches(self) -> dict[str, Any]:
        """Return `meta` as branches of one entry; nested keys are joined with an underscore."""
        flat: dict[str, Any] = {}
        for key, value in self.meta.items():
            items = (
                {f"{key}_{name}": item for name, item in value.items()}
                if isinstance(value, Mapping)
                else {key: value}
            )
            flat |= items
        return {
            key: ak.Array([value]) if isinstance(value, str) else np.array([value])
            for key, value in flat.items()
        }


def shifted(block: SimulatedEvents, events: int, bursts: int, per_burst: int) -> SimulatedEvents:
    """Return a block whose events and bursts are counted from these numbers.

    Without a spectrometer that knows bursts, each has `per_burst` events.
    """
    if events == 0:
        return block
    branches = dict(block.branches)
    branches["event"] = branches["event"] + np.int64(events)
    if "n_bursts" in block.meta:
        branches["burst"] = branches["burst"] + np.int32(bursts)
    else:
        branches["burst"] = (branches["event"] // per_burst).astype(np.int32)
    return replace(block, branches=branches)


def combined_meta(metas: Sequence[Mapping[str, Any]], *, shared_engine: bool = False) -> dict[str, Any]:
    """Return the record of a sample from those of its blocks.

    Parameters
    ----------
    metas : sequence of mapping
        Exposures, events and sums of weights add up; all else is that of the first block.
    shared_engine : bool
        All blocks were made from the same generated events, which count once.
    """
    first = dict(metas[0])
    if len(metas) == 1:
        return first
    for key in ADDED:
        if key in first:
            first[key] = sum(meta[key] for meta in metas)
    first["sum_weights"] = {
        key: sum(meta["sum_weights"][key] for meta in metas) for key in first["sum_weights"]
    }
    if "pot_per_burst" in first:
        first["pot_per_burst"] = first["N_POT"] / first["n_bursts"]
    if "pythia_events" in first and not shared_engine:
        counts = np.array([meta["pythia_events"] for meta in metas], dtype=np.float64)
        first["pythia_events"] = int(counts.sum())
        share = counts / counts.sum()
        first["pythia_sigma_mb"] = float(np.dot(share, [meta["pythia_sigma_mb"] for meta in metas]))
        first["pythia_multiplicity"] = {
            key: float(np.dot(share, [meta["pythia_multiplicity"][key] for meta in metas]))
            for key in first["pythia_multiplicity"]
        }
    return first


def joined(blocks: Sequence[SimulatedEvents], *, shared_engine: bool = False) -> SimulatedEvents:
    """Return several blocks as one sample."""
    if len(blocks) == 1:
        return blocks[0]
    branches = {
        key: ak.concatenate([block.branches[key] for block in blocks])
        if key == "Muon"
        else np.concatenate([block.branches[key] for block in blocks])
        for key in blocks[0].branches
    }
    meta = combined_meta([block.meta for block in blocks], shared_engine=shared_engine)
    return SimulatedEvents(branches, meta)
