"""Bands of flows: bootstrap replicas, their variations and weights, and the Laplace approximation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.linalg import cho_factor, solve_triangular
from scipy.special import logsumexp
from scipy.stats import t as student
from torch import Tensor
from torch.nn.functional import pad, silu

from gammastar.core.axes import effective_size
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.sampling import Sampler, stream
from gammastar.flow.divergence import LocalStatistics
from gammastar.flow.model import KinematicFlow, digest, load, save
from gammastar.flow.network import Network, inside_limits, log_density, one_thread
from gammastar.flow.options import FlowOptions, PairTable
from gammastar.flow.training import Table, fit_pairs

__all__ = [
    "FlowEnsemble",
    "FlowVariations",
    "Variations",
    "fit_ensemble",
    "laplace",
    "load_ensemble",
    "load_variations",
    "principal_components",
    "save_ensemble",
    "save_members",
    "saved_digests",
]

STEM, MEMBERS = "flow", "flow_members"  # files of a result folder
LOCAL = f"{MEMBERS}.pairs.json"
_CHUNK = 2048
_TINY = 1e-300


def laplace(
    flow: KinematicFlow,
    pairs: PairTable,
    *,
    rng: np.random.Generator,
    members: int = 8,
    prior_precision: float | None = None,
    n_pairs: int = 20_000,
) -> FlowEnsemble:
    """Return flows drawn from the Laplace posterior of the last layer of a trained flow.

    Parameters
    ----------
    flow : KinematicFlow
        The posterior is centred on it.
    pairs : PairTable
        The pairs it was trained on; their effective number scales the information.
    rng : numpy.random.Generator
    members : int
        Draws.
    prior_precision : float, optional
        Inverse variance of the Gaussian prior of each weight; by default one over the mean square of the
        trained weights of the last layer, so that directions without data move within their size.
    n_pairs : int
        Pairs, drawn by |weight|, from which the information per pair is estimated.

    Returns
    -------
    FlowEnsemble
        To be used, and compared, as an ensemble of trainings.

    Raises
    ------
    PhysicsError
        If no pair lies in the range of the flow, or the prior precision is not positive.

    Notes
    -----
    Section IV of the data-driven paper proposes Bayesian flows; Laplace approximation of the last layer
    (MacKay, Neural Comput. 4 (1992) 448; Kristiadi et al., arXiv:2002.10118) with the empirical Fisher
    information, exact within each of the two factors of the density. It knows the statistical error of the
    last layer alone: no replica of the split, no other start.
    """
    if prior_precision is None:
        prior_precision = float(1.0 / flow.network.weights[-1].square().mean().clamp(min=1e-8))
    if not prior_precision > 0:
        msg = f"laplace: prior_precision = {prior_precision!r} must be positive"
        raise PhysicsError(msg)
    mass, pt, energy, weight = (
        np.asarray(a, dtype=np.float64) for a in (pairs.mass, pairs.pt, pairs.energy, pairs.weight)
    )
    low, high = flow.mass_range
    good = (mass >= low) & (mass <= high) & (weight != 0) & inside_limits(mass, pt, energy, flow.beam_energy)
    if not good.any():
        msg = f"laplace: no pair lies in the range of the flow, {low:.6g} to {high:.6g} GeV"
        raise PhysicsError(msg)
    mass, pt, energy, weight = mass[good], pt[good], energy[good], weight[good]
    size = effective_size(weight)
    share = np.abs(weight) / np.abs(weight).sum()
    chosen = rng.choice(len(mass), size=n_pairs, p=share)
    x, _ = flow.bijection.forward(mass[chosen], pt[chosen], energy[chosen])
    context = flow.bijection.condition(mass[chosen])
    with one_thread():
        information = _information(flow.network, torch.from_numpy(x), torch.from_numpy(context))
    draws = [_factor_draws(one * size, prior_precision, members, rng) for one in information]
    last = flow.network.weights[-1].shape[1]
    flows = []
    for k in range(members):
        shift = np.stack([draw[k].reshape(last + 1, -1) for draw in draws]).astype(np.float32)
        weights = (*flow.network.weights[:-1], flow.network.weights[-1] + torch.from_numpy(shift[:, :last]))
        biases = (*flow.network.biases[:-1], flow.network.biases[-1] + torch.from_numpy(shift[:, last:]))
        flows.append(replace(flow, network=Network(weights, biases)))
    return FlowEnsemble(tuple(flows))


def _information(network: Network, x: Tensor, context: Tensor) -> tuple[FloatArray, FloatArray]:
    """Return the mean of g gᵀ of each factor, g the gradient of ln p in the last layer of one pair."""
    network = network.to(torch.float64)
    n_last = network.weights[-1].shape[1] * network.biases[-1].shape[-1] + network.biases[-1].shape[-1]
    sums = torch.zeros((2, n_last, n_last), dtype=torch.float64)
    for x_part, c_part in zip(torch.split(x, _CHUNK), torch.split(context, _CHUNK), strict=True):
        features = torch.stack([pad(c_part, (0, 1)), torch.cat([c_part, x_part[:, :1]], dim=-1)])
        with torch.no_grad():
            for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
                features = silu(torch.baddbmm(bias, features, weight))
        # one bias per pair: its gradient is that of the last layer's output
        n, n_out = len(x_part), network.biases[-1].shape[-1]
        own = network.biases[-1].expand(2, n, n_out).clone().requires_grad_()
        shifted = Network(network.weights, (*network.biases[:-1], own))
        torch.autograd.backward(log_density(shifted, x_part, c_part).sum())
        features = torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)
        for factor in (0, 1):
            slope = own.grad
            if slope is None:
                continue
            gradient = (features[factor][:, :, None] * slope[factor][:, None, :]).flatten(1)
            sums[factor] += gradient.T @ gradient
    first, second = (np.asarray(total) / len(x) for total in sums)
    return first, second


def _factor_draws(
    information: FloatArray, prior_precision: float, members: int, rng: np.random.Generator
) -> FloatArray:
    """Return draws of a Gaussian with the inverse of (information + prior) as covariance."""
    precision = information + prior_precision * np.eye(len(information))
    factor, lower = cho_factor(precision, lower=True, overwrite_a=True)
    normal = rng.standard_normal((len(information), members))
    draws: FloatArray = solve_triangular(factor, normal, lower=lower, trans="T").T
    return draws


@dataclass(frozen=True, slots=True, eq=False)
class FlowEnsemble(Sampler):
    """Flows trained on bootstrap replicas of the events, each from its own start.

    The density is the mean of the members' densities.

    Attributes
    ----------
    members : tuple of KinematicFlow
    """

    members: tuple[KinematicFlow, ...]

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            msg = f"FlowEnsemble: {len(self.members)} members; at least two are needed for a spread"
            raise PhysicsError(msg)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def mass_range(self) -> tuple[float, float]:
        """Lowest and highest mass that every member knows [GeV]."""
        return (
            max(member.mass_range[0] for member in self.members),
            min(member.mass_range[1] for member in self.members),
        )

    def sample(self, mass: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw one (pt, energy) per entry of `mass`, each from a member drawn at random."""
        mass = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        chosen = rng.integers(len(self), size=mass.size)
        normal = rng.standard_normal((mass.size, 2))
        pt, energy = np.empty_like(mass), np.empty_like(mass)
        for k, member in enumerate(self.members):
            own = chosen == k
            pt[own], energy[own] = member.transform(mass[own], normal[own])
        return pt, energy

    def log_probs(
        self, mass: FloatArray, pt: FloatArray, energy: FloatArray, *, single: bool = False
    ) -> FloatArray:
        """Return ln p(pt, energy | mass) of each member, shape (n_members, n), p in GeV⁻².

        `single` as in `KinematicFlow.log_prob`. Two members at a time: faster on two cores, since torch and
        numpy leave the interpreter alone while they compute.
        """

        def of(member: KinematicFlow) -> FloatArray:
            return member.log_prob(mass, pt, energy, single=single)

        with one_thread(), ThreadPoolExecutor(2) as pool:
            return np.stack(list(pool.map(of, self.members)))

    def log_prob(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return ln of the mean density, shape (n,), in ln GeV⁻²; −inf outside the physical limits."""
        result: FloatArray = logsumexp(self.log_probs(mass, pt, energy), axis=0) - np.log(len(self))
        return result

    def weights(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return member density over mean density, shape (n_members, n).

        One sample of the ensemble, filled once per member with these weights, gives the members' templates
        without drawing again; their `principal_components` are the variations.
        """
        logs = self.log_probs(mass, pt, energy, single=True)
        mean = logsumexp(logs, axis=0) - np.log(len(self))
        inside = np.isfinite(mean)
        result: FloatArray = np.where(inside, np.exp(logs - np.where(inside, mean, 0.0)), 0.0)
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Variations:
    """Independent variations of a template.

    Attributes
    ----------
    mean : NDArray, shape (n,)
    components : NDArray, shape (n_components, n)
        Shifts of one standard deviation, orthogonal, the largest first: mean ± component.
    variance_kept : float
        Share of the total variance that the components carry.
    """

    mean: FloatArray
    components: FloatArray
    variance_kept: float

    @property
    def covariance(self) -> FloatArray:
        """Covariance of the kept components, shape (n, n)."""
        return self.components.T @ self.components


def principal_components(values: FloatArray, *, keep: float = 0.95) -> Variations:
    """Return few independent variations of a quantity that every member predicts.

    Parameters
    ----------
    values : NDArray, shape (n_members, n)
        For example acceptances at n decay lengths, or a template's bins, of every member.
    keep : float
        Share of the variance that the components must carry.

    Returns
    -------
    Variations

    Raises
    ------
    PhysicsError
        If there are fewer than two members or a value is not finite.

    Examples
    --------
    >>> found = principal_components(np.array([[1.0, 2.0], [1.2, 2.4], [0.8, 1.6]]))
    >>> len(found.components), found.components.shape
    (1, (1, 2))
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2 or not np.isfinite(values).all():
        msg = f"principal_components: values {values.shape} must be finite, of shape (members ≥ 2, n)"
        raise PhysicsError(msg)
    mean = values.mean(axis=0)
    _, singular, axes = np.linalg.svd((values - mean) / np.sqrt(len(values) - 1.0), full_matrices=False)
    total = float(np.sum(singular**2))
    if total <= 0:
        return Variations(mean, np.zeros((0, values.shape[1])), 1.0)
    share = np.cumsum(singular**2) / total
    n = int(np.searchsorted(share, min(keep, 1.0) - 1e-12)) + 1
    sign = np.where(axes[:n].sum(axis=1) < 0, -1.0, 1.0)[:, None]
    return Variations(mean, sign * singular[:n, None] * axes[:n], float(share[min(n, len(share)) - 1]))


def _replica(pairs: Table, seed: int, member: int, *, bootstrap: bool) -> Table:
    """Return the pairs with Poisson(1) weights by event."""
    if not bootstrap:
        return pairs
    unique, index = np.unique(pairs.event, return_inverse=True)
    count = stream(seed, "replica", member).poisson(1.0, len(unique)).astype(np.float64)[index]
    return Table(pairs.mass, pairs.pt, pairs.energy, pairs.weight * count, pairs.event)


def _member(
    pairs: Table, beam_energy: float, options: FlowOptions, seed: int, member: int, more: dict[str, Any]
) -> KinematicFlow:
    folder: Path | None = more["folder"]
    return fit_pairs(
        _replica(pairs, seed, member, bootstrap=more["bootstrap"]),
        beam_energy=beam_energy,
        options=options,
        rng=stream(seed, "member", member),
        checkpoint=None if folder is None else folder / f"member_{member:02d}.checkpoint",
    )


def _train_member(arguments: tuple[Any, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    flow = _member(*arguments)
    return flow.to_tensors(), flow.card()


def fit_ensemble(
    pairs: PairTable,
    *,
    beam_energy: float,
    options: FlowOptions | None = None,
    members: int = 5,
    seed: int,
    bootstrap: bool = True,
    folder: Path | None = None,
    each: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]] = map,
) -> FlowEnsemble:
    """Train several flows on bootstrap replicas of the events.

    Parameters
    ----------
    pairs, beam_energy, options
        As for `fit_pairs`.
    members : int
    seed : int
        Decides replicas and starts; member k is the same whatever their number and wherever it is trained.
    bootstrap : bool
        False: the same pairs for all, which leaves the spread of split, start and order alone.
    folder : Path, optional
        Folder of checkpoints: finished members are not trained again, an interrupted one goes on.
    each : function like ``map``
        Where the members are trained, e.g. ``executor.map`` of ``facility.open_executor``; each takes one
        thread.

    Returns
    -------
    FlowEnsemble

    Raises
    ------
    PhysicsError
        As `fit_pairs`, or if there are fewer than two members.
    """
    if members < 2:
        msg = f"fit_ensemble: members = {members}; at least two are needed for a spread"
        raise PhysicsError(msg)
    options = FlowOptions() if options is None else options
    if options.mass_range is None:  # the same for every replica
        lowest, highest = float(np.min(pairs.mass)), float(np.max(pairs.mass))
        options = replace(options, mass_range=(lowest, highest))
    mass, pt, energy, weight = (
        np.asarray(a, dtype=np.float64) for a in (pairs.mass, pairs.pt, pairs.energy, pairs.weight)
    )
    table = Table(mass, pt, energy, weight, np.asarray(pairs.event, dtype=np.int64))
    more = {"bootstrap": bootstrap, "folder": folder}
    jobs = [(table, beam_energy, options, seed, k, more) for k in range(members)]
    return FlowEnsemble(tuple(KinematicFlow.from_tensors(*made) for made in each(_train_member, jobs)))


def save_ensemble(ensemble: FlowEnsemble, stem: str | Path) -> None:
    """Write every member to ``stem.00``, ``stem.01``, … as `gammastar.flow.save` does."""
    for k, member in enumerate(ensemble.members):
        save(member, f"{stem}.{k:02d}")


def load_ensemble(stem: str | Path) -> FlowEnsemble:
    """Return the ensemble of `save_ensemble`.

    Raises
    ------
    InputFileError
        If there are no members, a file is damaged, or a member is of the paper's preset.
    """
    folder, name = Path(stem).parent, Path(stem).name
    found: Sequence[Path] = sorted(folder.glob(f"{name}.[0-9][0-9].json"))
    members = [load(path.with_suffix("")) for path in found]
    flows = tuple(member for member in members if isinstance(member, KinematicFlow))
    if len(flows) < 2 or len(flows) != len(members):
        msg = f"{stem}: {len(flows)} members of an ensemble of flows; save it with flow.save_ensemble"
        raise InputFileError(msg)
    return FlowEnsemble(flows)


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
    local : LocalStatistics, optional
        Pairs near each mass. With it the weights carry the whole band: Student's factor for the few members,
        and the precision of these pairs. Without it they are those of the members alone.

    Notes
    -----
    The spread of the members around their mean is the error of one training: that of the data (replicas) and
    that of split, start and order. Their mean is no part of the prediction.

    A flow shares what it learns between masses, and a smoothing that the pairs near a mass cannot contradict
    is common to all members. With `local`, each member is therefore also a draw of a Dirichlet process around
    it whose concentration is the number n of pairs near the mass: the mean of a function a of pt and E then
    moves by √(Var a / n), as in the Bayesian bootstrap (Rubin 1981) of these pairs. For K members all
    deviations are scaled by t(0.975; K − 1)/1.96, so that ±1.96 standard deviations of their templates are a
    95 % interval. The draws at two masses are independent.
    """

    nominal: KinematicFlow
    ensemble: FlowEnsemble
    local: LocalStatistics | None = None

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

    def weights(
        self, mass: FloatArray, pt: FloatArray, energy: FloatArray, share: FloatArray | None = None
    ) -> FloatArray:
        """Return member density over nominal density of a sample of the nominal flow, shape (n_members, n).

        Parameters
        ----------
        mass, pt, energy : NDArray, shape (n,) [GeV]
        share : NDArray, shape (n,), optional
            Of the nominal density at one mass, which each particle stands for: those of a whole sample sum to
            one on average, those of a part to less. By default particles count the same at each mass.

        Returns
        -------
        NDArray
            Mean one over a sample at fixed mass (exactly so with `local`); zero outside the physical limits.
            With `local`, the rows belong to these particles as a whole: the same call gives the same rows, a
            part of them other ones.

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
        if self.local is None:
            return result
        if share is None:
            return self._covering(mass, result, self.local)
        return self._covering_shares(mass, result, self.local, share)

    def _covering_shares(
        self, mass: FloatArray, weights: FloatArray, local: LocalStatistics, share: FloatArray
    ) -> FloatArray:
        """Return the rows at one mass for particles of unequal shares, which need not be all.

        A Dirichlet process gives all that is not in the sample one gamma-distributed number.
        """
        factor = self._student
        mean = weights.mean(axis=0)
        rows: FloatArray = np.maximum(mean + factor * (weights - mean), 0.0)
        n = float(local.at(mass[:1])[0]) / factor**2
        rest = max(0.0, 1.0 - float(share.sum()))
        for k, replica in enumerate(rows):
            rng = stream(0, "near pairs", k)
            beyond = max(0.0, 1.0 - float(share @ replica)) if rest > 0 else 0.0
            rows[k] *= rng.gamma(n * share) / np.maximum(n * share, _TINY)
            if beyond > 0:
                beyond *= rng.gamma(n * rest) / (n * rest)
            total = float(share @ rows[k]) + beyond
            rows[k] /= total if total > 0 else 1.0
        return rows

    @property
    def _student(self) -> float:
        return float(student.ppf(0.975, len(self) - 1) / student.ppf(0.975, np.inf))

    def _covering(self, mass: FloatArray, weights: FloatArray, local: LocalStatistics) -> FloatArray:
        """Return the rows with Student's factor and the precision of the near pairs."""
        factor = self._student
        mean = weights.mean(axis=0)
        rows: FloatArray = np.maximum(mean + factor * (weights - mean), 0.0)
        order = np.argsort(mass, kind="stable")
        ordered = mass[order]
        first = np.searchsorted(ordered, mass - local.half_width, "left")
        last = np.searchsorted(ordered, mass + local.half_width, "right")
        number = last - first  # of this sample in the window around each particle
        shape = local.at(mass) / (factor**2 * number)
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


def save_members(ensemble: FlowEnsemble, local: LocalStatistics, folder: Path) -> None:
    """Write the members of a result folder, and the number of pairs near each mass."""
    save_ensemble(ensemble, folder / MEMBERS)
    local.save(folder / LOCAL)


def saved_digests(folder: Path) -> dict[str, str]:
    """Return the digests of the flow, of its members and of the local statistics in a result folder."""
    digests = {STEM: digest(load(folder / STEM).to_tensors())}
    members = sorted(folder.glob(f"{MEMBERS}.[0-9][0-9].json"))
    if members:
        tensors = [load(path.with_suffix("")).to_tensors() for path in members]
        digests[MEMBERS] = " ".join(digest(one) for one in tensors)
    if members and (folder / LOCAL).is_file():
        local = LocalStatistics.load(folder / LOCAL)
        digests[LOCAL] = digest(
            {"mass": local.mass, "count": local.count, "half_width": np.array(local.half_width)}
        )
    return digests


def load_variations(folder: Path) -> FlowVariations | None:
    """Return the flow of a result folder with its members, or None if there is no ensemble.

    What a later stage does with it: draw one sample of the nominal flow, compute the yield with the sample's
    weights times each row of ``weights(mass, pt, energy)``, and turn the members' yields over all masses and
    couplings into few shifts with ``components``; each shift is one nuisance parameter common to all bins.
    The weights carry the whole band (see `FlowVariations`): members, their small number, and the pairs of the
    data near each mass.

    Raises
    ------
    InputFileError
        If a file is damaged, or the flow is of the paper's preset.
    """
    if not any(folder.glob(f"{MEMBERS}.[0-9][0-9].json")):
        return None
    nominal = load(folder / STEM)
    if not isinstance(nominal, KinematicFlow):
        msg = f"{folder / STEM}: a flow of the paper's preset has no members; remove {MEMBERS}.*"
        raise InputFileError(msg)
    local = LocalStatistics.load(folder / LOCAL) if (folder / LOCAL).is_file() else None
    return FlowVariations(nominal, load_ensemble(folder / MEMBERS), local)
