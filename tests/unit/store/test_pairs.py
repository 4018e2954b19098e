"""The exchange format: chunks of pairs as Parquet, weights chunk by chunk, damage."""

import numpy as np
import pytest

from gammastar.core.errors import StoreError
from gammastar.core.pairs import Pairs
from gammastar.core.records import regular
from gammastar.core.sampling import event_seeds, replica_weights, stream
from gammastar.select import fill
from gammastar.store.pairs import PairChunk, read_pairs, thinned, write_pairs
from gammastar.subtract import event_weights

pytest.importorskip("pyarrow")
AXES = (regular("mass", 10, 0.2, 1.2), regular("pt", 3, 0, 2))


def sample(n=5000):
    rng = stream(1, "parquet")
    charge = rng.choice(np.array([0, 2, -2], np.int8), size=n, p=[0.6, 0.25, 0.15])
    kinematics = (rng.uniform(0.1, 1.3, n), rng.gamma(2, 0.3, n), rng.uniform(5, 90, n))
    return Pairs(*kinematics, charge, rng.uniform(0.5, 2, n), np.arange(n) // 2 - 7, {"angle": rng.random(n)})


def test_round_trip_in_chunks_with_weights_and_seeds(tmp_path):
    pairs = sample()
    parts = [pairs.select(slice(k, k + 1200)) for k in range(0, len(pairs), 1200)]
    hists = fill(pairs, AXES)
    seeds = (event_seeds(p.event, dataset="MOCK") for p in parts)
    signed = (event_weights(p, AXES, hists=hists) for p in parts)
    chunks = (PairChunk(*columns) for columns in zip(parts, seeds, signed, strict=True))
    paths = write_pairs(tmp_path / "pairs", chunks, dataset="MOCK")
    assert [p.name for p in paths] == [f"part-{k:05d}.parquet" for k in range(5)]
    found = list(read_pairs(tmp_path / "pairs"))
    back = Pairs.concatenate([c.pairs for c in found])
    for name in ("mass", "pt", "energy", "charge", "weight", "event"):
        np.testing.assert_array_equal(getattr(back, name), getattr(pairs, name))
        assert getattr(back, name).dtype == getattr(pairs, name).dtype
    np.testing.assert_array_equal(back.columns["angle"], pairs.columns["angle"])
    signed = np.concatenate([c.signed for c in found])
    np.testing.assert_allclose(signed, event_weights(pairs, AXES), rtol=1e-12)
    seed = np.concatenate([c.seed for c in found])
    whole = replica_weights(event_seeds(pairs.event, dataset="MOCK"), 4)
    np.testing.assert_array_equal(replica_weights(seed, 4), whole)


def test_older_parts_go_and_an_empty_sample_keeps_its_columns(tmp_path):
    pairs = sample(100)
    write_pairs(tmp_path, [pairs, pairs, pairs])
    assert len(write_pairs(tmp_path, [Pairs.empty(("angle",)), Pairs.empty(("angle",))])) == 1
    (chunk,) = read_pairs(tmp_path)
    assert len(chunk.pairs) == 0
    assert list(chunk.pairs.columns) == ["angle"]
    assert chunk.seed is None
    assert chunk.signed is None


def test_refuses(tmp_path):
    pairs = sample(10)
    with pytest.raises(StoreError, match="no part"):
        list(read_pairs(tmp_path))
    with pytest.raises(StoreError, match="seed"):
        PairChunk(pairs, np.zeros(3, np.uint64))
    taken = Pairs(*(getattr(pairs, n) for n in ("mass", "pt", "energy", "charge", "weight", "event")),
                  {"seed": pairs.mass})  # fmt: skip
    with pytest.raises(StoreError, match="name of the format"):
        write_pairs(tmp_path, [taken])
    (path,) = write_pairs(tmp_path, [pairs])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match="damaged"):
        list(read_pairs(tmp_path))
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pq.ParquetFile(write_pairs(tmp_path, [pairs])[0]).read().replace_schema_metadata({}), path)
    with pytest.raises(StoreError, match="not a file of pairs"):
        list(read_pairs([path]))


def test_a_sample_of_the_pairs_stands_for_all_of_them():
    pairs = sample()
    parts = [pairs.select(slice(k, k + 1200)) for k in range(0, len(pairs), 1200)]
    found = thinned(parts, 1000, "MOCK")
    assert 100 < len(found) <= 1000
    assert found.weight.sum() == pytest.approx(pairs.weight.sum())
