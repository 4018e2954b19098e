"""Figures 4 to 10 of the data-driven paper on MOCK data: ``python3 analysis/na60_dimuon/flow_figures.py``.

Trains flows on pairs of the mock cocktail, corrected for the efficiency: signal alone, with 10 % of
combinatorial background, with like-sign subtraction, with open charm left in and removed. Writes
``results/na60_dimuon/flow/``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402

SEED = 41
MASSES = (0.3, 0.7, 1.0)  # GeV
HALF_WINDOW = 0.03  # GeV


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="smaller samples: a minute or two")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "results" / "na60_dimuon" / "flow")
    options = parser.parse_args()
    reenter("all")
    Study(options.output, fast=options.fast).run()
    return 0


class Study:
    """Samples, ensembles and figures."""

    def __init__(self, folder: Path, *, fast: bool) -> None:
        from validation import flow_mock

        from gammastar.core.sampling import stream
        from gammastar.flow import FlowOptions

        self.mock, self.folder, self.fast = flow_mock, folder, fast
        self.stream = lambda *names: stream(SEED, *names)
        self.n = 50_000 if fast else 300_000
        self.members = 3 if fast else 6
        self.options = FlowOptions(mass_range=flow_mock.RANGE, epochs=6 if fast else 12, mass_flattening=0.5)

    def save(self, figure, name: str) -> None:
        """Write a figure and say where."""
        from gammastar.report.style import save_figure

        png, _ = save_figure(figure, self.folder / "figures" / name)
        print(png, flush=True)

    def run(self) -> None:
        """Make everything."""
        import numpy as np

        made = self.mock.contaminated(self.n, self.stream("data"))
        self.efficiency = efficiency = self.mock.measured_efficiency(
            self.stream("simulation"), 4_000_000 if self.fast else 16_000_000
        )
        self.samples = {}
        for key, (values, weight) in made.items():
            corrected = weight * efficiency.weights(*values.T)
            self.samples[key] = (values[corrected != 0], corrected[corrected != 0])
        combinatorial = made["with background"][0][self.n :]  # behind the signal
        self.background = (combinatorial, efficiency.weights(*combinatorial.T))
        self.flows = {key: self.ensemble(key) for key in self.samples}
        true, _ = self.mock.pairs(self.n, self.stream("truth"))
        self.truth = true[efficiency.weights(*true.T) > 0]
        self.divergence()
        self.kinematics()
        self.contours()
        self.losses()
        self.sizes()
        self.acceptance(np.geomspace(1e-2, 100.0, 25))
        self.baselines()

    def true_in_domain(self, mass: float, n: int, rng):
        """Return pt and energy of true virtual photons of one mass where pairs were measured."""
        import numpy as np

        pt, energy = self.mock.truth_at(mass, n, rng)
        inside = self.efficiency.weights(np.full(n, mass), pt, energy) > 0
        return pt[inside], energy[inside]

    def ensemble(self, key: str):
        """Return the flows of one sample."""
        import numpy as np

        from gammastar.flow import fit_ensemble
        from gammastar.flow.options import Table

        values, weight = self.samples[key]
        table = Table(*values.T.copy(), weight, np.arange(len(weight)))
        return fit_ensemble(
            table,
            beam_energy=self.mock.BEAM,
            options=self.options,
            members=self.members,
            seed=SEED,
        )

    def divergence(self) -> None:
        """Fig. 4; the band of the flow is that of the draws and of the members of the ensemble."""
        import numpy as np

        from gammastar.flow import kl_scan
        from gammastar.report.figures.kinematics import kl_figure

        masses = np.arange(0.25, 1.1, 0.05)
        window = {"masses": masses, "half_width": 0.025, "max_points": 1000}
        flow, n = self.flows["subtracted"], 30 if self.fast else 100
        scan = kl_scan(flow, self.truth, rng=self.stream("divergence"), n_draws=n, **window)
        used = scan.tested
        quantiles = np.quantile(scan.data_draws[used], [0.025, 0.16, 0.5, 0.84, 0.975], axis=1).T
        means = [
            kl_scan(one, self.truth, rng=self.stream("divergence"), n_draws=10, **window).model_mean[used]
            for one in flow.members
        ]
        error = 1.96 * np.hypot(scan.model_draws[used].std(axis=1), np.std(means, axis=0, ddof=1))
        figure = kl_figure(
            masses[used],
            scan.model_mean[used],
            quantiles,
            mock=True,
            model_error=error,
            window=np.full(used.sum(), 0.025),
            p_value=scan.p_value,
        )
        self.save(figure, "fig04_divergence")

    def window(self, sample, mass: float):
        """Return pt, energy and weight of the pairs of a sample around a mass."""
        values, weight = sample
        inside = abs(values[:, 0] - mass) < HALF_WINDOW
        return values[inside, 1], values[inside, 2], weight[inside]

    def drawn(self, key: str, mass, n: int = 200_000):
        """Return draws of the mean of an ensemble, at one mass or at one mass each."""
        import numpy as np

        mass = np.full(n, mass) if np.ndim(mass) == 0 else mass
        pt, energy = self.flows[key].sample(mass, self.stream("drawn", key, f"{mass[0]}"))
        return pt, energy, np.ones(len(mass))

    def weights(self, key: str, mass, drawn):
        """Return weights of the members on draws of the mean: their density over the mean density."""
        import numpy as np
        from scipy.special import logsumexp

        at = np.broadcast_to(mass, drawn[0].shape), drawn[0], drawn[1]
        logs = np.stack([member.log_prob(*at, single=True) for member in self.flows[key].members])
        mean = logsumexp(logs, axis=0) - np.log(len(logs))
        inside = np.isfinite(mean)
        return np.where(inside, np.exp(logs - np.where(inside, mean, 0.0)), 0.0)

    def window_masses(self, mass: float, n: int = 200_000):
        """Return masses of the signal pairs around a mass, drawn with their weights."""
        values, weight = self.samples["signal"]
        share = weight * (abs(values[:, 0] - mass) < HALF_WINDOW)
        return self.stream("window", f"{mass}").choice(values[:, 0], n, p=share / share.sum())

    def kinematics(self) -> None:
        """Fig. 5; the flow at the masses of the pairs: the window at 1 GeV holds mostly the φ at its edge."""
        from gammastar.report.figures.kinematics import flow_vs_data

        masses, names = [self.window_masses(m) for m in MASSES], ("with background", "subtracted", "signal")
        drawn = {f"flow, {name}": [self.drawn(name, m) for m in masses] for name in names}
        members = {
            key: [self.weights(key[6:], *one) for one in zip(masses, drawn[key], strict=True)]
            for key in drawn
        }
        data, background = (
            [self.window(sample, m) for m in MASSES] for sample in (self.samples["signal"], self.background)
        )
        figure = flow_vs_data(
            MASSES, data, drawn, mock=True, background=background, window=HALF_WINDOW, members=members
        )
        self.save(figure, "fig05_kinematics")

    def contours(self) -> None:
        """Fig. 6: the flow with and without subtraction, truth, and proton bremsstrahlung."""
        import numpy as np
        from kinematics_figures import flow_contours

        from gammastar.physics.bremsstrahlung import preset

        mass = 0.7
        truth = self.true_in_domain(mass, 2_000_000, self.stream("contour"))
        samples = {f"flow, {key}": self.drawn(key, mass) for key in ("with background", "subtracted")}
        members = {f"flow, {key[6:]}": self.weights(key[6:], mass, drawn) for key, drawn in samples.items()}
        samples["truth"] = (*truth, np.ones(len(truth[0])))
        kernel = preset("qra_v2")
        energy, pt, weight = kernel.sample(mass, self.mock.BEAM, 1_000_000, self.stream("bremsstrahlung"))
        samples[f"bremsstrahlung, {kernel.name}"] = (pt, energy, weight)
        self.save(flow_contours(mass, samples, mock=True, members=members), "fig06_contours")

    def baselines(self) -> None:
        """Write the table of the flow beside histogram, kernels and mixture."""
        from validation.flow_peers import table

        from gammastar.report.pages import Table, text_table

        found = table(30_000 if self.fast else 100_000)
        names = list(found)
        columns = {"density": names}
        columns |= {k: [f"{found[name][k]:.4g}" for name in names] for k in found[names[0]]}
        text = text_table(Table(columns, caption="MOCK pairs that trained nothing against draws."))
        (self.folder / "baselines.txt").write_text(text + "\n")
        print(self.folder / "baselines.txt", flush=True)

    def losses(self) -> None:
        """Fig. 7; the bands cover the courses of all members."""
        from gammastar.report.figures.kinematics import training_figure

        every = [member.report for member in self.flows["subtracted"].members]
        found = every[0]
        figure = training_figure(
            found.train_loss,
            found.validation_loss,
            mock=True,
            best_epoch=found.best_epoch,
            members=[(one.train_loss, one.validation_loss) for one in every],
        )
        self.save(figure, "fig07_training")

    def sizes(self) -> None:
        """Fig. 8."""
        import numpy as np
        from kinematics_figures import kl_size_figure

        from gammastar.flow import fit_ensemble, kl_divergence, kl_scan
        from gammastar.flow.options import Table

        pairs, _ = self.mock.pairs(self.n, self.stream("sizes"))
        other, _ = self.mock.pairs(400_000, self.stream("sizes", "test"))
        n_pairs = np.unique(np.geomspace(3000, len(pairs), 4 if self.fast else 6).astype(int))
        found = np.empty((len(MASSES), len(n_pairs), 3))
        for column, n in enumerate(n_pairs):
            table = Table(*pairs[:n].T.copy(), np.ones(n), np.arange(n))
            flows = fit_ensemble(
                table, beam_energy=self.mock.BEAM, options=self.options, members=3, seed=SEED, bootstrap=False
            )
            for row, mass in enumerate(MASSES):
                data = other[np.abs(other[:, 0] - mass) < HALF_WINDOW][:4000]
                for k, member in enumerate(flows.members):
                    rng = self.stream("sizes", f"{mass}")
                    drawn = [np.stack(member.sample(data[:, 0], rng), axis=-1) for _ in range(10)]
                    means = [kl_divergence(np.log(one), np.log(data[:, 1:])) for one in drawn]
                    found[row, column, k] = np.mean(means)
        scan = kl_scan(
            flows.members[0],
            other,
            masses=MASSES,
            rng=self.stream("sizes", "band"),
            n_draws=40,
            max_points=4000,
        )
        bands = np.nan_to_num(np.quantile(scan.data_draws, [0.025, 0.16, 0.5, 0.84, 0.975], axis=1).T)
        figure = kl_size_figure(MASSES, n_pairs, found.mean(2), found.std(2, ddof=1), bands, mock=True)
        self.save(figure, "fig08_sizes")

    def acceptance(self, ctau) -> None:
        """Figs. 9 and 10: Appendix B; what the members cannot explain is inside the dashed line.

        Bands of Fig. 9: the members and the pairs within 30 MeV, whose noise all members share.
        """
        import numpy as np
        from kinematics_figures import acceptance_curves, difference_map

        from gammastar.flow import LocalStatistics

        grid = np.round(np.arange(0.25, 1.16, 0.05), 3)
        normal = self.stream("acceptance").standard_normal((100_000, 2))

        def of(key: str, masses):
            rows, squares = [], []
            for member in self.flows[key].members:
                drawn = [member.transform(np.full(len(normal), m), normal) for m in masses]
                found = [self.mock.appendix_b(m, *one, ctau) for m, one in zip(masses, drawn, strict=True)]
                rows.append([mean for mean, _ in found])
                squares.append([error**2 * len(normal) for _, error in found])
            return np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1), np.mean(squares, axis=0)

        def with_near_pairs(key: str):
            values, weight = self.samples[key]
            near = LocalStatistics.of(values[:, 0], weight, self.mock.RANGE).at(np.array(MASSES))
            mean, spread, square = of(key, MASSES)
            return mean, np.sqrt(spread**2 + square / near[:, None])

        rng = self.stream("acceptance", "truth")
        exact = [self.mock.appendix_b(m, *self.true_in_domain(m, 1_000_000, rng), ctau) for m in MASSES]
        curves = {"truth": (np.array([a for a, _ in exact]), np.array([e for _, e in exact]))}
        curves |= {f"flow, {key}": with_near_pairs(key) for key in self.samples}
        self.save(acceptance_curves(MASSES, ctau, curves, mock=True), "fig09_acceptance")
        base, error, _ = of("signal", grid)
        differences, pulls = {}, {}
        known = base > 1e-4
        for key in list(self.samples)[1:]:
            mean, sigma, _ = of(key, grid)
            differences[key] = np.where(known, 2.0 * (mean - base) / (mean + base + 1e-300), np.nan)
            pulls[key] = np.where(known, np.abs(mean - base) / (np.hypot(sigma, error) + 1e-300), 0.0)
        figure = difference_map(
            grid, ctau, differences, mock=True, pulls=pulls, empty=r"acceptance below $10^{-4}$"
        )
        self.save(figure, "fig10_difference")


if __name__ == "__main__":
    sys.exit(main())
