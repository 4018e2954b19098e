"""Datacards of Combine: what the text and the histograms say, evaluated without pyhf, beside pyhf."""

from __future__ import annotations

import copy

import numpy as np
import pyhf
import pytest
import uproot
from click.testing import CliRunner
from effects import like_sign_channel, paired_shape, poisson_counts
from scipy.stats import norm, poisson

from gammastar import infer
from gammastar.cli import app
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.infer.histfactory.cards import is_card, read_card, to_card
from gammastar.infer.histfactory.modifiers import log_normal
from gammastar.infer.histfactory.workspaces import assemble, sample
from gammastar.store.events import write_histograms

MILLIQAN = """
 imax 2  number of channels
 jmax *  number of backgrounds
 kmax *  number of nuisance parameters
 ------------
 bin SR1 SR2
 observation 0 2
 ------------
 bin              SR1   SR1   SR2  SR2
 process          mCP   bkg1  mCP  bkg2
 process          0     1     0    1
 rate             0.734   0.099   0.0  0.875
 ------------
 SR1Err gmN 3   -    0.0329  -     -
 SR2Err gmN 13  -      -    -   0.0673
 sigErr lnN      0.748/1.252   -    0.748/1.252  -  error of the signal
"""


def log_likelihood(text, histograms, at):
    """Return the logarithm of the likelihood of a card, by the rules of Combine's documentation.

    `at` has the strength ``r`` and the nuisances; Poisson terms and constraints as in Combine, with an
    asymmetric lnN κ_up^θ above zero and κ_down^−θ below, and shapes straight between the templates.
    """
    rows = [line.split() for line in text.splitlines() if line and line[0] not in "#-"]
    shaped = {row[2] for row in rows if row[0] == "shapes" and row[3] != "FAKE"}
    heads = [row[0] for row in rows]
    seen = heads.index("observation")
    observed = dict(zip(rows[seen - 1][1:], map(float, rows[seen][1:]), strict=True))
    columns = list(zip(*(row[1:] for row in rows[heads.index("bin", seen) :][:4]), strict=True))
    total = {where: np.zeros_like(histograms.get(f"{where}/data_obs", np.zeros(1))) for where in observed}
    result, below = 0.0, rows[heads.index("rate") + 1 :]
    for k, (where, process, number, rate) in enumerate(columns):
        template = histograms[f"{where}/{process}"] if where in shaped else np.array([float(rate)])
        values = expected(below, k, (where, process), (template, histograms), at)
        total[where] = total[where] + (at["r"] if int(number) <= 0 else 1.0) * values
    for where, count in observed.items():
        data = histograms.get(f"{where}/data_obs", np.array([count]))
        result += float(np.sum(data * np.log(np.maximum(total[where], 1e-300)) - total[where]))
    constrained = {row[0] for row in below if row[1] in {"lnN", "shape"}}
    result += sum(norm.logpdf(at.get(name, 0.0)) for name in constrained)
    for row in below:
        if row[1] == "gmN":
            result += poisson.logpmf(int(row[2]), int(row[2]) * at[row[0]])
        elif row[1] == "param":
            result += norm.logpdf(at[row[0]], float(row[2]), float(row[3]))
    return result


def expected(below, k, column, templates, at):
    """Return the expected events of one column."""
    nominal, histograms = templates
    values, factor = nominal.copy(), 1.0
    for row in below:
        theta = at.get(row[0], 0.0)
        entry = row[(3 if row[1] == "gmN" else 2) + k] if row[1] in {"lnN", "gmN", "shape"} else "-"
        if row[1] == "rateParam" and row[2:4] == list(column):
            factor *= at[row[0]]
        elif entry == "-":
            continue
        elif row[1] == "lnN":
            low, _, high = entry.partition("/")
            up, down = (float(high), float(low)) if high else (float(low), 1 / float(low))
            factor *= up**theta if theta >= 0 else down**-theta
        elif row[1] == "gmN":
            factor *= at[row[0]]
        else:
            side = "Up" if theta >= 0 else "Down"
            shifted = histograms[f"{column[0]}/{column[1]}_{row[0]}{side}"]
            values = values + abs(theta) * (shifted - nominal)
    return factor * values


def compare(workspace, points):
    """Compare differences of the log-likelihood of card and pyhf; `points` are parameters of pyhf."""
    card = to_card(workspace)
    model = pyhf.Workspace(workspace).model(modifier_settings={"normsys": {"interpcode": "code1"}})
    data = pyhf.Workspace(workspace).data(model)
    found = []
    for point in points:
        pars = np.array(model.config.suggested_init())
        for name, value in point.items():
            pars[model.config.par_slice(name)] = value
        at = {"r": point.get("mu", 1.0)}
        for name in model.config.parameters:
            values = np.atleast_1d(pars[model.config.par_slice(name)])
            at |= {name: values[0]} | {f"{name}_bin{k}": value for k, value in enumerate(values)}
        found.append((float(model.logpdf(pars, data)[0]), log_likelihood(card.text, card.histograms, at)))
    ours, theirs = np.array(found).T
    np.testing.assert_allclose(np.diff(theirs), np.diff(ours), rtol=1e-6, atol=1e-6)
    return card


def test_a_counting_search_of_ours_is_the_same_likelihood_for_combine():
    spec = infer.workspace("dump", 0.5, 0.4, [2], pot_calibration_sigma=0.1, pot_search_sigma=0.05)
    spec["channels"][0]["samples"][0]["data"] = [3.0]
    nuisances = [m["name"] for s in spec["channels"][0]["samples"] for m in s["modifiers"]]
    points = [
        {"mu": 1.0},
        {"mu": 2.5},
        *({"mu": 0.7, n: v} for n in nuisances if n != "mu" for v in (1.3, -2.0)),
    ]
    card = compare(spec, points)
    assert not card.histograms
    assert "observation  2" in card.text


def test_shapes_with_one_name_for_norm_and_form():
    nominal, up, down = [20.0, 10.0, 4.0], [22.0, 13.0, 4.0], [18.0, 8.0, 4.2]
    shape = paired_shape("scale", nominal, up, down)
    background = sample("continuum", nominal, shape, log_normal("ratio", 0.1))
    spec = assemble(
        {"mass": [sample("signal", [1.0, 5.0, 1.0], log_normal("pot", 0.2), signal=True), background]},
        {"mass": [19, 14, 3]},
    )
    points = [{"mu": m, "scale": s, "pot": p} for m, s, p in ((1, 0, 0), (0, 1, 0.5), (2, -1, -1), (1, 0, 2))]
    card = compare(spec, points)
    np.testing.assert_allclose(card.histograms["mass/continuum_scaleUp"], up)
    np.testing.assert_allclose(card.histograms["mass/continuum_scaleDown"], down)
    assert "scale  shape  -  1" in card.text


def test_like_sign_counts_stay_exact_also_where_a_bin_has_none():
    channel, counts, background = like_sign_channel("mass", [4, 0], r_factor=1.1)
    spec = assemble(
        {
            "mass": [sample("signal", [2.0, 1.0], signal=True), background],
            channel["name"]: channel["samples"],
        },
        {"mass": [5, 1], channel["name"]: counts},
    )
    points = [{"like_sign_mass": [1.0, 0.5]}, {"like_sign_mass": [1.4, 0.1], "mu": 0.3}]
    card = compare(spec, points)
    assert "imax 4" in card.text


@pytest.mark.parametrize("variance", [[4.0, 2.5], [2.0, 1.0]])
def test_counts_of_a_simulation(variance):
    nominal = np.array([8.0, 2.0])  # tau = 16 and 1.6, or 32 and 4
    spec = assemble(
        {
            "mass": [
                sample("signal", [2.0, 1.0], signal=True),
                sample("b", nominal, poisson_counts("mc", variance)),
            ]
        },
        {"mass": [9, 3]},
    )
    card = compare(spec, [{"mc": [1.0, 1.0]}, {"mc": [1.2, 0.8], "mu": 2.0}, {"mc": [0.7, 1.5], "mu": 0.0}])
    whole = [float(n**2 / v).is_integer() for n, v in zip(nominal, variance, strict=True)]
    assert card.text.count(" gmN ") == sum(whole)
    assert card.text.count("_counts") == 0 if all(whole) else "_counts" in card.text


def test_bin_errors_and_a_shift_about_zero():
    b = sample("b", [8.0, 2.0], [{"name": "stat", "type": "staterror", "data": [1.0, 0.4]}])
    shift = {"hi_data": [0.5, 1.0], "lo_data": [-0.5, -1.0]}
    spurious = sample("spurious", [0.0, 0.0], [{"name": "peak", "type": "histosys", "data": shift}])
    spec = assemble({"mass": [sample("s", [2.0, 1.0], signal=True), b, spurious]}, {"mass": [9, 3]})
    compare(spec, [{"stat": [1.0, 1.0]}, {"stat": [1.1, 0.8], "peak": 1.5}, {"peak": -0.5, "mu": 2.0}])
    only = assemble(
        {"mass": [sample("s", [2.0, 1.0], signal=True), sample("b", [8.0, 2.0]), spurious]}, {"mass": [9, 3]}
    )
    card = compare(only, [{"peak": 0.0}, {"peak": 1.5}, {"peak": -0.5, "mu": 2.0}])
    np.testing.assert_allclose(card.histograms["mass/spurious"], [0.5, 1.0])


def test_a_nuisance_called_r_is_not_the_strength():
    signal = sample("s", [2.0], log_normal("r", 0.1), signal=True)
    card = to_card(assemble({"x": [signal, sample("b", [1.0])]}, {"x": [1]}))
    assert "\nr_  lnN  1.1" in card.text


def test_histograms_are_where_the_card_says(tmp_path):
    nominal = [20.0, 10.0]
    background = sample("continuum", nominal, paired_shape("scale", nominal, [22.0, 10.0], [18.0, 9.0]))
    spec = assemble({"mass": [sample("signal", [1.0, 5.0], signal=True), background]}, {"mass": [19, 14]})
    card = to_card(spec, root="one.root")
    write_histograms(tmp_path / "one.root", card.histograms)
    assert "shapes * mass one.root $CHANNEL/$PROCESS $CHANNEL/$PROCESS_$SYSTEMATIC" in card.text
    with uproot.open(tmp_path / "one.root") as file:
        for name in ("data_obs", "signal", "continuum", "continuum_scaleUp", "continuum_scaleDown"):
            np.testing.assert_allclose(file[f"mass/{name}"].values(), card.histograms[f"mass/{name}"])
            assert file[f"mass/{name}"].classname == "TH1D"


def test_a_milliqan_like_card_is_read():
    assert is_card(MILLIQAN)
    spec = read_card(MILLIQAN)
    at = {"r": 1.0, "SR1Err": 1.0, "SR2Err": 1.0}
    one = {"mu": 1.0}
    model = pyhf.Workspace(spec).model(modifier_settings={"normsys": {"interpcode": "code1"}})
    data = pyhf.Workspace(spec).data(model)
    found = []
    for change in ({}, {"SR1Err": 1.6, "sigErr": 1.0}, {"SR2Err": 0.7, "sigErr": -1.5, "r": 3.0}):
        pars = np.array(model.config.suggested_init())
        now = at | change
        for name, value in (one | now).items():
            if name in model.config.parameters:
                pars[model.config.par_slice(name)] = value
        pars[model.config.par_slice("mu")] = now["r"]
        found.append((float(model.logpdf(pars, data)[0]), log_likelihood(MILLIQAN_PLAIN, {}, now)))
    ours, theirs = np.array(found).T
    np.testing.assert_allclose(np.diff(ours), np.diff(theirs), rtol=1e-6)


MILLIQAN_PLAIN = "\n".join(
    line.strip().replace("0.099", "0.0987").replace("0.875", "0.8749") for line in MILLIQAN.splitlines()
)  # Combine takes the counts times their factor, not the rounded rate


def test_a_control_region_without_counts_is_a_channel_of_its_own():
    card = MILLIQAN.replace("gmN 3   -    0.0329", "gmN 0   -    0.0329").replace("0.099", "0.0")
    spec = read_card(card)
    assert [entry["name"] for entry in spec["observations"]] == ["SR1", "SR2", "SR1Err_counts"]
    model = pyhf.Workspace(spec).model()
    pars = np.array(model.config.suggested_init())
    pars[model.config.par_slice("SR1Err")] = 2.0
    (expected,) = [model.expected_actualdata(pars)[model.config.channel_slices["SR1"]]]
    assert expected[0] == pytest.approx(0.734 + 2.0 * 0.0329)


def test_counting_cards_go_round():
    spec = read_card(MILLIQAN)
    again = read_card(to_card(spec).text)
    assert again["observations"] == spec["observations"]
    for first, second in zip(spec["channels"], again["channels"], strict=True):
        for a, b in zip(first["samples"], second["samples"], strict=True):
            assert a["data"] == pytest.approx(b["data"], rel=1e-9)
            names = [sorted((m["name"], m["type"]) for m in one["modifiers"]) for one in (a, b)]
            assert names[0] == names[1]


def test_a_card_by_the_command_line(tmp_path):
    path = tmp_path / "card.txt"
    path.write_text(MILLIQAN)
    folder = tmp_path / "cards"
    found = CliRunner().invoke(app, ["scan", str(path), "--combine", str(folder)])
    assert found.exit_code == 0, found.output
    first = found.output.splitlines()[0]
    again = CliRunner().invoke(app, ["scan", str(folder / "workspace.txt")])
    assert again.output.splitlines()[0] == first
    # no event where 0.1 are expected: CLs of a counting experiment is e^-s, for s = 0.734 and its error
    assert float(first.split("CLs ")[1].split()[0]) == pytest.approx(np.exp(-0.734), rel=0.5)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (" rate ", " rates ", "no line 'rate'"),
        ("observation 0 2", "observation 0", "1 counts for the channels"),
        ("observation 0 2", "observation 0 x", "is no number"),
        ("observation 0 2", "observation 0 -1", "not be negative"),
        ("process          0     1     0    1", "process          1     1     2    1", "marks the signal"),
        ("0.748/1.252", "-0.748/1.252", "must be positive"),
        ("gmN 13", "gmN 20", "the rate is 0.875"),
        ("gmN 13", "gmN many", "number of counts"),
        ("sigErr lnN", "sigErr trG", "nuisance of kind 'trG'"),
        ("sigErr lnN", "SR1Err lnN", "two nuisances"),
        (
            " bin              SR1   SR1   SR2  SR2",
            " bin              SR1   SR1   SR2  SR3",
            "no observation",
        ),
        ("kmax *", "kmax 7", "kmax = 7"),
        ("imax 2", "imax 3", "imax = 3"),
        (" ------------\n bin SR1", " shapes * * f.root\n bin SR1", "has shapes"),
        ("   -    0.748/1.252  -  error of the signal", "", "entries for 4 columns"),
    ],
)
def test_a_wrong_card_is_refused_with_its_line(old, new, why):
    assert old in MILLIQAN
    with pytest.raises(InputFileError, match=why):
        read_card(MILLIQAN.replace(old, new, 1), "mine.txt")


def test_what_a_card_cannot_say_is_refused():
    spec = infer.workspace("dump", 0.5, 0.4, [2])
    two = copy.deepcopy(spec)
    two["channels"][0]["samples"][1]["modifiers"].append(
        {"name": "pot-search", "type": "normsys", "data": {"hi": 1.1, "lo": 0.9}}
    )
    two["channels"][0]["samples"][1]["modifiers"].append(
        {"name": "pot_search", "type": "normsys", "data": {"hi": 1.1, "lo": 0.9}}
    )
    with pytest.raises(PhysicsError, match="to Combine"):
        to_card(two)
    many = copy.deepcopy(spec)
    many["measurements"] *= 2
    with pytest.raises(PhysicsError, match="2 measurements"):
        to_card(many)
    shifts = {"hi_data": [0.5], "lo_data": [-0.1]}
    odd = sample("odd", [0.0], [{"name": "peak", "type": "histosys", "data": shifts}])
    with pytest.raises(PhysicsError, match="empty sample"):
        to_card(assemble({"x": [sample("s", [2.0], signal=True), sample("b", [1.0]), odd]}, {"x": [1]}))
