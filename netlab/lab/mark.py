"""The mark by which netlab knows the directories that it has made: what lacks it is never entered, listed or removed.

It is a file that tells the directory's name and inode, so that a copy of a lab's directory, or one that was renamed,
isn't taken for it. A directory is marked under a draft's name and moved to its place, and moved away again
before it loses its mark: whoever is killed in between leaves none of the lab's name that nobody dares to remove.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from netlab.lab import locks
from netlab.linux.files import naming, private, read_own, write_own

NAME = ".netlab"
_DRAFT = ".netlab-"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_marked(path: Path) -> bool:
    """Whether netlab, run by this user, made this very directory under its name."""
    try:
        if not path.is_symlink():
            return read_own(path / NAME) == _text(path, path.name)
    except (OSError, ValueError):
        pass
    return False


def _text(directory: Path, name: str) -> bytes:
    return os.fsencode(f"{name} {directory.stat().st_ino}\n")


def make(path: Path) -> int:
    """Make a directory with its mark; returns it open and locked.

    OSError where something stands there, or the directory above is gone, or another command has swept the draft.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    draft = _draft(path)
    with naming(path), private():
        draft.mkdir()
    fd = -1
    try:
        fd = os.open(draft, _DIRECTORY)
        if not locks.lock(fd):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(draft))
        write_own(draft / NAME, _text(draft, path.name))
        try:
            draft.rename(path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):  # another command was faster
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            raise
    except BaseException:
        _unmake(draft)
        if fd >= 0:
            os.close(fd)
        raise
    return fd


def unmake(path: Path) -> bool:
    """Take a directory, which the caller has locked, away where it holds no more than its mark; whether it is gone."""
    if os.listdir(path) != [NAME] or not is_marked(path):  # noqa: PTH208 (names)
        return False
    draft = _draft(path)
    path.rename(draft)
    if _unmake(draft):
        return True
    write_own(draft / NAME, _text(draft, path.name))  # it can't be removed, or a user has just put something there
    draft.rename(path)
    return False


def _draft(path: Path) -> Path:
    return path.with_name(f"{_DRAFT}{os.urandom(8).hex()}")


def give_up(path: Path) -> None:
    """Take the mark alone: what else is in the directory isn't netlab's, and so the directory no longer is."""
    (path / NAME).unlink(missing_ok=True)


def _unmake(draft: Path) -> bool:
    with suppress(OSError):
        (draft / NAME).unlink(missing_ok=True)
        draft.rmdir()
        return True
    return False


def sweep(directory: Path) -> None:
    """Remove the drafts that killed commands of this user have left there."""
    for entry in os.scandir(directory):
        if not entry.name.startswith(_DRAFT) or not entry.is_dir(follow_symlinks=False):
            continue
        with suppress(OSError):
            fd = os.open(entry.path, _DIRECTORY)
            try:
                own = os.fstat(fd).st_uid == os.geteuid()
                if own and locks.lock(fd) and set(os.listdir(fd)) <= {NAME}:  # noqa: PTH208 (names)
                    _unmake(Path(entry.path))
            finally:
                os.close(fd)
