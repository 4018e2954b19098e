"""Upper limits as records that say how they were made."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import pyhf
from pyhf.infer.intervals.upper_limits import toms748_scan

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Limit
from gammastar.infer.exact import Nuisance, counting_limit, expected_limits
from gammastar.infer.workspace import workspace

__all__ = ["ASYMPTOTIC_FROM", "Method", "upper_limit"]

Method: TypeAlias = Literal["exact", "marginalised", "none", "asymptotic"]

ASYMPTOTIC_FROM = 20.0
"""Events below which the asymptotic formulae give limits that are too strong (40 % at b = 0.01)."""

_NUISANCE: dict[str, Nuisance] = {"exact": "plug-in", "marginalised": "marginalised", "none": "none"}


def upper_limit(
    background: float,
    background_sigma: float,
    observed: int | Literal["masked", "asimov"],
    *,
    signal_sigma: float = 0.0,
    cl: float = 0.90,
    method: Method = "exact",
    randomise_pot: bool = True,
) -> Limit:
    """Return the CLs upper limit on the number of signal events of a counting search.

    Parameters
    ----------
    background : float
        Expected background events; 0 means that none is assumed.
    background_sigma, signal_sigma : float
        Standard deviations of the logarithm (ln κ); for two POT nuisances add them in quadrature.
    observed : int or "masked" or "asimov"
        Without an observation `Limit.observed` is nan and the median of the bands is the result.
    cl : float
        Confidence level.
    method : {"exact", "marginalised", "none", "asymptotic"}
        "exact": all counts enumerated, nuisances at their fitted values; "marginalised": averaged over them;
        "none": without nuisances; "asymptotic": profile likelihood with pyhf, for large counts.
    randomise_pot : bool
        Let the measurement of the protons on target vary in the expected bands of the exact methods, which
        otherwise have no width without background.

    Returns
    -------
    Limit

    Raises
    ------
    PhysicsError
        For values outside their domain.

    Notes
    -----
    A. L. Read, J. Phys. G 28 (2002) 2693 (CLs); G. Cowan et al., Eur. Phys. J. C 71 (2011) 1554 (asymptotic).

    Examples
    --------
    >>> limit = upper_limit(0.0094, 1.386, 0, signal_sigma=0.1823)
    >>> round(limit.observed, 3), limit.method.split(",")[0]
    (2.486, 'exact CLs by enumeration')
    """
    if method not in get_args(Method):
        msg = f"upper_limit: method = {method!r} must be one of {', '.join(get_args(Method))}"
        raise PhysicsError(msg)
    if isinstance(observed, str) and observed not in {"masked", "asimov"}:
        msg = f"upper_limit: observed = {observed!r} must be a count, 'masked' or 'asimov'"
        raise PhysicsError(msg)
    count = None if isinstance(observed, str) else observed
    nuisance = _NUISANCE.get(method, "none")  # the exact limit also checks every value
    exact = counting_limit(
        np.rint(background) if count is None and np.isfinite(background) else (count or 0),
        background,
        signal_sigma=signal_sigma,
        background_sigma=background_sigma,
        cl=cl,
        nuisance=nuisance,
    )
    if method == "asymptotic":
        return _asymptotic(background, (signal_sigma, background_sigma), count, cl)
    bands = expected_limits(
        background,
        signal_sigma=signal_sigma,
        background_sigma=background_sigma,
        cl=cl,
        nuisance=nuisance,
        randomise_pot=randomise_pot,
    )
    label = _label(nuisance, (signal_sigma, background_sigma), varied=randomise_pot)
    if background == 0:
        label += ", b = 0 assumed"
    return Limit(np.nan if count is None else float(exact), bands, cl, label, 0.0)


def _label(nuisance: Nuisance, sigmas: tuple[float, float], *, varied: bool) -> str:
    treatment = {
        "plug-in": "nuisances at fitted values with fixed auxiliaries",
        "marginalised": "nuisances averaged",
        "none": "no nuisances",
    }[nuisance]
    text = f"exact CLs by enumeration, {treatment}"
    if nuisance != "none":
        text += f" (signal κ {np.exp(sigmas[0]):.4g}, background κ {np.exp(sigmas[1]):.4g})"
        if varied and sigmas[0] > 0:
            text += ", POT varied in the bands"
    return text


def _asymptotic(background: float, sigmas: tuple[float, float], count: int | None, cl: float) -> Limit:
    """Return the limit from pyhf's asymptotic formulae for q̃μ."""
    # μ in units of about the limit, so that the scan is bracketed and the fit well scaled
    scale = 2.0 + 1.6 * float(np.hypot(np.sqrt(background), sigmas[1] * background))
    scale += 0.0 if count is None else max(0.0, count - background)
    spec = workspace(
        "counting",
        background,
        sigmas[1],
        "asimov" if count is None else [count],
        pot_search_sigma=sigmas[0],
        poi_maximum=40.0,
    )
    spec["channels"][0]["samples"][0]["data"] = [scale]
    model_workspace = pyhf.Workspace(spec)
    model = model_workspace.model(modifier_settings={"normsys": {"interpcode": "code4"}})
    observed, expected = toms748_scan(
        model_workspace.data(model), model, 0.01, 15.0, level=1.0 - cl, rtol=1e-5
    )
    bands: FloatArray = scale * np.asarray(expected, dtype=np.float64)
    label = f"asymptotic CLs (pyhf {pyhf.__version__}, q̃μ)"
    events = background if count is None else min(background, float(count))
    if events < ASYMPTOTIC_FROM:
        label += f", too strong at fewer than {ASYMPTOTIC_FROM:g} events: use the exact method"
    return Limit(np.nan if count is None else scale * float(observed), bands, cl, label, 0.0)
