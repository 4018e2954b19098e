"""Bands of flows: replicas beside a flow, their variations and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import logsumexp, ndtri, stdtrit

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.files import Pathlike
from gammastar.core.records import FloatArray
from gammastar.core.sampling import Sampler, stream
from gammastar.flow.divergence import LocalStatistics
from gammastar.flow.model import KinematicFlow, digest, load, save
from gammastar.flow.one_mass import OneMass

STEM, MEMBERS = "flow", "flow_members"  # files of a result folder
LOCAL = f"{MEMBERS}.pairs.json"
_TINY = 1e-300


@dataclass(frozen=True, slots=True, eq=False)
class FlowEnsemble(Sampler):
    """Flows trained on bootstrap replicas of the events, each from its own start.

    The density is the mean of the members' densities.
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

        `single` as in `KinematicFlow.log_prob`.

        Parameters
        ----------
        mass, pt, energy : NDArray, shape (n,) [GeV]
        single : bool
            In single precision, faster.
        """
        return np.stack([member.log_prob(mass, pt, energy, single=single) for member in self.members])

    def log_prob(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return ln of the mean density, shape (n,), in ln GeV⁻²; −inf outside the physical limits.

        Parameters
        ----------
        mass, pt, energy : NDArray, shape (n,) [GeV]
        """
        result: FloatArray = logsumexp(self.log_probs(mass, pt, energy), axis=0) - np.log(len(self))
        return result

    def weights(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return member density over mean density, shape (n_members, n).

        One sample of the ensemble, filled once per member with these weights, gives the members' templates
        without drawing again; their `principal_components` are the variations.

        Parameters
        ----------
        mass, pt, energy : NDArray, shape (n,) [GeV]
        """
        logs = self.log_probs(mass, pt, energy, single=True)
        mean = logsumexp(logs, axis=0) - np.log(len(self))
        inside = np.isfinite(mean)
        result: FloatArray = np.where(inside, np.exp(logs - np.where(inside, mean, 0.0)), 0.0)
        return result


@dataclass(frozen=True, slots=True, eq=False)
class Variations:
    """Independent variations of a template."""

    mean: FloatArray  # shape (n,)
    # Shifts of one standard deviation, orthogonal, the largest first: mean ± component, shape (n_components,
    # n)
    components: FloatArray
    variance_kept: float  # Share of the total variance that the components carry

    @property
    def covariance(self) -> FloatArray:
        """Covariance of the kept components, shape (n, n)."""
        return self.components.T @ self.components


def principal_components(values: FloatArray, *, keep: float = 0.95) -> Variations:
    """Return few independent variations of a quantity that every member predicts."""
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


def save_ensemble(ensemble: FlowEnsemble, stem: str | Path) -> None:
    """Write every member to ``stem.00``, ``stem.01``, … as `gammastar.flow.save` does."""
    for k, member in enumerate(ensemble.members):
        save(member, f"{stem}.{k:02d}")


def load_ensemble(stem: str | Path) -> FlowEnsemble:
    """Return the ensemble of `save_ensemble`."""
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


def save_members(ensemble: FlowEnsemble, local: LocalStatistics, folder: Pathlike) -> None:
    """Write the members of a result folder, and the number of pairs near each mass.

    Parameters
    ----------
    folder : path
        Of the results.
    """
    folder = Path(folder)
    save_ensemble(ensemble, folder / MEMBERS)
    local.save(folder / LOCAL)


def saved_digests(folder: Pathlike) -> dict[str, str]:
    """Return the digests of the flow, of its members and of the local statistics in a result folder.

    Parameters
    ----------
    folder : path
        Of the results.
    """
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
    couplings into few shifts with ``components``; each shift is one nuisance parameter common to all bins.
    The weights carry the whole band (see `FlowVariations`): members, their small number, and the pairs of the
    data near each mass.

    Parameters
    ----------
    folder : path
        Of the results.

    Raises
    ------
    InputFileError
        If a file is damaged, or the flow is of the paper's preset.
    """
    folder = Path(folder)
    if not any(folder.glob(f"{MEMBERS}.[0-9][0-9].json")):
        return None
    nominal = load(folder / STEM)
    if not isinstance(nominal, KinematicFlow):
        msg = f"{folder / STEM}: a flow of the paper's preset has no members; remove {MEMBERS}.*"
        raise InputFileError(msg)
    local = LocalStatistics.load(folder / LOCAL) if (folder / LOCAL).is_file() else None
    return FlowVariations(nominal, load_ensemble(folder / MEMBERS), local)
