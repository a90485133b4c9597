"""Files that are written whole or not at all, and errors that name them."""

from __future__ import annotations

import os
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


@contextmanager
def naming(what: Path | str) -> Iterator[None]:
    """An OSError in here names the file, or what else refuses: write(2) on a full disk knows no name."""
    try:
        yield
    except OSError as error:
        error.filename = str(what)
        raise
