"""Archives of likelihoods: right, or refused within bounds of time and memory; never in part."""

import bz2
import gzip
import io
import lzma
import resource
import tarfile
import zipfile
from pathlib import Path

import forks
import pytest

from gammastar.core.errors import InputFileError
from gammastar.infer.histfactory import likelihoods as archive
from gammastar.infer.histfactory.likelihoods import json_texts, read_likelihood

PACK = {"": lambda data: data, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def packed(members, form=tarfile.PAX_FORMAT):
    """Return a plain tar archive of names and contents."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return plain.getvalue()


GOOD = [("a/workspace.json", b"{}"), ("a/long" + "g" * 200 + ".json", b"[1]"), ("b/other.txt", b"x" * 5000)]


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_json_files_of_an_archive(tmp_path, suffix, form):
    path = tmp_path / f"good.tar{suffix}"
    path.write_bytes(PACK[suffix](packed(GOOD, form)))
    assert dict(json_texts(path)) == {name: data.decode() for name, data in GOOD[:2]}
    assert dict(json_texts(path, "b")) == {}


@pytest.mark.parametrize("suffix", PACK)
def test_no_archive_is_read_in_part(tmp_path, suffix):
    """Cut off anywhere, also exactly between two members, where a tar archive looks complete."""
    whole, path = packed(GOOD), tmp_path / "cut.tar"
    pieces = [PACK[suffix](whole[:at]) for at in (512, 1024, 2048, 700, 3000)]
    ready = PACK[suffix](whole)
    if suffix:
        pieces += [ready[: len(ready) * part // 8] for part in range(1, 8)] + [ready[:-2]]
    for piece in pieces:
        path.write_bytes(piece)
        with pytest.raises(InputFileError, match=r"cut\.tar"):
            list(json_texts(path))


def test_a_flipped_bit_of_a_packed_archive(tmp_path):
    data = bytearray(gzip.compress(packed([("w.json", b"[" + b"1, " * 3000 + b"1]")]), 0))
    data[700] ^= 1
    path = tmp_path / "flipped.tar.gz"
    path.write_bytes(data)
    with pytest.raises(InputFileError, match="damaged archive"):
        list(json_texts(path))


@pytest.mark.long
@pytest.mark.parametrize(
    ("made", "match"),
    [
        (lambda: packed([("w.json", b"[" + b"{}," * 11_000_000 + b"{}]")]), "10000000 values"),
        (lambda: packed([("w.json", b" " * (65 << 20))]), "64 MB a file"),
        (lambda: 10_001 * packed([("a.txt", b"")])[:512] + bytes(1024), "10000 members"),
    ],
)
def test_archives_are_bounded(tmp_path, made, match):
    path = tmp_path / "big.tar.gz"
    path.write_bytes(gzip.compress(made(), 1))
    with pytest.raises(InputFileError, match=match):
        list(json_texts(path))


def test_all_files_of_an_archive_are_bounded_together(tmp_path, monkeypatch):
    assert archive.TOTAL == 256 << 20
    monkeypatch.setattr(archive, "TOTAL", 16 << 20)
    path = tmp_path / "big.tar.gz"
    for size, number in ((3 << 20, 5), (4 << 20, 5)):
        path.write_bytes(gzip.compress(packed([(f"w{i}.json", b" " * size) for i in range(number)]), 1))
        if size * number < archive.TOTAL:
            assert len(dict(json_texts(path))) == number
            continue
        with pytest.raises(InputFileError, match="16 MB together"):
            list(json_texts(path))


def test_an_unpacked_archive_is_bounded_in_memory(tmp_path, monkeypatch):
    """A member that nobody asked for, larger than the bound: neither unpacked in memory nor to its end."""
    monkeypatch.setattr(archive, "UNPACKED", 32 << 20)
    path = tmp_path / "bomb.tar.gz"
    info = tarfile.TarInfo("data.bin")
    info.size = 1 << 33
    path.write_bytes(gzip.compress(info.tobuf() + bytes(40 << 20), 1))
    with pytest.raises(InputFileError, match="more than 32 MB"):
        list(json_texts(path))


@pytest.mark.long
@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
@pytest.mark.parametrize("first", [True, False])
def test_long_names_of_members_are_bounded(tmp_path, monkeypatch, kind, first):
    """A packed header that claims 3 GB is read up to the bound; it is refused where it holds less, too."""
    monkeypatch.setattr(archive, "UNPACKED", 32 << 20)
    long = tarfile.TarInfo("long")
    long.type, long.size = kind, 3 << 30
    path = tmp_path / "names.tar.gz"
    before = b"" if first else tarfile.TarInfo("x").tobuf()
    for zeros, match in ((40 << 20, "more than 32 MB"), (0, "damaged archive")):
        path.write_bytes(gzip.compress(before + long.tobuf() + bytes(zeros), 1))
        with pytest.raises(InputFileError, match=rf"names\.tar\.gz.*{match}"):
            list(json_texts(path))


def test_links_devices_and_paths_of_an_archive_lead_nowhere(tmp_path):
    """Members that are no plain file are left out, whatever their name; a zip is refused."""
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE)
    plain, outside = io.BytesIO(), tmp_path / "outside.json"
    outside.write_text("[1]")
    with tarfile.open(fileobj=plain, mode="w") as tar:
        for kind in kinds:
            for to in (str(outside), "../outside.json", f"w{int(kind)}.json"):
                info = tarfile.TarInfo(f"w{int(kind)}.json")
                info.type, info.linkname = kind, to
                tar.addfile(info)
        for name in ("../../escape.json", str(tmp_path / "absolute.json")):
            tar.addfile(tarfile.TarInfo(name))
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "odd.tar"
    path.write_bytes(plain.getvalue())
    before = sorted(tmp_path.rglob("*"))
    assert [text for _, text in json_texts(path)] == ["", ""]
    assert sorted(tmp_path.rglob("*")) == before
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("workspace.json", "[" * 10_000_000)
    with pytest.raises(InputFileError, match=r"odd\.tar: not JSON .* nor a tar archive"):
        read_likelihood(path)


def test_sparse_members_are_bounded_by_what_they_unpack_to(tmp_path):
    """Five bytes that claim a terabyte of zeros."""
    info, plain = tarfile.TarInfo("GNUSparseFile.0/w.json"), io.BytesIO()
    content = b"1\n0\n5\n".ljust(512, b"\0") + b"[1,2]"
    claims = {"major": "1", "minor": "0", "name": "w.json", "realsize": str(1 << 40)}
    info.size, info.pax_headers = len(content), {f"GNU.sparse.{key}": value for key, value in claims.items()}
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(content))
    path = tmp_path / "sparse.tar"
    path.write_bytes(plain.getvalue())
    with pytest.raises(InputFileError, match=r"sparse\.tar: w\.json of 1099511627776 bytes is too large"):
        list(json_texts(path))


def test_the_command_says_what_is_wrong(tmp_path):
    """A few megabytes that unpack to four gigabytes, under a limit of memory; and a file that was cut off."""
    lines = b"[" + b"[]," * 11_000_000 + b"[]]"
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(packed([("w.json", lines)]), 1))
    (tmp_path / "cut.tar.gz").write_bytes(gzip.compress(packed(GOOD))[:40])
    for name in ("bomb.tar.gz", "cut.tar.gz"):
        done = forks.gammastar("scan", tmp_path / name, limits={resource.RLIMIT_AS: 2 << 30}, timeout=120)
        assert done.returncode == 2, done.stderr
        assert Path(name).name in done.stderr
        assert "interrupted" not in done.stderr
        assert "Traceback" not in done.stderr
