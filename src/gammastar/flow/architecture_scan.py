"""A scan of architectures."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.core.files import Pathlike, from_json, text_of, write_whole
from gammastar.core.records import FloatArray
from gammastar.core.sampling import stream
from gammastar.flow.divergence import kl_divergence
from gammastar.flow.model import KinematicFlow
from gammastar.flow.options import FlowOptions, PairTable
from gammastar.flow.paper import PaperFlow
from gammastar.flow.training import fit_pairs, fit_paper

PAPER_GRID: Mapping[str, Sequence[Any]] = {"steps": (4, 8, 12), "layers": (1, 2, 3), "hidden": (16, 32, 64)}
"""Flow steps, hidden layers and features: what Appendix A of the data-driven paper varies."""


@dataclass(frozen=True, slots=True)
class ScanPoint:
    """One training of a scan."""

    changes: dict[str, Any]  # Options that differ from the base
    seed: int
    parameters: int  # Trained numbers
    loss: float  # −⟨ln p⟩ of the test pairs, p in GeV⁻²
    divergence: tuple[float, ...]  # Mean KL of model and test pairs at each mass [nat]


def scan(
    pairs: PairTable,
    test: FloatArray,
    *,
    beam_energy: float,
    base: FlowOptions,
    file: Pathlike,
    grid: Mapping[str, Sequence[Any]] = PAPER_GRID,
    masses: Sequence[float] = (0.3, 0.7, 1.0),
    seeds: Sequence[int] = (1, 2),
    **settings: Any,
) -> list[ScanPoint]:
    """Train every combination of a grid with every seed; what `file` holds already is not trained again.

    Parameters
    ----------
    pairs : PairTable
        Training pairs, weighted.
    test : NDArray, shape (m, 3) [GeV]
        Unweighted mass, pt, energy of pairs that take no part in any training.
    beam_energy : float [GeV]
    base : FlowOptions
        Its preset decides the architecture; `FlowOptions.paper(...)` for the paper's.
    file : path
        JSON lines, one per training; written again after each.
    grid : mapping of option name to values
        The paper's by default.
    masses : sequence of float [GeV]
        Centres of windows of ±30 MeV for the divergence.
    **settings
        ``n_draws`` of the divergence (10), ``progress``: called as ``progress(done, total)``.

    Returns
    -------
    list of ScanPoint

    Raises
    ------
    PhysicsError
        If an option of the grid is unknown.
    """
    file = Path(file)
    unknown = set(grid) - set(asdict(base))
    if unknown:
        msg = f"scan: {', '.join(sorted(unknown))} is no option of FlowOptions"
        raise PhysicsError(msg)
    n_draws: int = settings.pop("n_draws", 10)
    progress: Callable[[int, int], None] | None = settings.pop("progress", None)
    if settings:
        msg = f"scan: unknown settings {', '.join(sorted(settings))}"
        raise PhysicsError(msg)
    done = _read(file)
    points = [
        (dict(zip(grid, values, strict=True)), seed)
        for values in itertools.product(*grid.values())
        for seed in seeds
    ]
    result = []
    for number, (changes, seed) in enumerate(points):
        key = _key(changes, seed, base)
        if key not in done:
            options = FlowOptions(**(asdict(base) | changes))
            train = fit_paper if options.preset == "paper" else fit_pairs
            flow: KinematicFlow | PaperFlow = train(
                pairs, beam_energy=beam_energy, options=options, rng=stream(seed, "scan", key)
            )
            divergence = _divergences(flow, test, masses, n_draws, seed)
            loss = float(-flow.log_prob(*test[_inside(test, flow)].T).mean())
            trained = (t for name, t in flow.to_tensors().items() if not name.startswith("base."))
            size = sum(t.size for t in trained if t.dtype == np.float32)
            done[key] = asdict(ScanPoint(changes, seed, size, loss, divergence))
            lines = (json.dumps({"key": k, **v}, sort_keys=True) for k, v in done.items())
            write_whole(file, ("\n".join(lines) + "\n").encode())
        entry = done[key]
        result.append(ScanPoint(**{**entry, "divergence": tuple(entry["divergence"])}))
        if progress is not None:
            progress(number + 1, len(points))
    return result


def _key(changes: Mapping[str, Any], seed: int, base: FlowOptions) -> str:
    return f"{json.dumps(changes, sort_keys=True)} seed {seed} of {base}"


def _read(file: Path) -> dict[str, dict[str, Any]]:
    if not file.is_file():
        return {}
    found = {}
    for number, line in enumerate(text_of(file).splitlines(), start=1):
        try:
            entry = from_json(line)
            found[entry.pop("key")] = entry
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            msg = f"{file}, line {number}: no result of a scan ({error}); delete the line or the file"
            raise PhysicsError(msg) from error
    return found


def _inside(test: FloatArray, flow: KinematicFlow | PaperFlow) -> Any:
    low, high = flow.mass_range
    return (test[:, 0] >= low) & (test[:, 0] <= high)


def _divergences(
    flow: KinematicFlow | PaperFlow, test: FloatArray, masses: Sequence[float], n_draws: int, seed: int
) -> tuple[float, ...]:
    means = []
    for mass in masses:
        data = test[(np.abs(test[:, 0] - mass) < 0.03) & _inside(test, flow)]
        rng = stream(seed, "scan", "divergence", f"{mass}")
        drawn = [np.log(np.stack(flow.sample(data[:, 0], rng), axis=-1)) for _ in range(n_draws)]
        means.append(float(np.mean([kl_divergence(one, np.log(data[:, 1:])) for one in drawn])))
    return tuple(means)
