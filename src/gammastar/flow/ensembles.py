"""Bands of flows: members trained on replicas beside a flow, their variations and weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.files import Pathlike, from_json, text_of, write_whole
from gammastar.core.records import FloatArray, Rng, divided
from gammastar.core.sampling import Sampler, stream
from gammastar.flow.model import KinematicFlow, digest, load, save
from gammastar.flow.network import OneMass
from gammastar.flow.options import FlowOptions, PairTable, Table, ranks

STEM, MEMBERS = "flow", "flow_members"  # files of a result folder
LOCAL = f"{MEMBERS}.pairs.json"
HALF_WIDTH, _STEP = 0.03, 0.01  # GeV, and between two nodes of `LocalStatistics`
_TINY = 1e-300


@dataclass(frozen=True, slots=True, eq=False)
class LocalStatistics:
    """Effective number of pairs within `half_width` of a mass.

    Attributes
    ----------
    mass : NDArray, shape (n_nodes,) [GeV]
    count : NDArray, shape (n_nodes,)
        (Σw)²/Σw² of the pairs in the window around each node, at least one.
    half_width : float [GeV]
    """

    mass: FloatArray
    count: FloatArray
    half_width: float = HALF_WIDTH

    def __post_init__(self) -> None:
        fits = self.mass.ndim == 1 and self.mass.shape == self.count.shape and len(self.mass) > 1
        if not fits or not (np.diff(self.mass) > 0).all() or not (self.count >= 1).all():
            msg = f"LocalStatistics: {self.mass.shape} masses must increase and have a count ≥ 1 each"
            raise PhysicsError(msg)
        if not self.half_width > 0:
            raise PhysicsError(f"LocalStatistics: half_width = {self.half_width!r} GeV must be positive")

    @classmethod
    def of(
        cls,
        mass: FloatArray,
        weight: FloatArray,
        mass_range: tuple[float, float],
        *,
        half_width: float = HALF_WIDTH,
    ) -> LocalStatistics:
        """Count pairs.

        Parameters
        ----------
        mass : NDArray, shape (n,) [GeV]
        weight : NDArray, shape (n,)
            Of either sign.
        mass_range : (float, float) [GeV]
        half_width : float [GeV]

        Examples
        --------
        >>> found = LocalStatistics.of(np.linspace(0.2, 1.2, 1001), np.ones(1001), (0.2, 1.2))
        >>> round(float(found.at(np.array([0.7]))[0]))
        60
        """
        order = np.argsort(mass)
        ordered = np.asarray(mass, dtype=np.float64)[order]
        own = np.asarray(weight, dtype=np.float64)[order]
        sums = [np.concatenate([[0.0], np.cumsum(own**power)]) for power in (1, 2)]
        nodes = np.linspace(*mass_range, 2 + int((mass_range[1] - mass_range[0]) / _STEP))
        first = np.searchsorted(ordered, nodes - half_width, "left")
        last = np.searchsorted(ordered, nodes + half_width, "right")
        total, square = (one[last] - one[first] for one in sums)
        some = (square > 0) & (total > 0)
        count = np.divide(total**2, square, out=np.ones(len(nodes)), where=some)
        return cls(nodes, np.maximum(count, 1.0), half_width)

    def at(self, mass: FloatArray) -> FloatArray:
        """Return the effective number of pairs around each mass [GeV], shape as `mass`."""
        return np.interp(mass, self.mass, self.count)

    def save(self, path: Pathlike) -> None:
        """Write a JSON file."""
        path = Path(path)
        content = {"mass": self.mass.tolist(), "count": self.count.tolist(), "half_width": self.half_width}
        write_whole(path, (json.dumps(content) + "\n").encode())

    @classmethod
    def load(cls, path: Pathlike) -> LocalStatistics:
        """Read the file of `save`; raises `InputFileError`."""
        path = Path(path)
        try:
            content = from_json(text_of(path))
            mass, count = (np.asarray(content[name], dtype=np.float64) for name in ("mass", "count"))
            return cls(mass, count, float(content["half_width"]))
        except (OSError, KeyError, TypeError, ValueError, PhysicsError) as error:
            msg = f"{path}: is no count of pairs by mass ({error}); train the flow again"
            raise InputFileError(msg) from error


@dataclass(frozen=True, slots=True, eq=False)
class FlowEnsemble(Sampler):
    """Flows trained on bootstrap replicas of the events, each from its own start: their mean density."""

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
        lows, highs = zip(*(member.mass_range for member in self.members), strict=True)
        return max(lows), min(highs)

    def sample(self, mass: FloatArray, rng: Rng) -> tuple[FloatArray, FloatArray]:
        """Draw one (pt, energy) per entry of `mass`, each from a member drawn at random."""
        mass = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        chosen = rng.integers(len(self), size=mass.size)
        normal = rng.standard_normal((mass.size, 2))
        pt, energy = np.empty_like(mass), np.empty_like(mass)
        for k, member in enumerate(self.members):
            own = chosen == k
            pt[own], energy[own] = member.transform(mass[own], normal[own])
        return pt, energy


def save_ensemble(ensemble: FlowEnsemble, stem: str | Path) -> None:
    """Write every member to ``stem.00``, ``stem.01``, … as `gammastar.flow.save` does."""
    for k, member in enumerate(ensemble.members):
        save(member, f"{stem}.{k:02d}")


def load_ensemble(stem: str | Path) -> FlowEnsemble:
    """Return the ensemble of `save_ensemble`."""
    folder, name = Path(stem).parent, Path(stem).name
    found: Sequence[Path] = sorted(folder.glob(f"{name}.[0-9][0-9].json"))
    if len(found) < 2:
        msg = f"{stem}: {len(found)} members of an ensemble of flows; save it with flow.save_ensemble"
        raise InputFileError(msg)
    return FlowEnsemble(tuple(load(path.with_suffix("")) for path in found))


@dataclass(frozen=True, slots=True, eq=False)
class FlowVariations:
    """A flow of all events beside flows of their bootstrap replicas.

    A template (yields over masses and couplings, an acceptance curve) is computed once per member, from one
    sample of the nominal flow with `weights`.

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
            raise PhysicsError(
                f"FlowVariations: the members know {inner:.6g} to {outer:.6g} GeV, the flow {low:.6g} to "
                f"{high:.6g} GeV; train them with the same mass_range"
            )

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
        flows = (self.nominal, *self.ensemble.members)
        if mass.size and (mass == mass[0]).all():
            at_mass = [one.at_mass(float(mass[0])) for one in flows]
            own, *logs = OneMass.log_probs(at_mass, np.asarray(pt), np.asarray(energy))
        else:
            own, *logs = (one.log_prob(mass, pt, energy, single=True) for one in flows)
        inside = np.isfinite(own)
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
        return float(stdtrit(len(self) - 1, 0.975) / ndtri(0.975))

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
            rows[k] *= divided(number, total)
        return rows


def save_members(ensemble: FlowEnsemble, local: LocalStatistics, folder: Pathlike) -> None:
    """Write the members to the folder of the results, and the number of pairs near each mass."""
    folder = Path(folder)
    save_ensemble(ensemble, folder / MEMBERS)
    local.save(folder / LOCAL)


def saved_digests(folder: Pathlike) -> dict[str, str]:
    """Return the digests of flow, members and local statistics in a result folder, by name."""
    folder = Path(folder)
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


def load_variations(folder: Pathlike) -> FlowVariations | None:
    """Return the flow of a result folder with its members, or None if there is no ensemble.

    What a later stage does with it: draw one sample of the nominal flow, compute the yield with the sample's
    weights times each row of ``weights(mass, pt, energy)``, and turn the members' yields over all masses and
    couplings into few shifts, their principal components; each is one nuisance parameter common to all bins.
    The weights carry the whole band (see `FlowVariations`): members, their small number, and the pairs of the
    data near each mass.

    Parameters
    ----------
    folder : path
        Of the results.

    Raises
    ------
    InputFileError
        If a file is damaged.
    """
    folder = Path(folder)
    if not any(folder.glob(f"{MEMBERS}.[0-9][0-9].json")):
        return None
    local = LocalStatistics.load(folder / LOCAL) if (folder / LOCAL).is_file() else None
    return FlowVariations(load(folder / STEM), load_ensemble(folder / MEMBERS), local)


def _replica(pairs: Table, seed: int, member: int) -> Table:
    """Return the pairs with Poisson(1) weights by event."""
    n, index = ranks(pairs.event)
    count = stream(seed, "replica", member).poisson(1.0, n).astype(np.float64)[index]
    return replace(pairs, weight=pairs.weight * count)


def _numbered(pairs: PairTable) -> Table:
    """Return the pairs with their events numbered once, in the same order, so that no member has to sort."""
    mass, pt, energy, weight = (
        np.asarray(a, dtype=np.float64) for a in (pairs.mass, pairs.pt, pairs.energy, pairs.weight)
    )
    return Table(mass, pt, energy, weight, ranks(np.asarray(pairs.event, dtype=np.int64))[1])


def _train_member(arguments: tuple[Any, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return tensors and card of a member; the arguments are those of `jobs` in `fit_ensemble`."""
    from gammastar.flow.training import fit_pairs

    pairs, beam_energy, options, (seed, member, resampled) = arguments
    flow = fit_pairs(
        _replica(pairs, seed, member) if resampled else pairs,
        beam_energy=beam_energy,
        options=options,
        rng=stream(seed, "member", member),
    )
    return flow.to_tensors(), flow.card()


def fit_ensemble(
    pairs: PairTable,
    *,
    beam_energy: float,
    options: FlowOptions | None = None,
    members: int = 5,
    seed: int,
    bootstrap: bool | Callable[[int], PairTable] = True,
    each: Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]] = map,
) -> FlowEnsemble:
    """Train several flows on bootstrap replicas of the events.

    Parameters
    ----------
    pairs, beam_energy, options
        As for `fit_pairs`.
    seed : int
        Decides replicas and starts; member k is the same whatever their number and wherever it is trained.
    bootstrap : bool or callable
        False: the same pairs for all, which leaves the spread of split, start and order alone. A function of
        the member's number: its pairs, where more than Poisson weights by event belongs to a replica.
    each : function like ``map``
        Where the members are trained, e.g. ``executor.map`` of ``facility.open_executor``; each takes one
        thread.

    Raises
    ------
    PhysicsError
        As `fit_pairs`, or if there are fewer than two members.
    """
    if members < 2:
        raise PhysicsError(f"fit_ensemble: members = {members}; at least two are needed for a spread")
    options = FlowOptions() if options is None else options
    if options.mass_range is None:  # the same for every replica
        lowest, highest = float(np.min(pairs.mass)), float(np.max(pairs.mass))
        options = replace(options, mass_range=(lowest, highest))
    made = bootstrap if callable(bootstrap) else None
    table = _numbered(pairs)
    drawn = [table if made is None else _numbered(made(k)) for k in range(members)]
    resampled = bootstrap is True
    jobs = [(own, beam_energy, options, (seed, k, resampled)) for k, own in enumerate(drawn)]
    return FlowEnsemble(tuple(KinematicFlow.from_tensors(*made) for made in each(_train_member, jobs)))
