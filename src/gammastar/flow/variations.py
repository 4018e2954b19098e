"""The uncertainty of the flow for later stages: weights of the members, and few components of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.rng import stream
from gammastar.flow.ensemble import FlowEnsemble, Variations, principal_components
from gammastar.flow.model import KinematicFlow
from gammastar.flow.near import NearPairs

__all__ = ["FlowVariations"]


@dataclass(frozen=True, slots=True, eq=False)
class FlowVariations:
    """A flow of all events beside flows of their bootstrap replicas.

    A template (yields over masses and couplings, an acceptance curve) is computed once per member, from one
    sample of the nominal flow with `weights`; `components` turns the members' templates into few shifts of
    one standard deviation, each of them one nuisance parameter of a fit.

    Attributes
    ----------
    nominal : KinematicFlow
        Trained on all events: the prediction.
    ensemble : FlowEnsemble
        Trained on replicas: the spread around it.
    near : NearPairs, optional
        Pairs near each mass. With it the weights carry the whole band: Student's factor for the few members,
        and the precision of these pairs. Without it they are those of the members alone.

    Notes
    -----
    The spread of the members around their mean is the error of one training: that of the data (replicas) and
    that of split, start and order. Their mean is no part of the prediction.

    A flow shares what it learns between masses, and a smoothing that the pairs near a mass cannot contradict
    is common to all members. With `near`, each member is therefore also a draw of a Dirichlet process around
    it whose concentration is the number n of pairs near the mass: the mean of a function a of pt and E then
    moves by √(Var a / n), as in the Bayesian bootstrap (Rubin 1981) of these pairs. For K members all
    deviations are scaled by t(0.975; K − 1)/1.96, so that ±1.96 standard deviations of their templates are a
    95 % interval. The draws at two masses are independent.
    """

    nominal: KinematicFlow
    ensemble: FlowEnsemble
    near: NearPairs | None = None

    def __post_init__(self) -> None:
        low, high = self.nominal.mass_range
        inner, outer = self.ensemble.mass_range
        if inner > low or outer < high:
            msg = (
                f"FlowVariations: the members know {inner:.6g} to {outer:.6g} GeV, the flow {low:.6g} to "
                f"{high:.6g} GeV; train them with the same mass_range"
            )
            raise PhysicsError(msg)

    def __len__(self) -> int:
        return len(self.ensemble)

    def weights(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return member density over nominal density of a sample of the nominal flow, shape (n_members, n).

        Parameters
        ----------
        mass, pt, energy : NDArray, shape (n,) [GeV]

        Returns
        -------
        NDArray
            Mean one over a sample at fixed mass (exactly so with `near`); zero outside the physical limits.
            With `near`, the rows belong to this sample as a whole, which must have equal weights at each
            mass: the same call gives the same rows, a part of the sample other ones.

        Raises
        ------
        PhysicsError
            If a mass lies outside the range of the flow.
        """
        mass = np.broadcast_to(np.asarray(mass, dtype=np.float64), np.shape(pt))
        own = self.nominal.log_prob(mass, pt, energy, single=True)
        inside = np.isfinite(own)
        logs = self.ensemble.log_probs(mass, pt, energy, single=True)
        result: FloatArray = np.where(inside, np.exp(logs - np.where(inside, own, 0.0)), 0.0)
        return result if self.near is None else self._covering(mass, result, self.near)

    def _covering(self, mass: FloatArray, weights: FloatArray, near: NearPairs) -> FloatArray:
        """Return the rows with Student's factor and the precision of the near pairs."""
        factor = float(student.ppf(0.975, len(self) - 1) / student.ppf(0.975, np.inf))
        mean = weights.mean(axis=0)
        rows: FloatArray = np.maximum(mean + factor * (weights - mean), 0.0)
        order = np.argsort(mass, kind="stable")
        ordered = mass[order]
        first = np.searchsorted(ordered, mass - near.half_width, "left")
        last = np.searchsorted(ordered, mass + near.half_width, "right")
        number = last - first  # of this sample in the window around each particle
        shape = near.at(mass) / (factor**2 * number)
        for k in range(len(rows)):
            rows[k] *= stream(0, "near pairs", k).gamma(shape) / shape
            running = np.concatenate([[0.0], np.cumsum(rows[k, order])])
            total = running[last] - running[first]
            rows[k] *= np.divide(number, total, out=np.zeros_like(total), where=total > 0)
        return rows

    def components(self, templates: FloatArray, nominal: FloatArray, *, keep: float = 0.95) -> Variations:
        """Return shifts of one standard deviation of a template around its nominal.

        Parameters
        ----------
        templates : NDArray, shape (n_members, n)
            The template of each member, flattened.
        nominal : NDArray, shape (n,)
            That of the nominal flow; it is the `mean` of the result.
        keep : float
            Share of the variance that the components must carry.

        Raises
        ------
        PhysicsError
            If the shapes do not fit or a value is not finite.
        """
        templates, nominal = np.asarray(templates, dtype=np.float64), np.asarray(nominal, dtype=np.float64)
        if templates.shape != (len(self), nominal.size):
            msg = f"components: templates {templates.shape} are not of shape ({len(self)}, {nominal.size})"
            raise PhysicsError(msg)
        found = principal_components(templates, keep=keep)
        return Variations(nominal, found.components, found.variance_kept)
