"""Files: written whole or not at all, kept from others, and errors that name them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place and move it there: nobody sees half of it, and what was there stays until then.

    A link is followed; what is no ordinary file (a pipe, /dev/null) is written to.
    """
    if path.exists() and not path.is_file():
        with naming(path):
            path.write_bytes(data)
        return
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with (
            naming(target),
            os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file,
        ):
            file.write(data)
        draft.replace(target)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


_MOST_BYTES = 1 << 28


def write_own(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file of netlab's own, of this mode whatever the umask. OSError names it, also where the disk is full, or
    where a link stands there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with naming(path), os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        os.fchmod(file.fileno(), mode)
        os.ftruncate(file.fileno(), 0)
        file.write(data)


def replace_own(path: Path, data: bytes) -> None:
    """`write_own` in one step, by way of a `.new` beside it: a killed writer leaves the old file or the new one."""
    new = draft_of(path)
    try:
        write_own(new, data)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def draft_of(path: Path) -> Path:
    """Where `replace_own` writes a file before it replaces the old one."""
    return path.with_suffix(".new")


def read_own(path: Path) -> bytes:
    """Read a file that `write_own` wrote. ValueError where it is none that this user alone could have written."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise ValueError("it is not a regular file") from None
        raise
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a regular file")
        if found.st_uid != os.geteuid():
            raise ValueError("it belongs to another user")
        if found.st_mode & 0o022:
            raise ValueError("others can write to it")
        if found.st_size > _MOST_BYTES:
            raise ValueError(f"it has {found.st_size:,} bytes")
        return file.read(found.st_size + 1)


@contextmanager
def private() -> Iterator[None]:
    """Directories made in here are this user's alone, and this user may use them, whatever the umask."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def naming(what: Path | str) -> Iterator[None]:
    """An OSError in here names the file, or what else refuses: write(2) on a full disk knows no name."""
    try:
        yield
    except OSError as error:
        error.filename = str(what)
        raise
