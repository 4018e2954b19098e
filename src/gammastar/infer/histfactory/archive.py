"""JSON files of a published likelihood: alone, in a directory or a tar archive, within bounds of memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from gammastar.core.errors import InputFileError

__all__ = ["json_texts"]

LARGEST = 64 << 20  # bytes of one JSON file
TOTAL = 256 << 20  # bytes of all JSON files
UNPACKED = 1 << 30  # bytes of an unpacked archive, of which only the JSON files are kept
VALUES = 10_000_000  # numbers, lists and objects of all JSON files; each takes some 70 bytes of memory
MEMBERS = 10_000
HEADER = 1 << 16  # bytes of a long name or of extended attributes
BLOCK = 1 << 20
PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
LONG = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)


class _Member(tarfile.TarInfo):
    """A member whose header is read into memory within bounds only."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> _Member:
        found = super().frombuf(buf, encoding, errors)
        if found.type in LONG and found.size > HEADER:
            msg = f"a header of {found.size} bytes, more than {HEADER}"
            raise InputFileError(msg)
        return found


class _Bounded(io.RawIOBase):
    """An unpacked stream, read forwards, that ends with an error beyond a number of bytes."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.last = b""

    def read(self, size: int = -1) -> bytes:
        self.last = self.stream.read(min(size, UNPACKED) if size >= 0 else BLOCK)
        self._check()
        return self.last

    def seek(self, offset: int, whence: int = 0) -> int:
        while (left := offset - self.stream.tell()) > 0 and self.stream.read(min(left, BLOCK)):
            self._check()
        return int(self.stream.tell() if left > 0 else self.stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self.stream.tell())

    def drain(self) -> None:
        """Read to the end, where checksums are compared."""
        while self.stream.read(BLOCK):
            self._check()

    def _check(self) -> None:
        if self.stream.tell() > UNPACKED:
            msg = f"unpacks to more than {UNPACKED >> 20} MB"
            raise InputFileError(msg)


class _Budget:
    """What the JSON files may hold together."""

    def __init__(self, path: Path) -> None:
        self.path, self.bytes, self.values = path, 0, 0

    def spend(self, name: str, size: int) -> None:
        """Refuse a file that is too large, before it is read."""
        self.bytes += size
        if size > LARGEST or self.bytes > TOTAL:
            msg = (
                f"{self.path}: {name[:200]} of {size} bytes is too large: {LARGEST >> 20} MB a file and "
                f"{TOTAL >> 20} MB together are read; choose a directory inside with --region"
            )
            raise InputFileError(msg)

    def text(self, name: str, content: bytes) -> str:
        """Return the text of a file that does not hold too many values."""
        self.values += sum(map(content.count, (b",", b"[", b"{")))
        if self.values > VALUES:
            msg = f"{self.path}: {name[:200]} brings more than {VALUES} values; no likelihood needs so many"
            raise InputFileError(msg)
        return content.decode("utf-8", errors="replace")


def json_texts(path: Path, region: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and contents of the JSON files of a file, directory or tar archive, one after the other.

    Parameters
    ----------
    path : Path
    region : str
        Directory inside, if it is not all of it.

    Raises
    ------
    InputFileError
        If there is no such file, an archive is damaged or cut off, or more than 64 MB a file, 256 MB or ten
        million values together, 1 GB unpacked or 10 000 members would have to be read.
    """
    budget = _Budget(path)
    if path.is_dir():
        files = (file for file in (path / region).glob("*.json") if not file.name.startswith("."))
        for file in sorted(files):
            yield str(file), _plain(file, budget)
    elif not path.is_file():
        msg = f"{path}: no such file or directory"
        raise InputFileError(msg)
    elif (opened := _unpacked(path)) is not None:
        with closing(opened):
            yield from _members(opened, path, region, budget)
    else:
        yield str(path), _plain(path, budget)


def _plain(path: Path, budget: _Budget) -> str:
    try:
        budget.spend(path.name, path.stat().st_size)
        return budget.text(path.name, path.read_bytes())
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror})"
        raise InputFileError(msg) from error


def _unpacked(path: Path) -> Any:
    """Return the unpacked stream of a tar archive, or None if a file is none."""
    with path.open("rb") as stream:
        start = stream.read(6)
    opener: Any = next((o for magic, o in PACKED.items() if start.startswith(magic)), None)
    stream = path.open("rb") if opener is None else opener(path, "rb")
    try:
        tarfile.TarInfo.frombuf(stream.read(512), "utf-8", "surrogateescape")
        stream.seek(0)
    except tarfile.TarError as error:
        stream.close()
        if opener is None:
            return None
        msg = f"{path}: holds no tar archive ({error}); copy it again"
        raise InputFileError(msg) from error
    except DAMAGE as error:
        stream.close()
        raise InputFileError(_damaged(path, error)) from error
    return stream


def _damaged(path: Path, error: Exception) -> str:
    return f"{path}: damaged archive ({type(error).__name__}: {str(error)[:200]}); copy it again"


def _members(stream: Any, path: Path, region: str, budget: _Budget) -> Iterator[tuple[str, str]]:
    bounded: Any = _Bounded(stream)
    archive: Any
    try:
        with tarfile.TarFile(fileobj=bounded, mode="r", tarinfo=_Member) as archive:
            count = 0
            while (member := archive.next()) is not None:
                archive.members = []  # it keeps them otherwise
                count += 1
                if count > MEMBERS:
                    msg = f"has more than {MEMBERS} members"
                    raise InputFileError(msg)
                parts = Path(member.name)
                inside = parts.parent == Path(region) or not region
                if member.isfile() and parts.suffix == ".json" and inside:
                    budget.spend(member.name, member.size)
                    handle = archive.extractfile(member)
                    content = b"" if handle is None else handle.read()
                    yield member.name, budget.text(member.name, content)
            if len(bounded.last) != tarfile.BLOCKSIZE or any(bounded.last):
                msg = (
                    "is cut off: the two empty blocks at the end of a tar archive are missing; copy it again"
                )
                raise InputFileError(msg)
            bounded.drain()
    except InputFileError as error:
        text = str(error)
        raise InputFileError(text if text.startswith(str(path)) else f"{path}: {text}") from error
    except DAMAGE as error:
        raise InputFileError(_damaged(path, error)) from error
