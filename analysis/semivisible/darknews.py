"""DarkNews events through our chain: ``python3 analysis/semivisible/darknews.py FILE --ctau 1.0 --pot 1e21``.

Reads parquet or HepMC, selects lepton pairs, decays the dark states inside a volume with analytic weights
and writes a pyhf workspace with one signal patch. The weights of DarkNews refer to the exposure of its
experiment, which the files do not tell: name it with --pot, and your own with --search-pot.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--ctau",
        type=float,
        nargs="+",
        required=True,
        help="proper decay length [m] of each parent, light to heavy",
    )
    parser.add_argument("--expected", type=float, help="sum of weights, of a HepMC file that has none")
    parser.add_argument("--pot", type=float, required=True, help="protons on target of the file's weights")
    parser.add_argument("--search-pot", type=float, help="protons on target of the search (default: --pot)")
    parser.add_argument("--radius", type=float, default=5.0, help="decay volume: cylinder along z [m]")
    parser.add_argument("--z", type=float, nargs=2, default=(-5.0, 5.0), help="its ends [m]")
    parser.add_argument("--min-energy", type=float, default=0.14, help="of the pair [GeV]")
    parser.add_argument("--background", type=float, default=0.0)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "darknews")
    options = parser.parse_args()
    reenter("all")
    from darknews_events import decay_probability
    from darknews_files import read_darknews

    from gammastar import infer, select
    from gammastar.physics.geometry import Cylinder

    events = read_darknews(options.file, expected=options.expected)
    volume = Cylinder(radius=options.radius, z0=options.z[0], z1=options.z[1])
    inside = decay_probability(events, volume, events.per_parent(options.ctau))[0]
    scale = (options.search_pot or options.pot) / options.pot
    cuts = select.Cuts(pair={"energy": (options.min_energy, float("inf"))})
    pairs, cutflow = select.pairs(events.leptons(events.weight * inside * scale), cuts)
    signal = float(pairs.weight[pairs.os].sum())
    error = float((pairs.weight[pairs.os] ** 2).sum() ** 0.5)
    mass = float(events.parents[-1])  # names the patch: the heaviest of the parents
    workspace = infer.workspace("decays", options.background)
    patches = infer.patchset(workspace, [mass], [1.0], [signal])
    options.output.mkdir(parents=True, exist_ok=True)
    for name, content in (("workspace", workspace), ("patchset", patches)):
        (options.output / f"{name}.json").write_text(json.dumps(content, indent=1))
    limit = float(infer.counting_limit(0, options.background))
    total, relative = events.weight.sum(), 100 * events.relative_error
    print(f"{len(events)} events, sum of weights {total:.4g} (± {relative:.1f} %)")
    print(f"decays inside, selected: {signal:.4g} ± {error:.2g} (statistics of the file)")
    print(f"90 % CL limit with {options.background:g} background: {limit:.3g}; r = {signal / limit:.3g}")
    print(f"{len(pairs)} pairs after {len(cutflow.steps)} steps; written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
