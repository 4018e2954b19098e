"""Appendix A of the data-driven paper on MOCK pairs: ``python3 analysis/na60_dimuon/architectures.py``.

Trains every architecture of a grid with several seeds, and prints loss and divergence on pairs that trained
nothing. Finished trainings are lines of ``results/na60_dimuon/flow/architectures.jsonl``, not made again.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402

SEED, MASSES, HALF_WINDOW, N_DRAWS = 43, (0.3, 0.7, 1.0), 0.03, 10  # GeV
GRIDS = {
    "paper": {"steps": (4, 8, 12), "layers": (1, 2, 3), "hidden": (16, 32, 64)},
    "default": {"bins": (8, 16), "layers": (1, 2), "hidden": (32, 48, 64)},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=list(GRIDS), default="paper")
    parser.add_argument(
        "--grid", action="append", default=[], metavar="OPTION=A,B", help="instead of Appendix A"
    )
    parser.add_argument("--epochs", type=int, help="of every training [the preset's]")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("-n", type=int, default=100_000, help="pairs of the training")
    folder = ROOT / "results" / "na60_dimuon" / "flow"
    parser.add_argument("-o", "--output", type=Path, default=folder / "architectures.jsonl")
    options = parser.parse_args()
    reenter("all")
    grid = {name: ast.literal_eval(f"({values},)") for name, values in (g.split("=") for g in options.grid)}
    show(scan(options, grid or GRIDS[options.preset]))
    return 0


def scan(options: argparse.Namespace, grid: dict[str, tuple]) -> list[dict]:
    """Train what the file does not hold yet, and return a row per training."""
    import numpy as np
    from na60_dimuon.paper_flow import STEPS, fit_paper, paper_options
    from validation.flow_mock import BEAM, RANGE, pairs

    from gammastar import flow
    from gammastar.core.sampling import stream
    from gammastar.flow.options import Table

    train, test = (pairs(options.n, stream(SEED, name))[0] for name in ("train", "test"))
    changes = {"mass_range": RANGE} | ({} if options.epochs is None else {"epochs": options.epochs})
    paper = options.preset == "paper"
    base = (paper_options if paper else flow.FlowOptions)(**changes)
    table = Table(*train.T, np.ones(len(train)), np.arange(len(train)))
    file = options.output
    file.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    known, rows = {row["key"]: row for row in done}, []
    for values in itertools.product(*grid.values()):
        for seed in range(1, options.seeds + 1):
            point = dict(zip(grid, values, strict=True))
            steps = {"steps": point.pop("steps", STEPS)} if paper else {}
            wanted = flow.FlowOptions(**(asdict(base) | point))
            key = f"{wanted} {steps} n {options.n} seed {seed}"
            if key not in known:
                fit = fit_paper if paper else flow.fit_pairs
                found = fit(table, beam_energy=BEAM, options=wanted, rng=stream(seed, "scan", key), **steps)
                row = {"key": key, "point": " ".join(f"{k}={v}" for k, v in zip(grid, values, strict=True))}
                row["parameters"] = sum(one.numel() for one in _network(found).parameters())
                row["loss"] = float(-found.log_prob(*test.T).mean())
                row["divergence"] = [_divergence(found, test, mass, seed) for mass in MASSES]
                with file.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")
                known[key] = row
            rows.append(known[key])
    return rows


def _network(found):
    """Return the torch module of a flow."""
    return found.network if hasattr(found, "network") else found.zuko


def _divergence(found, test, mass: float, seed: int) -> float:
    """Return the mean divergence of draws and test pairs about a mass [nat]."""
    import numpy as np

    from gammastar.core.sampling import stream
    from gammastar.flow import kl_divergence

    data, rng = test[np.abs(test[:, 0] - mass) < HALF_WINDOW], stream(seed, "divergence", f"{mass}")
    drawn = [np.log(np.stack(found.sample(data[:, 0], rng), axis=-1)) for _ in range(N_DRAWS)]
    return float(np.mean([kl_divergence(one, np.log(data[:, 1:])) for one in drawn]))


def show(rows: list[dict]) -> None:
    """Print a line per architecture: parameters, loss and divergences, mean and spread over the seeds."""
    import numpy as np

    print("architecture, parameters, loss [nat], KL [nat] at " + ", ".join(f"{m:g} GeV" for m in MASSES))
    for name, group in itertools.groupby(rows, key=lambda row: row["point"]):
        some = list(group)
        loss, kl = np.mean([r["loss"] for r in some]), np.array([r["divergence"] for r in some])
        spread = kl.std(axis=0, ddof=1) if len(some) > 1 else np.full(len(MASSES), np.nan)
        cells = "  ".join(f"{a:+.4f} ± {b:.4f}" for a, b in zip(kl.mean(axis=0), spread, strict=True))
        print(f"{name:34s} {some[0]['parameters']:8d} {loss:9.4f}  {cells}")


if __name__ == "__main__":
    sys.exit(main())
