"""Background-only HistFactory workspaces that pyhf, cabinetry and HEPData users read."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyhf

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Template
from gammastar.infer.template import check_modifiers, normsys, shape_modifiers, yields_of

__all__ = ["FLOOR", "MASKED", "POT_NUISANCES", "observations", "workspace"]

FLOOR = 1e-6
"""Expected events put into a bin without background: pyhf has no likelihood for an expectation of zero."""

MASKED = "limit_masked"
"""Name of the measurement while data stay masked: the file itself says that it holds expected counts."""

POT_NUISANCES = ("pot_calibration", "pot_search")
"""Protons on target of the run that measured the dileptons and of the search: two runs, two nuisances."""


def workspace(
    channel_name: str,
    background: npt.ArrayLike | Template,
    background_sigma: float = 0.0,
    observed: npt.ArrayLike | Literal["masked", "asimov"] = "masked",
    *,
    signal_name: str = "signal",
    pot_calibration_sigma: float = 0.0,
    pot_search_sigma: float = 0.0,
    poi_maximum: float = 30.0,
) -> dict[str, Any]:
    """Return a background-only workspace in which a signal of zero events waits for its patch.

    Parameters
    ----------
    channel_name : str
    background : float, array_like of shape (n,), or Template
        Expected events per bin; a template brings its shape variations. All zero means that no background is
        assumed: the sample is then called ``background_zero_assumed``.
    background_sigma : float
        Standard deviation of the logarithm of the background (ln κ).
    observed : array_like of int, shape (n,), or "masked" or "asimov"
        Without an observation the workspace holds the expected background.
    signal_name : str
    pot_calibration_sigma, pot_search_sigma : float
        Standard deviations of the logarithm; 0 leaves the nuisance out (in situ both cancel).
    poi_maximum : float
        Upper bound of the signal strength ``mu``.

    Returns
    -------
    dict
        Valid HistFactory JSON 1.0.0 with one measurement of the parameter ``mu``: ``limit``, or
        ``limit_masked`` without an observation, from which no observed result is ever computed here.

    Raises
    ------
    PhysicsError, NegativeYieldError
        Before any fit, for what HistFactory would refuse late or accept silently.

    Notes
    -----
    L. Heinrich, M. Feickert, G. Stark, K. Cranmer, J. Open Source Softw. 6 (2021) 2823. Nuisances of the same
    name in several channels are one nuisance once the workspaces are combined.

    Examples
    --------
    >>> spec = workspace("dimuons", 0.5, 0.3, pot_search_sigma=0.18)
    >>> [sample["name"] for sample in spec["channels"][0]["samples"]]
    ['signal', 'background']
    """
    shapes = shape_modifiers(background) if isinstance(background, Template) else []
    raw = background.nominal.values() if isinstance(background, Template) else background
    bins = yields_of(raw, f"channel {channel_name!r}, background")
    counts = observations(channel_name, bins, observed)
    if not (np.isfinite(poi_maximum) and poi_maximum > 0):
        msg = f"channel {channel_name!r}: poi_maximum = {poi_maximum!r} must be positive"
        raise PhysicsError(msg)
    pots = zip(POT_NUISANCES, (pot_calibration_sigma, pot_search_sigma), strict=True)
    signal_modifiers = [{"name": "mu", "type": "normfactor", "data": None}]
    for name, sigma in pots:
        signal_modifiers += normsys(name, sigma)
    empty = not bins.any()
    norm = normsys(f"background_norm_{channel_name}", background_sigma)
    spec: dict[str, Any] = {
        "channels": [
            {
                "name": channel_name,
                "samples": [
                    {"name": signal_name, "data": [0.0] * bins.size, "modifiers": signal_modifiers},
                    {
                        "name": "background_zero_assumed" if empty else "background",
                        "data": np.maximum(bins, FLOOR / bins.size).tolist(),
                        "modifiers": [] if empty else [*norm, *shapes],
                    },
                ],
            }
        ],
        "observations": [{"name": channel_name, "data": counts.tolist()}],
        "measurements": [
            {
                "name": MASKED if isinstance(observed, str) else "limit",
                "config": {
                    "poi": "mu",
                    "parameters": [{"name": "mu", "inits": [1.0], "bounds": [[0.0, float(poi_maximum)]]}],
                },
            }
        ],
        "version": "1.0.0",
    }
    for sample in spec["channels"][0]["samples"]:
        check_modifiers(sample["modifiers"], f"channel {channel_name!r}, sample {sample['name']!r}")
    pyhf.schema.validate(spec, "workspace.json")
    return spec


def observations(
    channel: str, background: FloatArray, observed: npt.ArrayLike | Literal["masked", "asimov"]
) -> FloatArray:
    """Return the counts per bin, or the expected background where the data stay masked.

    Raises
    ------
    PhysicsError
        For counts that are not whole or do not fit the bins; the message names the channel.
    """
    if isinstance(observed, str):
        if observed not in {"masked", "asimov"}:
            msg = f"channel {channel!r}: observed = {observed!r} must be counts, 'masked' or 'asimov'"
            raise PhysicsError(msg)
        return np.maximum(background, FLOOR / background.size)
    counts = np.atleast_1d(np.asarray(observed, dtype=np.float64))
    if counts.shape != background.shape:
        msg = f"channel {channel!r}: {counts.shape} observed counts for {background.shape} background bins"
        raise PhysicsError(msg)
    if not np.all(np.isfinite(counts) & (counts >= 0) & (counts == np.rint(counts))):
        msg = f"channel {channel!r}: observed = {observed!r} must be whole numbers >= 0"
        raise PhysicsError(msg)
    return counts
