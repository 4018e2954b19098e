"""A search for a peak as HistFactory workspaces: smooth templates and lines of free yield in a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.histfactory.modifiers import Modifiers, log_normal
from gammastar.infer.histfactory.patchsets import patch_names
from gammastar.infer.histfactory.workspaces import assemble, sample

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

    Notes
    -----
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
        msg = f"peak_patchset: {len(workspaces)} workspaces, {len(mass)} masses and {len(coupling)} couplings"
        raise PhysicsError(msg)
    root = dict(workspaces[base])
    places = ("channels", "observations", "measurements")
    patches = [
        {
            "metadata": {"name": name, "values": [float(m), float(eps)]},
            "patch": [{"op": "replace", "path": f"/{place}", "value": space[place]} for place in places],
        }
        for name, m, eps, space in zip(patch_names(mass, coupling), mass, coupling, workspaces, strict=True)
    ]
    import pyhf  # here: a limit needs none

    spec: dict[str, Any] = {
        "metadata": {
            "references": {"hepdata": hepdata},
            "digests": {"sha256": pyhf.utils.digest(root, algorithm="sha256")},
            "labels": ["mass_GeV", "eps"],
            "description": "Window, background and signal of each mass; the signal goes as mu, which is the "
            "square of the kinetic mixing over that of the label.",
        },
        "patches": patches,
        "version": "1.0.0",
    }
    pyhf.schema.validate(root, "workspace.json")  # one for all: they are built alike, and it takes long
    pyhf.PatchSet(spec | {"patches": patches[:1]}).verify(root)
    return spec
