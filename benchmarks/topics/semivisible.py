"""Cascades against DarkNews, a whole plane for one model, and the precision of the prompt table.

All in seconds of processor time, one core.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from gammastar import semivisible
from gammastar.core.constants import ALPHA
from gammastar.core.sampling import stream
from gammastar.semivisible import babar
from gammastar.semivisible.cascade import decay_states
from gammastar.semivisible.decays import decay_table

N = 200_000
GENERATOR, DECAYS = 1.3e3, 4.3e4  # events/s of DarkNews 0.4.8 on two cores, where it is not installed


def _best(run: Callable[[], object], repeat: int = 3) -> float:
    times = []
    for _ in range(repeat):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def rows() -> Iterator[dict]:
    card = semivisible.load_babar()
    table = decay_table(semivisible.load_benchmark("AHP2020-B").sector())
    babar.cascades(table, card, 10, stream(1))  # compiled once
    cascades = N / _best(lambda: babar.cascades(table, card, N, stream(1)))
    single = decay_table(semivisible.load_benchmark("iDM-040").sector(1.0))
    rest = np.tile([0.0, 0.0, 0.0, single.masses[1]], (N, 1))
    decay_states(single, 1, rest[:10], stream(2))
    decays = N / _best(lambda: decay_states(single, 1, rest, stream(2)))
    weighted = effective = DECAYS
    generator, label = GENERATOR, "rate noted for two cores"
    if importlib.util.find_spec("DarkNews") is not None:
        generator, weighted, effective = _darknews()
        label = "side by side"
    yield {
        "claim": f"full cascades (ISR to laboratory) over DarkNews' generator, {label}",
        "measured": cascades / generator,
        "goal": 100.0,
    }
    for text, rate in (("weighted events", weighted), ("effective number of events", effective)):
        yield {
            "claim": f"decays ψ → ψ′ee at rest, unweighted, over DarkNews' {text}, {label}",
            "measured": decays / rate,
            "goal": 10.0,
        }
    mass, epsilon = np.geomspace(0.05, 7.9, 60), np.geomspace(1e-5, 0.1, 60)
    model = semivisible.load_benchmark("i2DM-talk").sector
    semivisible.scan(model, mass[:1], epsilon[:2], options=semivisible.Options(n=10))
    start = time.process_time()
    semivisible.scan(model, mass, epsilon, options=semivisible.Options(n=100_000))
    yield {
        "claim": "plane of 60 × 60, 1e5 events per mass, BaBar with its band and both modes of NA64",
        "measured": time.process_time() - start,
        "goal": 60.0,
        "unit": " s of one core",
        "higher": False,
    }
    prompt = replace(card, radius=np.inf)
    events = babar.cascades(decay_table(model(1.25)), card, 400_000, stream(3))
    p = babar.missing(events, prompt, [1.0], stream(4), band=False)
    yield {
        "claim": f"relative error of the prompt table at P_miss = {p.value[0]:.2g}, 4e5 events",
        "measured": 100 * float(p.error[0] / p.value[0]),
        "goal": 5.0,
        "unit": " %",
        "higher": False,
    }
    tight = replace(prompt, threshold=0.0, thresholds=(), angles=())
    table = decay_table(model(1.25))
    start = time.process_time()
    rare = semivisible.prompt_missing(table, tight, 20_000, stream(5))
    spent = time.process_time() - start
    start = time.process_time()
    babar.missing(babar.cascades(table, tight, 400_000, stream(6)), tight, [1.0], stream(7), band=False)
    plain = time.process_time() - start
    needed = plain / 400_000 * rare.value[0] / rare.error[0] ** 2
    yield {
        "claim": f"importance sampling over plain events, same error, at P_miss = {rare.value[0]:.2g}",
        "measured": float(needed / spent),
        "goal": 10.0,
    }


def _darknews() -> tuple[float, float, float]:
    """Return events per second of DarkNews: full generator; decays with their adaptation, and effectively."""
    from DarkNews import integrands, model, pdg, processes
    from DarkNews.GenLauncher import GenLauncher

    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        launcher = GenLauncher(
            mzprime=1.25, m4=0.14, neval=10_000, HNLtype="dirac", path=folder, loglevel="ERROR"
        )
        frame = launcher.run()
        generator = len(frame) / (time.process_time() - start)
    theory = model.GenericHNLModel(
        m4=1 / 3,
        m5=1.4 / 3,
        mzprime=1.0,
        HNLtype="majorana",
        d_45=1.0,
        deV=1e-3 * np.sqrt(4 * np.pi * ALPHA),
    )
    case = processes.FermionDileptonDecay(pdg.neutrino5, pdg.neutrino4, pdg.electron, pdg.positron, theory)
    start = time.process_time()
    samples, weights = case.SamplePS(NINT_sample=1, NEVAL_sample=N)
    n = samples.shape[1]
    at_rest = np.tile([1.4 / 3, 0.0, 0.0, 1e-9], (n, 1))
    integrands.get_decay_momenta_from_vegas_samples(samples, case, at_rest)
    spent = time.process_time() - start
    w = weights["diff_decay_rate_0"]
    return generator, n / spent, float(w.sum() ** 2 / (w**2).sum()) / spent
