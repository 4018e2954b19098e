"""Compiled fits of log-normal nuisances to many data sets, one after the other.

With unit-normal θ, auxiliary measurements g, s_c = μ S_c e^{A_c·θ} and b_c = B_c e^{D_c·θ},

    NLL = Σ_c (s_c + b_c) − Σ_i m_i ln(s r_i + b) + ½ Σ_j (θ_j − g_j)².

With the responsibilities w_i = s r_i/(s r_i + b), W = Σ m w and V = Σ m w (1 − w) per channel, the gradient
is θ − g + Σ_c [(s − W) A + (b − N + W) D] and the Hessian 1 + Σ_c [s A Aᵀ + b D Dᵀ − V (A − D)(A − D)ᵀ].
Without V it is that of a step of expectation-maximisation and positive definite: the way out where the first
is not. A free ln μ is one more column. With multiplicities m bins and Asimov data use the same code.

Switches are numbers and arrays are copied by loops: numba compiles a function once more for each constant of
type bool, and half a second of checks for each assignment to a slice.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

STEPS = 200
NEAR = 1e-7  # Newton decrement: the last step lowers the NLL by half of it, to its power of 3/2


@numba.njit(cache=True)
def _sums(s: Any, b: Any, events: Any, c: Any) -> Any:
    """Return Σ m ln(s r + b), W, V and N of a channel."""
    ratio, times, start = events
    logs, w_sum, v_sum, n_sum, product = 0.0, 0.0, 0.0, 0.0, 1.0
    if s == 0.0:
        for i in range(start[c], start[c + 1]):
            n_sum += times[i]
        return n_sum * math.log(b), 0.0, 0.0, n_sum
    for i in range(start[c], start[c + 1]):
        part = s * ratio[i]
        total = part + b
        w = part / total
        w_sum += times[i] * w
        v_sum += times[i] * w * (1.0 - w)
        n_sum += times[i]
        if times[i] != 1.0:
            logs += times[i] * math.log(total)
            continue
        product *= total  # one logarithm for many events
        if not 1e-200 < product < 1e200:
            logs += math.log(product)
            product = 1.0
    return logs + math.log(product), w_sum, v_sum, n_sum


@numba.njit(cache=True)
def _evaluate(x: Any, model: Any, aux: Any, events: Any, mu: Any, g: Any, h: Any, bend: Any) -> Any:
    """Return the NLL at μ = 0 or 1; fill gradient and lower Hessian, with V (`bend` = 1) or without (0)."""
    yields, a, d = model
    n, p = len(x), a.shape[1]
    nll = 0.0
    for j in range(n):
        g[j] = 0.0
        for k in range(j + 1):
            h[j, k] = 0.0
        if j < p:
            pull = x[j] - aux[j]
            nll += 0.5 * pull * pull
            g[j] = pull
            h[j, j] = 1.0
    for c in range(yields.shape[1]):
        es, eb = (x[p] if n > p else 0.0), 0.0
        for j in range(p):
            es += a[c, j] * x[j]
            eb += d[c, j] * x[j]
        s = yields[0, c] * math.exp(min(es, 100.0)) if mu > 0.0 else 0.0
        b = yields[1, c] * math.exp(min(eb, 100.0))
        nll += s + b
        logs, w_sum, v_sum, n_sum = _sums(s, b, events, c)
        nll -= logs
        v_sum *= bend
        for j in range(n):
            aj, dj = (a[c, j], d[c, j]) if j < p else (1.0, 0.0)
            g[j] += (s - w_sum) * aj + (b - n_sum + w_sum) * dj
            for k in range(j + 1):
                ak, dk = (a[c, k], d[c, k]) if k < p else (1.0, 0.0)
                h[j, k] += s * aj * ak + b * dj * dk - v_sum * (aj - dj) * (ak - dk)
    return nll


@numba.njit(cache=True)
def _solve(h: Any, g: Any, step: Any) -> Any:
    """Solve h·step = −g by Cholesky in place (lower triangle); False if h is not positive definite."""
    n = len(step)
    for j in range(n):
        for k in range(j + 1):
            value = h[j, k]
            for m in range(k):
                value -= h[j, m] * h[k, m]
            if j == k:
                if value <= 1e-12:
                    return False
                h[j, j] = math.sqrt(value)
            else:
                h[j, k] = value / h[k, k]
    for j in range(n):
        value = -g[j]
        for k in range(j):
            value -= h[j, k] * step[k]
        step[j] = value / h[j, j]
    for j in range(n - 1, -1, -1):
        value = step[j]
        for k in range(j + 1, n):
            value -= h[k, j] * step[k]
        step[j] = value / h[j, j]
    return True


@numba.njit(cache=True)
def _copy(source: Any, target: Any) -> None:
    for j in range(len(source)):
        target[j] = source[j]


@numba.njit(cache=True)
def _direction(x: Any, model: Any, aux: Any, events: Any, mu: Any, work: Any) -> Any:
    """Solve for the step (row 1), without V if need be; return its decrement, or −1, and its scale."""
    n, (h, rows) = len(x), work
    g, step = rows[0, :n], rows[1, :n]
    if not _solve(h, g, step):
        _evaluate(x, model, aux, events, mu, g, h, 0.0)
        if not _solve(h, g, step):
            return -1.0, 0.0
    decrement, longest = 0.0, 3.0
    for j in range(n):
        decrement -= g[j] * step[j]
        longest = max(longest, abs(step[j]))
    return decrement, 3.0 / longest


@numba.njit(cache=True)
def _minimise(x: Any, model: Any, aux: Any, events: Any, mu: Any, work: Any) -> Any:
    """Minimise the NLL from x, in place, by Newton steps with backtracking; return the NLL."""
    n, (h, rows) = len(x), work
    g, step, trial, new_g = rows[0, :n], rows[1, :n], rows[2, :n], rows[3, :n]
    nll = _evaluate(x, model, aux, events, mu, g, h, 1.0)
    for _ in range(STEPS):
        decrement, scale = _direction(x, model, aux, events, mu, work)
        if decrement < 0.0:
            break
        if decrement < NEAR:
            for j in range(n):
                x[j] += step[j]
            return nll - 0.5 * decrement
        for _ in range(40):
            for j in range(n):
                trial[j] = x[j] + scale * step[j]
            new = _evaluate(trial, model, aux, events, mu, new_g, h, 1.0)
            if new <= nll - 1e-4 * scale * decrement + 1e-13 * abs(nll):
                break
            scale *= 0.5
        if new > nll:
            break
        for j in range(n):
            x[j], g[j] = trial[j], new_g[j]
        nll = new
    return nll


@numba.njit(cache=True)
def _slope(x: Any, mu: Any, model: Any, events: Any) -> Any:
    """Return dNLL/dμ at fitted nuisances and fixed μ (0 or 1)."""
    yields, a, d = model
    ratio, times, start = events
    slope = 0.0
    for c in range(yields.shape[1]):
        es, eb = 0.0, 0.0
        for j in range(a.shape[1]):
            es += a[c, j] * x[j]
            eb += d[c, j] * x[j]
        s, b = yields[0, c] * math.exp(min(es, 100.0)), yields[1, c] * math.exp(min(eb, 100.0))
        slope += s
        for i in range(start[c], start[c + 1]):
            slope -= times[i] * s * ratio[i] / (mu * s * ratio[i] + b)
    return slope


@numba.njit(cache=True)
def _fixed(mu: Any, x: Any, other: Any, model: Any, aux: Any, events: Any, two: Any, work: Any) -> Any:
    """Minimise at μ = 0 or 1 from x; with `two` > 0 also from `other`, and keep the better one in x."""
    nll = _minimise(x, model, aux, events, mu, work)
    if two * mu > 0.0:
        second = other.copy()
        again = _minimise(second, model, aux, events, mu, work)
        if again < nll:
            _copy(second, x)
            nll = again
    return nll


@numba.njit(cache=True)
def _free(x: Any, log_mu: Any, model: Any, aux: Any, events: Any, work: Any) -> Any:
    full = work[1][6]
    _copy(x, full)
    full[-1] = log_mu
    return _minimise(full, model, aux, events, 1.0, work)


@numba.njit(cache=True)
def _one(kind: Any, model: Any, aux: Any, events: Any, two: Any, work: Any) -> Any:
    """Return the statistic of one data set: 0 ratio s+b/b, 1 q̃ at μ = 1, 2 q₀."""
    n = len(aux)
    x0, x1 = work[1][4, :n], work[1][5, :n]
    _copy(aux, x0)
    _copy(aux, x1)
    nll0 = _fixed(0.0, x0, x0, model, aux, events, 0.0, work)
    if kind == 2:
        if _slope(x0, 0.0, model, events) >= 0.0:
            return 0.0
        total = np.sum(events[1][events[2][0] : events[2][-1]])
        guess = max(total - np.sum(model[0][1]), 0.5) / max(np.sum(model[0][0]), 1e-9)
        return max(2.0 * (nll0 - _free(x0, math.log(guess), model, aux, events, work)), 0.0)
    nll1 = _fixed(1.0, x1, x0, model, aux, events, two, work)
    if kind == 0:
        return 2.0 * (nll1 - nll0)
    if _slope(x1, 1.0, model, events) <= 0.0:
        return 0.0
    if _slope(x0, 0.0, model, events) >= 0.0:
        return 2.0 * (nll1 - nll0)
    return max(2.0 * (nll1 - min(nll0, _free(x1, -0.7, model, aux, events, work))), 0.0)


@numba.njit(cache=True)
def statistic(kind: Any, model: Any, aux: Any, ratio: Any, times: Any, offsets: Any) -> Any:
    """Return the test statistic of every data set."""
    channels = model[0].shape[1]
    sets = (len(offsets) - 1) // channels
    n = model[1].shape[1] + 1
    work = (np.empty((n, n)), np.empty((7, n)))
    two = 0.0
    for exponent in model[2].flat:
        two = max(two, abs(exponent))
    q = np.empty(sets)
    first = -1  # of the sets without events
    for t in range(sets):
        start = offsets[t * channels : (t + 1) * channels + 1]
        if start[-1] == start[0] and len(aux) == 1:
            if first >= 0:
                q[t] = q[first]
                continue
            first = t
        events = (ratio, times, start)
        ambiguous = 1.0 if two > 0.7 and start[-1] > start[0] else 0.0
        q[t] = _one(kind, model, aux[t % len(aux)], events, ambiguous, work)
    return q


@numba.njit(cache=True)
def fit(mu: Any, model: Any, aux: Any, ratio: Any, times: Any, offsets: Any) -> Any:
    """Return fitted nuisances (sets, nuisances) and the NLL (sets,) at μ = 0 or 1."""
    channels, p = model[1].shape
    sets = (len(offsets) - 1) // channels
    work = (np.empty((p + 1, p + 1)), np.empty((4, p + 1)))
    theta, nll = np.empty((sets, p)), np.empty(sets)
    for t in range(sets):
        events = (ratio, times, offsets[t * channels : (t + 1) * channels + 1])
        other = aux[t % len(aux)].copy()
        _copy(other, theta[t])
        _minimise(other, model, aux[t % len(aux)], events, 0.0, work)
        nll[t] = _fixed(mu, theta[t], other, model, aux[t % len(aux)], events, 1.0, work)
    return theta, nll


@numba.njit(cache=True)
def log_density(rates: Any, ratio: Any, offsets: Any) -> Any:
    """Return −Σ(s + b) + Σ ln(s r + b) of every data set for rates (1 or sets, 2, channels)."""
    channels = rates.shape[2]
    sets = (len(offsets) - 1) // channels
    result = np.empty(sets)
    for t in range(sets):
        rate = rates[t % len(rates)]
        result[t] = -np.sum(rate)
        for c in range(channels):
            for i in range(offsets[t * channels + c], offsets[t * channels + c + 1]):
                result[t] += math.log(rate[0, c] * ratio[i] + rate[1, c])
    return result
