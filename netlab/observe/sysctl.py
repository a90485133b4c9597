"""Sysctls of the calling thread's network namespace that are other than they were for as long as something observes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from netlab.errors import UnsupportedError


class _Change(NamedTuple):
    former: str
    ours: str


class ChangedSysctls:
    """What was changed, with what it was before. Only the namespace's own sysctls are ever written."""

    def __init__(self) -> None:
        self._changes: dict[str, _Change] = {}

    def set(self, key: str, value: str, otherwise: str, unless: str = "") -> None:
        """Write a sysctl, by its path below /proc/sys; one that already has a value other than `unless` is left alone.

        UnsupportedError, saying `otherwise`, where the kernel or the user can't. Equivalent to `sysctl -w KEY=VALUE`.
        """
        if key in self._changes:
            return
        path = Path("/proc/sys") / key
        try:
            former = path.read_text().strip()
            if unless and former != unless:
                return
            path.write_text(value)
            self._changes[key] = _Change(former, path.read_text().strip())
        except OSError as error:
            name = key.replace("/", ".")
            raise UnsupportedError(f"{otherwise}: {name}: {error.strerror}") from error

    def restore(self) -> None:
        """Put those back that nobody else has written meanwhile, the last one changed first."""
        while self._changes:
            key, change = self._changes.popitem()
            path = Path("/proc/sys") / key
            with suppress(OSError):  # the lab may be about to go
                if path.read_text().strip() == change.ours:
                    path.write_text(change.former)
