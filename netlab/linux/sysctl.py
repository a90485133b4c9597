"""Sysctls of the calling thread's network namespace, below /proc/sys."""

from __future__ import annotations

import os
from pathlib import Path


def path(key: str) -> Path:
    """The file of a sysctl; a slash in the key stands for a dot in an interface's name, as sysctl(8) has it."""
    return Path("/proc/sys", *(part.replace("/", ".") for part in key.split(".")))


def read(key: str) -> str:
    """The value, blanks folded; OSError, FileNotFoundError where this kernel has none of that name.

    Equivalent to `sysctl -n KEY`.
    """
    file = os.open(path(key), os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = b"".join(iter(lambda: os.read(file, 1 << 16), b""))
    finally:
        os.close(file)
    return b" ".join(text.split()).decode()


def write(key: str, value: str) -> None:
    """Equivalent to `sysctl -w KEY=VALUE`; OSError as `read`."""
    path(key).write_text(f"{value}\n")  # no value is a line, too: nothing at all would be no write
