"""Dark fermions or scalars that couple to a dark photon: masses and vertices from a mass matrix and charges.

The dark photon couples as L = g_D A'_μ ψ̄_i γ^μ (V_ij − A_ij γ₅) ψ_j. Widths need two real numbers of each
pair, G = |V|² + |A|² and D = |V|² − |A|²; the phase of the vertex decides between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import BoolArray, FloatArray, IntArray

Field: TypeAlias = Literal["majorana", "dirac", "scalar"]
FIELDS: tuple[Field, ...] = ("majorana", "dirac", "scalar")
ComplexArray: TypeAlias = npt.NDArray[np.complex128]

BROAD = 0.05  # Γ/M of the dark photon above which the narrow-width picture is flagged
POLE_TOO_NEAR = 1e3  # Landau pole [GeV] below which α_D is flagged
NO_COUPLING = 1e-24  # of the largest G: a vertex that is zero but for rounding
ROUNDING = 1e-9  # of the largest coupling: what a vertex may miss hermiticity by


def _numbers(name: str, what: str, values: npt.ArrayLike, kind: type[Any]) -> npt.NDArray[Any]:
    """Return numbers as an array of their own, or say what is no number."""
    try:
        return np.array(values, dtype=kind)
    except (TypeError, ValueError) as error:
        raise PhysicsError(f"{name}: {what} must be numbers in rows of equal length ({error})") from error


def _refuse(wrong: BoolArray, text: Callable[..., str]) -> None:
    """Refuse the first entry that is wrong; `text` of its indices says why."""
    for index in np.argwhere(wrong)[:1].tolist():
        raise PhysicsError(text(*index))


def takagi(matrix: npt.ArrayLike) -> tuple[FloatArray, ComplexArray]:
    """Factorise a symmetric matrix, Uᵀ M U = diag(m) with m ≥ 0 in increasing order.

    With u = x + i y, M u = m u* is the real eigenproblem [[Re M, −Im M], [−Im M, −Re M]] (x, y) = m (x, y),
    whose eigenvalues come as ± m; degenerate masses stay orthogonal. Massless states complete the basis.
    """
    m = np.asarray(matrix, dtype=np.complex128)
    require(m.ndim == 2 and m.shape[0] == m.shape[1], f"mass matrix of shape {m.shape} must be square")
    require(bool(np.isfinite(m).all()), "mass matrix holds values that are not finite")
    require(np.allclose(m, m.T, rtol=1e-12, atol=0.0), "mass matrix of Majorana fields must be symmetric")
    n = len(m)
    values, vectors = np.linalg.eigh(np.block([[m.real, -m.imag], [-m.imag, -m.real]]))
    masses = values[n:]
    u = vectors[:n, n:] + 1j * vectors[n:, n:]
    massless = masses < 1e-12 * max(float(masses[-1]), 1e-300)
    if massless.any():
        heavy = u[:, ~massless]
        complement = np.linalg.svd(heavy, full_matrices=True)[0][:, heavy.shape[1] :] if heavy.size else u
        u = np.concatenate([complement if heavy.size else np.eye(n, dtype=complex), heavy], axis=1)
        masses = np.where(massless, 0.0, masses)
    return np.asarray(masses, dtype=np.float64), np.asarray(u, dtype=np.complex128)


def landau_pole(alpha_d: float, scale: float, squared_charges: float) -> float:
    """Return the one-loop Landau pole [GeV] of α_D(μ) = α_D/(1 − (2 α_D/3π) Σ Q² ln(μ/μ₀)), as in QED."""
    with np.errstate(over="ignore"):
        return float(scale * np.exp(3.0 * np.pi / (2.0 * alpha_d * squared_charges)))


@dataclass(frozen=True, slots=True, eq=False)
class DarkSector:
    """Mass states of a dark sector and their coupling to the dark photon, in order of their mass."""

    name: str
    mediator: float  # Mass of the dark photon [GeV]
    alpha_d: float  # g_D²/4π
    masses: FloatArray  # shape (n,) [GeV]
    # V_ij and A_ij, hermitian; for scalars `vector` alone. Majorana states have no V_ii, shape (n, n)
    vector: ComplexArray
    axial: ComplexArray
    field: Field  # Capitals count as small letters
    # Σ Q² of the fields that carry dark charge, in units of a Dirac fermion (for the Landau pole)
    squared_charges: float = 1.0

    def __post_init__(self) -> None:
        field = str(self.field).lower()
        require(field in FIELDS, f"{self.name}: field = {self.field!r} is none of {', '.join(FIELDS)}")
        for name in ("mediator", "alpha_d", "squared_charges"):
            value = getattr(self, name)
            require(
                isinstance(value, int | float | np.number) and bool(np.isfinite(value) and value > 0),
                f"{self.name}: {name} = {value!r} must be a positive, finite number",
            )
        masses = _numbers(self.name, "masses", self.masses, np.float64)
        n = masses.size
        require(masses.ndim == 1 and n > 0, f"{self.name}: masses of shape {masses.shape} must be a list")
        _refuse(
            ~(np.isfinite(masses) & (masses >= 0)),
            lambda i: f"{self.name}: mass {masses[i]:g} GeV of state {i + 1} must be a number >= 0",
        )
        matrices = {
            name: _numbers(self.name, f"{name} couplings", getattr(self, name), np.complex128)
            for name in ("vector", "axial")
        }
        scale = max(float(np.abs(m).max(initial=0.0)) for m in matrices.values())
        for name, m in matrices.items():
            square = m.shape == (n, n)
            require(square, f"{self.name}: {name} couplings have shape {m.shape}, expected {(n, n)}")
            self._look(name, m, field, ROUNDING * scale)
        order = np.argsort(masses, kind="stable")
        object.__setattr__(self, "field", field)
        object.__setattr__(self, "masses", masses[order])
        for name, m in matrices.items():
            object.__setattr__(self, name, m[np.ix_(order, order)])

    def _look(self, kind: str, m: ComplexArray, field: str, tolerance: float) -> None:
        """Refuse vertices that are not finite or hermitian, and those that the fields do not have."""
        start = f"{self.name}: {kind} coupling"
        _refuse(~np.isfinite(m), lambda i, j: f"{start} of states {i + 1}, {j + 1} is not finite")
        _refuse(
            np.abs(m - m.conj().T) > tolerance,
            lambda i, j: (
                f"{start}s are not hermitian: {m[i, j]:g} of states {i + 1}, {j + 1}, but "
                f"{m[j, i]:g} of states {j + 1}, {i + 1}, which must be its complex conjugate"
            ),
        )
        why = {("majorana", "vector"): "a Majorana state has no vector current"}
        why |= {("scalar", "axial"): "a scalar has no axial current"}
        if text := why.get((field, kind)):
            absent = np.abs(np.diag(np.diag(m)) if kind == "vector" else m) > tolerance
            given = f"{self.name}: {text}, but {{:g}} was given for states {{}}, {{}}"
            _refuse(absent, lambda i, j: given.format(m[i, j], i + 1, j + 1))

    def strengths(self) -> tuple[FloatArray, FloatArray]:
        """Return G = |V|² + |A|² and D = |V|² − |A|², shape (n, n) each."""
        v, a = np.abs(self.vector) ** 2, np.abs(self.axial) ** 2
        return np.asarray(v + a), np.asarray(v - a)

    @property
    def pole(self) -> float:
        """One-loop Landau pole of α_D [GeV], with α_D given at the mass of the dark photon."""
        return landau_pole(self.alpha_d, self.mediator, self.squared_charges)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a result of this point has to say beside it."""
        found = []
        relative = float(mediator_widths(self)[1].sum()) / self.mediator
        if relative > BROAD:
            found.append(f"the dark photon is broad, width/mass = {relative:.3f}: narrow-width ISR is used")
        if self.pole < POLE_TOO_NEAR:
            found.append(f"alpha_D = {self.alpha_d:g} has its Landau pole at {self.pole:.3g} GeV")
        return tuple(found)


def from_majorana(
    name: str, mass_matrix: npt.ArrayLike, charges: npt.ArrayLike, *, mediator: float, alpha_d: float
) -> DarkSector:
    """Return the sector of left-handed Weyl fields with a Majorana mass matrix.

    C = U† Q U is hermitian; V_ij = i Im C_ij and A_ij = Re C_ij. A Majorana field has no vector current of
    its own, so the diagonal is axial.
    """
    masses, u = takagi(mass_matrix)
    q = np.asarray(charges, dtype=np.float64)
    require(q.shape == masses.shape, f"{name}: {q.size} charges for {masses.size} fields")
    c = np.conj(u.T) @ (q[:, None] * u)
    vertices = np.asarray(1j * c.imag), np.asarray(c.real, dtype=np.complex128)
    return DarkSector(name, mediator, alpha_d, masses, *vertices, "majorana", float(0.5 * (q**2).sum()))


def from_dirac(
    name: str, mass_matrix: npt.ArrayLike, charges: npt.ArrayLike, *, mediator: float, alpha_d: float
) -> DarkSector:
    """Return the sector of Dirac fields, L = −ψ̄_L M ψ_R + h.c., both chiralities with the same charges.

    M = U_L diag(m) U_R† gives V_L,R = U_L,R† Q U_L,R. Where a symmetric matrix has a negative eigenvalue (a
    seesaw with no bare light mass has), U_R differs from U_L by a sign and that field's off-diagonal vertices
    are axial; where all eigenvalues are positive every vertex is a vector.
    """
    matrix = _numbers(name, "mass matrix", mass_matrix, np.complex128)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    require(square, f"{name}: mass matrix of shape {matrix.shape} must be square")
    require(bool(np.isfinite(matrix).all()), f"{name}: mass matrix holds values that are not finite")
    left, masses, right = np.linalg.svd(matrix)
    order = np.argsort(masses)
    q = np.asarray(charges, dtype=np.float64)
    require(q.shape == masses.shape, f"{name}: {q.size} charges for {masses.size} fields")
    u_l, u_r = left[:, order], np.conj(right.T)[:, order]
    v_l, v_r = (np.conj(u.T) @ (q[:, None] * u) for u in (u_l, u_r))
    vertices = np.asarray(0.5 * (v_l + v_r)), np.asarray(0.5 * (v_l - v_r))
    return DarkSector(name, mediator, alpha_d, masses[order], *vertices, "dirac", float((q**2).sum()))


def from_couplings(
    name: str,
    masses: npt.ArrayLike,
    couplings: Sequence[tuple[tuple[int, int], complex | str, complex | str]],
    *,
    field: Field,
    mediator: float,
    **more: float,
) -> DarkSector:
    """Return the sector of states whose masses and couplings are given one by one."""
    size = _numbers(name, "masses", masses, np.float64).size
    vector, axial = np.zeros((2, size, size), dtype=np.complex128)
    seen: set[frozenset[int]] = set()
    for (i, j), *values in couplings:
        inside = {i, j} <= set(range(1, size + 1))
        require(inside, f"{name}: coupling of states {i}, {j}: they count from 1 to {size}")
        require({i, j} not in seen, f"{name}: the coupling of states {i}, {j} is given twice")
        seen.add(frozenset((i, j)))
        v, a = (complex(value) for value in values)
        v = 1j * v if field == "majorana" and i != j and not v.imag else v
        for matrix, value in ((vector, v), (axial, a)):
            matrix[i - 1, j - 1] = value
            matrix[j - 1, i - 1] = value if i == j else value.conjugate()
    known: dict[str, Any] = {"masses": masses, "vector": vector, "axial": axial, "field": field} | more
    return DarkSector(name, mediator, **known)


def mediator_widths(sector: DarkSector) -> tuple[IntArray, FloatArray]:
    """Return the open decays A' → ψ_i ψ_j and their widths.

    Γ = (α_D M/3) λ^½ F S with F = G [1 − (r_i² + r_j²)/2 − (r_i² − r_j²)²/2] + 3 r_i r_j D, r = m/M;
    S = 1, but ½ for a Majorana pair i = j and 2 for the two assignments of a Dirac pair i ≠ j. Scalars:
    (α_D M/12) λ^{3/2}. Derived; the limits are tested.
    """
    i, j = np.triu_indices(len(sector.masses))
    g = sector.strengths()[0][i, j]
    widths = partial_width(sector, i, j, sector.mediator)
    # Rounding in a rotated vertex opens no channel, not even where it is the only one with phase space.
    is_open = (widths > 0) & (g > NO_COUPLING * g.max())
    return np.column_stack([i, j])[is_open], np.asarray(widths[is_open], dtype=np.float64)


def partial_width(sector: DarkSector, i: npt.ArrayLike, j: npt.ArrayLike, mass: npt.ArrayLike) -> FloatArray:
    """Return Γ(A'* → ψ_i ψ_j) of a dark photon of any mass [GeV]; zero where closed."""
    i, j, m = np.asarray(i), np.asarray(j), np.asarray(mass, dtype=np.float64)
    r_i, r_j = sector.masses[i] / m, sector.masses[j] / m
    lam = np.clip((1.0 - (r_i + r_j) ** 2) * (1.0 - (r_i - r_j) ** 2), 0.0, None)
    lam = np.where(r_i + r_j < 1.0, lam, 0.0)
    g, d = (x[i, j] for x in sector.strengths())
    if sector.field == "scalar":
        return np.asarray(sector.alpha_d * m / 12.0 * lam**1.5 * g)
    shape = g * (1.0 - 0.5 * (r_i**2 + r_j**2) - 0.5 * (r_i**2 - r_j**2) ** 2) + 3.0 * r_i * r_j * d
    same = 0.5 if sector.field == "majorana" else 1.0
    different = 1.0 if sector.field == "majorana" else 2.0
    return np.asarray(sector.alpha_d * m / 3.0 * np.sqrt(lam) * shape * np.where(i == j, same, different))


def branching(sector: DarkSector) -> Mapping[tuple[int, int], float]:
    """Return the branching ratios of A' → ψ_i ψ_j within the dark sector."""
    pairs, widths = mediator_widths(sector)
    return {(int(i), int(j)): float(w / widths.sum()) for (i, j), w in zip(pairs, widths, strict=True)}


def pseudo_dirac(
    mu_left: float, mu_right: float, dirac: float, *, mediator: float, alpha_d: float, name: str = "iDM"
) -> DarkSector:
    """Return a Dirac fermion split by Majorana masses μ_L and μ_R [GeV].

    For μ_L = μ_R the coupling is off-diagonal and a vector; otherwise axial diagonal couplings of order
    (μ_L − μ_R)/2m_D appear.
    """
    matrix = [[mu_left, dirac], [dirac, mu_right]]
    return from_majorana(name, matrix, [1.0, -1.0], mediator=mediator, alpha_d=alpha_d)


def idm(mediator: float, *, ratio: float, splitting: float, alpha_d: float, name: str = "iDM") -> DarkSector:
    """Return inelastic dark matter with m₁ = ratio · M and m₂ = (1 + splitting) m₁."""
    light, heavy = _two(mediator, ratio, splitting)
    half = 0.5 * (heavy - light)
    return pseudo_dirac(half, half, 0.5 * (heavy + light), mediator=mediator, alpha_d=alpha_d, name=name)


def scalar_idm(
    mediator: float, *, ratio: float, splitting: float, alpha_d: float, name: str = "scalar iDM"
) -> DarkSector:
    """Return a complex scalar split by a mass term of charge two; masses as in `idm`."""
    vector = np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.complex128)
    masses = np.array(_two(mediator, ratio, splitting))
    return DarkSector(name, mediator, alpha_d, masses, vector, np.zeros_like(vector), "scalar", 0.25)


def inverse_seesaw(
    mu: float,
    lambda_left: float,
    lambda_right: float,
    dirac: float,
    *,
    mediator: float,
    alpha_d: float,
    name: str = "dark inverse seesaw",
) -> DarkSector:
    """Return three Majorana states: a neutral one of mass μ, mixed by Λ_L, Λ_R with a charged pair (M_X).

    All in GeV. For Λ_L = Λ_R the dark photon couples only the C-odd state to the two C-even ones, and the
    cascade is ψ₃ → ψ₂ → ψ₁.
    """
    matrix = [[mu, lambda_left, lambda_right], [lambda_left, 0.0, dirac], [lambda_right, dirac, 0.0]]
    return from_majorana(name, matrix, [0.0, 1.0, -1.0], mediator=mediator, alpha_d=alpha_d)


def symmetric_seesaw(
    light: float, middle: float, heavy: float, *, mediator: float, alpha_d: float, positive: bool = False
) -> DarkSector:
    """Return the inverse seesaw with Λ_L = Λ_R that has three given masses m₁ < m₂ < m₃ [GeV]."""
    if not 0.0 < light < middle < heavy:
        masses = f"{light!r}, {middle!r}, {heavy!r} GeV"
        raise PhysicsError(f"inverse seesaw: masses {masses} must be positive and increase")
    signed = light if positive else -light
    mu = signed + heavy - middle  # trace of the C-even block, and its determinant for Λ
    coupling = float(np.sqrt(0.5 * (mu * middle - signed * heavy)))
    return inverse_seesaw(mu, coupling, coupling, middle, mediator=mediator, alpha_d=alpha_d)


def dark_dirac_seesaw(
    m_neutral: float,
    m_charged: float,
    mixing: float,
    *,
    mediator: float,
    alpha_d: float,
    name: str = "dark Dirac seesaw",
) -> DarkSector:
    """Return Dirac states of [[M₁, M_m], [M_m, M₂]] [GeV], the second charged; axial if M₁ M₂ < M_m²."""
    matrix = [[m_neutral, mixing], [mixing, m_charged]]
    return from_dirac(name, matrix, [0.0, 1.0], mediator=mediator, alpha_d=alpha_d)


def i2dm(
    mediator: float, *, ratio: float, splitting: float, theta: float, alpha_d: float, name: str = "i2DM"
) -> DarkSector:
    """Return the Dirac seesaw with given masses (as in `idm`) and mixing angle [rad]; vector couplings."""
    light, heavy = _two(mediator, ratio, splitting)
    s, c = np.sin(theta), np.cos(theta)
    m_1, m_2 = light * c**2 + heavy * s**2, light * s**2 + heavy * c**2
    return dark_dirac_seesaw(m_1, m_2, (heavy - light) * s * c, mediator=mediator, alpha_d=alpha_d, name=name)


def _two(mediator: float, ratio: float, splitting: float) -> tuple[float, float]:
    if not (ratio > 0 and splitting > 0):
        raise PhysicsError(f"masses: ratio {ratio!r} and splitting {splitting!r} must be positive")
    light = ratio * mediator
    return light, light * (1.0 + splitting)
