"""Several flows of one sample: the uncertainty of the learnt density from data and from training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logsumexp

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.rng import stream
from gammastar.core.sampler import Sampler
from gammastar.flow.model import KinematicFlow, one_thread
from gammastar.flow.options import FlowOptions, PairTable
from gammastar.flow.samples import Table
from gammastar.flow.saving import load, save
from gammastar.flow.train import fit_pairs

__all__ = [
    "FlowEnsemble",
    "Variations",
    "fit_ensemble",
    "load_ensemble",
    "principal_components",
    "save_ensemble",
]


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
        Where the members are trained, e.g. ``farm.map`` of ``facility.open_farm``; each takes one thread.

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
