"""Windows of a joint likelihood for tests: named effects or none, two bins, in situ, without pairs."""

from dataclasses import replace

import numpy as np
import pyhf

from gammastar.infer.joint.model import JointEffect, JointModel
from gammastar.infer.joint.workspace import joint_workspace


def model(size=60.0, *, bins=8, cells=6, seed=0, named=True, search=1, **changes):
    """Return a window of `size` expected pairs, three events of signal and half a one of background."""
    rng = np.random.default_rng(seed)
    x, t = np.linspace(0, 1, bins)[:, None], np.linspace(0.05, 0.95, cells)
    response = np.exp(-0.5 * ((x - t) / 0.15) ** 2)
    response *= 0.4 / response.sum(axis=0)
    truth = np.exp(-2 * t)
    truth *= size / 0.4 / truth.sum()
    like = np.full(bins, 0.1 * size / bins)
    factor, root, charm = np.linspace(1.0, 1.1, bins), np.sqrt(0.9), np.full(bins, 0.05 * size / bins)
    counts = rng.poisson([response @ truth + 2 * factor * like + charm, like / root, like * root])
    signal = 3.0 * t**2 / (truth @ t**2)
    listed = (
        JointEffect("pot", signal=0.18),
        JointEffect("acceptance", signal=np.linspace(-0.1, 0.2, cells)),
        JointEffect("efficiency", response=-0.1 * response * (1 + x) / 2),
        JointEffect("r_factor", r_factor=0.1),
        JointEffect("charm_norm", templates={"charm": 0.3}),
        JointEffect("background_norm", background=0.4),
    )
    values = {
        "pairs": 1.3 * truth,
        "response": response,
        "variance": 0.4 * response / 200.0,
        "counts": counts,
        "signal": np.repeat(signal[:, None] / max(search, 1), search, axis=1),
        "background": np.full(search, 0.5),
        "observed": np.array([3.0, *np.zeros(search)])[:search],
        "r_factor": factor,
        "charges": 0.9,
        "templates": {"charm": charm},
        "effects": listed if named else (),
    }
    return JointModel(**(values | changes))


def in_situ():
    """Return a search in the pairs themselves: one channel, no acceptance of its own."""
    plain = model(bins=10)
    peak = np.exp(-0.5 * ((np.arange(10) - 4.5) / 1.2) ** 2)[:, None] * plain.response
    nothing = {"signal": np.zeros((6, 0)), "background": np.zeros(0), "observed": np.zeros(0)}
    return replace(plain, **nothing, in_situ=0.05 * peak, effects=plain.effects[2:5])


MODELS = {
    "window": model(),
    "no effects": model(named=False),
    "two bins of the search": model(search=2),
    "in situ": in_situ(),
    "empty pairs": model(counts=np.zeros((3, 8))),
}


def peer(one):
    space = pyhf.Workspace(joint_workspace(one))
    built = space.model()
    return built, space.data(built)


def as_pyhf(one, built, core, like, gamma):
    """Return the parameters in the order of pyhf."""
    j, values = len(one.pairs), np.zeros(built.config.npars)
    names = [effect.name for effect in one.effects]
    for name in built.config.par_order:
        if name == "mu":
            found = core[0]
        elif name.startswith("cell_"):
            found = core[1 + int(name[5:])]
        elif name in ("like_sign", "simulation"):
            found = like if name == "like_sign" else gamma
        else:
            found = core[-1] if name == "charge_ratio" else core[1 + j + names.index(name)]
        values[built.config.par_slice(name)] = found
    return values


def drawn(one, seed=1):
    rng, i = np.random.default_rng(seed), one.counts.shape[1]
    core = np.r_[
        rng.uniform(0, 3), rng.uniform(0.1, 2, len(one.pairs)), rng.normal(0, 0.9, len(one.effects) + 1)
    ]
    return core, rng.uniform(0.1, 3, i), rng.normal(1, 0.1, i)
