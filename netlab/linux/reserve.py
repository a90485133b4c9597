"""What taking back needs, kept aside until then."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

_DESCRIPTORS = 24
_BYTES = 16 << 20


class Reserve:
    """Open files and address space that a command keeps free inside a `with`, or until `release`.

    A limit on either makes a command fail where it has used it up, and would make what then takes back fail, too.
    OSError, MemoryError where there is not so much to begin with: before anything has been made.
    """

    def __init__(self) -> None:
        self._fds: list[int] = []
        self._memory = bytearray()

    def __enter__(self) -> Self:
        try:
            for _ in range(_DESCRIPTORS):
                self._fds.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
        except OSError:
            self.__exit__(None, None, None)
            raise
        self._memory = bytearray(_BYTES)  # no page of it is ever touched
        return self

    def release(self) -> None:
        """Let it be used."""
        self._memory = bytearray()
        while self._fds:
            os.close(self._fds.pop())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
