"""PHENIX' published limit and a MOCK search in situ in one likelihood: ``combined.py [-o FOLDER]``.

A demonstration. Of PHENIX are the observed and the expected number of candidates at each mass; the other
search is MOCK. Both have one parameter, ε² over that of the label. Figure and ``combined_mock.csv``.
"""

from __future__ import annotations

import argparse
import csv
import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402

if __name__ == "__main__":
    reenter("all")

import numpy as np  # noqa: E402
from phenix_tables import best, candidates, published, recomputed  # noqa: E402
from scipy.optimize import brentq  # noqa: E402
from scipy.stats import norm  # noqa: E402

from gammastar import infer  # noqa: E402
from gammastar.core.constants import M_E  # noqa: E402
from gammastar.core.records import FloatArray  # noqa: E402
from gammastar.core.sources import Source, Sources  # noqa: E402
from gammastar.infer.histfactory.patchsets import peak_workspace  # noqa: E402
from gammastar.infer.histfactory.workspaces import assemble, sample  # noqa: E402
from gammastar.physics.detector import MassResolution  # noqa: E402
from gammastar.predict.in_situ import (  # noqa: E402
    Background,
    InSitu,
    Templates,
    search_in_situ,
    signal_per_coupling,
)

CL = 0.9
MOCK_PAIRS = 4e6  # below 0.1 GeV, of the MOCK search
MOCK_RESOLUTION = 0.003  # GeV
PARTS = 20  # of a candidate
SIGNAL_ERROR = 0.05  # of the MOCK search


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """Fitted candidates at each mass as published limits imply them.

    Attributes
    ----------
    mass : NDArray, shape (n,) [GeV]
    fitted, sigma : NDArray, shape (n,)
        Candidates, and their standard deviation without signal.
    signal : NDArray, shape (n,)
        Expected candidates per ε².
    """

    mass: FloatArray
    fitted: FloatArray
    sigma: FloatArray
    signal: FloatArray


def counted() -> Counted:
    """Return what observed and expected limits say of the fitted candidates.

    Notes
    -----
    A normal estimate with standard deviation σ has the CLs limit ŝ + σ Φ⁻¹(1 − α Φ(ŝ/σ)), α = 1 − CL. So σ is
    the expected limit over Φ⁻¹(1 − α/2), and the observed limit gives ŝ. That PHENIX' limits are of this
    kind is an assumption; the published bands at ±1 and ±2 σ test it.
    """
    limit, table = recomputed(), published("phenix_2015/fig3d")
    observed, expected = table.columns[0].values, table.columns[1].values
    sigma = expected / norm.ppf(1 - (1 - CL) / 2)
    fitted = [
        s * brentq(lambda z, target=n / s: z + norm.ppf(1 - (1 - CL) * norm.cdf(z)) - target, -8, 20)
        for n, s in zip(observed, sigma, strict=True)
    ]
    return Counted(limit.mass, np.array(fitted), sigma, observed / limit.observed)


def bands() -> FloatArray:
    """Return the published bands of the candidates over those of normal estimates, shape (n, 4)."""
    columns = published("phenix_2015/fig3d").columns
    expected, m1, p1, m2, p2 = (column.values for column in columns[1:6])
    sigma = expected / norm.ppf(1 - (1 - CL) / 2)
    normal = [z + norm.ppf(1 - (1 - CL) * norm.cdf(z)) for z in (-2, -1, 1, 2)]
    return np.stack([m2, m1, p1, p2], axis=1) / (sigma[:, None] * normal)


def counting_workspace(found: Counted, i: int, coupling2: float) -> dict[str, Any]:
    """Return a counting channel with the fitted candidates of mass number `i`, at strength one for ε².

    A background of σ² candidates, known exactly, has the standard deviation σ. All is counted in parts of a
    candidate, k of them with a background of k²σ², so that the Poisson distribution is a normal one.
    """
    background = (PARTS * float(found.sigma[i])) ** 2
    samples = [
        sample("signal", [PARTS * coupling2 * found.signal[i]], signal=True),
        sample("background", [background]),
    ]
    counts = [round(background + PARTS * float(found.fitted[i]))]
    return assemble({"phenix_2015": samples}, {"phenix_2015": counts})


def mock_search(mass: FloatArray, *, pairs: float = MOCK_PAIRS, seed: int = 1) -> InSitu:
    """Return a MOCK search in situ for A′ → e⁺e⁻ at some masses [GeV].

    Poisson numbers around the smooth published dN/dm from 0.02 to 0.1 GeV, all virtual photons; search,
    signal and errors are the package's.
    """
    edges = np.linspace(0.02, 0.1, 81)
    centre = 0.5 * (edges[1:] + edges[:-1])
    density = np.exp(best(candidates()).log_density(np.concatenate([centre, mass])))
    scale = pairs / float((density[: len(centre)] * np.diff(edges)).sum())
    smooth = scale * density[: len(centre)] * np.diff(edges)
    signal = signal_per_coupling(mass, scale * density[len(centre) :], np.ones(len(mass)), M_E)
    resolution = MassResolution.gaussian(0.06, MOCK_RESOLUTION)
    known = Background(3, smooth, np.zeros((0, 80)), np.zeros(0), np.zeros(0), np.zeros((0, 80)), ())
    data = np.random.default_rng(seed).poisson(smooth).astype(np.float64)
    sources = Sources((Source.shifted("measurement", "spectrum", SIGNAL_ERROR * signal),))
    return search_in_situ(Templates(edges, data, known, resolution, 4.0), mass, signal, sources)


def workspaces(found: Counted, search: InSitu, i: int, at: int, coupling2: float) -> list[dict[str, Any]]:
    """Return the channel of PHENIX at mass number `i`, the search at its mass number `at`, and both together.

    All three have the parameter ``mu``, which is ε² over `coupling2`.
    """
    window = search.window(at)
    both = np.diag(search.sources.total())[at]
    peak = peak_workspace(
        "in_situ",
        coupling2 * search.signal[at] * window.peak,
        window,
        errors={"signal_in_situ": float(np.sqrt(both)) / float(search.signal[at])},
        spurious=float(search.spurious[at]),
        observed=np.rint(search.templates.pairs)[window.bins],
    )
    first = counting_workspace(found, i, coupling2)
    return [first, peak, infer.combine([first, peak])]


def limit(workspace: Mapping[str, Any]) -> float:
    """Return the observed asymptotic CLs limit on ``mu``."""
    import pyhf

    space = pyhf.Workspace(workspace)
    model = space.model()
    data = space.data(model)

    @functools.cache  # each end of the interval is asked for twice
    def missing(mu: float) -> float:
        cls = float(pyhf.infer.hypotest(mu, data, model, test_stat="qtilde"))
        return float(np.log(max(cls, 1e-12) / (1 - CL)))

    low = high = 1.0
    while missing(high) > 0:
        high *= 1.5
    while missing(low) < 0:
        low /= 1.5
    return float(brentq(missing, low, high, rtol=1e-3))


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """Limits on ε² per mass: of PHENIX, of the MOCK search, of both, and of both as normal estimates."""

    mass: FloatArray
    phenix: FloatArray
    mock: FloatArray
    both: FloatArray
    normal: FloatArray


def combined(masses: FloatArray) -> Combined:
    """Return the limits at some of PHENIX' masses [GeV]."""
    found = counted()
    at = [int(np.argmin(np.abs(found.mass - m))) for m in masses]
    search = mock_search(found.mass[at])
    start = recomputed().observed
    rows = []
    for k, i in enumerate(at):
        spaces = workspaces(found, search, i, k, float(start[i]))
        rows.append([start[i] * limit(space) for space in spaces])
    return Combined(found.mass[at], *np.array(rows).T, normal_limits(found, search, at))


def normal_limits(found: Counted, search: InSitu, at: list[int]) -> FloatArray:
    """Return the CLs limit on ε² of the product of two normal likelihoods; no error of the signal."""
    value = np.stack([found.fitted[at] / found.signal[at], search.fits.fitted / search.signal])
    spurious = np.hypot(search.fits.error, search.spurious)
    error = np.stack([found.sigma[at] / found.signal[at], spurious / search.signal])
    weight = error**-2
    mean, sigma = (weight * value).sum(axis=0) / weight.sum(axis=0), weight.sum(axis=0) ** -0.5
    return np.asarray(mean + sigma * norm.ppf(1 - (1 - CL) * norm.cdf(mean / sigma)))


def figure(found: Combined):
    """Return the three limits over the mass."""
    from gammastar.report import style

    with style.house_style():
        drawn, axes = style.new_figure(size=(7.6, 5.4))
        ax, m = axes[0, 0], 1e3 * found.mass
        for k, (values, name) in enumerate(
            [
                (found.phenix, "PHENIX, from published candidates"),
                (found.mock, "MOCK search in situ"),
                (found.both, "both in one likelihood"),
            ]
        ):
            ax.plot(m, values, style.LINES[k], color=style.COLOURS[k], label=name)
        ax.plot(m, found.normal, "o", color="black", fillstyle="none", label="product of normal likelihoods")
        ax.set(
            xlabel="$m_{A′}$ [MeV]",
            ylabel=r"observed $\varepsilon^2$, 90 % CL",
            yscale="log",
            ylim=(9e-7, 7e-6),
            xlim=(m[0] - 1, m[-1] + 1),
        )
        ax.legend(loc="upper left")
        style.header(drawn, "MOCK combination: a demonstration, no result")
    return drawn


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "phenix_2015")
    options = parser.parse_args()
    from gammastar import report

    options.output.mkdir(parents=True, exist_ok=True)
    found = combined(np.arange(0.035, 0.086, 0.005))
    with (options.output / "combined_mock.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["mass_GeV", "phenix", "mock_in_situ", "both_mock", "normal_mock"])
        rows = zip(found.mass, found.phenix, found.mock, found.both, found.normal, strict=True)
        writer.writerows([f"{x:.6g}" for x in row] for row in rows)
    report.save_figure(figure(found), options.output / "combined_mock")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    sys.exit(main())
