"""Sections of the steering file on dark particles: prediction, acceptance, limits, and the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gammastar.core.files import is_file, is_folder, shipped
from gammastar.core.resolve import UserCode

if TYPE_CHECKING:
    from gammastar.predict.models import TheoryOptions

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gammastar.config.fields import Fraction, Masses, MassRange, Momenta, Positive, PositiveRange, Section
from gammastar.physics.polarisation import Frame

Points = Annotated[tuple[tuple[Annotated[float, Field(ge=0)], float], ...], Field(min_length=2)]
Widths = Annotated[tuple[tuple[Positive, Positive], ...], Field(min_length=2)]
CUTS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 18.0, 22.0, 27.0, 33.0, 40.0)  # standard deviations
Protons = Annotated[float, Field(ge=1, le=1e30)]
Share = Annotated[float, Field(ge=0, le=1)]


class Millicharge(Section):
    """Millicharged particles: their masses, how they are sampled, theory channels beside the dileptons.

    With a spectrum the `channels` count below its lowest mass only, where no pair was measured, and the J/ψ
    above; with ``source = "theory"`` they are all there is.
    """

    masses: Annotated[Masses, Field(min_length=1)] = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
    """Masses of the particle [GeV]."""
    channels: tuple[str, ...] = ()
    """Theory channels, as in [predict]."""
    n_sample: Annotated[int, Field(gt=0, le=2_000_000)] = 20_000
    """Virtual photons that are drawn per mass."""


class Predict(Section):
    """Model and masses of the dark particles, and where their rate comes from.

    With ``source = "theory"`` no spectrum is needed.
    """

    model: str = "dark_photon"
    """'dark_photon', a set of charges such as 'b_minus_l', or a user model, 'file.py:Name'."""
    source: Literal["spectrum", "theory"] = "spectrum"
    """Rate from the measured spectrum, or from theory alone."""
    channels: tuple[str, ...] = ()
    """Theory channels: with a spectrum processes that it cannot hold; a name, a user channel 'file.py:Name',
    or tables of FORESEE, 'foresee:FOLDER'."""
    outside_domain: tuple[str, ...] = ()
    """Theory channels that count outside the measured domain only, e.g. forward bremsstrahlung, with their
    theory band ('theory' is its nuisance); an overlap is refused."""
    bremsstrahlung: str = "qra_v2"
    """Convention of proton bremsstrahlung: 'qra_v2', 'qra_v1', 'na62', 'fairship' or 'fww_vmd'."""
    off_shell: Positive | None = None
    """Λ of its off-shell form factor, in the place of the convention's [GeV]."""
    mesons: str = "mesons_400gev"
    """Table of the mesons per interaction: a file, one of the shipped ``measurements/``, or a folder of
    spectra of FORESEE."""
    sigma_inelastic: Positive | None = None
    """Inelastic cross section by which those of FORESEE's tables become rates per interacting proton; without
    it rates are in pb, for detectors with a luminosity [mb]."""
    beam_energy: Positive | None = None
    """Energy of the proton beam, for theory alone [GeV]."""
    target_a: Positive = 207.2
    """Mass number of the nucleus, for theory alone."""
    target_z: Positive = 82.0
    """Atomic number of the nucleus, for theory alone."""
    sampler: Literal["flow", "histogram"] = "flow"
    """What draws q_T and energy at a mass: the flow, or the histogram of the pairs."""
    mass_dependence: Literal["lines", "bins"] | None = None
    """Of the measured rate: 'lines' fits a continuum and ω and φ as natural lines to the mass bins; 'bins' is
    straight between the means of the bins, wrong by factors beside a line. By default lines where the bins
    allow it (up to 2.9 GeV, at most 60 MeV wide, 3 more than components); an alarm says where they do not."""
    masses: Masses = ()
    """Masses of the dark particle; without them `n_masses` in `mass_range` [GeV]."""
    mass_range: MassRange | None = None
    """Range of these masses; that of the spectrum by default [GeV]."""
    n_masses: Annotated[int, Field(ge=2, le=10_000)] = 40
    """Number of mass points. With lines they are denser where the rate bends and at the threshold of the
    leptons, else equidistant."""
    n_sample: Annotated[int, Field(gt=0, le=2_000_000)] = 20_000
    """Particles that are drawn per mass."""
    millicharge: Millicharge | None = None
    """Millicharged particles beside the dark photon."""

    @model_validator(mode="after")
    def _theory(self) -> Predict:
        if self.source == "theory" and (not self.channels or self.beam_energy is None):
            raise ValueError("source = 'theory' needs channels = [...] and beam_energy")
        if self.target_z > self.target_a:
            raise ValueError(f"target_z = {self.target_z:g} is more than target_a = {self.target_a:g}")
        if self.source == "theory" and self.outside_domain:
            raise ValueError(
                "outside_domain belongs to source = 'spectrum': theory alone has no measured domain"
            )
        if self.source == "spectrum" and self.beam_energy is not None:
            msg = "beam_energy belongs to source = 'theory'; that of a spectrum stands in [spectrum]"
            raise ValueError(msg)
        return self


class Accept(Section):
    """Detectors of the search, and how the signal is carried to them."""

    detectors: tuple[str, ...] = ()
    """Detectors: files, or names of shipped ones; the first is the main one."""
    millicharge_detectors: tuple[str, ...] = ()
    """Detectors of millicharged particles."""
    final_states: Annotated[tuple[Literal["ee", "mumu"], ...], Field(min_length=1)] = ("ee", "mumu")
    """Lepton pairs into which the dark particle is seen to decay."""
    target_scaling: Literal["per_interaction", "power"] | None = None
    """A spectrum of one nucleus for another: per interaction, or as A^(α − α_inel). Without it both must be
    the same."""
    alpha: float | Points | None = None
    """α of the production: a number, or points [[pT, α], …], pT in GeV."""
    alpha_inelastic: float | None = None
    """α of the inelastic cross section."""
    longitudinal: Share = 1.0 / 3.0
    """Share of helicity zero in the virtual photons along the axis of `spin_frame`, which decides the angles
    of l⁺l⁻; 1/3 is unpolarised. Those of theory's Dalitz decays are transverse in the rest frame of their
    meson, whatever this says."""
    spin_frame: Frame = "laboratory"
    """Axis of that share."""
    interaction_length: Positive | dict[str, Positive] | None = None
    """Interaction length of the target, one or one per detector: production along the target behind its front
    face [m]."""
    ctau: PositiveRange = (1e-2, 1e5)
    """Range of proper decay lengths in the figure of acceptance [m]."""
    acceptance_masses: Annotated[tuple[Positive, ...], Field(max_length=20)] = (0.3, 0.5, 0.77, 1.0)
    """Masses in the figure of acceptance [GeV]."""
    charge: PositiveRange = (1e-5, 0.3)
    """Range of charges of millicharged particles [e]."""
    n_charges: Annotated[int, Field(ge=10, le=10_000)] = 61
    """Charges in that range."""

    @model_validator(mode="after")
    def _complete(self) -> Accept:
        if not self.detectors and not self.millicharge_detectors:
            raise ValueError("detectors: name at least one, or one under millicharge_detectors")
        power = self.target_scaling == "power"
        if power and (self.alpha is None or self.alpha_inelastic is None):
            raise ValueError("target_scaling = 'power' needs alpha and alpha_inelastic")
        if not power and not (self.alpha is None and self.alpha_inelastic is None):
            raise ValueError("alpha and alpha_inelastic belong to target_scaling = 'power'")
        if isinstance(self.alpha, tuple) and any(b[0] <= a[0] for a, b in pairwise(self.alpha)):
            raise ValueError(f"alpha = {self.alpha}: the points [pT, α] must increase in pT")
        return self


class Displaced(Section):
    """The search for A′ → l⁺l⁻ that decay between the target and the first plane of a vertex telescope.

    The pairs need the columns of [select] vertex. A pair counts if its vertex is more standard
    deviations behind the interaction than a cut and in the fiducial length of the card. Masses, `cl` and
    `observed` are those of [in_situ].
    """

    telescope: str
    """Card of the telescope: a file, or the name of a shipped one."""
    unit: Positive = 1e-6
    """Unit of the columns of [select] vertex [m]."""
    cuts: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=30)] = CUTS
    """Cuts on the distance behind the interaction, of which each mass takes the one with the best expected
    limit [standard deviations]."""
    distance: Positive = 2.5
    """Largest distance between the two tracks [standard deviations]."""
    impact: Positive = 2.5
    """Largest distance from the line of flight of the pair to the interaction [standard deviations]."""
    window: Annotated[float, Field(ge=0.5, le=5)] = 1.4
    """Half width of the searched masses [resolutions]."""
    efficiency_error: Fraction = 0.1
    """Error of the efficiency at the decay over that at the target, relative."""
    coupling: PositiveRange = (1e-7, 1e-2)
    """Range of couplings of the scan."""
    n_couplings: Annotated[int, Field(ge=10, le=10_000)] = 101
    """Couplings in that range."""
    projections: Annotated[tuple[Positive, ...], Field(max_length=10)] = ()
    """Also compute the reach for these multiples of the data set."""

    @model_validator(mode="after")
    def _increasing(self) -> Displaced:
        if any(b <= a for a, b in pairwise(self.cuts)):
            raise ValueError(f"cuts = {list(self.cuts)} must increase")
        return self


class InSitu(Section):
    """The search for a peak of prompt A′ → l⁺l⁻ in the measured pairs themselves.

    No protons on target enter.
    """

    masses: Masses = ()
    """Masses of the search; without them `n_masses` in `mass_range` [GeV]."""
    mass_range: MassRange | None = None
    """Range of the masses; by default where two resolutions on either side are measured [GeV]."""
    n_masses: Annotated[int, Field(ge=2, le=2_000)] = 60
    """Number of mass points, at equal steps of the resolution."""
    half_window: Annotated[float, Field(ge=2, le=20)] = 6.0
    """Half width of the window of each fit [resolutions]."""
    background: Literal["template", "polynomial"] = "template"
    """'template' is the fitted continuum of the run and its subtracted background, folded with the
    resolution, times a polynomial; 'polynomial' that polynomial alone. Lines of ω and φ have free yields
    in both."""
    degree: Annotated[int, Field(ge=0, le=8)] = 3
    """Degree of the polynomial."""
    max_line_correlation: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """No limit is set where resonance and signal templates are correlated above this value."""
    resolution: Literal["simulation"] | Positive | Widths = "simulation"
    """'simulation' measures it in the matched pairs; or one width, or points [[mass, width], …], normal then
    [GeV]."""
    resolution_error: Fraction = 0.0
    """Standard deviation of the width of peak and lines, relative."""
    mass_scale: Fraction = 0.0
    """Standard deviation of the place of lines, relative."""
    spurious: bool = True
    """Add to the error what the background model leaves of peaks in smooth expectations."""
    cl: Annotated[float, Field(gt=0.5, lt=1)] = 0.90
    """Confidence level of limits."""
    observed: Literal["masked", "data"] = "masked"
    """'data' gives limits from the fitted peaks, never of mock data."""
    displaced: Displaced | None = None
    """The search for decays behind the target."""

    @model_validator(mode="after")
    def _complete(self) -> InSitu:
        if isinstance(self.resolution, tuple) and any(b[0] <= a[0] for a, b in pairwise(self.resolution)):
            msg = f"resolution = {self.resolution}: the points [mass, width] must increase in mass"
            raise ValueError(msg)
        if self.masses and self.mass_range is not None:
            raise ValueError("masses and mass_range: give one of them")
        return self


class Joint(Section):
    """The joint likelihood of [infer]: a mass window about each mass, and its cells."""

    pt: Annotated[Momenta, Field(max_length=12)]
    """Edges of the cells in transverse momentum, true and measured [GeV]."""
    energy: Annotated[Momenta, Field(max_length=12)]
    """Edges of the cells in energy, true and measured [GeV]."""
    window: Annotated[float, Field(gt=0, le=1)] = 0.04
    """Half width of the masses whose pairs predict the signal; a side band of twice this on either side has
    free contents of its own [GeV]."""
    efficiency_floor: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """True cells of lower efficiency are left out with their signal: pairs say nothing about them."""
    n_toys: Annotated[int, Field(ge=50, le=100_000)] = 300
    """Pseudo-experiments of each hypothesis, where limits are not asymptotic."""
    n_couplings: Annotated[int, Field(ge=1, le=50)] = 4
    """Couplings per mass at which a limit is set; it is interpolated between them."""
    n_replicas: Annotated[int, Field(ge=2, le=1000)] = 30
    """Bootstraps of the simulation, for its part of the errors."""


class Infer(Section):
    """Limits, contours, and what is published of them.

    Uncertainties of the signal are those of [systematics].
    """

    cl: Annotated[float, Field(gt=0.5, lt=1)] = 0.90
    """Confidence level of limits."""
    likelihood: Literal["two-step", "joint"] = "two-step"
    """'two-step' passes the unfolded yield to the limit with log-normal uncertainties; 'joint' fits
    pairs and search together, every bin Poisson (prescaled pairs in units of their weight), and needs
    [infer.joint]."""
    joint: Joint | None = None
    """Window and cells of the joint likelihood."""
    observed: Literal["masked", "asimov"] | tuple[Annotated[int, Field(ge=0, le=10**6)], ...] = "masked"
    """What is observed: nothing yet ('masked'), the expectation ('asimov'), or counts, [3]; mock data never
    give an observed contour."""
    background: Annotated[float, Field(ge=0, le=1e6)] | None = None
    """Expected background of the main detector; that of each detector file by default [events]."""
    background_sigma: Annotated[float, Field(ge=0, le=3)] = 0.0
    """Error of the background: ln κ."""
    method: Literal["auto", "exact", "marginalised", "mid-p", "asymptotic"] = "auto"
    """'auto', at any count: that of a search averaged over the nuisances, as 'marginalised'; of the joint
    likelihood pseudo-experiments, as 'exact'. 'mid-p': averaged, half of P(n); 'exact': at the fit."""
    coupling: PositiveRange = (1e-9, 1e-2)
    """Range of couplings of the scan."""
    n_couplings: Annotated[int, Field(ge=10, le=10_000)] = 141
    """Couplings in that range."""
    min_effective: Positive = 10.0
    """A contour ends where a yield rests on fewer pairs, measured or simulated, or drawn particles."""
    max_extra_masses: Annotated[int, Field(ge=0, le=200)] = 0
    """Largest number of masses that are added where the contour bends or ends."""
    discovery: Annotated[tuple[Annotated[float, Field(gt=0, le=8)], ...], Field(max_length=20)] = (3.0, 5.0)
    """Significances whose reach is written; needs a background [σ]."""
    projections: Annotated[tuple[Protons, ...], Field(max_length=20)] = ()
    """Protons on target of further contours."""
    max_patches: Annotated[int, Field(gt=0, le=1_000_000)] = 600
    """Most signals in the patch set; of more, every second, third, … is kept."""
    exports: tuple[Literal["hs3", "xml"], ...] = ()
    """Further forms of the likelihood at the point nearest to the limit: HS3 document, HistFactory XML."""
    submission: bool = True
    """Write tables and likelihood for HEPData."""
    hepdata: Annotated[str, Field(pattern=r"^ins[0-9]{7}$")] = "ins0000000"
    """Number of the record at HEPData, for the patch set."""

    @model_validator(mode="after")
    def _complete(self) -> Infer:
        if self.background is None and self.background_sigma > 0:
            msg = "background_sigma belongs to background; without both those of the detector files count"
            raise ValueError(msg)
        if (self.likelihood == "joint") != (self.joint is not None):
            raise ValueError("likelihood = 'joint' needs [infer.joint], which belongs to it")
        if self.likelihood == "joint":
            self._joint()
        return self

    def _joint(self) -> None:
        """Refuse what the joint likelihood does not know, where the steering asks for it."""
        if self.method in {"marginalised", "mid-p"}:
            msg = f"method = {self.method!r} belongs to likelihood = 'two-step'; take 'auto' or another"
            raise ValueError(msg)


class Report(Section):
    """What the page of the report shows."""

    flow_masses: Annotated[tuple[Positive, ...], Field(max_length=20)] = (0.3, 0.5, 0.77)
    """Masses at which the flow is shown [GeV]."""
    formats: Annotated[tuple[Literal["png", "svg", "pdf"], ...], Field(min_length=1)] = ("png",)
    """Files of each figure; the page shows the smaller one of PNG and SVG."""
    bounds: str | None = None
    """Folder of further limits of others: TOML files as in data/bounds, or files of Darkcast."""
    projected: bool = False
    """Also draw what other experiments expect to reach, as lines."""

    def outside(self, low: float, high: float, half: float) -> list[float]:
        """Return the `flow_masses` whose window, `half` to each side, leaves the masses of the flow [GeV]."""
        return [mass for mass in self.flow_masses if not low + half <= mass <= high - half]


def theory_options(section: Predict, where: Path | UserCode) -> TheoryOptions:
    """Return what the theory channels of a section need; `where` is its folder or the code frozen there."""
    from gammastar.predict.models import TheoryOptions

    base = where if isinstance(where, Path) else where.folder
    about = section.bremsstrahlung, section.off_shell, lambda: mesons_of(section, base)
    return TheoryOptions(*about, where, section.sigma_inelastic)


TABLES = "foresee:"


def brought_files(section: Predict, base: Path) -> dict[str, list[Path]]:
    """Return the files of others behind a section by the name that it gives them: tables and spectra."""
    charged = () if section.millicharge is None else section.millicharge.channels
    named = {
        name for name in (*section.channels, *section.outside_domain, *charged) if name.startswith(TABLES)
    }
    found: dict[str, list[Path]] = {}
    for name in sorted(named):
        found[name] = sorted((base / name.removeprefix(TABLES)).glob("*_m_*.npy"))
    place = base / section.mesons
    if is_folder(place):
        found[section.mesons] = sorted([*place.glob("*_*.txt"), *place.glob("*_*.npy")])
    elif is_file(place):
        found[section.mesons] = [place]
    return found


def mesons_of(section: Predict, base: Path) -> Path:
    """Return the file of the mesons of a section, or the folder of their spectra."""
    folder = base / section.mesons
    return folder if is_folder(folder) else shipped(section.mesons, base, "measurements")
