"""Pulls, coverage and impacts of pseudo-experiments, as tables and figures."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

import campaigns
import numpy as np
from campaign_bias import statistics
from campaign_parts import MASS, N_PAIRS
from campaign_truth import Truth, curves, edges, truth

__all__ = ["correlation", "impacts", "main", "summary"]

N_VARIANT = 30
SIDES = ("lower", "upper")
PRIOR = 0.5  # of the shift that tuning the simulation makes, as a standard deviation


def signal(found: dict[str, Any], known: Truth, *, everything: bool) -> tuple[Any, Any, Any]:
    """Return expected events and their errors down and up, shape (n_mass, n_couplings) each.

    With `everything` the cells outside the domain follow the simulation, scaled per mass to the measured
    ones; their error is the shift under one standard deviation of each parameter of the simulation, down and
    up by themselves: a steeper slope adds more to the cells outside than a flatter one takes away.
    """
    shape, inside, weight = known.cells.shape, known.domain, known.events
    n, size = shape[0], int(np.prod(shape[1:]))
    values = np.where(inside, found["values"].reshape(shape), 0.0)
    shift = np.where(inside, (found["untuned"] - found["values"]).reshape(shape), 0.0)
    derivative = np.where(inside[..., None], weight, 0.0)
    extra = [0.0, 0.0]
    if everything:
        outside = _outside(found["shape"], inside, weight)
        moved = [
            [_outside(found["shape"] * r, inside, weight) - outside for r in pair] for pair in known.moved
        ]
        derivative = derivative + inside[..., None] * outside[:, None, None]
        total = values.sum(axis=(1, 2))[:, None]
        sides = (-np.min(moved, axis=1, initial=0.0), np.max(moved, axis=1, initial=0.0))
        extra = [np.sqrt(np.sum(side**2, axis=0)) * total for side in sides]
    events = np.einsum("ijk,ijkl->il", values, derivative)
    variance = np.zeros_like(events)
    for i in range(n):
        block = found["cov"][i * size : (i + 1) * size, i * size : (i + 1) * size]
        d = derivative[i].reshape(size, -1)
        variance[i] = np.einsum("cl,cd,dl->l", d, block, d)
    prior = PRIOR * np.einsum("ijk,ijkl->il", shift, derivative)
    down, up = (np.sqrt(variance + prior**2 + side**2) for side in extra)
    return events, down, up


def _outside(shape: Any, inside: Any, weight: Any) -> Any:
    """Return simulated events from outside the domain per photon inside, shape (n_mass, n_couplings)."""
    events = np.einsum("ijk,ijkl->il", np.where(inside, 0.0, shape), weight)
    base = np.where(inside, shape, 0.0).sum(axis=(1, 2))[:, None]
    return np.divide(events, base, out=np.zeros_like(events), where=base > 0)


def rates(results: list[dict[str, Any]], known: Truth) -> tuple[Any, Any]:
    """Return rate less truth and its estimated error, shape (n_campaigns, n_measured)."""
    true = np.where(known.domain, known.cells, 0.0).sum(axis=(1, 2))
    has = true > 0  # a mass without a measured cell has no rate
    rows, errors = [], []
    for found in results:
        values, shift, cov = projected(found, known)
        rows.append((values - true)[has])
        errors.append(np.sqrt(np.diag(cov) + (PRIOR * shift) ** 2)[has])
    return np.array(rows), np.array(errors)


def pulls(results: list[dict[str, Any]], known: Truth) -> Any:
    """Return pulls of the rate in the measured domain, shape (n_campaigns, n_measured)."""
    offsets, errors = rates(results, known)
    return offsets / errors


def projected(found: dict[str, Any], known: Truth) -> tuple[Any, Any, Any]:
    """Return rate, shift by the prior and covariance of the masses, in the measured domain."""
    shape, mask = known.cells.shape, known.domain.ravel()
    n, size = shape[0], int(np.prod(shape[1:]))
    cov = (found["cov"] * np.outer(mask, mask)).reshape(n, size, n, size).sum(axis=(1, 3))
    rows = [np.where(mask, found[name], 0.0).reshape(n, size).sum(axis=1) for name in ("values", "untuned")]
    return rows[0], rows[1] - rows[0], cov


def correlation(results: list[dict[str, Any]], known: Truth) -> tuple[Any, Any]:
    """Return the correlation of the pulls between masses and the mean of the estimated ones."""
    estimated = []
    for found in results:
        _, shift, cov = projected(found, known)
        cov = cov + PRIOR**2 * np.outer(shift, shift)
        has = np.diag(cov) > 0
        cov = cov[np.ix_(has, has)]
        root = np.sqrt(np.diag(cov))
        estimated.append(cov / np.outer(root, root))
    return np.corrcoef(pulls(results, known).T), np.mean(estimated, axis=0)


def covered(results: list[dict[str, Any]], known: Truth, *, everything: bool) -> tuple[Any, Any]:
    """Return whether the interval holds the true edge, and the shift of log10: (n_campaigns, n_mass, 2)."""
    cells = known.cells if everything else np.where(known.domain, known.cells, 0.0)
    wanted = edges(np.einsum("ijk,ijkl->il", cells, known.events))
    wanted[~known.domain.any(axis=(1, 2))] = np.nan
    inside, shift = [], []
    for found in results:
        events, *sigma = signal(found, known, everything=everything)
        down, up = (edges(curve) for curve in curves(events, *sigma))
        # more signal lowers the lower and raises the upper edge; a curve that stays below has no edge
        low = np.where(np.isnan(down), np.inf, down)[:, 0]
        high = np.where(np.isnan(down), -np.inf, down)[:, 1]
        good = [(up[:, 0] <= wanted[:, 0]) & (wanted[:, 0] <= low)]
        good.append((high <= wanted[:, 1]) & (wanted[:, 1] <= up[:, 1]))
        inside.append(np.where(np.isfinite(wanted), np.stack(good, axis=1), np.nan))
        shift.append(edges(events) - wanted)
    return np.array(inside), np.array(shift)


def summary(name: str, results: list[dict[str, Any]], known: Truth) -> dict[str, Any]:
    """Return mean and width of the pulls, coverage of both edges and their shifts, with errors."""
    found = pulls(results, known)
    n = len(found)
    row: dict[str, Any] = {"variant": name, "n": n}
    row["pull mean"], row["pull mean error"] = found.mean(), found.mean(axis=1).std(ddof=1) / np.sqrt(n)
    row["pull width"] = found.std(axis=0, ddof=1).mean()
    row["pull width error"] = jackknife(found)
    for part, everything in (("measured", False), ("all", True)):
        inside, shift = covered(results, known, everything=everything)
        for s, side in enumerate(SIDES):
            per_campaign = np.nanmean(inside[..., s], axis=1)
            row[f"coverage {side}, {part}"] = per_campaign.mean()
            row[f"coverage {side}, {part}, error"] = per_campaign.std(ddof=1) / np.sqrt(n)
            row[f"shift log10 {side}, {part}"] = np.nanmean(shift[..., s])
    return row


def bias(offsets: Any) -> Any:
    """Return the mean of rate less truth over its scatter, shape (n_measured,); error 1/√n.

    Unlike a mean pull it does not depend on the estimated errors.
    """
    return offsets.mean(axis=0) / offsets.std(axis=0, ddof=1)


def follows(offsets: Any, errors: Any) -> Any:
    """Return what errors that follow the rate add to a mean pull, shape (n_measured,).

    ⟨d/σ⟩ = ⟨d⟩/⟨σ⟩ − cov(d, σ)/⟨σ⟩² to first order in the scatter of σ: the second term.
    """
    d, e = offsets - offsets.mean(axis=0), errors - errors.mean(axis=0)
    return -(d * e).sum(axis=0) / (len(d) - 1) / errors.mean(axis=0) ** 2


def jackknife(found: Any) -> float:
    """Return the standard error of the mean width over masses, leaving out one campaign at a time."""
    n = len(found)
    widths = [np.delete(found, i, axis=0).std(axis=0, ddof=1).mean() for i in range(n)]
    return float(np.sqrt((n - 1) * np.var(widths)))


def per_mass(results: list[dict[str, Any]], known: Truth) -> dict[str, Any]:
    """Return pulls and coverage of every mass."""
    offsets, errors = rates(results, known)
    found, has = offsets / errors, known.domain.any(axis=(1, 2))
    measured, _ = covered(results, known, everything=False)
    whole, _ = covered(results, known, everything=True)
    columns = {
        "mass": (0.5 * (np.array(MASS[:-1]) + MASS[1:]))[has],
        "bias": bias(offsets),
        "follows": follows(offsets, errors),
        "pull_mean": found.mean(axis=0),
        "pull_width": found.std(axis=0, ddof=1),
        "pull_width_error": [jackknife(column[:, None]) for column in found.T],
    }
    for part, inside in (("measured", measured), ("all", whole)):
        for s, side in enumerate(SIDES):
            columns[f"coverage_{side}_{part}"] = inside[..., s].mean(axis=0)[has]
    return {key: [float(x) for x in values] for key, values in columns.items()}


def impacts(base: list[dict[str, Any]], other: list[dict[str, Any]], known: Truth) -> dict[str, float]:
    """Return mean shifts of log10 ε against the same seeds of the nominal campaigns, and their errors."""
    numbered = [{found.get("index", i): found for i, found in enumerate(r)} for r in (base, other)]
    same = sorted(numbered[0].keys() & numbered[1].keys())
    base, other = ([found[i] for i in same] for found in numbered)
    n = len(same)
    row: dict[str, float] = {"n": n}
    first, second = (covered(r, known, everything=False)[1] for r in (base, other))
    for s, side in enumerate(SIDES):
        difference = np.nanmean(second[..., s] - first[..., s], axis=1)
        row[f"{side}"] = float(difference.mean())
        row[f"{side} error"] = float(difference.std(ddof=1) / np.sqrt(n))
        reached = ~np.isnan(first[..., s]).any(axis=0) & ~np.isnan(second[..., s]).any(axis=0)
        each = np.abs(np.mean((second - first)[:, reached, s], axis=0))
        row[f"{side} largest"] = float(each.max(initial=0.0))
    rates = [np.array([projected(f, known)[0] for f in r]) for r in (base, other)]
    row["rate"] = float(np.mean(rates[1].sum(axis=1) / rates[0].sum(axis=1) - 1))
    return row


def _card() -> Any:
    from gammastar import mock
    from gammastar.core.files import data_path

    return mock.load_card(data_path("cards/na60_mock.toml"))


def prepared(
    names: list[str], n: int, output: Path, detector: str = "ship_ecn3"
) -> tuple[Truth, dict[str, list[dict[str, Any]]]]:
    """Return the truth, with the events in a detector, and the campaigns that are there."""
    suffix = "" if detector == "ship_ecn3" else f"_{detector}"
    known = truth(_card(), output / f"truth{suffix}.npz", detector)
    return known, {name: campaigns.kept(name, n, output) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=campaigns.__doc__)
    parser.add_argument(
        "variant", nargs="*", metavar="VARIANT", help=", ".join(campaigns.VARIANTS).replace("%", "%%")
    )
    parser.add_argument("-n", type=int, help=f"campaigns per variant [100 nominal, {N_VARIANT} others]")
    parser.add_argument("--workers", type=int, help="local processes")
    parser.add_argument("--dask", metavar="ADDRESS", help="scheduler, or 'local'")
    parser.add_argument("--output", type=Path, default=campaigns.FOLDER, help="where they are kept")
    parser.add_argument("--impacts", type=Path, help="folder of the variants, if it is another one")
    options = parser.parse_args()
    unknown = set(options.variant) - set(campaigns.VARIANTS)
    if unknown:
        parser.error(f"unknown variant {sorted(unknown)}")
    names = options.variant or list(campaigns.VARIANTS)
    with contextlib.ExitStack() as stack:
        executor = None
        if options.workers or options.dask:
            from gammastar.facility import open_executor

            executor = stack.enter_context(open_executor(workers=options.workers, dask=options.dask))
        for name in names:
            wanted = options.n or (100 if name == "nominal" else N_VARIANT)
            campaigns.produce([name], wanted, options.output, executor=executor)
    report(names, options.output, sys.stdout.write, compared=options.impacts)


def report(names: list[str], output: Path, say: Any, *, compared: Path | None = None) -> None:
    """Write the tables and the figure of the campaigns that are there.

    Variants are compared with nominal campaigns of the same seeds, both in the folder `compared` if given.
    """
    from gammastar.store.manifest import write_table

    known, found = prepared(names, 100_000, output)
    others = found if compared is None else prepared(names, 100_000, compared)[1]
    rows = [summary(name, results, known) for name, results in found.items() if len(results) > 1]
    for row in rows:
        say(", ".join(f"{k} {v:.4g}" if not isinstance(v, str) else v for k, v in row.items()) + "\n")
    if rows:
        write_table(output / "campaigns.csv", {key: [row[key] for row in rows] for key in rows[0]})
    base = found.get("nominal") or []
    if len(base) < 2:
        return
    from campaign_page import write_page

    if output == campaigns.FOLDER:
        write_page(known, base, others, statistics(_card(), known, output / "statistics.npz"), N_PAIRS)
    write_table(output / "per_mass.csv", per_mass(base, known))
    table = {
        name: impacts(others["nominal"], results, known)
        for name, results in others.items()
        if name != "nominal" and len(results) > 1
    }
    for name, row in table.items():
        say(f"{name}: " + ", ".join(f"{k} {v:+.4f}" for k, v in row.items()) + "\n")
    if table:
        keys = list(next(iter(table.values())))
        write_table(
            output / "impacts.csv",
            {"variant": list(table)} | {k: [row[k] for row in table.values()] for k in keys},
        )
