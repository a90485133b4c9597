"""What netlab keeps in a lab's directory to save work: sealed, so that only what this very netlab has written is used.

The seal is a digest of the text and of netlab's own files: another version may make another lab of the same topology.
It guards against damage and change of version; that nobody else writes there is the directory's matter.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from netlab.lab.directory import LabDirectory
from netlab.lab.state import LabState
from netlab.linux.files import read_own, replace_own


def made_of(text: str, file: str | None, settings: object, fixes: object) -> str:
    """The digest of all that a topology is made from, as `Spec` has it."""
    return hashlib.sha256(json.dumps([text, file, settings, fixes]).encode()).hexdigest()


def made_now(directory: LabDirectory, state: LabState) -> str:
    """The same of what the lab was last asked to be."""
    return made_of(directory.topology_text(), state.file, state.settings, state.fixes)


def keep(path: Path, data: bytes) -> None:
    """Write it down; nothing where that can't be done (a full disk): it saves work, and no more."""
    with suppress(OSError):
        replace_own(path, _seal(data) + data)


def kept(path: Path) -> bytes | None:
    """What was written down last; None where there is nothing, or nothing that this very netlab has written."""
    try:
        found = read_own(path)
    except (OSError, ValueError):
        return None
    seal, data = found[:_SIZE], found[_SIZE:]
    return data if seal == _seal(data) else None


def forget(path: Path) -> None:
    """Keep nothing there."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


_SIZE = hashlib.sha256().digest_size


def _seal(data: bytes) -> bytes:
    return hashlib.sha256(_code() + data).digest()


@lru_cache(maxsize=1)
def _code() -> bytes:
    """The files of netlab, as a change of any shows."""
    found = []
    directories = [str(Path(__file__).resolve().parent.parent)]
    for directory in directories:
        for entry in os.scandir(directory):
            if entry.is_dir():
                directories.append(entry.path)
            elif entry.name.endswith(".py"):
                told = entry.stat()
                found.append((entry.path, told.st_mtime_ns, told.st_size))
    return repr(sorted(found)).encode(errors="surrogateescape")
