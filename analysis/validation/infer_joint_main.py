"""The main MOCK job with both likelihoods, many pairs: edges of the joint one over those of the two steps."""

from __future__ import annotations

import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from validation.infer_toys import row

from gammastar.pipeline.run import run
from gammastar.store.manifest import read_json

FOLDER = Path(__file__).resolve().parents[1] / "na60_dimuon"
sys.path.insert(0, str(FOLDER))
from pythia_campaigns import toml  # noqa: E402

MASSES = [0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.9, 1.0]  # GeV
JOINT = {"pt": [0.0, 0.6, 6.0], "energy": [0.2, 20.0, 400.0]}  # GeV, cells
KEPT = 0.95  # of the signal lies in the cells of the joint likelihood: what lies in none of them is left out


def main_job_rows(quick: bool) -> Iterator[dict]:
    """Yield how far the edges of SHiP lie apart, of the same pairs; nothing if `quick`."""
    if quick:
        return
    steering = tomllib.loads((FOLDER / "steering.toml").read_text())
    steering["read"]["schema"] = str(FOLDER / steering["read"]["schema"])
    steering["predict"]["masses"] = MASSES
    del steering["in_situ"], steering["predict"]["n_masses"]
    steering["accept"]["detectors"] = ["ship_ecn3"]
    joint = {"likelihood": "joint", "method": "exact", "joint": JOINT}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        two_step = _edges(folder / "two_step", steering)
        shutil.copytree(folder / "two_step", folder / "joint")
        other = _edges(folder / "joint", steering | {"infer": steering["infer"] | joint})
        pairs = np.genfromtxt(folder / "joint" / "joint_pairs.csv", delimiter=",", names=True)
    both = [m for m in MASSES if m in two_step and m in other]
    low, high, signal = (
        np.array([other[m][key] / two_step[m][key] for m in both])
        for key in ("coupling_low", "coupling_high", "signal")
    )
    all_kept = signal > KEPT
    found = f"{pairs['pairs'].min():.0f} to {pairs['pairs'].max():.0f} pairs in the window"
    for label, ratio, tolerance in (
        ("upper edge in ε", high, 0.06),
        ("lower edge in ε, no signal left out", low[all_kept], 0.06),
        ("lower edge in ε, cells without pairs left out", low[~all_kept], 0.15),
    ):
        text = f"main MOCK job, SHiP, {len(ratio)} masses: {label}, joint over two-step, median"
        source = (
            f"{found}; {ratio.min():.3f} to {ratio.max():.3f}, 300 toys: some 0.03; kinematics of the flow"
        )
        yield row(text, np.median(ratio), 1.0, tolerance, source)


def _edges(output: Path, steering: dict[str, Any]) -> dict[float, dict[str, float]]:
    """Run a steering into a folder, resuming what is there, and return the row of the reach by mass [GeV]."""
    text = "".join(
        f"[{section}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
        for section, table in steering.items()
    )
    path = output.with_suffix(".toml")
    path.write_text(text)
    run(path, output=output, resume=output.is_dir())
    rows = read_json(output / "reach.json")["rows"]
    closed = (one for one in rows if one["part"] == "all" and one["coupling_low"] and one["coupling_high"])
    return {one["mass"]: one for one in closed}
