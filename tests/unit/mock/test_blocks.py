"""Samples in blocks: one content, streamed or joined; truth of decays in flight."""

import awkward as ak
import numpy as np
import pytest

from gammastar.core.errors import PhysicsError, StoreError
from gammastar.core.files import data_path
from gammastar.mock import load_card, samples, simulate_blocks, simulate_events, write_blocks
from gammastar.mock.ntuple import ContentDigest, combined_meta
from gammastar.store.events import tree_writer

CARD = load_card(data_path("cards/na60_mock.toml"))
FULL = load_card(data_path("cards/na60_full.toml"))


@pytest.fixture
def small_blocks(small_pilots):
    small_pilots.setattr(samples, "BLOCK", 1000)


@pytest.mark.long
@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("card", "kind"), [(CARD, "mc"), (FULL, "charm")])
def test_blocks_are_one_sample(card, kind):
    whole = simulate_events(card, 2500, kind=kind, seed=1)
    digest, metas, px = ContentDigest(), [], []
    for block in simulate_blocks(card, 2500, kind=kind, seed=1):
        digest.update(block.branches)
        metas.append(block.meta)
        px.append(ak.to_numpy(ak.flatten(block.branches["Muon"].px)))
    assert len(metas) == 3
    assert not np.intersect1d(px[0], px[1]).size  # random numbers of their own
    assert digest.hexdigest(combined_meta(metas)) == whole.digest
    assert whole.meta["n_events"] == len(whole)
    np.testing.assert_array_equal(whole.branches["event"], np.arange(len(whole)))
    assert np.all(np.diff(whole.branches["burst"]) >= 0)
    pots = [meta["N_POT"] for meta in metas]
    assert whole.meta["N_POT"] == pytest.approx(sum(pots))
    assert pots[0] / pots[2] == pytest.approx(2.0, rel=1e-3)
    total = (whole.branches["weight"] * whole.branches["prescale"]).sum()
    if kind == "mc":
        assert total == pytest.approx(sum(whole.meta["sum_weights"].values()))
    else:
        assert whole.meta["pot_per_burst"] * whole.meta["n_bursts"] == pytest.approx(whole.meta["N_POT"])


def test_mistakes_are_found_before_work(tmp_path):
    with pytest.raises(PhysicsError, match="n = 0"):
        simulate_blocks(CARD, 0)  # not only when the first block is asked for
    (tmp_path / "file").write_text("")

    def never():
        pytest.fail("a block was made although the file cannot be written")
        yield

    with (
        pytest.raises(StoreError, match="cannot be written"),
        tree_writer(tmp_path / "file" / "mock.root") as file,
    ):
        write_blocks(file, never())


@pytest.mark.usefixtures("small_pilots")
def test_truth_of_decays_in_flight():
    """Decays along 0.44 m of path: nearly uniform, as the flight is long; pairs of photons share a mother."""
    muon = simulate_events(CARD, 2000, kind="background", seed=1).branches["Muon"]
    z = ak.to_numpy(ak.flatten(muon.decayZ))
    length = 100 * CARD.background.decay_length
    assert z.min() > 0
    assert z.max() <= length
    assert z.mean() == pytest.approx(length / 2, rel=0.05)
    assert set(np.unique(ak.flatten(muon.motherIdx))) == {0, 1, 2}
    assert ak.all(ak.num(muon) == ak.Array([len(set(row)) for row in muon.motherIdx.tolist()]))
    mc = simulate_events(CARD, 2000, kind="mc", seed=1).branches["Muon"]
    assert not np.any(ak.to_numpy(ak.flatten(mc.decayZ)))
    assert not np.any(ak.to_numpy(ak.flatten(mc.motherIdx)))


@pytest.mark.usefixtures("small_pilots")
def test_charm_decays_behind_the_interaction():
    """⟨z⟩ = ⟨p_z/m⟩ cτ: D⁺ fly some millimetres, and farther than D⁰ of the same momentum."""
    muon = simulate_events(FULL, 3000, kind="charm", seed=1).branches["Muon"]
    z, mother = (np.abs(ak.to_numpy(ak.flatten(muon[key]))) for key in ("decayZ", "motherPdg"))
    assert set(np.unique(ak.flatten(muon.motherIdx))) == {0, 1}
    mean = {pdg: z[mother == pdg].mean() for pdg in (411, 421)}
    assert 0.1 < mean[421] < 1.0
    assert mean[411] / mean[421] == pytest.approx(309.8 / 123.0, rel=0.25)
