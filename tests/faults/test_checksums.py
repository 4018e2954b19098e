"""Checksums that a file brings are compared, and no damaged size takes memory that the file cannot fill."""

import re
import struct
import tracemalloc

import awkward as ak
import forks
import numpy as np
import pytest
import uproot
from injection import damage, kills

from gammastar import read
from gammastar.core.errors import InputFileError
from gammastar.read.files import protected
from gammastar.store.manifest import read_json


def flipped(path, data, position, bit=3):
    damaged = bytearray(data)
    damaged[position] ^= 1 << bit
    path.write_bytes(bytes(damaged))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "bad.root"


def pages(path):
    """Return where the pages of each field begin, and how long they are."""
    with uproot.open({str(path): None}) as file:
        tree = file["events"]
        fields = [tree.field_records[record.field_id] for record in tree.column_records]
        found = {}
        for record, link in zip(fields, tree.page_link_list[0], strict=True):
            parent = tree.field_records[record.parent_field_id].field_name
            name = record.field_name if parent == record.field_name else f"{parent}.{record.field_name}"
            place = link.pages[0].locator
            found[name] = (place.offset, place.num_bytes)
        place = tree.footer.cluster_group_records[0].page_list_link.locator
        return found, (place.offset, place.num_bytes)


@pytest.mark.long
@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_every_flipped_bit_of_a_page_is_named_by_field_and_cluster(path, codec):
    data = damage.sound_file(path, f"RNTuple {codec}")
    expected, (found, _) = damage.load(path), pages(path)
    assert protected_of(path)
    for name, (start, length) in found.items():
        for position in (start, start + length // 2, start + length - 1, start + length + 7):
            flipped(path, data, position)
            with pytest.raises(InputFileError, match=rf"bad\.root: field '{name}', cluster 0: the checksum"):
                damage.load(path)
    path.write_bytes(data)
    assert ak.array_equal(damage.load(path), expected)


def test_a_damaged_list_of_pages_is_named(path):
    data = damage.sound_file(path, "RNTuple without zstd")
    _, (start, length) = pages(path)
    for position in range(start + 16, start + length, 37):
        flipped(path, data, position)
        with pytest.raises(InputFileError, match=r"bad\.root"):
            damage.load(path)


def protected_of(path):
    with uproot.open({str(path): None}) as file:
        return protected(file["events"])


@pytest.mark.parametrize(
    ("codec", "known"),
    [("TTree zlib", True), ("TTree zstd", False), ("TTree none", False), ("RNTuple without lz4", False)],
)
def test_what_brings_no_checksums_is_known(path, codec, known):
    damage.sound_file(path, codec)
    assert protected_of(path) is known


def basket(path):
    """Return where the first basket of a branch begins, where its numbers do, and its offsets."""
    with uproot.open({str(path): None}) as file:
        branch = file["events"]["Muon_pz"]
        key, border = branch.basket_key(0), branch.basket(0).member("fLast") - branch.basket_key(0).fKeylen
        return key.fSeekKey, key.fSeekKey + key.fKeylen, border


@pytest.mark.parametrize(
    ("codec", "what", "value", "said"),
    [
        ("none", "offset", 0x20000000, "lists end at|before they begin"),
        ("zstd", "claim", 1_900_000_000, "1900000000 are claimed"),
        ("zlib", "block", 0xFFFFFF, "hold 16777215 bytes|cannot become 16777215"),
    ],
)
def test_sizes_that_a_file_cannot_fill_take_no_memory(path, codec, what, value, said):
    data = bytearray(damage.sound_file(path, f"TTree {codec}"))
    damage.load(path)
    key, numbers, border = basket(path)
    if what == "offset":
        struct.pack_into(">i", data, numbers + border + 4 + 4 * 500, value)
    elif what == "claim":
        struct.pack_into(">i", data, key + 6, value)
    else:
        data[numbers + 6 : numbers + 9] = value.to_bytes(3, "little")
    path.write_bytes(bytes(data))
    tracemalloc.start()
    with pytest.raises(InputFileError, match=rf"bad\.root: .*({said})"):
        damage.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_entries_that_no_basket_holds_are_refused(path):
    data, entries = damage.sound_file(path, "TTree none"), struct.pack(">q", damage.ROWS)
    with uproot.open({str(path): None}) as file:
        key = file.key("events")
    place = data.index(entries, key.fSeekKey)  # of the tree, before those of its branches
    path.write_bytes(data[:place] + struct.pack(">q", 1 << 33) + data[place + 8 :])
    with pytest.raises(InputFileError, match="holds 2000 of 8589934592 entries"):
        damage.load(path)


@pytest.mark.long
@pytest.mark.parametrize("codec", [uproot.ZLIB(9), uproot.LZ4(9), uproot.ZSTD(19), uproot.LZMA(9)])
def test_the_bounds_hold_for_what_compresses_best(tmp_path, codec):
    """Zeros in a block of the largest size: no sound file is refused."""
    with uproot.recreate(tmp_path / "zeros.root", compression=codec) as file:
        file.mktree("t", {"x": "int8"}).extend({"x": np.zeros((1 << 24) + 1000, np.int8)})
    with uproot.open(tmp_path / "zeros.root") as file:
        assert not file["t"]["x"].array(library="np").any()


def test_check_and_manifest_say_what_nothing_protects(tmp_path):
    path = kills.steering(tmp_path / "steering.toml")
    text = path.read_text(encoding="utf-8").split("[subtract]")[0]
    for name in ("na60_data.root", "na60_mc.root"):
        with uproot.open({f"{kills.ROOT}/data/mock/{name}": None}) as file:
            part = file["events"].arrays()[:4000]
        kinds = {key: part[key].type.content for key in part.fields if not key.startswith("n")}
        with uproot.recreate(tmp_path / name, compression=uproot.ZSTD(3)) as file:
            file.mktree("events", kinds).extend({key: part[key] for key in kinds})
    path.write_text(re.sub(r'"[^"]*/(na60_\w+\.root)"', r'"\1"', text), encoding="utf-8")
    said = forks.gammastar("check", path, check=True).stderr
    assert "2 of 2 files (na60_data.root, …) bring no checksums" in said
    forks.gammastar("run", path, "--output", tmp_path / "out", check=True)
    notes = read_json(tmp_path / "out" / "manifest.json")["methods"]
    assert "another number" in notes["protection of the inputs"]
    sums = [f"{read.sha256(tmp_path / name)}  {name}" for name in ("na60_data.root", "na60_mc.root")]
    (tmp_path / "SHA256SUMS").write_text("\n".join(sums) + "\n", encoding="utf-8")
    assert "bring no checksums" not in forks.gammastar("check", path, check=True).stderr
