"""Hadrons that Pythia generated once, kept in a folder for campaigns that share them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import mock
from gammastar.mock.pythia import Pool

POOLS = ("soft", "charm_pool", "photons")


def kept_engine(card: mock.Card, n: int, folder: Path, *, seed: int, workers: int) -> mock.PythiaEngine:
    """Return Pythia's hadrons of `n` inelastic events, generated where the folder does not hold them."""
    path = folder / f"{card.digest[:16]}_{n}_{seed}.npz"
    if not path.is_file():
        engine = mock.pythia_engine(card, n, seed=seed, workers=workers)
        made = {name: getattr(engine, name) for name in POOLS if getattr(engine, name) is not None}
        arrays: dict[str, Any] = {
            f"{name}.arrays.{key}": a for name, p in made.items() for key, a in p.arrays.items()
        }
        about = [field.name for field in fields(Pool) if field.name != "arrays"]
        arrays |= {f"{name}.{key}": getattr(pool, key) for name, pool in made.items() for key in about}
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path.with_suffix(".part.npz"), **arrays)
        path.with_suffix(".part.npz").rename(path)
    with np.load(path) as kept:
        return mock.PythiaEngine(**{name: _pool(kept, name) for name in POOLS})


def _pool(kept: Any, name: str) -> Pool | None:
    start = f"{name}.arrays."
    arrays = {key.removeprefix(start): kept[key] for key in kept.files if key.startswith(start)}
    if not arrays:
        return None
    return Pool(
        arrays, str(kept[f"{name}.process"]), str(kept[f"{name}.system"]), int(kept[f"{name}.n_events"])
    )
