"""Sections of the steering file on dark particles: prediction, acceptance, limits, and the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gammastar.core.files import shipped
from gammastar.core.resolve import UserCode

if TYPE_CHECKING:
    from gammastar.predict.names import TheoryOptions

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gammastar.config.fields import Fraction, Masses, Positive, PositiveRange, Section
from gammastar.physics.polarisation import Frame

__all__ = ["Accept", "Displaced", "InSitu", "Infer", "Millicharge", "Predict", "Report", "theory_options"]

Points = Annotated[tuple[tuple[Annotated[float, Field(ge=0)], float], ...], Field(min_length=2)]
Widths = Annotated[tuple[tuple[Positive, Positive], ...], Field(min_length=2)]
CUTS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 18.0, 22.0, 27.0, 33.0, 40.0)  # standard deviations
Share = Annotated[float, Field(ge=0, le=1)]


class Millicharge(Section):
    """Millicharged particles: masses [GeV], how they are sampled, theory channels beside the dileptons.

    With a spectrum the `channels` count below its lowest mass only, where no pair was measured, and the J/ψ
    above; with ``source = "theory"`` they are all there is.
    """

    masses: Annotated[Masses, Field(min_length=1)] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
    strategy: Literal["conditional", "rejection", "per_mass"] = "conditional"
    channels: tuple[str, ...] = ()
    n_sample: Annotated[int, Field(gt=0, le=10**8)] = 20_000


class Predict(Section):
    """Masses and size of the samples; without `masses`, `n_masses` in the measured range.

    With lines they stand closer where the rate bends and at the threshold of the leptons, else they are
    equidistant.

    With ``source = "theory"`` no spectrum is needed: `channels` of a proton beam of `beam_energy` [GeV] on a
    nucleus (`target_a`, `target_z`), whose mesons are those of the table `mesons`. With a spectrum,
    `channels` may add processes that it cannot hold, and `outside` those that it cannot hold outside the
    measured domain, e.g. forward bremsstrahlung: they count there only, with their theory band ("theory" is
    its nuisance); an overlap is refused. `mass_range` bounds the masses.
    `mass_dependence` of the measured rate: "lines" fits a continuum and ω and φ as natural lines to the mass
    bins; "bins" is straight between the means of the bins, wrong by factors beside a line; by default lines
    where the bins allow it (up to 1.2 GeV, at most 60 MeV wide, 3 more than components).
    """

    model: str = "dark_photon"
    source: Literal["spectrum", "theory"] = "spectrum"
    channels: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    bremsstrahlung: str = "qra_v2"
    off_shell: Positive | None = None
    mesons: str = "mesons_400gev"
    beam_energy: Positive | None = None
    target_a: Positive = 207.2
    target_z: Positive = 82.0
    sampler: Literal["flow", "histogram"] = "flow"
    mass_dependence: Literal["lines", "bins"] | None = None
    masses: Masses = ()
    mass_range: PositiveRange | None = None
    n_masses: Annotated[int, Field(ge=2, le=10_000)] = 40
    n_sample: Annotated[int, Field(gt=0, le=10**8)] = 20_000
    millicharge: Millicharge | None = None

    @model_validator(mode="after")
    def _theory(self) -> Predict:
        if self.source == "theory" and (not self.channels or self.beam_energy is None):
            msg = "source = 'theory' needs channels = [...] and beam_energy"
            raise ValueError(msg)
        if self.target_z > self.target_a:
            msg = f"target_z = {self.target_z:g} is more than target_a = {self.target_a:g}"
            raise ValueError(msg)
        if self.source == "theory" and self.outside:
            msg = "outside belongs to source = 'spectrum': theory alone has no measured domain"
            raise ValueError(msg)
        if self.source == "spectrum" and self.beam_energy is not None:
            msg = "beam_energy belongs to source = 'theory'; that of a spectrum stands in [spectrum]"
            raise ValueError(msg)
        return self


class Accept(Section):
    """Detectors of the search: files or names of shipped ones; the first is the main one.

    `target_scaling`: a spectrum of one nucleus for another, per interaction or as A^(α − α_inel) with one
    `alpha` or points [[pT, α], …]. `longitudinal`: share of helicity zero in the virtual photons (1/3 is
    unpolarised) along the axis of `spin_frame`, which decides the angles of l⁺l⁻. Those of theory's Dalitz
    decays are transverse in the rest frame of their meson, whatever these say. `interaction_length` [m], one
    or one per detector: production along the target behind its front face.
    """

    detectors: tuple[str, ...] = ()
    millicharge_detectors: tuple[str, ...] = ()
    final_states: Annotated[tuple[Literal["ee", "mumu"], ...], Field(min_length=1)] = ("ee", "mumu")
    target_scaling: Literal["per_interaction", "power"] | None = None
    alpha: float | Points | None = None
    alpha_inelastic: float | None = None
    longitudinal: Share = 1.0 / 3.0
    spin_frame: Frame = "laboratory"
    interaction_length: Positive | dict[str, Positive] | None = None
    ctau: PositiveRange = (1e-2, 1e5)
    acceptance_masses: Annotated[tuple[Positive, ...], Field(max_length=20)] = (0.3, 0.5, 0.77, 1.0)
    charge: PositiveRange = (1e-5, 0.3)
    n_charges: Annotated[int, Field(ge=10, le=10_000)] = 61

    @model_validator(mode="after")
    def _complete(self) -> Accept:
        if not self.detectors and not self.millicharge_detectors:
            msg = "detectors: name at least one, or one under millicharge_detectors"
            raise ValueError(msg)
        power = self.target_scaling == "power"
        if power and (self.alpha is None or self.alpha_inelastic is None):
            msg = "target_scaling = 'power' needs alpha and alpha_inelastic"
            raise ValueError(msg)
        if not power and not (self.alpha is None and self.alpha_inelastic is None):
            msg = "alpha and alpha_inelastic belong to target_scaling = 'power'"
            raise ValueError(msg)
        if isinstance(self.alpha, tuple) and any(b[0] <= a[0] for a, b in pairwise(self.alpha)):
            msg = f"alpha = {self.alpha}: the points [pT, α] must increase in pT"
            raise ValueError(msg)
        return self


class Displaced(Section):
    """The search for A′ → l⁺l⁻ that decay between the target and the first plane of a vertex telescope.

    `telescope`: its card, a file or the name of a shipped one. The pairs need the columns of [select] vertex,
    in which one unit is `unit` metres. A pair counts if its vertex is more standard deviations behind the
    interaction than a cut and in the fiducial length of the card; of `cuts` each mass takes the one with the
    best expected limit. `distance` and `impact`: most standard deviations between the two tracks, and from
    the line of flight of the pair to the interaction. `window`: half width of the searched masses in
    resolutions. `efficiency_error`: of the efficiency at the decay over that at the target, relative.
    `projections`: further reaches at so many times the pairs. Masses, `cl` and `observed` are those of
    [in_situ].
    """

    telescope: str
    unit: Positive = 1e-6
    cuts: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=30)] = CUTS
    distance: Positive = 2.5
    impact: Positive = 2.5
    window: Annotated[float, Field(ge=0.5, le=5)] = 1.4
    efficiency_error: Fraction = 0.1
    coupling: PositiveRange = (1e-7, 1e-2)
    n_couplings: Annotated[int, Field(ge=10, le=10_000)] = 101
    projections: Annotated[tuple[Positive, ...], Field(max_length=10)] = ()

    @model_validator(mode="after")
    def _increasing(self) -> Displaced:
        if any(b <= a for a, b in pairwise(self.cuts)):
            msg = f"cuts = {list(self.cuts)} must increase"
            raise ValueError(msg)
        return self


class InSitu(Section):
    """The search for a peak of prompt A′ → l⁺l⁻ in the measured pairs themselves: no protons on target enter.

    `masses`, or `n_masses` at equal steps of the resolution in `mass_range`, by default where two resolutions
    on either side are measured. Each is fitted in a window of `half_window` resolutions to either side.
    `background`: "template" is the fitted continuum of the run and its subtracted background, folded with the
    resolution, times a polynomial of `degree`; "polynomial" that polynomial alone. Lines of ω and φ have free
    yields in both. `blind`: where a line and the peak are more alike than this correlation no limit is given.
    `resolution`: "simulation" measures it in the matched pairs; or one width or points [[mass, width], …],
    normal then [GeV]. `resolution_error` and `mass_scale` are relative standard deviations of the width and
    of the place of lines. `spurious` adds what the background model leaves of peaks in smooth expectations to
    the error. `observed`: "data" gives limits from the fitted peaks, never of mock data. `displaced` adds the
    search for decays behind the target.
    """

    masses: Masses = ()
    mass_range: PositiveRange | None = None
    n_masses: Annotated[int, Field(ge=2, le=2_000)] = 60
    half_window: Annotated[float, Field(ge=2, le=20)] = 6.0
    background: Literal["template", "polynomial"] = "template"
    degree: Annotated[int, Field(ge=0, le=8)] = 3
    blind: Annotated[float, Field(gt=0, lt=1)] = 0.95
    resolution: Literal["simulation"] | Positive | Widths = "simulation"
    resolution_error: Fraction = 0.0
    mass_scale: Fraction = 0.0
    spurious: bool = True
    cl: Annotated[float, Field(gt=0.5, lt=1)] = 0.90
    observed: Literal["masked", "data"] = "masked"
    displaced: Displaced | None = None

    @model_validator(mode="after")
    def _complete(self) -> InSitu:
        if isinstance(self.resolution, tuple) and any(b[0] <= a[0] for a, b in pairwise(self.resolution)):
            msg = f"resolution = {self.resolution}: the points [mass, width] must increase in mass"
            raise ValueError(msg)
        if self.masses and self.mass_range is not None:
            msg = "masses and mass_range: give one of them"
            raise ValueError(msg)
        return self


class Infer(Section):
    """Likelihood and reach; background per detector file unless given here for the main one.

    `method`: "auto" takes exact limits below `asymptotic_from` events and asymptotic ones from there on.
    Uncertainties of the signal are those of [systematics]. `discovery`: significances [σ] whose reach is
    written; `projections`: protons on target of further contours. `exports`: the likelihood of the point
    nearest to the limit as HS3 document or HistFactory XML. `submission`: tables and likelihood for HEPData.
    `refine`: at most so many further masses where the contour bends or ends. `min_effective`: a contour ends
    where fewer pairs, measured or simulated, stand behind a yield, or as few drawn particles.
    """

    cl: Annotated[float, Field(gt=0.5, lt=1)] = 0.90
    observed: Literal["masked", "asimov"] | tuple[Annotated[int, Field(ge=0)], ...] = "masked"
    background: Annotated[float, Field(ge=0, le=1e6)] | None = None
    background_sigma: Annotated[float, Field(ge=0)] = 0.0
    method: Literal["auto", "exact", "marginalised", "asymptotic"] = "auto"
    asymptotic_from: Positive = 20.0
    coupling: PositiveRange = (1e-9, 1e-2)
    n_couplings: Annotated[int, Field(ge=10, le=10_000)] = 141
    min_effective: Positive = 10.0
    refine: Annotated[int, Field(ge=0, le=200)] = 0
    discovery: Annotated[tuple[Annotated[float, Field(gt=0, le=8)], ...], Field(max_length=20)] = (3.0, 5.0)
    projections: Annotated[tuple[Positive, ...], Field(max_length=20)] = ()
    max_patches: Annotated[int, Field(gt=0, le=1_000_000)] = 600
    exports: tuple[Literal["hs3", "xml"], ...] = ()
    submission: bool = True
    existing_limits: str | None = None
    hepdata: Annotated[str, Field(pattern=r"^ins[0-9]{7}$")] = "ins0000000"

    @model_validator(mode="after")
    def _complete(self) -> Infer:
        if self.background is None and self.background_sigma > 0:
            msg = "background_sigma belongs to background; without both those of the detector files count"
            raise ValueError(msg)
        return self


class Report(Section):
    """Masses at which the report shows the flow [GeV]."""

    flow_masses: Annotated[tuple[Positive, ...], Field(max_length=20)] = (0.3, 0.5, 0.77)


def theory_options(section: Predict, where: Path | UserCode) -> TheoryOptions:
    """Return what the theory channels of a section need; `where` is its folder or the code frozen there."""
    from gammastar.predict.names import TheoryOptions

    base = where if isinstance(where, Path) else where.folder
    table = section.mesons
    return TheoryOptions(
        section.bremsstrahlung, section.off_shell, lambda: shipped(table, base, "measurements"), where
    )
