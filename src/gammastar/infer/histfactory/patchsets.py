"""One patch per grid point on a background-only workspace, as HEPData publishes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.histfactory.modifiers import Modifiers, check_modifiers, log_normal, yields_of
from gammastar.infer.histfactory.workspaces import assemble, sample
from gammastar.infer.toys import lint_names

Documents: TypeAlias = dict[str, tuple[dict[str, Any], dict[str, Any]]]
"""Workspaces with their patch sets, by name; one alone is called ""."""
Operations: TypeAlias = list[dict[str, Any]]
PATCHED = (0.1, 1e4)  # expected events of the grid points that go into a patch set
FIRST = "/channels/0/samples/0"  # the signal of a counting search


def patch_names(mass: FloatArray, coupling: FloatArray, coupling_name: str = "eps") -> list[str]:
    """Return unique names of grid points that HistFactory accepts (letters, digits and underscores)."""
    points = list(zip(mass.tolist(), np.log10(coupling).tolist(), strict=True))
    for more in range(12):
        names = [f"m{_plain(m, 3 + more)}_log10{coupling_name}_{_plain(log, 2 + more)}" for m, log in points]
        if len(set(names)) == len(names):
            return names
    raise PhysicsError("patchset: two grid points have the same mass and coupling; give each point once")


def _plain(value: float, digits: int) -> str:
    """Return a number without point and minus sign: -6.5 is m6p50."""
    return f"{value:.{digits}f}".replace("-", "m").replace(".", "p")


def patched_points(signal: FloatArray, most: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return rows and columns of the grid points that go into a patch set: those of 0.1 to 10⁴ events."""
    row, column = np.nonzero((signal >= PATCHED[0]) & (signal <= PATCHED[1]))
    every = slice(None, None, max(1, int(np.ceil(len(row) / most))))
    return row[every], column[every]


def patchset(
    workspace: Mapping[str, Any],
    mass: npt.ArrayLike,
    coupling: npt.ArrayLike,
    signal: npt.ArrayLike,
    *,
    signal_mc_sigma: npt.ArrayLike | Mapping[str, npt.ArrayLike] = 0.0,
    coupling_name: str = "eps",
    hepdata: str = "ins0000000",
    description: str = "Expected signal per mass and coupling; test mu = 1 at each point.",
) -> dict[str, Any]:
    """Return the patches that put the expected signal of each grid point into a workspace.

    Parameters
    ----------
    workspace : mapping
        Background-only workspace of one channel, from `workspace`.
    mass, coupling : array_like, shape (n,)
        Grid points, mass in GeV.
    signal : array_like, shape (n,) or (n, bins)
        Expected signal events.
    signal_mc_sigma : array_like, shape (n,) or (), or mapping of str to array_like
        Relative statistical error of the signal; where positive a log-normal nuisance ``signal_mc``. A
        mapping gives several nuisances by name, as standard deviations of the logarithm at each point: the
        sample, the measured spectrum, the kinematics, what is extrapolated.
    coupling_name : str
        Used in names and labels, e.g. ``"eps"`` or ``"charge"``.
    hepdata : str
        Record of the publication; ``ins`` and seven digits. All zeros stands for an unpublished grid.

    Returns
    -------
    dict
        Valid HistFactory patch set 1.0.0 whose SHA-256 digest belongs to `workspace`.

    Raises
    ------
    PhysicsError, NegativeYieldError
        If arrays do not fit each other or the workspace, or a signal is negative or not finite.

    Notes
    -----
    At fixed mass and coupling the template is exact at μ = 1. The yield is no power of the coupling, so a
    limit on μ cannot be rescaled into one on the coupling.
    """
    masses, couplings = (np.atleast_1d(np.asarray(a, dtype=np.float64)) for a in (mass, coupling))
    if not masses.ndim == couplings.ndim == 1 or masses.shape != couplings.shape or not masses.size:
        raise PhysicsError(
            f"patchset: masses {masses.shape} and couplings {couplings.shape} must be equally long lists"
        )
    if not np.all(np.isfinite(masses) & (masses > 0) & np.isfinite(couplings) & (couplings > 0)):
        raise PhysicsError("patchset: masses and couplings must be positive and finite")
    samples = workspace["channels"][0]["samples"]
    sample, bins = samples[0]["name"], len(samples[0]["data"])
    events = yields_of(np.ravel(np.asarray(signal, dtype=np.float64)), "patchset, signal")
    if events.size != masses.size * bins:
        raise PhysicsError(f"patchset: {events.size} signal yields for {masses.size} points of {bins} bin(s)")
    given = signal_mc_sigma
    sigmas = dict(given) if isinstance(given, Mapping) else {"signal_mc": given}
    lint_names([*sigmas, *_names(workspace)])
    own = [{"name": name, "type": "normsys"} for name in sigmas]
    check_modifiers([*samples[0]["modifiers"], *own], "patchset, signal")
    spreads = {k: np.broadcast_to(np.asarray(v, dtype=np.float64), masses.shape) for k, v in sigmas.items()}
    listed = [
        signal_steps(FIRST, sample, data, {k: float(v[i]) for k, v in spreads.items()})
        for i, data in enumerate(events.reshape(masses.size, bins).tolist())
    ]
    return patch_document(workspace, masses, couplings, listed, about=(coupling_name, hepdata, description))


def patch_document(
    workspace: Mapping[str, Any],
    mass: FloatArray,
    coupling: FloatArray,
    operations: Sequence[Operations],
    *,
    about: tuple[str, str, str],
) -> dict[str, Any]:
    """Return the patch set of a workspace from the JSON patch (RFC 6902) of each grid point."""
    import pyhf  # here: a limit needs none

    coupling_name, hepdata, description = about
    rows = zip(
        patch_names(mass, coupling, coupling_name), mass.tolist(), coupling.tolist(), operations, strict=True
    )
    spec: dict[str, Any] = {
        "metadata": {
            "references": {"hepdata": hepdata},
            "digests": {"sha256": pyhf.utils.digest(dict(workspace), algorithm="sha256")},
            "labels": ["mass_GeV", coupling_name],
            "description": description,
        },
        "patches": [
            {"metadata": {"name": name, "values": [m, g]}, "patch": patch} for name, m, g, patch in rows
        ],
        "version": "1.0.0",
    }
    few = spec | {"patches": spec["patches"][:1]}  # all are built alike, and the schema takes long for each
    pyhf.PatchSet(few).verify(dict(workspace))
    return spec


def _names(workspace: Mapping[str, Any]) -> list[str]:
    samples = [sample for channel in workspace["channels"] for sample in channel["samples"]]
    return [modifier["name"] for sample in samples for modifier in sample["modifiers"]]


def signal_steps(at: str, sample: str, data: list[float], sigmas: Mapping[str, float]) -> Operations:
    """Return the steps (RFC 6902) that give a sample its events and log-normal nuisances."""
    return [
        {"op": "test", "path": f"{at}/name", "value": sample},
        {"op": "replace", "path": f"{at}/data", "value": data},
        *(
            {"op": "add", "path": f"{at}/modifiers/-", "value": modifier}
            for name, sigma in sigmas.items()
            for modifier in log_normal(name, sigma)
        ),
    ]


FREE = 8.0  # errors of the fit by which a free yield may move


def peak_workspace(
    channel: str,
    signal: FloatArray,
    window: Any,
    *,
    errors: Mapping[str, float],
    spurious: float = 0.0,
    observed: FloatArray | None = None,
) -> dict[str, Any]:
    """Return the likelihood of one mass of a peak search.

    Bernstein polynomials, none of them negative, span what the polynomial of the fit spans: each is a sample
    with a free factor, and no constraint stands in for the data.
    """
    known = [log_normal(name, sigma) for name, sigma in errors.items()]
    samples = [sample("signal", signal, *known, signal=True)]
    free: list[dict[str, Any]] = []

    def yields(name: str, data: FloatArray, value: float, error: float, more: Modifiers) -> None:
        factor = f"{channel}_{name}"
        samples.append(sample(name, data, [{"name": factor, "type": "normfactor", "data": None}], more))
        reach = max(FREE * error, 1e-3)
        bounds = [[value - reach, value + reach]]
        free.append({"name": factor, "inits": [value], "bounds": bounds})

    for k, (data, value, error) in enumerate(zip(window.smooth, window.factors, window.errors, strict=True)):
        yields(f"smooth_{k}", data, float(value), float(error), [])
    for name, data, value, error in window.lines:
        yields(name, data, value, error, [])
    if window.fixed.any():
        samples.append(sample("tails_of_lines", window.fixed))
    shapes = {"spurious_signal": spurious * window.peak} if spurious > 0 else {}
    shapes |= {f"line_shape_{i}": shift for i, shift in enumerate(window.shifts)}
    for name, shift in shapes.items():
        data = {"hi_data": shift.tolist(), "lo_data": (-shift).tolist()}
        both = [{"name": f"{channel}_{name}", "type": "histosys", "data": data}]
        samples.append(sample(name, 0.0 * shift, both))
    spec = assemble({channel: samples}, {} if observed is None else {channel: observed}, check=False)
    if observed is None:
        spec["observations"][0]["data"] = window.expected.tolist()
    spec["measurements"][0]["config"]["parameters"] += free
    return spec


def peak_patchset(
    workspaces: Sequence[Mapping[str, Any]],
    mass: FloatArray,
    coupling: FloatArray,
    *,
    base: int,
    hepdata: str = "ins0000000",
) -> dict[str, Any]:
    """Return the patches that make the workspace of each mass of that of one of them."""
    if not len(workspaces) == len(mass) == len(coupling):
        raise PhysicsError(
            f"peak_patchset: {len(workspaces)} workspaces, {len(mass)} masses and {len(coupling)} couplings"
        )
    root = dict(workspaces[base])
    places = ("channels", "observations", "measurements")
    patches = [
        [{"op": "replace", "path": f"/{place}", "value": space[place]} for place in places]
        for space in workspaces
    ]
    import pyhf  # here: a limit needs none

    pyhf.schema.validate(root, "workspace.json")  # one for all: they are built alike, and it takes long
    return patch_document(root, mass, coupling, patches, about=("eps", hepdata, WINDOWS))


WINDOWS = (
    "Window, background and signal of each mass; the signal goes as mu, which is the square of the kinetic "
    "mixing over that of the label."
)
