"""Mesons of 70 GeV protons, the table that NuCal needs: ``python3 analysis/beam_dumps/mesons_70gev.py``.

Pythia makes inelastic pp collisions; the spectra are fitted with the two forms of the table at 400 GeV, and
the multiplicities are those of Pythia times measured (NA27) over Pythia at 400 GeV. Factors to a nucleus,
uncertainties and decays are those of the table at 400 GeV.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402

CODES = {"pi0": 111, "eta": 221, "eta_prime": 331, "rho": 113, "omega": 223, "phi": 333}
EVENTS = {70.0: 200_000, 400.0: 60_000}
REFERENCE = 400.0
HEADER = """# Light mesons of 70 GeV protons, per inelastic interaction: analysis/beam_dumps/mesons_70gev.py
# multiplicity: Pythia {version} in pp at 70 GeV, times (NA27 at 400 GeV)/(Pythia at 400 GeV).
# p0 [GeV], n, y_width: fits to the same events (pT by maximum likelihood, width of the c.m. rapidity).
# a_factor, sigma and decays: those of mesons_400gev.toml, where each has its source.
"""


def sample(energy: float, n: int) -> tuple[dict, int]:
    """Return pT and rapidity in the proton-nucleon frame of every meson, and the number of events."""
    import awkward as ak
    import numpy as np
    import pythia8mc

    from gammastar.mock import pythia
    from gammastar.physics.mesons import beam_frame

    generator = pythia8mc.Pythia("", False)
    for line in (*pythia.settings(energy), "Random:seed = 70"):
        generator.readString(line)
    generator.init()
    y_beam = beam_frame(energy)[1]
    found: dict[str, list] = {name: [] for name in CODES}
    done = 0
    while done < n:
        particles = generator.nextBatch(2_000, errorMode="skip").prt
        done += len(particles)
        flat = ak.flatten(particles)
        code = ak.to_numpy(flat.id)
        for name, wanted in CODES.items():
            p = {key: ak.to_numpy(flat.p[key][code == wanted]) for key in ("px", "py", "pz", "e")}
            transverse = np.maximum((p["e"] - p["pz"]) * (p["e"] + p["pz"]), 1e-12)
            y = np.arcsinh(p["pz"] / np.sqrt(transverse)) - y_beam
            found[name].append(np.stack([np.hypot(p["px"], p["py"]), y]))
    return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}, done


def fit(pt) -> tuple[float, float]:
    """Return p0 [GeV] and n of dN/dpT ∝ pT (1 + (pT/p0)²)^−n by maximum likelihood."""
    import numpy as np
    from scipy.optimize import minimize

    def cost(x):
        p0, n = np.exp(x[0]), 1.0 + np.exp(x[1])
        return n * np.log1p((pt / p0) ** 2).mean() - np.log(2 * (n - 1) / p0**2)

    best = minimize(cost, [np.log(0.8), np.log(4.0)], method="Nelder-Mead")
    return float(np.exp(best.x[0])), float(1.0 + np.exp(best.x[1]))


def main() -> None:
    reenter("all")
    import numpy as np

    from gammastar.core.files import data_path
    from gammastar.mock import pythia
    from gammastar.physics.mesons import MesonTable

    reference = data_path("measurements/mesons_400gev.toml")
    measured = MesonTable.read(reference).mesons
    events = {energy: sample(energy, n) for energy, n in EVENTS.items()}
    version = pythia.version()
    lines = [HEADER.format(version=version)]
    source = f"Pythia {version} at 70 GeV, scaled to NA27 at 400 GeV; Particle Data Group; assumed A-factors"
    lines.append(f'source = "{source}"')
    for name, code in CODES.items():
        per_event = {energy: found[name].shape[1] / n for energy, (found, n) in events.items()}
        pt, y = events[70.0][0][name]
        p0, power = fit(pt)
        old = measured[name]
        multiplicity = per_event[70.0] * old.multiplicity / per_event[REFERENCE]
        print(f"{name}: Pythia {per_event[70.0]:.4g} at 70 GeV, {per_event[REFERENCE]:.4g} at 400 GeV")
        lines += [
            f"\n[mesons.{name}]",
            f"pdg = {code}",
            f"multiplicity = {multiplicity:.4g}",
            f"a_factor = {old.a_factor}",
            f"sigma = {old.sigma}",
            f"p0 = {p0:.4g}",
            f"n = {power:.4g}",
            f"y_width = {np.std(y):.4g}",
        ]
    blocks = reference.read_text().split("[[decays]]")[1:]
    kept = [block for block in blocks if any(f'parent = "{name}"' in block for name in CODES)]
    text = "\n".join(lines) + "\n\n" + "".join(f"[[decays]]{block}" for block in kept)
    target = ROOT / "data" / "measurements" / "mesons_70gev.toml"
    target.write_text(text.rstrip() + "\n")
    print(f"written: {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
