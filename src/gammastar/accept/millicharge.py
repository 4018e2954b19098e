"""Expected millicharged particles in a detector for all charges from one sample."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gammastar.accept.expected_events import AcceptedYield, Measured
from gammastar.accept.lifetimes import Replicated
from gammastar.core.errors import PhysicsError
from gammastar.core.records import Sample
from gammastar.physics.millicharge import MillichargeDetector

_BLOCK = 2_000_000  # elements of one (charges, particles) matrix


def millicharge_yields(
    sample: Sample,
    m_chi: float,
    charges: npt.ArrayLike,
    detector: MillichargeDetector,
    *,
    measured: Measured | None = None,
) -> AcceptedYield:
    """Return the expected events for every charge from one sample.

    Parameters
    ----------
    sample : Sample
        χ and χ̄ as particles of their own, per proton on target at Q = 1 (two per pair), or in pb for a
        detector with a luminosity. A `Replicated` one gives the signal of its replicas too.
    m_chi : float [GeV]
    charges : array_like, shape (k,)
        Q in units of e, positive and at most one.
    measured : Measured, optional
        Beam and target of the spectrum from which the sample was made; None for a theory channel.

    Returns
    -------
    AcceptedYield
        `couplings` are the charges.

    Raises
    ------
    PhysicsError
        If the sample is empty, a charge outside its range or a momentum not finite.
    PortabilityError
        As `Measured.factor`.

    Notes
    -----
    s(Q) = N_POT η Q² Σ_i w_i P(E_i, Q) over the particles whose straight line crosses the front. At small Q
    it goes as Q^`detector.exponent`. Energy loss and scattering between target and detector go as Q² too and
    are neglected: that holds for the small charges at the edge of a reach, not for Q near one.
    """
    q = np.atleast_1d(np.asarray(charges, dtype=np.float64))
    if q.ndim != 1 or q.size == 0 or not ((q > 0) & (q <= 1)).all():
        msg = f"millicharge_yields: charges {q!r} must be a list of numbers above 0, at most 1"
        raise PhysicsError(msg)
    p4 = sample.p4
    p = np.stack([np.asarray(c, dtype=np.float64) for c in (p4.px, p4.py, p4.pz, p4.E)])
    if p.shape[1] == 0 or not np.isfinite(p).all():
        msg = f"millicharge_yields: the sample of {m_chi:g} GeV is empty or holds values that are not finite"
        raise PhysicsError(msg)
    origin = sample.origin + np.asarray(detector.target.position)
    hit = detector.front.crossed(origin, p)
    energy, weight, inside = p[3, hit], sample.weight[hit], sample.in_domain[hit]
    replicas = sample.replicas[:, hit] if isinstance(sample, Replicated) else np.zeros((0, len(weight)))
    sums, members = np.zeros((3, len(q))), np.zeros((len(replicas), len(q)))
    step = max(1, _BLOCK // len(q))
    for start in range(0, len(weight), step):
        part = slice(start, start + step)
        seen, w = detector.detection.probability(energy[part], m_chi, q), weight[part]
        sums += np.stack([seen @ w, seen**2 @ w**2, seen @ (w * inside[part])])
        members += (replicas[:, part] * w) @ seen.T
    n = len(sample.weight)
    variance = np.clip(sums[1] - sums[0] ** 2 / n, 0.0, None)
    factor = 1.0 if measured is None else measured.factor(detector)
    scale = factor * detector.exposure * detector.efficiency * q**2
    return AcceptedYield(
        couplings=q,
        signal=scale * sums[0],
        in_domain_signal=scale * sums[2],
        mc_error=scale * np.sqrt(variance),
        n_effective=np.divide(sums[0] ** 2, sums[1], out=np.zeros(len(q)), where=sums[1] > 0),
        replicas=scale * members if isinstance(sample, Replicated) else None,
    )
