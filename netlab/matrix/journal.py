"""What of a table is done, written down as it is done: so that `netlab matrix --resume` runs only the rest.

One file in the labs' directory, `<lab>.matrix`: a line with what the table was made from, then a line for each cell.
It is locked by whoever runs the table, and removed with the last cell.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from netlab.errors import UsageError
from netlab.lab.locks import lock, same, wait_for_lock
from netlab.lab.rundir import made, remove_if_empty
from netlab.linux.deadlines import scaled
from netlab.linux.files import naming, read_own
from netlab.matrix import Cell
from netlab.record import codec

_LOCK_S = 5.0
"""How long to wait for a former one whose labs are being taken down."""

_ANEW = "leave out --resume to start over"


class Journal:
    """The journal of one table, open and locked inside a `with`; the file goes where nothing is left to resume.

    inputs are what the table is made from, by words. With resume it must be there and of the same inputs: UsageError
    otherwise. Without, a former one is begun anew. LabError where another command runs the table.
    """

    def __init__(self, root: Path, lab: str, inputs: Mapping[str, str], *, resume: bool) -> None:
        self.cells: list[Cell] = []
        self._lab, self._inputs, self._resume = lab, dict(inputs), resume
        self._root, self._path = root, root / f"{lab}.matrix"
        self._complete = False
        self._fd = -1

    def __enter__(self) -> Self:
        self._fd = self._open()
        try:
            self._check_own()
            if self._resume:
                self.cells = self._read()
            else:
                os.ftruncate(self._fd, 0)
                self._write(self._inputs)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._complete or not self.cells:
            self._path.unlink(missing_ok=True)
        self._close()

    def add(self, cell: Cell) -> None:
        """Write a cell down as done."""
        self.cells.append(cell)
        self._write(codec.to_json(cell))

    def complete(self) -> None:
        """All cells are done: there will be nothing to resume."""
        self._complete = True

    def _open(self) -> int:
        deadline = time.monotonic() + scaled(_LOCK_S)
        complaint = f"another `netlab matrix` is working on the lab {self._lab}"
        while True:
            with made(self._root):
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                fd = os.open(self._path, flags, 0o600)
            if lock(fd) and same(fd, self._path):
                return fd
            os.close(fd)
            wait_for_lock(deadline, complaint)

    def _check_own(self) -> None:
        """UsageError where what stands there isn't netlab's: nothing of it is to be lost."""
        try:
            first = read_own(self._path).partition(b"\n")[0]
            own = not first or json.loads(first).keys() == self._inputs.keys()
        except (ValueError, AttributeError, RecursionError):
            own = False
        if not own:
            raise UsageError(f"{self._path} isn't an interrupted matrix's", "move it away")

    def _close(self) -> None:
        os.close(self._fd)
        remove_if_empty(self._root)

    def _write(self, value: object) -> None:
        with naming(self._path):
            os.write(self._fd, json.dumps(value).encode() + b"\n")

    def _read(self) -> list[Cell]:
        """The cells that are done. A last line that was not written to its end is none, and goes: others follow."""
        *lines, rest = self._path.read_bytes().split(b"\n")
        os.ftruncate(self._fd, os.fstat(self._fd).st_size - len(rest))
        if not lines:
            self._path.unlink()
            raise UsageError(f"there is no interrupted matrix of the lab {self._lab} to resume", "leave out --resume")
        try:
            before = json.loads(lines[0])
            cells = [codec.from_json(json.loads(line), Cell) for line in lines[1:]]
            changed = [word for word in self._inputs if before.get(word) != self._inputs[word]]
        except (ValueError, AttributeError) as error:
            raise UsageError(f"{self._path} can't be understood: {error}", _ANEW) from error
        if changed:
            raise UsageError(
                f"the interrupted matrix of the lab {self._lab} can't be resumed: not the same {' and '.join(changed)}",
                f"give the same options, or {_ANEW}",
            )
        return cells
