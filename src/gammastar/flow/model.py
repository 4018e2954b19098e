"""A trained flow, its files, and numbered events that it draws."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as decode_tensors
from safetensors.numpy import save as encode_tensors
from scipy.special import ndtri

from gammastar.core.errors import InputFileError, PhysicsError, require
from gammastar.core.files import bytes_of, from_json, text_of, write_whole
from gammastar.core.records import FloatArray, IntArray, Rng
from gammastar.core.sampling import Sampler, Transport
from gammastar.flow.network import Bijection, Gaussianiser, OneMass, inside_limits
from gammastar.flow.options import TrainingReport
from gammastar.physics.polarisation import daughter

# intermediate arrays of this size stay in the cache of a processor, or fill a CUDA device
_CHUNK, _CHUNK_CUDA = 8192, 1 << 20
_MAPS, _KNOTS = ("context", "transverse", "longitudinal"), ("x", "z", "slope")


@dataclass(frozen=True, slots=True, eq=False)
class KinematicFlow(Sampler):
    """A trained flow, from `fit` or `load`: density and sampler of (pt, energy) at given mass.

    Attributes
    ----------
    bijection : Bijection
        From normal numbers to kinematics.
    zuko : torch.nn.Module
        ``zuko.flows.NSF`` of x given `Bijection.condition`: to train on, or to sample, as any zuko flow; its
        ``state_dict`` is ``flow.safetensors``.
    report : TrainingReport
    device : str
        "cpu", "cuda", or "auto", the best there is.

    Notes
    -----
    The virtual photon's kinematics at m are the dark photon's at m_A' = m: Eq. 10 of the data-driven paper
    (Allison and Blinov). The flow is p(x1 | m) p(x2 | x1, m), each factor one rational-quadratic spline
    (arXiv:1906.04032).
    """

    bijection: Bijection
    zuko: Any
    report: TrainingReport
    device: str = "cpu"

    def on(self, device: str) -> KinematicFlow:
        """Return the same flow with its network on a device: "cpu", "cuda", or "auto", the best there is.

        Draws and densities of the same numbers agree within the rounding of single precision.

        Raises `PhysicsError` if a CUDA device is asked for and there is none.
        """
        from gammastar.flow.network import device_of

        return replace(self, device=str(device_of(device)))

    @property
    def mass_range(self) -> tuple[float, float]:
        """Lowest and highest mass that can be sampled [GeV]."""
        return self.bijection.mass_range

    @property
    def beam_energy(self) -> float:
        """Energy of the proton beam [GeV]."""
        return self.bijection.beam_energy

    def sample(self, mass: FloatArray, rng: Rng) -> tuple[FloatArray, FloatArray]:
        """Draw one (pt, energy) per entry of `mass`.

        Parameters
        ----------
        mass : NDArray, shape (n,) [GeV]
        rng : numpy.random.Generator
            Gives the 2 n normal numbers, so that the same generator gives the same sample.

        Returns
        -------
        pt, energy : NDArray, shape (n,) [GeV]
            √(mass² + pt²) ≤ energy < beam energy.

        Raises
        ------
        PhysicsError
            If a mass lies outside the range of the training sample.
        """
        mass = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        return self.transform(mass, rng.standard_normal((mass.size, 2)))

    def at_mass(self, mass: float) -> OneMass:
        """Return the flow at one mass [GeV], several times as fast; see `OneMass` for its error."""
        return OneMass.of(mass, self.bijection, copy.deepcopy(self.zuko).cpu().double())

    def transform(self, mass: FloatArray, normal: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return pt and energy [GeV], shape (n,), of masses, shape (n,), and normal numbers, shape (n, 2).

        The same numbers give the same point; `sample` draws them. For many at one mass: `at_mass`.

        Parameters
        ----------
        mass : NDArray, shape (n,) [GeV]
        normal : NDArray, shape (n, 2)
            Standard normal numbers.
        """
        context = self.bijection.condition(mass)
        x = self._in_chunks("draw", normal, context, single=True)
        lost = ~np.isfinite(x).all(axis=-1)  # single precision can make a discriminant negative
        if lost.any():
            x[lost] = self._in_chunks("draw", normal[lost], context[lost], single=False)
        return self.bijection.inverse(mass, x)

    def log_prob(
        self, mass: FloatArray, pt: FloatArray, energy: FloatArray, *, single: bool = False
    ) -> FloatArray:
        """Return ln p(pt, energy | mass), p in GeV⁻²; −inf outside the physical limits.

        Parameters
        ----------
        mass, pt, energy : NDArray, broadcast to shape (n,) [GeV]
        single : bool
            Good to 1e-4: in single precision, in less than half the time; much faster still where all masses
            are the same (`OneMass`).

        Raises
        ------
        PhysicsError
            If a mass lies outside the range of the training sample.
        """
        arrays = np.broadcast_arrays(mass, pt, energy)
        mass, pt, energy = (np.ascontiguousarray(a, dtype=np.float64) for a in arrays)
        result = np.full(mass.shape, -np.inf)
        inside = inside_limits(mass, pt, energy, self.beam_energy)
        if single and mass.size > 1 and (mass == mass.flat[0]).all():
            return self.at_mass(float(mass.flat[0])).log_prob(pt, energy)
        context = self.bijection.condition(mass.ravel())
        with np.errstate(divide="ignore"):
            x, log_jacobian = self.bijection.forward(mass[inside], pt[inside], energy[inside])
        edge = ~np.isfinite(log_jacobian)  # closer to a limit than a float can tell
        x[edge], log_jacobian[edge] = 0.0, -np.inf
        inner = context[inside.ravel()]
        result[inside] = self._in_chunks("log_density", x, inner, single=single) + log_jacobian
        return result

    def _in_chunks(
        self, function: str, values: FloatArray, context: FloatArray, *, single: bool
    ) -> FloatArray:
        """Return what a function of `gammastar.flow.network` makes of values and contexts."""
        import torch

        from gammastar.flow import network

        dtype = torch.float32 if single else torch.float64
        weights = next(self.zuko.parameters())
        trained = self.zuko
        if (weights.dtype, weights.device) != (dtype, torch.device(self.device)):
            trained = copy.deepcopy(trained).to(self.device, dtype)
        size = _CHUNK if self.device == "cpu" else _CHUNK_CUDA
        with torch.inference_mode(), network.one_thread():
            x, c = (torch.split(torch.from_numpy(a).to(dtype), size) for a in (values, context))
            run, blocks = getattr(network, function), zip(x, c, strict=True)
            parts = [run(trained, a.to(self.device), b.to(self.device)).cpu() for a, b in blocks]
            result: FloatArray = torch.cat(parts).to(torch.float64).numpy()
        return result

    def to_tensors(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the ``state_dict`` of the zuko flow as arrays."""
        return {name: t.detach().cpu().numpy() for name, t in self.zuko.state_dict().items()}

    def card(self) -> dict[str, Any]:
        """Return what is not in the ``state_dict``, ready for JSON."""
        hyper = self.zuko.transform.transforms[0].hyper
        return {
            "beam_energy": self.beam_energy,
            "mass_range": list(self.mass_range),
            "architecture": {
                "bins": (hyper.out_features // 2 + 1) // 3,
                "hidden": hyper[0].out_features,
                "layers": len(hyper) // 2,
                "octaves": self.bijection.octaves,
            },
            "maps": {
                name: {key: getattr(getattr(self.bijection, name), key).tolist() for key in _KNOTS}
                for name in _MAPS
            },
            "report": asdict(self.report),
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, np.ndarray[Any, Any]], card: Mapping[str, Any]
    ) -> KinematicFlow:
        """Return the flow of `to_tensors` and `card`; raises `PhysicsError`, `KeyError`."""
        import torch

        from gammastar.flow.network import spline_flow

        knots = {name: [np.array(card["maps"][name][key], np.float64) for key in _KNOTS] for name in _MAPS}
        maps = {name: Gaussianiser(*arrays) for name, arrays in knots.items()}
        bins, hidden, layers, octaves = (
            int(card["architecture"][name]) for name in ("bins", "hidden", "layers", "octaves")
        )
        last = f"transform.transforms.0.hyper.{2 * layers}.weight"
        if last not in tensors or tensors[last].shape != (2 * (3 * bins - 1), hidden):
            msg = f"the card says {bins} spline bins and {layers} layers of {hidden}; the tensors do not"
            raise PhysicsError(msg)
        zuko = spline_flow(2 + 2 * octaves, bins=bins, hidden=hidden, layers=layers)
        try:
            zuko.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in tensors.items()})
        except RuntimeError as error:
            raise PhysicsError(f"the tensors are not those of the flow of the card ({error})") from error
        beam_energy, low, high = (float(a) for a in (card["beam_energy"], *card["mass_range"]))
        bijection = Bijection(beam_energy, (low, high), **maps, octaves=octaves)
        return cls(bijection, zuko.requires_grad_(False), TrainingReport.from_mapping(card["report"]))


_FORMAT = "gammastar-flow-2"
_LARGEST = 1e8  # no weight of a network that was trained is larger


def digest(tensors: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Return the SHA-256 of named arrays: of names, types, shapes and values, whatever their order.

    Parameters
    ----------
    tensors : mapping of str to NDArray
        As `to_tensors` gives them.

    Examples
    --------
    >>> digest({"a": np.zeros(2)}) == digest({"a": np.zeros(3)})
    False
    """
    result = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        result.update(f"{name} {array.dtype.str} {array.shape};".encode())
        result.update(array.tobytes())
    return result.hexdigest()


def _card_digest(card: Mapping[str, Any]) -> str:
    content = {key: value for key, value in card.items() if key != "digest_card"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _paths(stem: str | Path) -> tuple[Path, Path]:
    return Path(f"{stem}.safetensors"), Path(f"{stem}.json")


def save(flow: KinematicFlow, stem: str | Path) -> None:
    """Write a flow to ``stem.safetensors`` and ``stem.json``.

    Each file is written under a temporary name and renamed, so that no half-written file is ever seen.

    Parameters
    ----------
    stem : path
        Path without suffix; its folder is made if it is missing.
    """
    path, path_card = _paths(stem)
    tensors = flow.to_tensors()
    card = {"format": _FORMAT, **flow.card(), "digest": digest(tensors)}
    card["digest_card"] = _card_digest(card)
    write_whole(path, encode_tensors(tensors))
    write_whole(path_card, (json.dumps(card, indent=1, sort_keys=True) + "\n").encode())


def load(stem: str | Path) -> KinematicFlow:
    """Return the flow of ``stem.safetensors`` and ``stem.json``, which samples exactly as the saved one.

    Parameters
    ----------
    stem : path
        Without the suffixes.

    Raises
    ------
    InputFileError
        If a file is missing or damaged, the two do not belong together, or the format is another one.
    """
    path, path_card = _paths(stem)
    for one in (path, path_card):
        if not one.is_file():
            msg = f"there is no file {one}: a flow is saved as {path.name} and {path_card.name} side by side"
            raise InputFileError(msg)
    try:
        card = from_json(text_of(path_card))
        if not isinstance(card, dict) or card.get("format") != _FORMAT:
            msg = f"{path_card} is not a flow of the format {_FORMAT!r}; train and save it again"
            raise InputFileError(msg)
        _require_equal(card["digest_card"], _card_digest(card), path_card)
        tensors = decode_tensors(bytes_of(path))
        _require_equal(card["digest"], digest(tensors), path)
        wrong = sorted(name for name, array in tensors.items() if not _possible(array))
        if wrong:
            msg = f"{path}: {', '.join(wrong[:3])}: not finite, or too large; train and save the flow again"
            raise InputFileError(msg)
        return KinematicFlow.from_tensors(tensors, card)
    except (SafetensorError, UnicodeDecodeError, json.JSONDecodeError) as error:
        damaged = path if isinstance(error, SafetensorError) else path_card
        raise InputFileError(f"{damaged} is damaged ({error}); save it again") from error
    except (KeyError, TypeError, ValueError, PhysicsError) as error:
        msg = f"{path_card} and {path.name} do not make a flow ({error}); save it again"
        raise InputFileError(msg) from error


def _possible(array: np.ndarray[Any, Any]) -> bool:
    if array.dtype.kind != "f":
        return True
    weights = array.dtype == np.float32
    return bool(np.isfinite(array).all() and not (weights and (np.abs(array) > _LARGEST).any()))


def _require_equal(expected: object, found: str, path: Path) -> None:
    if expected != found:
        msg = f"{path} is damaged: its digest is {found[:12]}…, not {str(expected)[:12]}…; save it again"
        raise InputFileError(msg)


BLOCK = 8192  # events that are always computed together, so that matrix products keep their shape
WORDS = 8  # uniform numbers of each event; a multiple of the four of one Philox counter
MassSource: TypeAlias = float | FloatArray | tuple[FloatArray, FloatArray]
"""One mass [GeV], one mass per event, or bin edges and contents of a mass spectrum."""


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedEvents:
    """Virtual photons with their numbers."""

    number: IntArray  # shape (n,)
    # shape (n,) [GeV]
    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    azimuth: FloatArray  # shape (n,) [rad]
    # Numbers in (0, 1) that belong to the events and are not used yet: for decays and vertices, shape (n, 4)
    uniform: FloatArray

    def __len__(self) -> int:
        return len(self.mass)

    @property
    def p4(self) -> FloatArray:
        """px, py, pz, E, shape (4, n) [GeV]; the beam is along z."""
        pz = np.sqrt(np.maximum((self.energy - self.mass) * (self.energy + self.mass) - self.pt**2, 0.0))
        return np.stack([self.pt * np.cos(self.azimuth), self.pt * np.sin(self.azimuth), pz, self.energy])


def event_uniform(seed: int, first: int, n: int) -> FloatArray:
    """Return uniform numbers in (0, 1) of the events from `first` on, (n, 8), by counter (Philox 4x64)."""
    key = int.from_bytes(hashlib.sha256(f"gammastar events {seed}".encode()).digest()[:16], "little")
    bits = np.random.Philox(key=key, counter=first * (WORDS // 4))
    # + 2⁻⁵⁴: never zero, where the normal quantile is infinite
    return np.asarray(Rng(bits).random((n, WORDS)) + 2.0**-54, dtype=np.float64)


def draw_events(source: Transport, n: int, *, seed: int, mass: MassSource, first: int = 0) -> GeneratedEvents:
    """Draw the events `first` to `first` + n − 1.

    Parameters
    ----------
    mass : float, NDArray of shape (n,), or (edges, contents)
        One mass, one for each of these events, or a spectrum (piecewise constant; contents not negative)
        whose masses are drawn, e.g. above 2 m_χ for millicharged particles [GeV].
    first : int
        Number of the first event.

    Raises
    ------
    PhysicsError
        If a mass lies outside the range of `source`, or the spectrum is empty or negative.
    """
    if n < 0 or first < 0:
        raise PhysicsError(f"draw_events: n = {n} and first = {first} must not be negative")
    start = first // BLOCK * BLOCK
    stop = -((first + n) // -BLOCK) * BLOCK
    uniform = event_uniform(seed, start, stop - start)
    inner = slice(first - start, first - start + n)
    masses = _masses(mass, uniform[:, 2], inner, source.mass_range)
    pt, energy = np.empty_like(masses), np.empty_like(masses)
    normal = ndtri(uniform[:, :2])
    for low in range(0, len(masses), BLOCK):
        part = slice(low, low + BLOCK)
        pt[part], energy[part] = source.transform(masses[part], normal[part])
    return GeneratedEvents(
        number=np.arange(first, first + n),
        mass=masses[inner],
        pt=pt[inner],
        energy=energy[inner],
        azimuth=np.pi * (2.0 * uniform[inner, 3] - 1.0),
        uniform=uniform[inner, 4:],
    )


def _masses(mass: MassSource, uniform: FloatArray, inner: slice, limits: tuple[float, float]) -> FloatArray:
    """Return a mass for every event of the blocks; those outside `inner` only fill the blocks."""
    low, high = limits
    if isinstance(mass, tuple):
        edges, contents = (np.asarray(a, dtype=np.float64) for a in mass)
        if edges.shape != (len(contents) + 1,) or (contents < 0).any() or not contents.sum() > 0:
            raise PhysicsError(
                f"mass spectrum: {edges.shape} edges and {contents.shape} contents; contents must be one "
                "fewer than edges, not negative and not all zero"
            )
        filled = np.flatnonzero(contents > 0)
        _inside(edges[[filled[0], filled[-1] + 1]], low, high)
        cumulative = np.concatenate([[0.0], np.cumsum(contents)]) / contents.sum()
        drawn = np.interp(uniform, cumulative, edges)
        return np.clip(drawn, edges[filled[0]], edges[filled[-1] + 1])
    given = np.asarray(mass, dtype=np.float64)
    if given.ndim and given.shape != (inner.stop - inner.start,):
        msg = f"draw_events: mass has shape {given.shape}, expected ({inner.stop - inner.start},)"
        raise PhysicsError(msg)
    _inside(given, low, high)
    result = np.full(len(uniform), given if given.ndim == 0 else (given[0] if given.size else low))
    result[inner] = given
    return result


def _inside(mass: FloatArray, low: float, high: float) -> None:
    bad = ~((mass >= low) & (mass <= high))
    if bad.any():
        worst = float(np.atleast_1d(mass)[np.atleast_1d(bad)][0])
        msg = f"mass {worst:.6g} GeV lies outside the range of the flow, [{low:.6g}, {high:.6g}] GeV"
        raise PhysicsError(msg)


def two_leptons(events: GeneratedEvents, m_lepton: float) -> tuple[FloatArray, FloatArray]:
    """Decay every particle to two leptons, isotropically in its rest frame (no polarisation)."""
    parent = events.p4
    cosine, phi = 2.0 * events.uniform[:, 0] - 1.0, np.pi * (2.0 * events.uniform[:, 1] - 1.0)
    minus = daughter(parent, events.mass, m_lepton, m_lepton, cosine, phi)
    return minus, parent - minus


def decay_vertices(events: GeneratedEvents, ctau: float, origin: FloatArray | None = None) -> FloatArray:
    """Return where the particles decay, shape (3, n) [m]; no detector's volume is imposed."""
    require(ctau >= 0, f"decay_vertices: ctau = {ctau!r} m must not be negative")
    flight: FloatArray = -ctau * np.log(events.uniform[:, 2]) * events.p4[:3] / events.mass
    return flight if origin is None else flight + origin
