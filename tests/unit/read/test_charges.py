"""A charge without a sign is never read as one: refused, mapped by its key, or counted as lost."""

import html

import awkward as ak
import numpy as np
import pytest
import uproot
from builders import jagged_schema

from gammastar import read, select
from gammastar.core.errors import BranchError, SteeringError

N = 40
XYZ = ("px", "py", "pz")
UNSIGNED = (np.bool_, np.uint8, np.uint16, np.uint32, np.uint64)


@pytest.fixture(scope="module")
def muons():
    rng = np.random.default_rng(5)
    counts = rng.integers(0, 5, N)
    n = int(counts.sum())
    lists = {key: ak.unflatten(rng.normal(size=n), counts) for key in XYZ}
    return lists | {"charge": ak.unflatten(rng.choice(np.array([-1, 1]), n), counts)}


def by_charge(charges):
    """Numbers of +-, ++ and -- pairs, by hand."""
    found = np.zeros(3, int)
    for event in ak.to_list(charges):
        plus, minus = sum(q > 0 for q in event), sum(q < 0 for q in event)
        found += [plus * minus, plus * (plus - 1) // 2, minus * (minus - 1) // 2]
    return found.tolist()


def write(path, branches, kind="TTree"):
    with uproot.recreate(path) as file:
        if kind == "TTree":
            types = {key: f"var * {ak.type(array).content.content}" for key, array in branches.items()}
            file.mktree("events", types, counter_name=lambda _: "n")
            file["events"].extend(branches)
        else:
            file.mkrntuple("events", branches)
    return path


def schema(**changes):
    sign = {"charge": None} if "pdg_id" in changes else {}
    return read.load_schema(jagged_schema(**(sign | changes)))


def counted(path, mapping, **options):
    found, _ = select.collect(read.open_events(path, mapping, **options))
    return [int(mask.sum()) for mask in (found.os, found.pp, found.mm)]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
@pytest.mark.parametrize("dtype", UNSIGNED)
def test_a_charge_without_a_sign_is_refused_or_mapped(muons, tmp_path, dtype, kind):
    for negative in (0, 255) if dtype != np.bool_ else (0,):
        values = ak.values_astype(ak.where(muons["charge"] > 0, 1, negative), dtype)
        path = write(tmp_path / f"{negative}.root", muons | {"charge": values}, kind)
        for reader in (read.open_events, read.open_flat):
            with pytest.raises(BranchError, match=r"charge = 'charge' of type .* positive = 1"):
                next(reader(path, schema()))
        for positive in (1, True, 1.0) if negative == 0 and kind == "TTree" else (1,):
            assert counted(path, schema(positive=positive), step=15) == by_charge(muons["charge"])
        assert counted(path, schema(positive=negative)) == by_charge(-muons["charge"])
        flat = next(read.open_flat(path, schema(positive=1)))
        assert np.array_equal(flat["charge"], ak.to_numpy(ak.flatten(muons["charge"])))


@pytest.mark.parametrize("dtype", UNSIGNED)
def test_legs_without_a_sign(tmp_path, dtype):
    rng = np.random.default_rng(2)
    q = rng.choice([-1, 1], (N, 2))
    legs = {f"{key}{leg}": rng.normal(size=N) for key in XYZ for leg in (1, 2)}
    legs |= {f"q{leg}": (q[:, leg - 1] > 0).astype(dtype) for leg in (1, 2)}
    with uproot.recreate(tmp_path / "f.root") as file:
        file["events"] = legs
    pair = {"layout": "pair", "charge": ["q1", "q2"], "kinematics": {k: [k + "1", k + "2"] for k in XYZ}}
    with pytest.raises(BranchError, match=r"charge = 'q1' of type (bool|uint\d+) holds no negative number"):
        next(read.open_events(tmp_path / "f.root", schema(**pair)))
    assert counted(tmp_path / "f.root", schema(positive=1, **pair)) == by_charge(q)


@pytest.mark.parametrize("step", ["100 MB", 5])
def test_more_values_than_two_are_no_charge(muons, tmp_path, step):
    values = ak.where(muons["charge"] > 0, 1, ak.local_index(muons["px"]))
    path = write(tmp_path / "f.root", muons | {"charge": values})
    with pytest.raises(BranchError, match=r"takes the values 0, .* besides positive = 1; only one other"):
        list(read.open_events(path, schema(positive=1), step=step))


def test_the_two_values_are_the_same_in_all_chunks(muons, tmp_path):
    """Three values, of which no chunk holds more than two."""
    low = ak.Array(np.arange(N) < N // 2)
    values = ak.where(muons["charge"] > 0, 1, ak.where(low, 0, 2))
    path = write(tmp_path / "f.root", muons | {"charge": values})
    with pytest.raises(BranchError, match="takes the values 0, 2 besides"):
        list(read.open_events(path, schema(positive=1), step=N // 2))


def test_a_mapped_charge_that_is_not_a_number_is_lost_and_counted(muons, tmp_path):
    broken = ak.where(ak.local_index(muons["px"]) == 3, np.nan, ak.where(muons["charge"] > 0, 7.5, -2.5))
    path = write(tmp_path / "f.root", muons | {"charge": broken})
    found, flow = select.collect(read.open_events(path, schema(positive=7.5)))
    assert flow.not_finite == ak.sum(ak.num(muons["px"]) == 4) > 0
    kept = muons["charge"][ak.local_index(muons["px"]) != 3]
    assert [int(mask.sum()) for mask in (found.os, found.pp, found.mm)] == by_charge(kept)


def test_codes_of_the_flavour_only(muons, tmp_path):
    """Electrons, photons and neutrinos among the codes are no muons."""
    place = ak.local_index(muons["px"])
    other = ak.where(place % 2 == 0, 22, 11 * muons["charge"])
    codes = ak.where(place < 3, -13 * muons["charge"], other)
    path = write(tmp_path / "f.root", muons | {"pdg": codes})
    found, flow = select.collect(read.open_events(path, schema(pdg_id="pdg")))
    assert flow.not_finite == ak.sum(place >= 3) > 0
    assert [int(mask.sum()) for mask in (found.os, found.pp, found.mm)] == by_charge(
        muons["charge"][place < 3]
    )
    unsigned = ak.values_astype(codes, np.uint32)
    with pytest.raises(BranchError, match=r"pdg_id = 'pdg' of type .* signed PDG codes"):
        next(read.open_events(write(tmp_path / "u.root", muons | {"pdg": unsigned}), schema(pdg_id="pdg")))


@pytest.mark.parametrize(
    "changes", [{"positive": "1"}, {"positive": [1]}, {"positive": 1, "pdg_id": "pdg", "charge": ""}]
)
def test_the_key_is_a_number_and_goes_with_a_charge(changes):
    with pytest.raises(SteeringError, match=r"schema.positive = .* must be a number"):
        schema(**changes)


@pytest.mark.long
def test_values_that_a_file_leaves_out_are_lost_and_counted(muons, tmp_path):
    """An optional number of an RNTuple that is not there is not zero."""
    place = ak.local_index(muons["px"])
    px = ak.Array(ak.mask(muons["px"], place != 1).to_list())  # uproot misplaces values of ak.mask
    path = write(tmp_path / "f.root", muons | {"px": px}, "RNTuple")
    for reader in (read.open_events, read.open_flat):
        total, flow = select.histograms(reader(path, schema()), (select_axis(),))
        assert flow.not_finite == ak.sum(place == 1) > 0
        if reader is read.open_events:
            found = ak.flatten(next(reader(path, schema())).lepton.px)
            wanted = ak.flatten(ak.where(place == 1, np.nan, muons["px"]))
            assert np.array_equal(ak.to_numpy(found), ak.to_numpy(wanted), equal_nan=True)
        kept = by_charge(muons["charge"][place != 1])
        assert [int(h.sum(flow=True).value) for h in (total.os, total.pp, total.mm)] == kept


def select_axis():
    from gammastar.core.records import regular

    return regular("mass", 4, 0.0, 10.0)


@pytest.mark.long
def test_messages_fit_a_screen(muons, tmp_path):
    """A record of many members as a charge: its type alone would fill pages."""
    wide = ak.zip({f"member_{i}": muons["px"] for i in range(150)})
    path = write(tmp_path / "f.root", muons | {"wide": wide}, "RNTuple")
    for changes in ({"charge": "wide"}, {"charge": "n" * 90}, {"weight": "wide"}, {"event": "wide"}):
        for reader in (read.open_events, read.open_flat)[: 1 if "event" in changes else 2]:
            with pytest.raises(BranchError) as caught:
                next(reader(path, schema(**changes)))
            assert len(str(caught.value)) < 1000


def mistaken(muons, share):
    """A charge that is zero for every 1/share-th lepton."""
    n = int(ak.sum(ak.num(muons["charge"])))
    zero = ak.unflatten(np.arange(n) % round(1 / share) == 0, ak.num(muons["charge"]))
    return muons | {"charge": ak.where(zero, 0, muons["charge"])}, int(ak.sum(zero)), n


@pytest.fixture(scope="module")
def many():
    """Muons in numbers of which one percent can be spoken."""
    rng = np.random.default_rng(8)
    counts = rng.integers(1, 5, 400)
    n = int(counts.sum())
    lists = {key: ak.unflatten(rng.normal(0, 3, size=n), counts) for key in XYZ}
    return lists | {"charge": ak.unflatten(rng.choice(np.array([-1, 1]), n), counts)}


@pytest.mark.long
@pytest.mark.parametrize("reader", [read.open_events, read.open_flat])
def test_leptons_that_are_lost_are_split_by_cause(many, tmp_path, reader):
    broken, _, n = mistaken(many, 1 / 20)
    place = ak.local_index(many["px"])
    broken["px"] = ak.where(place == 3, np.nan, broken["px"])
    broken["pz"] = ak.where(place == 2, np.inf, broken["pz"])
    path = write(tmp_path / "f.root", broken)
    _, flow = select.histograms(reader(path, schema(), step=33), (select_axis(),))
    px, pz = int(ak.sum(place == 3)), int(ak.sum(place == 2))
    charge = int(ak.sum((broken["charge"] == 0) & (place < 2)))
    assert flow["finite"].lost == {"px": px, "pz": pz, "charge": charge}
    assert flow["leptons"].n - flow["finite"].n == px + pz + charge
    text = select.lost_leptons(flow, schema().sources())
    assert text.startswith(f"{px + pz + charge} of {n} leptons (")
    for part in (f"{px} because px = 'px' is not finite", f"{charge} because charge = 'charge' is not ±1"):
        assert part in text


@pytest.mark.parametrize(("share", "alarm"), [(1 / 200, False), (1 / 50, True)])
def test_more_than_one_percent_is_an_alarm(many, tmp_path, caplog, share, alarm):
    broken, zeros, n = mistaken(many, share)
    path = write(tmp_path / "f.root", broken)
    _, flow = select.collect(read.open_events(path, schema(), step=50))
    assert flow.not_finite == zeros
    assert bool(select.lost_leptons(flow)) == alarm == (f"{zeros} of {n} leptons" in caplog.text)


@pytest.mark.parametrize("key", ["charge", "pdg_id"])
def test_more_than_half_is_an_error_that_names_the_column(many, tmp_path, key):
    isolation = many | {"iso": np.abs(many["px"])}
    path = write(tmp_path / "f.root", isolation)
    with pytest.raises(BranchError, match=r"charge is not ±1; does the schema name the right branch\?"):
        select.collect(read.open_events(path, schema(charge="iso")))
    if key == "pdg_id":  # charges where codes should be, and codes of electrons
        mapping = schema(pdg_id="charge")
        flow = sum((select.pairs(c)[1] for c in read.open_events(path, mapping)), select.Cutflow())
        with pytest.raises(BranchError, match="because pdg_id = 'charge' of a lepton 'mu'"):
            select.lost_leptons(flow, mapping.sources())


STEERING = """
[analysis]
name = "lost"
seed = 1
mock = true
[read]
schema = "schema.toml"
files = ["*.root"]
step = 100
[select]
mass = [0.0, 5.0, 20.0]
"""
REPORT = """
[subtract]
method = "sum"
weights = "signed"
[report]
"""
TOML = """
tree = "events"
layout = "jagged"
lepton = "mu"
charge = "charge"
[kinematics]
px = "px"
py = "py"
pz = "pz"
"""


@pytest.mark.parametrize(
    ("workers", "report"), [(False, ""), (True, ""), pytest.param(False, REPORT, marks=pytest.mark.slow)]
)
def test_a_run_tells_of_lost_leptons_and_refuses_a_wrong_branch(many, tmp_path, caplog, workers, report):
    from gammastar import facility
    from gammastar.pipeline import run as pipeline
    from gammastar.store.manifest import read_json

    broken, zeros, n = mistaken(many, 1 / 20)
    write(tmp_path / "data.root", broken | {"iso": np.abs(many["px"])})
    (tmp_path / "schema.toml").write_text(TOML)
    (tmp_path / "run.toml").write_text(STEERING + report)
    text = f"{zeros} of {n} leptons ({zeros / n:.1%}) are lost to the selection: {zeros} because charge = "

    def run(**options):
        caplog.clear()
        with facility.open_executor() as executor:
            arguments = {"output": tmp_path / "out", "executor": executor if workers else None}
            folder = pipeline.run(tmp_path / "run.toml", **arguments, **options)
        assert not report or f"Alarm: {text}" in html.unescape((folder / "report.html").read_text())
        return read_json(folder / "manifest.json")["notes"]

    for resume in (False, True):  # a stage that is taken from the finished run tells as well
        assert [note for note in run(resume=resume) if note.startswith(text)]
        assert text in caplog.text
    (tmp_path / "schema.toml").write_text(TOML.replace('"charge"', '"iso"'))
    with pytest.raises(SteeringError, match=r"data.root: charge: 100 % of .* values of 'iso' are not ±1"):
        run()


def test_bad_files_are_left_out_also_if_they_lack_a_branch(many, tmp_path):
    from gammastar import facility
    from gammastar.store.pairs import Job, Source

    paths = [write(tmp_path / f"{i}.root", many) for i in range(4)]
    write(paths[1], {key: array for key, array in many.items() if key != "charge"})
    write(paths[2], many | {"charge": ak.values_astype(many["charge"] > 0, np.uint8)})
    sources = tuple(Source(str(path)) for path in paths)
    job = Job("pairs", sources, schema(), select.Cuts, 100, "k", tmp_path / "chunks")
    with (
        facility.open_executor(retries=0) as executor,
        pytest.raises(BranchError, match=r"1.root: .* no branch 'charge'"),
    ):
        executor.pairs(job)
    with facility.open_executor(retries=0, skip_bad=True) as executor:
        pairs, flow = executor.pairs(job)
        left_out = {entry["file"] for entry in executor.skipped}
        assert left_out == {str(paths[1]), str(paths[2])}
        assert flow["events"].n == 800
        assert executor.lost_fraction() == pytest.approx(0.5)
        assert sum(int(part.os.sum()) for part in pairs) == 2 * by_charge(many["charge"])[0]
    for bad in (paths[1], paths[2]):
        alone = Job("pairs", (Source(str(bad)),), schema(), select.Cuts, 100, "k", tmp_path / bad.stem)
        with (
            facility.open_executor(retries=0, skip_bad=True) as executor,
            pytest.raises(BranchError, match=bad.name),
        ):
            executor.pairs(alone)


def test_a_row_filter_compares_one_value_per_row(muons, tmp_path):
    rows = ak.Array([None if i % 3 == 0 else i % 4 for i in range(N)])  # uproot misplaces values of ak.mask
    records = ak.zip({"a": muons["px"]})
    path = write(tmp_path / "f.root", muons | {"rows": rows, "records": records}, "RNTuple")
    events = next(read.open_events(path, schema(row_filter={"branch": "rows", "equals": 2})))
    assert ak.to_list(events.event) == [i for i in range(N) if i % 4 == 2 and i % 3 != 0]
    for name in ("px", "records"):
        with pytest.raises(BranchError, match=f"row_filter on branch '{name}' of type var"):
            next(read.open_events(path, schema(row_filter={"branch": name, "equals": 1})))
