"""Sysctls of a namespace that are other than they were while an observer is open."""

from __future__ import annotations

from pathlib import Path

from netlab.errors import UnsupportedError
from netlab.observe import Namespaces


class ChangedSysctls:
    """What was changed in one namespace, with what it was before. Only the namespace's own sysctls are ever written."""

    def __init__(self, namespaces: Namespaces, netns: str) -> None:
        self._namespaces, self._netns = namespaces, netns
        self._former: list[tuple[str, str]] = []

    def set(self, key: str, value: str, otherwise: str, unless: str = "") -> None:
        """Write a sysctl, by its path below /proc/sys; one that already has a value other than `unless` is left alone.

        UnsupportedError, saying `otherwise`, where the kernel or the user can't. Equivalent to
        `ip netns exec NETNS sysctl -w KEY=VALUE`.
        """
        path = Path("/proc/sys") / key
        with self._namespaces.inside(self._netns):
            try:
                former = path.read_text().strip()
                if unless and former != unless:
                    return
                path.write_text(value)
            except OSError as error:
                name = key.replace("/", ".")
                raise UnsupportedError(f"{otherwise}: {name}: {error.strerror}") from error
        self._former.append((key, former))

    def restore(self) -> None:
        """Put all of them back, the last one changed first."""
        while self._former:
            key, former = self._former.pop()
            with self._namespaces.inside(self._netns):
                (Path("/proc/sys") / key).write_text(former)
