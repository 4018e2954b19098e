"""Models of users: what they are called, how many of their particles are made, which limits are theirs."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.mathtext import MathTextParser

from gammastar import predict, report
from gammastar.config import Predict
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.files import data_path
from gammastar.core.resolve import freeze, python_names
from gammastar.physics.qed import RTable
from gammastar.physics.vectors import CHARGES, E_CHARGE
from gammastar.pipeline.stages.predict import files_of, masses_of, production_of
from gammastar.pipeline.stages.report import known_limits
from gammastar.predict.models import make_model
from gammastar.predict.production import by_group
from gammastar.report.dark import NO_LIMITS, View

R_TABLE = RTable.read(data_path("measurements/r_ratio.csv"))
HEAD = """
import numpy as np
from gammastar import predict
from gammastar.core.files import data_path
from gammastar.physics.vectors import CHARGES, Charges
from gammastar.physics.qed import RTable

R = RTable.read(data_path("measurements/r_ratio.csv"))
PHOTON = predict.DarkPhoton(R)
EXTRA = Charges("B", (1 / 3, 1 / 3, 1 / 3), 0.1, 0.1, 0.1, (0.0, 0.0, 0.0), "of a test")


class Silent(predict.Model):
    def ctau(self, mass, coupling):
        return PHOTON.ctau(mass, coupling)

    def branching(self, mass):
        return PHOTON.branching(mass)


class Axion(Silent):
    labels = predict.Labels("axions", "a", "g_aγγ", "coupling to photons", "1/GeV")

    def rate_ratio(self, mass):
        return 0.25 * np.asarray(mass) ** 2


class Copy(predict.DarkPhoton):
    pass


class NeedsMore(Axion):
    def __init__(self, scale):
        self.scale = scale


class Wrong(Axion):
    def rate_ratio(self, mass):
        return -np.ones_like(mass)


class Short(Axion):
    def rate_ratio(self, mass):
        return np.ones(1)


def vector():
    return predict.VectorModel(EXTRA, R)


def b_minus_l():
    return predict.VectorModel(CHARGES["b_minus_l"], R)


def copy():
    return Copy(R)


class Free:  # as good as a model, but none
    ctau, branching = Silent.ctau, Silent.branching
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(HEAD)
    return tmp_path


def context(folder, model, **more):
    """Return what the functions here read of a run."""
    given = {
        "source": "theory",
        "beam_energy": 400.0,
        "masses": [0.1, 0.3],
        "n_sample": 9,
    }
    given["channels"] = ["pseudoscalar_dalitz", "vector_mesons", "bremsstrahlung"]
    section = Predict(**(given | {"model": model} | more))
    code = freeze(python_names(section.model_dump()), folder)
    return SimpleNamespace(steering=SimpleNamespace(predict=section), base=folder, code=code)


def produced(ctx):
    """Return the production of theory channels, which asks for no measurement."""
    return production_of(ctx, None, None, None)


def known(folder, model, own=None):
    ctx = context(folder, model)
    asked = SimpleNamespace(bounds=own and str(own), projected=False)
    ctx.steering = SimpleNamespace(predict=ctx.steering.predict, report=asked)
    return known_limits(ctx, make_model(model, folder).labels)


def test_the_rate_is_the_one_that_the_model_states(folder) -> None:
    mass = np.array([0.1, 0.3])
    photons = produced(context(folder, "dark_photon")).channel
    axions = produced(context(folder, "mine.py:Axion")).channel
    assert axions.rate(mass)[0] == pytest.approx(0.25 * mass**2 * photons.rate(mass)[0], rel=1e-12)
    sample = axions.produce(0.3, n=500, rng=np.random.default_rng(1))
    assert sample.weight.sum() == pytest.approx(float(axions.rate([0.3])[0][0]), rel=0.05)
    same = produced(context(folder, "mine.py:copy")).channel
    assert same.rate(mass)[0] == pytest.approx(photons.rate(mass)[0], rel=1e-12)


@pytest.mark.long
def test_a_vector_from_a_file_is_the_named_one(folder) -> None:
    mass = np.array([0.1, 0.3])
    named, own = (
        produced(context(folder, model)).channel.rate(mass)[0] for model in ("b_minus_l", "mine.py:b_minus_l")
    )
    assert own == pytest.approx(named, rel=1e-14)
    names = [
        {(x.name, tuple(x.polygon.ravel())) for x in known(folder, m)}
        for m in ("b_minus_l", "mine.py:b_minus_l")
    ]
    assert names[0] == names[1]
    assert len(names[0]) >= 4


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("mine.py:Silent", "Silent does not say how many of its particles are made: define rate_ratio"),
        ("mine.py:Free", "Free is no model; derive from predict.Model"),
        ("mine.py:EXTRA", "Charges is no model"),
        ("mine.py:NeedsMore", "cannot be made without arguments"),
        ("dark-photon", "none of dark_photon, lmu_ltau"),
    ],
)
def test_a_model_that_does_not_say_enough_is_refused_before_work(folder, model, said) -> None:
    with pytest.raises(SteeringError, match=said):
        make_model(model, folder)


def test_a_rate_that_cannot_be_is_named(folder) -> None:
    for model, said in (
        ("Wrong", "-1 at 0.1 GeV"),
        ("Short", "shape (1,) for masses of shape (2,)"),
    ):
        channel = produced(context(folder, f"mine.py:{model}")).channel
        with pytest.raises(PhysicsError, match=rf"{model}.rate_ratio: .*{re.escape(said)}"):
            channel.rate([0.1, 0.3])
    with pytest.raises(PhysicsError, match="define rate_ratio"):
        predict.Model.rate_ratio(make_model("mine.py:Axion", folder), [0.1])


def test_axes_belong_to_the_model(folder) -> None:
    axes = {}
    for model in ("dark_photon", "b_minus_l", "mine.py:vector", "mine.py:Axion"):
        plane = View(make_model(model, folder).labels, theory=True, mock=True).plane(reached=True)
        axes[model] = (plane.mass_label, plane.coupling_label)
        assert plane.threshold is None  # theory
        for label in axes[model]:
            MathTextParser("path").parse(label)  # what is drawn can be drawn
    assert axes["dark_photon"] == (report.Plane().mass_label, report.Plane().coupling_label)
    assert axes["b_minus_l"] == axes["mine.py:vector"] == ("$m_{X}$ [GeV]", "$g$")
    assert axes["mine.py:Axion"] == ("$m_{a}$ [GeV]", "$g_{aγγ}$ [1/GeV]")


@pytest.mark.long
def test_grey_areas_belong_to_the_model(folder, tmp_path) -> None:
    assert {x.plane for x in known(folder, "dark_photon")} == {"dark_photon"}
    assert known(folder, "mine.py:Axion") == []
    assert known(folder, "mine.py:copy") == []  # it may decay otherwise
    assert NO_LIMITS["none"].startswith("No published limit is drawn")
    found = known(folder, "mine.py:vector")
    assert {x.kind for x in found} == {"recomputed"}
    # one's own limits are drawn where they belong, the shipped ones on dark photons nowhere else
    own = tmp_path / "limits"
    own.mkdir()
    text = data_path("bounds/dark_photon_faser_2023.toml").read_text()
    for name, plane in (("Theirs", "B"), ("Mine", "dark_photon"), ("Other", "b_minus_l")):
        changed = text.replace('plane = "dark_photon"', f'plane = "{plane}"')
        (own / f"{name}.toml").write_text(changed.replace('name = "FASER"', f'name = "{name}"'))
    assert "Mine" in {x.name for x in known(folder, "dark_photon", own)}
    assert {x.name for x in known(folder, "mine.py:Axion", own)} == set()
    both = {x.name for x in known(folder, "mine.py:vector", own)}
    assert "Theirs" in both
    assert both.isdisjoint({"Mine", "Other", "FASER", "NA62"})


def test_recast_limits_of_a_vector_of_a_file_scale_with_its_charges(folder) -> None:
    """A vector with the electric charges and g is a dark photon with ε = g/e: the limits only move by e."""
    text = HEAD.replace("(1 / 3, 1 / 3, 1 / 3), 0.1, 0.1, 0.1", "(2 / 3, -1 / 3, -1 / 3), -1.0, -1.0, -1.0")
    (folder / "mine.py").write_text(text)
    before = {x.name: x for x in known(folder, "dark_photon")}
    after = {x.name: x for x in known(folder, "mine.py:vector")}
    for name in ("FASER", "NA62"):
        lowest = before[name].polygon[:, 1].min(), after[f"{name} (recast)"].polygon[:, 1].min()
        assert lowest[1] == pytest.approx(E_CHARGE * lowest[0], rel=0.05)


def test_masses_of_a_vector_end_where_its_widths_do(folder) -> None:
    found = [
        masses_of(
            context(folder, m, masses=(), mass_range=(0.2, 2.0)),
            SimpleNamespace(parts=(None,), mass_range=(0.0, np.inf)),
        )
        for m in ("b_minus_l", "mine.py:vector", "mine.py:Axion")
    ]
    assert found[0][-1] == found[1][-1] < 1.1
    assert found[2][-1] == 2.0


@pytest.mark.parametrize(
    "bad",
    [
        {"coupling": "$g$"},
        {"particle": ""},
        {"unit": r"\\GeV"},
        {"limits": "all"},
        {"particles": 3},
        {"coupling": "g^2"},
    ],
)
def test_labels_that_no_axis_can_show_are_refused(bad) -> None:
    with pytest.raises(PhysicsError, match=f"Labels: {next(iter(bad))}"):
        predict.Labels(**bad)


def test_every_named_vector_knows_its_plane() -> None:
    for name, charges in CHARGES.items():
        labels = predict.VectorModel.named(name, R_TABLE).labels
        assert (labels.plane, labels.limits) == (name, "recast")
        assert charges.name in labels.particles
    other = predict.VectorModel(replace(CHARGES["b_minus_l"], name="B − 3L"), R_TABLE).labels
    assert other.plane == "B − 3L"


def test_channels_of_a_run_are_those_of_the_model(folder) -> None:
    """What the figure shows beside the sum: parts that add up to it, with the couplings of the model."""
    mass = np.array([0.1, 0.3])
    for model, ratio in (("dark_photon", 1.0), ("mine.py:Axion", 0.25 * mass**2), ("b_minus_l", None)):
        made = produced(context(folder, model))
        parts = by_group(made.channel, mass)
        assert list(parts) == [part.group for part in made.parts]
        assert sum(parts.values()) == pytest.approx(made.channel.rate(mass)[0], rel=1e-12)
        if ratio is not None:
            for part in made.parts:
                assert parts[part.group] == pytest.approx(ratio * part.rate(mass)[0], rel=1e-12)


def test_an_edited_file_is_another_input(folder) -> None:
    ctx = context(folder, "mine.py:Axion")
    before = files_of(ctx)
    (folder / "mine.py").write_text(HEAD.replace("0.25", "0.5"))
    again = context(folder, "mine.py:Axion")  # another run; the first one keeps what it has read
    assert list(files_of(again)) == list(before) == ["[predict] mine.py"]
    assert files_of(again) != before
    assert files_of(ctx) == before
    assert files_of(context(folder, "dark_photon")) == {}


CHANNELS = """
import numpy as np
import vector
from gammastar import predict
from gammastar.core.records import Sample


class Good(predict.Channel):
    group, processes = "mine", frozenset({"mine"})

    def rate(self, mass):
        m = np.atleast_1d(mass)
        return 1e-3 * m, np.zeros((len(m), len(m)))

    def produce(self, mass, *, n, rng):
        pz = rng.uniform(1.0, 9.0, n)
        p4 = vector.array({"px": 0 * pz, "py": 0 * pz, "pz": pz, "E": np.hypot(pz, mass)})
        return Sample(p4, np.full(n, 1e-3 * mass / n), np.zeros((n, 3)), np.zeros(n, bool))


class Counted(Good):  # each particle weighs one
    def produce(self, mass, *, n, rng):
        made = super().produce(mass, n=n, rng=rng)
        return Sample(made.p4, np.ones(n), made.origin, made.in_domain)


class Scalar(Good):
    def rate(self, mass):
        return np.array([1e-3]), np.zeros((1, 1))


class Negative(Good):
    def rate(self, mass):
        return -super().rate(mass)[0], super().rate(mass)[1]


class Nameless(Good):
    processes = ("mine",)


class Scaled(Good):
    def __init__(self, factor):
        self.factor = factor


number = 3.0
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Counted", "weights at 0.3 GeV sum to 50, but its rate is 0.0003"),
        ("Scalar", "rate and covariance of shapes"),
        ("Negative", "rate -0.0003 at 0.3 GeV must be finite and not negative"),
        ("Nameless", "processes, a frozenset of names"),
        ("Scaled", "cannot be made without arguments"),
        ("number", "float is no channel; derive from predict.Channel"),
        ("Good", ""),
    ],
)
def test_a_channel_of_a_user_is_looked_at(folder, name, said) -> None:
    (folder / "channels.py").write_text(CHANNELS)

    def make():
        made = produced(context(folder, "dark_photon", channels=[f"channels.py:{name}"]))
        made.channel.rate([0.3, 0.4])
        return made.channel.produce(0.3, n=50, rng=np.random.default_rng(1))

    if not said:
        assert make().weight.sum() == pytest.approx(3e-4)
        return
    with pytest.raises((PhysicsError, SteeringError), match=re.escape(said)):
        make()
