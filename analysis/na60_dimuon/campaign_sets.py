"""Sets of campaigns beside each other: their biases and mean pulls."""

from __future__ import annotations

from typing import Any

import campaign_report as found
import numpy as np
from campaign_truth import Truth
from scipy import stats

__all__ = ["finite", "hotelling", "mean_of", "over_scatter", "sets", "table"]

ENOUGH = 100  # campaigns that tell a bias of a tenth of a standard deviation


def hotelling(values: Any) -> tuple[float, float]:
    """Return χ² of the means with the correlation between masses, and the probability of a larger one.

    Hotelling's T² (Ann. Math. Stat. 2, 360) with the covariance of the values themselves: for n campaigns and
    k masses T² (n − k)/((n − 1) k) follows F with k and n − k degrees of freedom.
    """
    n, k = values.shape
    scaled = values / values.std(axis=0)
    mean = scaled.mean(axis=0)
    squared = float(n * mean @ np.linalg.solve(np.cov(scaled.T), mean))
    return squared, float(stats.f.sf(squared * (n - k) / ((n - 1) * k), k, n - k))


def sets(results: dict[str, list[dict[str, Any]]], known: Truth) -> str:
    """Return bias, mean pull and what errors add to it, mean over masses, of every large set of campaigns."""
    rows = []
    base = results["nominal"]
    scatter = found.rates(base, known)[0].std(axis=0, ddof=1)
    for name, kept in results.items():
        if len(kept) < ENOUGH:
            continue
        offsets, errors = found.rates(kept, known)
        ours, theirs = _same_seeds(kept, base, known)
        less = "" if kept is base else mean_of((ours - theirs) / scatter)
        pulls = offsets / errors
        tests = ["{:.0f} ({:.1g})".format(*hotelling(values)) for values in (offsets, pulls)]
        bias = mean_of(offsets / offsets.std(axis=0, ddof=1))
        part, ratio = f"{found.follows(offsets, errors).mean():+.3f}", over_scatter(offsets, errors)
        width = f"{pulls.std(axis=0, ddof=1).mean():.3f} ± {found.jackknife(pulls):.3f}"
        rows.append(
            (name, f"{len(kept)}", bias, less, tests[0], mean_of(pulls), part, tests[1], width, ratio)
        )
    names = ("campaigns", "n", "bias / scatter", "less nominal, same seeds", "χ² of the biases (probability)")
    more = ("mean pull", "of it by errors", "χ² of the mean pulls (probability)", "width of the pulls")
    more = (*more, "mean error / scatter")
    return table((*names, *more), rows)


def finite(base: list[dict[str, Any]], results: dict[str, list[dict[str, Any]]], known: Truth) -> str:
    """Return the bias that the finite simulation makes and what its bootstraps take away, in sentences."""
    plain = results.get("not debiased", [])
    if len(plain) < 2:
        return "How much is not known: there are no campaigns that leave it in."
    offsets = found.rates(base, known)[0]
    scatter = offsets.std(axis=0, ddof=1)
    biased, ours = _same_seeds(plain, base, known)
    taken, left = (mean_of(x / scatter) for x in (ours - biased, offsets))
    wider = np.mean(ours.std(axis=0, ddof=1) / biased.std(axis=0, ddof=1)) - 1
    return (
        f"Subtracting what its bootstraps show moves it by {taken} standard deviations;\n"
        f"the bias of the {len(base)} nominal campaigns after it is {left}. "
        f"The scatter grows by {100 * wider:.1f} %."
    )


def over_scatter(offsets: Any, errors: Any) -> str:
    """Return the mean estimated error over the scatter, mean over masses, and its error for normal values."""
    ratio = (errors.mean(axis=0) / offsets.std(axis=0, ddof=1)).mean()
    return f"{ratio:.3f} ± {ratio / np.sqrt(2 * offsets.size):.3f}"


def mean_of(values: Any) -> str:
    """Return the mean over masses and campaigns, with the error from campaign to campaign."""
    each = values.mean(axis=1)
    return f"{each.mean():+.3f} ± {each.std(ddof=1) / np.sqrt(len(each)):.3f}"


def _same_seeds(kept: list[dict[str, Any]], base: list[dict[str, Any]], known: Truth) -> tuple[Any, Any]:
    """Return rates less truth of both for the seeds that they share, shape (n, n_measured) each."""
    numbered = [{campaign["index"]: campaign for campaign in one} for one in (kept, base)]
    same = sorted(numbered[0].keys() & numbered[1].keys())
    ours, theirs = (found.rates([one[i] for i in same], known)[0] for one in numbered)
    return ours, theirs


def table(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table of Markdown."""
    lines = [names, tuple("---" for _ in names), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
