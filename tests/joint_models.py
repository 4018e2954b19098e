"""Windows of a joint likelihood for tests: named effects or none, two bins, in situ, without pairs."""

import contextlib
import functools
from dataclasses import replace

import numpy as np
import pyhf
import scipy.optimize
from pyhf.optimize.opt_scipy import scipy_optimizer

from gammastar.infer.joint.expectation import Point, arrays_of, curvature, joint_workspace
from gammastar.infer.joint.model import JointData, JointEffect, JointModel


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


@functools.cache
def peer(one):
    """Return model and data of pyhf, which are not to be changed; the writer looked at their schema."""
    space = pyhf.Workspace(joint_workspace(one), validate=False)
    built = space.model(validate=False)
    return built, space.data(built)


def data_of(one, built, values):
    """Return counts and auxiliary measurements, which pyhf has in one list."""
    sizes = [built.config.channel_nbins[name] for name in built.config.channels]
    sizes += [len(built.config.param_set(name).auxdata) for name in built.config.auxdata_order]
    names = [*built.config.channels, *built.config.auxdata_order]
    found = dict(zip(names, np.split(np.asarray(values), np.cumsum(sizes)[:-1]), strict=True))
    pairs = np.stack([found[name] for name in ("opposite_sign", "plus_plus", "minus_minus")])
    own = [*(effect.name for effect in one.effects), "charge_ratio"]
    auxiliary = np.concatenate([found[name] for name in own])
    search = found.get("search", np.zeros(0))
    return JointData(*(a[None] for a in (pairs, search, auxiliary, found["simulation"])))


def slope_of(one, built, values):
    """Return our slopes of −ln L as a function of the parameters of pyhf, in its order."""
    arrays, data, n, i = arrays_of(one), data_of(one, built, values), built.config.npars, one.counts.shape[1]
    m = n - 2 * i
    ours = as_pyhf(one, built, *np.split(np.arange(n), [m, m + i])).astype(int)  # the place in our order

    def slope(x):
        own = np.empty(n)
        own[ours] = x
        return curvature(arrays, Point.of(own[None], i), data)[0][0, ours]

    return slope


class Minimiser(scipy_optimizer):
    """That of pyhf, with slopes from ours, where SciPy takes its likelihood once more for each parameter."""

    __slots__ = ("one", "slope")

    def __init__(self, one):
        super().__init__()
        self.one = one

    def minimize(self, objective, data, pdf, *given, **options):
        """Minimise the likelihood of pyhf."""
        self.slope = slope_of(self.one, pdf, data)
        return super().minimize(objective, data, pdf, *given, **options)

    def _get_minimizer(self, *_, **__):
        def minimised(func, start, **options):
            return scipy.optimize.minimize(func, start, **options | {"jac": lambda x: 2.0 * self.slope(x)})

        return minimised


@contextlib.contextmanager
def slopes_of(one):
    """Let pyhf fit this model with our slopes of its likelihood: a minimum where they are wrong is none."""
    backend, before = pyhf.get_backend()
    pyhf.set_backend(backend, Minimiser(one))
    try:
        yield
    finally:
        pyhf.set_backend(backend, before)


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
