"""Peak resident memory of a piece of work in a process of its own: ``_resident.py KIND ARGUMENT …``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import awkward as ak
import uproot

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 5000  # pairs in memory of the measured half
BRANCHES = ("event", "weight", "prescale", "Muon_px", "Muon_py", "Muon_pz", "Muon_charge")
TRUTH = ("gen_mll", "gen_qT", "gen_E", "gen_process")
STEERING = """
[analysis]
name = "memory"
seed = 1
mock = true
[read]
files = ["data_*.root"]
response = ["mc_*.root"]
schema = "schema.toml"
step = 20000
[select]
max_in_memory = LIMIT
mass = { bins = 18, low = 0.2125, high = 1.1125 }
pt = [0.0, 0.5, 6.0]
energy = [0.2, 6.0, 20.0, 40.0, 400.0]
[subtract]
r_factor = "mixed"
r_mult = 1.162
r_mult_sigma = 0.01
[unfold]
n_replicas = 20
[spectrum]
beam_energy = 400.0
target_a = 207.2
target_z = 82.0
thickness = 0.01
pot = 1.2e11
"""


def peak(*arguments: object) -> float:
    """Return the largest resident memory [MB] of this file run with these arguments."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT / "benchmarks")
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split()[-1])


def own_peak() -> float:
    """Return that of this process; ``getrusage`` would count the process that started it."""
    return (
        float(Path("/proc/self/status").read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0]) / 1024
    )


def copies(folder: Path, n: int) -> Path:
    """Write a steering file and `n` copies of the shipped MOCK files, with event numbers of their own."""
    folder.mkdir()
    for kind, branches in (("data", BRANCHES), ("mc", (*BRANCHES, *TRUTH))):
        with uproot.open(ROOT / "data" / "mock" / f"na60_{kind}.root") as file:
            events = file["events"].arrays(list(branches))
        muon = ak.zip({name[5:]: events[name] for name in branches if name.startswith("Muon_")})
        flat = {name: ak.to_numpy(events[name]) for name in branches if not name.startswith("Muon_")}
        for k in range(n):
            own = flat | {"event": flat["event"] + k * 10**10}
            with uproot.recreate(folder / f"{kind}_{k:03d}.root", compression=uproot.ZSTD(1)) as file:
                kinds = {name: column.dtype for name, column in own.items()}
                tree = file.mktree("events", {"Muon": muon.type.content, **kinds})
                tree.extend({"Muon": muon, **own})
    schema = ROOT / "analysis" / "na60_dimuon" / "schema.toml"
    (folder / "schema.toml").write_text(schema.read_text())
    path = folder / "steering.toml"
    path.write_text(STEERING.replace("LIMIT", str(LIMIT)))
    return path


def measured_half(folder: Path, sizes: tuple[int, int]) -> Iterator[dict]:
    """Compare the peaks of the measured half on so many copies of the MOCK files."""
    found = {}
    for n in sizes:
        steering = copies(folder / f"copies {n}", n)
        found[n] = peak("run", steering, folder / f"run {n}")
    few, many = sizes
    shown = f"{found[few]:.0f} and {found[many]:.0f} MB"
    claim = (
        f"peak resident memory of read, select, subtract and unfold with max_in_memory = {LIMIT}: "
        f"{many * 21621 / 1e5:.2g}e5 data events and {many * 100771 / 1e6:.2g}e6 simulated ones over "
        f"{few * 21621 / 1e5:.2g}e5 and {few * 100771 / 1e6:.2g}e6 ({shown})"
    )
    yield {"claim": claim, "measured": found[many] / found[few], "goal": 1.3, "higher": False}


def main() -> None:
    kind, *arguments = sys.argv[1:]
    if kind == "run":
        from gammastar.pipeline.run import run

        run(Path(arguments[0]), output=Path(arguments[1]))
    else:
        sys.path.insert(0, str(ROOT / "benchmarks"))
        from topics import read

        {"histograms": read.fill, "pairs": read.fill_pairs}[kind](Path(arguments[0]), "10 MB")
    print(own_peak())


if __name__ == "__main__":
    main()
