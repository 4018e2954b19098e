"""The digest of the package's own code, which decides whether kept pairs and stages are taken again."""

import shutil
from pathlib import Path

import pytest

import gammastar
from gammastar.store import manifest

PACKAGE = Path(gammastar.__file__).parent
ROOMS = ("core", "physics", "read", "select", "subtract", "store", "mock")


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Return a copy of the package that the digest is taken of."""
    folder = tmp_path / "gammastar"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__", "data"))
    monkeypatch.setattr(manifest, "__file__", str(folder / "store" / "manifest.py"))
    yield folder
    manifest.package_digest.cache_clear()


def digest():
    manifest.package_digest.cache_clear()
    return manifest.package_digest()


def test_a_change_in_any_room_changes_the_digest(copied):
    seen = {digest()}
    for number, room in enumerate(ROOMS, start=2):
        files = sorted((copied / room).glob("*.py"))
        assert len(files) > 3, room
        with files[-1].open("a", encoding="utf-8") as stream:
            stream.write("# changed\n")
        seen.add(digest())
        assert len(seen) == number, room


def test_a_name_counts_and_compiled_files_do_not(copied):
    before = digest()
    (copied / "read" / "__pycache__").mkdir()
    (copied / "read" / "__pycache__" / "events.pyc").write_bytes(b"compiled")
    assert digest() == before
    (copied / "read" / "events.py").rename(copied / "read" / "other.py")
    assert digest() != before
