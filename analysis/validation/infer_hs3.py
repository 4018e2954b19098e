"""HS3 documents: likelihoods against pyhf and against values recorded from ROOT."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyhf
from effects import like_sign_channel, paired_shape, poisson_counts
from hs3_likelihood import hs3_nll, hs3_parameters
from validation.infer_toys import POT, row

from gammastar.infer import to_hs3
from gammastar.infer.histfactory.hs3 import from_hs3
from gammastar.infer.histfactory.modifiers import log_normal
from gammastar.infer.histfactory.workspaces import assemble, sample

ROOT_MADE = Path(__file__).resolve().parents[2] / "tests" / "golden" / "root_hs3.json"
CODES = {"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}}


def hs3_rows(quick: bool) -> Iterator[dict]:
    spec = dimuons()
    document = to_hs3(spec)
    again = to_hs3(from_hs3(document))
    space = pyhf.Workspace(spec)
    model, rng = space.model(modifier_settings=CODES), np.random.default_rng(4)
    start, worst, back = np.asarray(model.config.suggested_init()), 0.0, 0.0
    for _ in range(10 if quick else 100):
        free = np.where(start == 0, rng.normal(0, 0.8, start.size), start * rng.uniform(0.8, 1.2, start.size))
        named, peer = hs3_parameters(model, free), -float(model.logpdf(free, space.data(model))[0])
        worst = max(worst, abs(hs3_nll(document, named) / peer - 1))
        back = max(back, abs(hs3_nll(again, named) / peer - 1))
    label = "−ln L of an HS3 document, every effect of a dimuon search, largest relative difference"
    yield row(label, worst, 0.0, 1e-9, "pyhf, code4 and code4p")
    yield row("the same after reading the document back", back, 0.0, 1e-9, "pyhf, code4 and code4p")
    for kind, golden in json.loads(ROOT_MADE.read_text())["documents"].items():
        ours = [hs3_nll(golden["hs3"], point) for point in golden["points"]]
        difference = np.abs(np.diff(ours) - np.diff(golden["nll"])).max()
        label = f"−ln L of a HistFactory model exported by ROOT, {kind} errors of bins, largest difference"
        yield row(label, difference, 0.0, 1e-9, "ROOT 6.40, legacy backend")


def dimuons() -> dict:
    """Return a search in four mass bins with every kind of modifier."""
    nominal = np.array([0.4, 2.0, 1.1, 0.2])
    ends = nominal * [1.05, 0.97, 1.1, 1.0], nominal * [0.95, 1.02, 0.93, 1.0]
    shapes = paired_shape("flow", nominal, *ends) + [
        {
            "name": f"unfolding_{k}",
            "type": "histosys",
            "data": {"hi_data": (nominal + s).tolist(), "lo_data": (nominal - s).tolist()},
        }
        for k, s in enumerate((0.05 * nominal, 0.05 * nominal * [1.0, -1.0, 0.5, 0.0]))
    ]
    shared = [*log_normal("pot_search", POT), *log_normal("efficiency", 0.029)]
    control, counts, combinatorial = like_sign_channel(
        "dimuons", [5, 0, 3, 2], modifiers=log_normal("r_factor", 0.05)
    )
    charm = np.array([0.5, 0.4, 0.2, 0.1])
    channels = {
        "dimuons": [
            sample("signal", nominal, shared, shapes, signal=True),
            combinatorial,
            sample("charm", charm, log_normal("charm", 0.3), poisson_counts("charm_mc", charm / 20)),
        ],
        control["name"]: control["samples"],
    }
    return assemble(channels, {"dimuons": [6, 1, 3, 2], control["name"]: counts})
