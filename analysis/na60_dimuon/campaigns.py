"""End-to-end pseudo-experiments: ``python3 analysis/na60_dimuon/campaigns.py [-n N] [VARIANT …]``.

Each campaign makes its own MOCK ntuples, data and a simulation of another prior, and goes from the files to
the dark-photon rate and to both edges of the expected reach of a SHiP-like detector. The truth is known, so
pulls and coverage follow. Finished campaigns are kept in ``results/campaigns/`` and are not made again;
``--workers`` and ``--dask`` make them elsewhere.
"""

from __future__ import annotations

import functools
import itertools
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "analysis"), str(Path(__file__).parent)]

from _venv import reenter  # noqa: E402

FOLDER = ROOT / "results" / "campaigns"
VARIANTS = (
    "nominal",
    "no background",
    "R = 1",
    "charm left in",
    "charm subtracted",
    "resolution +10 %",
    "polarisation 0.3",
    "same prior",
    "not tuned",
    "more simulation",
    "not debiased",
)
FIRST_SEED = 1000


def place(output: Path, name: str, i: int) -> Path:
    """Return the file of one campaign."""
    return output / "".join(c if c.isalnum() else "_" for c in name) / f"{i:04d}.npz"


def make(output: Path, name: str, i: int) -> str:
    """Make one campaign unless it is there; it depends on nothing but its arguments."""
    import numpy as np
    from campaign_parts import SETTINGS, campaign

    from gammastar import mock
    from gammastar.core.files import data_path
    from gammastar.store.manifest import atomic

    path = place(output, name, i)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = campaign(mock.load_card(data_path("cards/na60_mock.toml")), SETTINGS[name], FIRST_SEED + i)
        with atomic(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **found)
    return str(path)


def produce(names: list[str], n: int, output: Path, *, executor: Any = None) -> None:
    """Make campaigns until there are `n`, one after the other or on the workers of an executor."""
    for name in names:
        there = len(list(place(output, name, 0).parent.glob("*.npz")))
        new = (i for i in itertools.count() if not place(output, name, i).is_file())
        missing = list(itertools.islice(new, max(n - there, 0)))
        one = functools.partial(make, output, name)
        if executor is not None:
            executor.map(one, missing)
            continue
        for i in missing:
            one(i)
            print(f"\r{name}: {i}", end="", file=sys.stderr, flush=True)


def kept(name: str, n: int, output: Path) -> list[dict[str, Any]]:
    """Return the campaigns that are there, of the first `n`, each with its number as ``index``."""
    import numpy as np

    found = []
    for i in range(n):
        path = place(output, name, i)
        if path.is_file():
            with np.load(path) as arrays:
                results = {key: arrays[key].astype(np.float64) for key in arrays.files}
            found.append(results | {"index": i})
    return found


if __name__ == "__main__":
    reenter("all")
    from campaign_report import main

    main()
