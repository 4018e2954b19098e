"""The uncertainty of the flow for later stages: weights of the members, and few components of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.flow.ensemble import FlowEnsemble, Variations, principal_components
from gammastar.flow.model import KinematicFlow

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

    Notes
    -----
    The spread of the members around their mean is the error of one training: that of the data (replicas) and
    that of split, start and order. Their mean is no part of the prediction.
    """

    nominal: KinematicFlow
    ensemble: FlowEnsemble

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
            Mean one over a sample at fixed mass; zero outside the physical limits.

        Raises
        ------
        PhysicsError
            If a mass lies outside the range of the flow.
        """
        mass = np.broadcast_to(np.asarray(mass, dtype=np.float64), np.shape(pt))
        own = self.nominal.log_prob(mass, pt, energy)
        inside = np.isfinite(own)
        logs = self.ensemble.log_probs(mass, pt, energy)
        result: FloatArray = np.where(inside, np.exp(logs - np.where(inside, own, 0.0)), 0.0)
        return result

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
