"""Sysctls of the calling thread's network namespace that are other than they were for as long as something observes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from netlab.errors import UnsupportedError

_OBSERVERS = re.compile(r"net/netfilter/(nf_conntrack_(events|log_invalid|timestamp)|nf_log/[0-9]+)")


class Change(NamedTuple):
    """A sysctl's value before, and the one that was written."""

    former: str
    ours: str


class ChangedSysctls:
    """What was changed, by paths below /proc/sys. Only the namespace's own sysctls are ever written."""

    def __init__(self) -> None:
        self._changes: dict[str, Change] = {}

    def changes(self) -> dict[str, Change]:
        """What `restore` will put back."""
        return dict(self._changes)

    def adopt(self, changes: Mapping[str, Change]) -> None:
        """Put these back, too, which somebody has made who can't do it any more; ValueError for what observing leaves
        alone: a program of the lab's may ask for it."""
        for key, change in changes.items():
            if not _OBSERVERS.fullmatch(key) or not all(isinstance(value, str) for value in change):
                raise ValueError(key)
        self._changes.update(changes)

    def set(self, key: str, value: str, otherwise: str, *, unless: str = "", enough: str = "") -> None:
        """Write a sysctl, by its path below /proc/sys; left alone is one that has the value `enough`, or another than
        `unless`.

        UnsupportedError, saying `otherwise`, where the kernel or the user can't. Equivalent to `sysctl -w KEY=VALUE`.
        """
        if key in self._changes:
            return
        path = Path("/proc/sys") / key
        try:
            former = path.read_text().strip()
            if former == enough or (unless and former != unless):
                return
            path.write_text(value)
            self._changes[key] = Change(former, path.read_text().strip())
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
