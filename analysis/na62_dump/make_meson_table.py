"""Spectra of light mesons from 400 GeV protons on protons, by Pythia 8: the table in data/measurements.

``python3 analysis/na62_dump/make_meson_table.py [EVENTS]`` (needs ``pip install gammastar[pythia]``).
Mesons are counted when they are made, feed-down included, per inelastic interaction.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pythia8mc

OUT = Path(__file__).resolve().parents[2] / "data" / "measurements" / "na62_meson_spectra.csv"
SPECIES = {
    111: "pi0",
    221: "eta",
    331: "eta_prime",
    113: "rho0",
    213: "rho_charged",
    223: "omega",
    333: "phi",
}
MOMENTUM = np.geomspace(1.0, 400.0, 31)  # GeV
PT = np.array([0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.7, 2.5, 6.0])  # GeV
SETTINGS = (
    *("Beams:idA = 2212", "Beams:idB = 2212", "Beams:frameType = 2", "Beams:eA = 400.", "Beams:eB = 0."),
    *("SoftQCD:inelastic = on", "111:mayDecay = off", "Random:setSeed = on", "Random:seed = 62"),
    *("Print:quiet = on", "Next:numberCount = 0"),
)


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    pythia = pythia8mc.Pythia("", False)
    for line in SETTINGS:
        pythia.readString(line)
    pythia.init()
    rows: list[tuple[int, float, float]] = []
    done = 0
    while done < n:
        if not pythia.next():
            continue
        done += 1
        for particle in pythia.event:
            code = abs(particle.id())
            if code in SPECIES:
                # a copy of a particle that only recoiled is the same particle
                if any(pythia.event[i].idAbs() == code for i in particle.daughterList()):
                    continue
                rows.append((code, particle.pAbs(), particle.pT()))
    data = np.array(rows)
    version = pythia.settings.parm("Pythia:versionNumber")
    lines = [
        "# Light mesons per inelastic interaction of a 400 GeV proton with a proton at rest",
        f"# source: Pythia {version:.3f}, SoftQCD:inelastic, {n} events, feed-down included",
        "# made by analysis/na62_dump/make_meson_table.py; licence: BSD-3-Clause (ours)",
        "# mesons below 1 GeV, too soft for any dump detector, are left out",
        "# columns: species; p_low, p_high, pt_low, pt_high [GeV]; number per interaction in the cell",
        "species,p_low,p_high,pt_low,pt_high,number",
    ]
    for code, name in SPECIES.items():
        mine = data[data[:, 0] == code]
        counts, _, _ = np.histogram2d(mine[:, 1], mine[:, 2], bins=(MOMENTUM, PT))
        for i, j in np.argwhere(counts > 0):
            cell = (MOMENTUM[i], MOMENTUM[i + 1], PT[j], PT[j + 1], counts[i, j] / n)
            lines.append(f"{name}," + ",".join(f"{value:.5g}" for value in cell))
        print(f"{name}: {len(mine) / n:.4f} per interaction, {counts.sum() / n:.4f} in the table")
    OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
