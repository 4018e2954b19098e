"""Five small jobs whose numbers are pinned: digests of what they make, and sums that any machine can compare.

``python3 tests/golden/runs.py before.json`` before a change, ``… after.json --compare before.json`` after it:
every array of every stage and every number of the CSV and JSON files must be the same to the last bit on one
machine. ``tests/golden/numbers.json`` holds sums of the jobs without a flow, which a test compares at 1e-9;
``… --pin`` writes it anew: say in the changelog, under *Physics*, what moved.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gammastar.facility import open_executor
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.run import run

ROOT = Path(__file__).resolve().parents[2]
SMALL = ROOT / "analysis" / "na60_dimuon"
NUMBERS = Path(__file__).with_name("numbers.json")
PINNED = ("theory", "millicharge", "stored")
"""Jobs without a flow or trained weights, whose numbers do not depend on the machine."""
OWN = {"created", "versions", "host", "seconds", "duration", "code", "platform", "started", "finished_at"}
THEORY = """
[analysis]
name = "theory"

[predict]
source = "theory"
beam_energy = 400.0
channels = ["pseudoscalar_dalitz", "vector_dalitz", "vector_mesons", "bremsstrahlung"]
masses = [0.1, 0.25, 0.4, 0.6]
n_sample = 2000

[accept]
detectors = ["ship_ecn3", "na62_dump"]
interaction_length = 0.15

[infer]
coupling = [1e-9, 1e-3]
n_couplings = 41
submission = false
min_effective = 3.0

[systematics]
nuisances = ["pot", "spectrum", "polarisation", "widths", "sample"]
"""
CHARGED = """
[predict.millicharge]
masses = [0.02, 0.15, 0.3]
channels = ["pion_dalitz", "pseudoscalar_dalitz", "jpsi"]
n_sample = 2000

[accept]
millicharge_detectors = ["mcp_bars"]
"""


def _small(*, flow: bool) -> str:
    """Return the steering of the first look; without a flow its kinematics are those of the histogram."""
    text = (SMALL / "small.toml").read_text().replace('"schema.toml"', f'"{SMALL / "schema.toml"}"')
    text = text.replace("n_masses = 20", "n_masses = 8").replace("n_sample = 4_000", "n_sample = 1_000")
    text = text.replace("n_couplings = 61", "n_couplings = 31").replace(
        "max_patches = 50", "max_patches = 10"
    )
    text = text.replace("[infer]\n", "[infer]\nsubmission = false\n")  # it repeats the numbers of the tables
    if flow:
        return text.replace("epochs = 4", "epochs = 1")
    head, rest = text.split("[flow]")
    rest = rest[rest.index("[predict]") :].split("[report]")[0]
    head = head.replace("[subtract]", '[subtract]\nweights = "signed"')
    return head + rest.replace("[predict]", '[predict]\nsampler = "histogram"')


def steerings() -> dict[str, tuple[str, int]]:
    """Return the steering of each job and its number of workers, 0 for none."""
    plain = _small(flow=False)
    return {
        "small": (_small(flow=True).split("[report]")[0], 0),
        "theory": (THEORY, 0),
        "millicharge": (plain.replace("[accept]\n", CHARGED), 0),
        "workers": (plain, 2),
        "stored": (plain.replace("[select]", "[select]\nmax_in_memory = 5000"), 0),
    }


def made(name: str, folder: Path) -> Path:
    """Run a job and return the folder of its results."""
    text, workers = steerings()[name]
    path = folder / f"{name}.toml"
    path.write_text(text)
    if not workers:
        return run(path, output=folder / name)
    with open_executor(workers=workers) as executor:
        return run(path, output=folder / name, executor=executor)


def contents(results: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every array of every stage, and the numbers of each CSV and JSON file of a result folder."""
    for path in sorted((results / "stages").glob("*.npz")):
        for name, array in load_arrays(path).items():
            yield f"{path.name}|{name}", np.asarray(array)
    for path in sorted(results.glob("*.csv")):
        with path.open(encoding="utf-8") as file:
            rows = list(csv.reader(file))
        yield path.name, np.array([_number(cell) for row in rows[1:] for cell in row])
    for path in sorted(results.glob("*.json")):
        if path.name not in ("manifest.json", "steering.json"):
            yield path.name, np.array(list(_numbers(json.loads(path.read_text(encoding="utf-8")))))


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _numbers(content: object) -> Iterator[float]:
    if isinstance(content, dict):
        for key in sorted(content):
            if key not in OWN:
                yield from _numbers(content[key])
    elif isinstance(content, list):
        for value in content:
            yield from _numbers(value)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield float(content)


def digests(results: Path) -> dict[str, str]:
    """Return a digest of each item, for comparisons on one machine."""
    return {
        name: hashlib.sha256(
            f"{a.dtype.kind}{a.shape}".encode() + np.ascontiguousarray(a).tobytes()
        ).hexdigest()
        for name, a in contents(results)
    }


def sums(results: Path) -> dict[str, list[float]]:
    """Return size, sum and sum of magnitudes of each array of numbers: what other machines can compare."""
    found = {}
    for name, array in contents(results):
        if array.dtype.kind in "fiu" and array.size:
            values = array.astype(np.float64).ravel()
            values = values[np.isfinite(values)]
            found[name] = [float(array.size), float(values.sum()), float(np.abs(values).sum())]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, nargs="?", help="digests, JSON")
    parser.add_argument("--compare", type=Path, help="digests of before")
    parser.add_argument("--jobs", nargs="*", default=list(steerings()))
    parser.add_argument("--pin", action="store_true", help=f"write {NUMBERS.name}")
    options = parser.parse_args()
    found, numbers = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.jobs:
            results = made(name, Path(folder))
            found[name] = digests(results)
            if name in PINNED:
                numbers[name] = sums(results)
            print(f"{name}: {len(found[name])} items", flush=True)  # noqa: T201
    if options.output:
        options.output.write_text(json.dumps(found, indent=0, sort_keys=True))
    if options.pin:
        NUMBERS.write_text(json.dumps(numbers, indent=0, sort_keys=True) + "\n")
    if options.compare is None:
        return 0
    before, moved = json.loads(options.compare.read_text()), []
    for name, items in found.items():
        known = before.get(name, {})
        moved += [
            f"{name}: {key}" for key in sorted(set(items) | set(known)) if items.get(key) != known.get(key)
        ]
    print("\n".join(moved) or "nothing moved")  # noqa: T201
    return 1 if moved else 0


if __name__ == "__main__":
    sys.exit(main())
