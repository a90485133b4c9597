"""A zip that anybody may have made: what is read of it is bounded, whatever it claims of itself. Pure.

Its directory is looked at before `zipfile` reads it, and each member is unpacked in pieces, up to the size that was
told and to what the caller allows. Nothing is ever written to where a member's name points.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

MOST_DIRECTORY_BYTES = 16 << 20
MOST_TOTAL_BYTES = 1 << 30
"""What all members may unpack to: an hour of packets, and a third of what one has room for who unpacks them."""

_PIECE_BYTES = 1 << 20
_LONGEST_NAME = 512
_MOST_EXPANSION = 1040
"""Deflate makes at most 1032 bytes of one (zlib's technical notes): who tells more, lies."""

# The end of the directory and the locator of a zip64's (APPNOTE.TXT, sections 4.3.16 and 4.3.15).
_END = struct.Struct("<4s4H2LH")
_END_SIGNATURE, _LOCATOR_SIGNATURE, _LOCATOR_BYTES = b"PK\5\6", b"PK\6\7", 20
_LONGEST_COMMENT = 0xFFFF
_LOCAL_HEADER_BYTES = 30
_ENCRYPTED = 0x2041


class ArchiveError(ValueError):
    """The file is no zip that is read here: why, for a message."""


class Archive:
    """An open zip, its directory sound."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names = tuple(archive.namelist())

    def read(self, name: str, most_bytes: int) -> bytes:
        """A member; ArchiveError where there is none, where it is damaged, or would be longer than that."""
        if name not in self.names:
            raise ArchiveError(f"it has no {name}")
        info = self._archive.getinfo(name)
        if info.file_size > most_bytes:
            raise ArchiveError(f"{name} unpacks to {info.file_size:,} bytes, of which {most_bytes:,} are read at most")
        pieces = []
        with _told_as_archive_error(f"{name}: "), self._archive.open(info) as member:
            while piece := member.read(_PIECE_BYTES):
                pieces.append(piece)
        return b"".join(pieces)


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The zip at a path; ArchiveError where it is none, or none that is read here; OSError."""
    with path.open("rb") as file:
        with _told_as_archive_error():
            _check_end(file)
            archive = zipfile.ZipFile(file)
            _check_members(archive.infolist())
        yield Archive(archive)


@contextmanager
def _told_as_archive_error(where: str = "") -> Iterator[None]:
    """What zipfile raises of bytes that are no sound zip, as ArchiveError."""
    try:
        yield
    except ArchiveError:
        raise
    except (zipfile.BadZipFile, ValueError, EOFError, zlib.error, RuntimeError, OverflowError, struct.error) as error:
        raise ArchiveError(f"{where}{error}") from error


def _check_end(file: BufferedReader) -> None:
    """That the directory is one that zipfile may read whole: it does so before it tells how long it is."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - _LONGEST_COMMENT - _LOCATOR_BYTES))
    tail = file.read()
    at = len(tail) - _END.size
    if at < 0 or not (tail[at:].startswith(_END_SIGNATURE) and tail.endswith(b"\0\0")):
        at = tail.rfind(_END_SIGNATURE)
    if at < 0 or at + _END.size > len(tail):
        raise ArchiveError("it is not a zip file, or was cut off")
    _, disk, first_disk, here, members, directory_bytes, directory_at, _ = _END.unpack_from(tail, at)
    if tail[max(0, at - _LOCATOR_BYTES) : at].startswith(_LOCATOR_SIGNATURE):
        raise ArchiveError("it is a zip64, and so larger than any bundle")
    if disk or first_disk or here != members:
        raise ArchiveError("it is a part of a zip of several files")
    if directory_bytes > MOST_DIRECTORY_BYTES:
        raise ArchiveError(f"its directory has {directory_bytes:,} bytes, {MOST_DIRECTORY_BYTES:,} are read at most")
    if directory_at + directory_bytes > size:
        raise ArchiveError("its directory lies outside the file")
    file.seek(0)


def _check_members(infos: list[zipfile.ZipInfo]) -> None:
    """That each member has a name of its own, bytes of its own, and claims nothing that can't be."""
    seen: set[str] = set()
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        name = info.filename
        if not _is_plain(name) or name != info.orig_filename:
            raise ArchiveError(f"the name {info.orig_filename[:60]!r} is none that a bundle's member has")
        if name in seen:
            raise ArchiveError(f"it has {name} twice")
        seen.add(name)
        if info.flag_bits & _ENCRYPTED:
            raise ArchiveError(f"{name} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ArchiveError(f"{name} is compressed by method {info.compress_type}, not by deflate")
        if info.file_size > info.compress_size * _MOST_EXPANSION:
            raise ArchiveError(f"{name} claims to unpack from {info.compress_size:,} bytes to {info.file_size:,}")
        if info.header_offset < end:
            raise ArchiveError(f"{name} shares bytes with another member")
        end = info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size
    total = sum(info.file_size for info in infos)
    if total > MOST_TOTAL_BYTES:
        raise ArchiveError(f"it unpacks to {total:,} bytes, {MOST_TOTAL_BYTES:,} are allowed")


def _is_plain(name: str) -> bool:
    """Whether a name stays below the place where it is unpacked, and can be shown."""
    parts = name.split("/")
    return name.isprintable() and len(name) <= _LONGEST_NAME and "\\" not in name and not {"", ".", ".."} & set(parts)
