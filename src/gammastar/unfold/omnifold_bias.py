"""What OmniFold does not recover: a known truth folded and unfolded."""

from __future__ import annotations

from typing import Any

import numpy as np

from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray
from gammastar.unfold.omnifold import omnifold

__all__ = ["omnifold_bias"]


def omnifold_bias(
    truth: FloatArray, matched: MatchedPairs, *, rng: np.random.Generator, n_repeats: int = 3, **options: Any
) -> FloatArray:
    """Return unfolded minus true weights when the truth is the simulation with other weights.

    Parameters
    ----------
    truth : NDArray, shape (n,)
        Weights of the simulated true pairs: those of another model or of a binned unfolding (`reweighted`),
        or the unfolded ones of `omnifold`.
    matched : MatchedPairs
    rng : numpy.random.Generator
    n_repeats : int
        Repetitions that are averaged: trees that draw a validation sample have noise of their own.
    **options
        As for `omnifold`: columns, classifier, n_iterations, stop.

    Returns
    -------
    NDArray, shape (n,)
        Its histogram s is the bias of the bins for this truth, and enters a covariance as the systematic
        source outer(s, s).

    Raises
    ------
    UserError
        If the weights do not fit the simulation, or n_repeats is below 1.

    Notes
    -----
    The pseudo data are the reconstructed simulation with these weights, and fakes with their share in the
    simulation. They do not fluctuate against the simulation, so what is left is what iterations and
    classifiers miss. Taking the unfolded weights as the truth is the bootstrap estimate of a bias (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, ch. 10): it shows the iterations that are missing,
    too small by the share that is recovered, but never what the classifier cannot represent, since its own
    result is free of that. Only a truth from elsewhere shows it.
    """
    weight = np.asarray(truth, dtype=np.float64)
    if weight.shape != (len(matched),) or n_repeats < 1:
        msg = (
            f"omnifold_bias: weights of shape {weight.shape} for {len(matched)} simulated pairs, "
            f"n_repeats = {n_repeats}; give one weight for each true pair and at least 1 repetition"
        )
        raise UserError(msg)
    seen = matched.reconstructed
    folded = np.concatenate([matched.reco[seen], matched.fakes])
    share = float(weight[seen].sum()) / max(float(matched.weight[seen].sum()), 1e-300)
    pseudo = np.concatenate([weight[seen], share * matched.fake_weight])
    again = [
        omnifold(folded, matched, rng=rng, data_weight=pseudo, **options).weight for _ in range(n_repeats)
    ]
    return np.asarray(np.mean(again, axis=0) - weight)
