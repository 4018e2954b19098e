"""How cost grows with pairs, masses, detectors and replicas: slopes, and a figure of them."""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from topics.read import fill, write

from gammastar import accept, flow, report
from gammastar.accept.expected_events import Sight
from gammastar.core.files import data_path
from gammastar.flow import FlowEnsemble
from gammastar.physics.detector import load_detector
from gammastar.physics.qed import RTable
from gammastar.pipeline.record import read_record
from gammastar.pipeline.stages.accept import yields_at
from gammastar.predict import DarkPhoton
from gammastar.predict.mixture import TargetTransfer
from gammastar.predict.production import measured_production
from gammastar.report.style import COLOURS, LINES, house_style, new_figure

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "results" / "na60_dimuon"
N = 5000  # particles per mass
USUAL = {"masses": 20, "detectors": 1, "replicas": 8}
SIZES = {
    "masses": (20, 40, 100, 200, 400),
    "detectors": (1, 2, 5, 10, 20),
    "replicas": (0, 2, 8, 16, 32),
}
EVENTS = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)


def rows() -> Iterator[dict]:
    found = {"events": (EVENTS, _events())}
    if (RECORD / "flow_pairs.json").is_file():
        found |= {name: (sizes, _grown(name, sizes)) for name, sizes in SIZES.items()}
    else:
        print(
            "masses, detectors, replicas: left out, python3 analysis/run.py makes a record", file=sys.stderr
        )
    for name, (sizes, seconds) in found.items():
        few, many = (f"{size:,}".replace(",", " ") for size in (sizes[0], sizes[-1]))
        yield {
            "claim": f"CPU from {few} to {many} {name}, {seconds[0]:.3g} to {seconds[-1]:.3g} s: slope of "
            "its logarithm over the upper half",
            "measured": _slope(sizes, seconds),
            "goal": 1.1,
            "higher": False,
            "unit": "",
        }
    report.save_figure(_figure(found), ROOT / "docs" / "figures" / "growth", dpi=110, formats=("png",))


def _slope(sizes: tuple[int, ...], seconds: list[float]) -> float:
    x, y = np.log(sizes[-3:]), np.log(seconds[-3:])
    return float(np.polyfit(x, y, 1)[0])


def _cpu(task: Callable[[], Any]) -> float:
    start = time.process_time()
    task()
    return time.process_time() - start


def _events() -> list[float]:
    """CPU from files to three histograms by the compiled pass."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for n in EVENTS:
            path = Path(folder) / f"{n}.root"
            write(path, "TTree", n)
            if not seconds:
                fill(path, "30 MB")  # compiles
            seconds.append(_cpu(lambda p=path: fill(p, "30 MB")))
            path.unlink()
    return seconds


def _grown(name: str, sizes: tuple[int, ...]) -> list[float]:
    task = _reach(**USUAL)
    task()  # compiles
    return [_cpu(_reach(**{**USUAL, name: size})) for size in sizes]


def _reach(masses: int, detectors: int, replicas: int) -> Callable[[], None]:
    """Return the expected events of all masses and couplings, from the flow of the main job."""
    record, variations = read_record(RECORD), flow.load_variations(RECORD)
    if variations is None:
        msg = f"{RECORD}: has no replicas"
        raise RuntimeError(msg)
    members = variations.ensemble.members
    weights = None
    if replicas:
        more = tuple(members[k % len(members)] for k in range(replicas))
        weights = replace(variations, ensemble=FlowEnsemble(more)).weights
    photons = replace(record.channel(), replica_weights=weights)
    model = DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    production = measured_production(photons, (), model, record.spectrum.exposure, lambda mass: {})  # noqa: ARG005
    card = load_detector(data_path("detectors/na62_dump.toml"))
    looking = functools.partial(
        Sight.of,
        couplings=np.geomspace(1e-9, 1e-3, 141),
        model=model,
        final_states=("ee", "mumu"),
        measured=accept.Measured(record.spectrum.exposure, "per_interaction"),
    )
    cards = {f"{card.name} {k}": replace(card, name=f"{card.name} {k}") for k in range(detectors)}
    sights = {name: functools.partial(looking, detector=one) for name, one in cards.items()}
    points = np.linspace(*photons.mass_range, masses)

    def task() -> None:
        for i in range(masses):
            yields_at(production, points, sights, (1, N, TargetTransfer(), ()), i)

    return task


def _figure(found: dict[str, tuple[tuple[int, ...], list[float]]]) -> Any:
    """Draw CPU over size, both relative to the first one that is not zero; slopes of the upper half."""
    with house_style():
        figure, axes = new_figure(size=(7.2, 5.0))
        ax = axes[0, 0]
        for (name, (sizes, seconds)), colour, line in zip(found.items(), COLOURS, LINES, strict=False):
            x, y = np.array(sizes, dtype=float), np.array(seconds)
            first = int(np.flatnonzero(x)[0])
            few, many = (f"{int(value):,}".replace(",", " ") for value in (x[first], x[-1]))
            label = f"{name}, {few} to {many} ({y[first]:.2g} to {y[-1]:.2g} s)"
            label += f", slope {_slope(sizes, seconds):.2f}"
            ax.plot(x[first:] / x[first], y[first:] / y[first], "o", ls=line, color=colour, label=label)
        ends = np.array([1.0, 400.0])
        ax.plot(ends, ends, color="0.6", lw=1.0, label="in proportion")
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="size over the smallest",
            ylabel="CPU over that of the smallest",
        )
        ax.legend(loc="upper left", fontsize=10)
    return figure
