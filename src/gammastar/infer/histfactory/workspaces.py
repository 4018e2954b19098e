"""HistFactory workspaces that pyhf, cabinetry and HEPData users read: made, assembled, combined."""

from __future__ import annotations

import copy
import math
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.files import Pathlike, output_folder, write_whole
from gammastar.core.records import FloatArray
from gammastar.infer.channels import Channel, binned_channel
from gammastar.infer.histfactory.modifiers import Modifiers, check_modifiers, counts_of, log_normal, yields_of
from gammastar.infer.toys import lint_names

FLOOR = 1e-6
"""Expected events put into a bin without background: pyhf has no likelihood for an expectation of zero."""

MASKED = "limit_masked"
"""Name of the measurement while data stay masked: the file itself says that it holds expected counts."""

POT_NUISANCES = ("pot_calibration", "pot_search")
"""Protons on target of the run that measured the dileptons and of the search: two runs, two nuisances."""


def pot_names(search: str) -> tuple[str, str]:
    """Return the nuisances of protons on target of a search by the name of its detector.

    Every search of a run takes the pairs of the same calibration, and has protons of its own.
    """
    own = re.sub(r"\W+", "_", search).strip("_")
    return POT_NUISANCES[0], f"{POT_NUISANCES[1]}_{own}" if own else POT_NUISANCES[1]


def workspace(
    channel_name: str,
    background: npt.ArrayLike,
    background_sigma: float = 0.0,
    observed: npt.ArrayLike | Literal["masked", "asimov"] = "masked",
    *,
    signal_name: str = "signal",
    pot_calibration_sigma: float = 0.0,
    pot_search_sigma: float | Mapping[str, float] = 0.0,
    poi_maximum: float = 30.0,
) -> dict[str, Any]:
    """Return a background-only workspace in which a signal of zero events waits for its patch.

    Parameters
    ----------
    background : float, or array_like of shape (n,)
        Expected events per bin. All zero means that no background is assumed: the sample is then called
        ``background_zero_assumed``.
    background_sigma : float
        Standard deviation of the logarithm of the background (ln κ).
    observed : array_like of int, shape (n,), or "masked" or "asimov"
        Without an observation the workspace holds the expected background.
    pot_calibration_sigma : float
        Standard deviation of the logarithm; 0 leaves the nuisance out (in situ both cancel).
    pot_search_sigma : float, or mapping of str to float
        That of the search's own protons on target, or this by the name of the nuisance: channels of one
        search share ``pot_search``, searches of several detectors have names of their own (`pot_names`).
    poi_maximum : float
        Upper bound of the signal strength ``mu``.

    Returns
    -------
    dict
        Valid HistFactory JSON 1.0.0 with one measurement of the parameter ``mu``: ``limit``, or
        ``limit_masked`` without an observation, from which no observed result is ever computed here.

    Raises
    ------
    PhysicsError, NegativeYieldError
        Before any fit, for what HistFactory would refuse late or accept silently.

    Notes
    -----
    L. Heinrich, M. Feickert, G. Stark, K. Cranmer, J. Open Source Softw. 6 (2021) 2823. Nuisances of the same
    name in several channels are one nuisance once the workspaces are combined.

    Examples
    --------
    >>> spec = workspace("dimuons", 0.5, 0.3, pot_search_sigma=0.18)
    >>> [sample["name"] for sample in spec["channels"][0]["samples"]]
    ['signal', 'background']
    """
    bins = yields_of(background, f"channel {channel_name!r}, background")
    if not (np.isfinite(poi_maximum) and poi_maximum > 0):
        raise PhysicsError(f"channel {channel_name!r}: poi_maximum = {poi_maximum!r} must be positive")
    own = pot_search_sigma if isinstance(pot_search_sigma, Mapping) else {POT_NUISANCES[1]: pot_search_sigma}
    pots = {POT_NUISANCES[0]: pot_calibration_sigma, **own}
    label = "background" if bins.any() else "background_zero_assumed"
    norm = log_normal(f"background_norm_{channel_name}", background_sigma)
    protons = [modifier for name, sigma in pots.items() for modifier in log_normal(name, sigma)]
    samples = [
        sample(signal_name, np.zeros(bins.size), protons, signal=True),
        sample(label, np.maximum(bins, FLOOR / bins.size), norm if bins.any() else ()),
    ]
    return assemble({channel_name: samples}, {channel_name: observed}, poi_maximum=poi_maximum)


def observations(
    channel: str, background: FloatArray, observed: npt.ArrayLike | Literal["masked", "asimov"]
) -> FloatArray:
    """Return the counts per bin, or the expected background where the data stay masked."""
    if isinstance(observed, str):
        if observed not in {"masked", "asimov"}:
            raise PhysicsError(
                f"channel {channel!r}: observed = {observed!r} must be counts, 'masked' or 'asimov'"
            )
        return np.maximum(background, FLOOR / background.size)
    return counts_of(observed, background.size, f"channel {channel!r}")


def sample(
    name: str, nominal: npt.ArrayLike, *modifiers: Iterable[Mapping[str, Any]], signal: bool = False
) -> dict[str, Any]:
    """Return a sample of a channel from its expected events and lists of modifiers."""
    first: Modifiers = [{"name": "mu", "type": "normfactor", "data": None}] if signal else []
    listed = [dict(modifier) for group in modifiers for modifier in group]
    check_modifiers([*first, *listed], f"sample {name!r}")
    return {
        "name": name,
        "data": yields_of(nominal, f"sample {name!r}").tolist(),
        "modifiers": first + listed,
    }


Observed: TypeAlias = npt.ArrayLike | Literal["masked", "asimov"]


def assemble(
    channels: Mapping[str, Sequence[Mapping[str, Any]]],
    observed: Mapping[str, Observed],
    *,
    poi_maximum: float = 30.0,
    check: bool = True,
) -> dict[str, Any]:
    """Return a workspace from samples per channel."""
    lint_names([m["name"] for samples in channels.values() for s in samples for m in s["modifiers"]])
    unknown = set(observed) - set(channels)
    if unknown:
        raise PhysicsError(f"assemble: observations of unknown channels {sorted(unknown)}")
    measured = []
    masked = any(isinstance(observed.get(name, "masked"), str) for name in channels)
    label = MASKED if masked else "limit"
    for name, samples in channels.items():
        others = [s["data"] for s in samples if all(m["name"] != "mu" for m in s["modifiers"])]
        background = np.sum(others, axis=0) if others else np.zeros(len(samples[0]["data"]))
        counts = observations(name, np.asarray(background, np.float64), observed.get(name, "masked"))
        measured.append({"name": name, "data": counts.tolist()})
    bounds = {"name": "mu", "inits": [1.0], "bounds": [[0.0, float(poi_maximum)]]}
    spec: dict[str, Any] = {
        "channels": [{"name": name, "samples": list(samples)} for name, samples in channels.items()],
        "observations": measured,
        "measurements": [{"name": label, "config": {"poi": "mu", "parameters": [bounds]}}],
        "version": "1.0.0",
    }
    if check:
        _validate(spec)
    return spec


PER_CHANNEL = {"shapesys", "staterror", "shapefactor"}
USUAL = 5.0  # bounds of a nuisance in HistFactory [standard deviations]


def combine(
    workspaces: Sequence[Mapping[str, Any]], *, prefixes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return one workspace of all channels.

    Parameters
    ----------
    workspaces : sequence of mapping
        With one measurement each and the same parameter of interest.
    prefixes : sequence of str, optional
        Put in front of the channels' names, one per workspace, e.g. of the experiments.

    Returns
    -------
    dict
        Valid HistFactory JSON. Equal names of nuisances are one nuisance (protons on target, say); names that
        differ in spelling only are refused, as are bin-wise nuisances of one name in two channels. One masked
        workspace masks the combination.

    Raises
    ------
    PhysicsError

    Examples
    --------
    >>> from gammastar.infer import workspace
    >>> both = combine([workspace(name, 0.5, pot_search_sigma=0.18) for name in ("ee", "mumu")])
    >>> import pyhf
    >>> pyhf.Workspace(both).channels
    ['ee', 'mumu']
    """
    if not workspaces or (prefixes is not None and len(prefixes) != len(workspaces)):
        raise PhysicsError("combine: give at least one workspace, and one prefix for each or none")
    parts = [
        _prefixed(space, prefix)
        for space, prefix in zip(workspaces, prefixes or [""] * len(workspaces), strict=True)
    ]
    channels = [channel for part in parts for channel in part["channels"]]
    names = [channel["name"] for channel in channels]
    if len(set(names)) < len(names):
        raise PhysicsError(f"combine: channels {names} must have different names; give prefixes")
    _check_shared(channels)
    configs = [part["measurements"][0]["config"] for part in parts]
    labels = [part["measurements"][0]["name"] for part in parts]
    pois = {config["poi"] for config in configs}
    if len(pois) > 1:
        raise PhysicsError(f"combine: parameters of interest {sorted(pois)} differ")
    parameters: dict[str, Any] = {}
    for config in configs:
        for parameter in config["parameters"]:
            other = parameters.setdefault(parameter["name"], parameter)
            if other != parameter:
                raise PhysicsError(
                    f"combine: parameter {parameter['name']!r} is set up differently: {other}, {parameter}"
                )
    spec = {
        "channels": channels,
        "observations": [observation for part in parts for observation in part["observations"]],
        "measurements": [
            {
                "name": MASKED if MASKED in labels else parts[0]["measurements"][0]["name"],
                "config": {"poi": configs[0]["poi"], "parameters": list(parameters.values())},
            }
        ],
        "version": "1.0.0",
    }
    _validate(spec)
    return spec


def channels_of(workspace: Mapping[str, Any]) -> list[Channel]:
    """Return the channels of a workspace for the exact engine.

    Of the measurement's parameters `fixed` takes a nuisance θ out, at its `inits`, and `auxdata` a moves the
    centre of its constraint. With θ = a + θ′ that is a unit normal around zero again, of yields times κ^a:
    those of the channels. `inits` of others are starting values, and the strength lies between zero and
    the tested one by the definition of the statistic; bounds narrower than the usual ±5 are refused.
    """
    config = workspace["measurements"][0]["config"]
    poi = config["poi"]
    used = {m["name"] for c in workspace["channels"] for s in c["samples"] for m in s["modifiers"]}
    centres, fixed = _centres(poi, [entry for entry in config["parameters"] if entry["name"] in used])
    masked = workspace["measurements"][0]["name"] == MASKED
    counts = {o["name"]: o["data"] for o in workspace["observations"]}
    found = []
    for channel in workspace["channels"]:
        signals = [s for s in channel["samples"] if any(m["name"] == poi for m in s["modifiers"])]
        others = [s for s in channel["samples"] if s not in signals]
        if len(signals) != 1 or len(others) != 1:
            raise PhysicsError(
                f"channel {channel['name']!r}: needs one signal and one background sample for exact limits"
            )
        yields, sigmas = [], []
        for sample in (*signals, *others):
            moved = _log_normals(sample, poi)
            shift = sum(sigma * centres.get(name, 0.0) for name, sigma in moved.items())
            yields.append([value * math.exp(shift) for value in sample["data"]])
            sigmas.append({name: sigma for name, sigma in moved.items() if name not in fixed})
        found.append(
            binned_channel(
                channel["name"],
                signal=yields[0],
                background=yields[1],
                observed="masked" if masked else counts[channel["name"]],
                signal_sigma=sigmas[0],
                background_sigma=sigmas[1],
            )
        )
    return found


def _centres(poi: str, parameters: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], set[str]]:
    """Return where each set-up nuisance is centred or fixed, and the names of the fixed ones."""
    centres: dict[str, float] = {}
    fixed: set[str] = set()
    for entry in parameters:
        name = entry["name"]
        what = f"parameter {name!r} of the measurement"
        if name == poi:
            if entry.get("fixed") or "auxdata" in entry or "sigmas" in entry:
                raise PhysicsError(f"{what}: the parameter of interest can be neither fixed nor constrained")
            continue
        if name in centres:
            raise PhysicsError(f"{what} is set up twice; keep one entry")
        if "sigmas" in entry or "factors" in entry:
            raise PhysicsError(
                f"{what}: a log-normal nuisance has no sigmas or factors; put its size into hi and lo"
            )
        values = entry.get("inits", [0.0]) if entry.get("fixed") else entry.get("auxdata", [0.0])
        if len(values) != 1 or not math.isfinite(values[0]):
            raise PhysicsError(f"{what}: {values} must be one finite number")
        if entry.get("fixed"):
            fixed.add(name)
        elif any(low > -USUAL or high < USUAL for low, high in entry.get("bounds", [])):
            raise PhysicsError(
                f"{what}: bounds {entry['bounds']} are narrower than ±{USUAL:g}, and exact limits do not "
                "bound their fits; leave the bounds out, or take method = 'asymptotic'"
            )
        centres[name] = float(values[0])
    return centres, fixed


def write_xml(workspace: Mapping[str, Any], directory: Pathlike, *, prefix: str = "limit") -> Path:
    """Write a workspace as HistFactory XML with ROOT histograms, for RooStats; return the top file.

    The conversion is pyhf's. Parameters and paths in the XML are relative to `directory`.

    Parameters
    ----------
    workspace : mapping
        Of pyhf.
    prefix : str
        Of the names of the files.
    """
    from pyhf import writexml  # here: it reads ROOT files as well, which takes its time to import

    directory = Path(directory)
    with tempfile.TemporaryDirectory() as scratch, output_folder(directory):
        config, data = Path(scratch, "config"), Path(scratch, "data")
        config.mkdir()
        data.mkdir()
        text = writexml.writexml(copy.deepcopy(dict(workspace)), str(config), str(data), prefix)
        Path(scratch, f"{prefix}.xml").write_bytes(text)
        place = escape(str(directory), {'"': "&quot;"}).encode()
        for file in (path for path in Path(scratch).rglob("*") if path.is_file()):
            content = file.read_bytes()
            shown = content.replace(scratch.encode(), place) if file.suffix == ".xml" else content
            write_whole(directory / file.relative_to(scratch), shown)
    return directory / f"{prefix}.xml"


def _validate(spec: dict[str, Any]) -> None:
    """Refuse what is no workspace to the schema of HistFactory."""
    import pyhf  # here: a limit needs none

    pyhf.schema.validate(spec, "workspace.json")


def _prefixed(workspace: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    spec: dict[str, Any] = copy.deepcopy(dict(workspace))
    if len(spec["measurements"]) != 1:
        raise PhysicsError(f"combine: {len(spec['measurements'])} measurements in a workspace, expected one")
    if prefix:
        for entry in (*spec["channels"], *spec["observations"]):
            entry["name"] = f"{prefix}_{entry['name']}"
    return spec


def _check_shared(channels: Sequence[Mapping[str, Any]]) -> None:
    names: list[str] = []
    owner: dict[str, str] = {}
    for channel in channels:
        for sample in channel["samples"]:
            for modifier in sample["modifiers"]:
                names.append(modifier["name"])
                if modifier["type"] not in PER_CHANNEL - {"shapefactor"}:
                    continue
                first = owner.setdefault(modifier["name"], channel["name"])
                if first != channel["name"]:
                    raise PhysicsError(
                        f"combine: bin-wise nuisance {modifier['name']!r} occurs in channels {first!r} and "
                        f"{channel['name']!r}; give it one name per channel"
                    )
    lint_names(names)


def _log_normals(sample: Mapping[str, Any], poi: str) -> dict[str, float]:
    sigmas: dict[str, float] = {}
    for modifier in sample["modifiers"]:
        if modifier["name"] == poi and modifier["type"] == "normfactor":
            continue
        data = modifier["data"]
        if modifier["type"] != "normsys" or abs(data["hi"] * data["lo"] - 1.0) > 1e-6:
            raise PhysicsError(
                f"sample {sample['name']!r}: modifier {modifier['name']!r} ({modifier['type']}) is not "
                "log-normal; exact limits know normsys with lo = 1/hi only"
            )
        if modifier["name"] in sigmas:
            raise PhysicsError(
                f"sample {sample['name']!r}: modifier {modifier['name']!r} occurs twice; keep one of them"
            )
        sigmas[modifier["name"]] = math.log(data["hi"])
    return sigmas
