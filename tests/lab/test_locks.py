"""Locks that another command doesn't give up."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlab.errors import LabError
from netlab.lab import locks
from netlab.lab.rundir import remove_if_empty


def give_up(_deadline: float, complaint: str) -> None:
    raise LabError(complaint)


def test_no_command_waits_for_ever_for_another_that_keeps_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locks.held(tmp_path) as there:
        assert there
        with pytest.raises(LabError) as raised, locks.held(tmp_path, timeout_s=0):
            pass
        assert str(raised.value) == (f"another netlab command keeps {tmp_path}\n  hint: wait for it, or end it")
        monkeypatch.setattr(locks, "wait_for_lock", give_up)
        remove_if_empty(tmp_path)  # which is for tidiness alone
    assert tmp_path.exists()
    with locks.held(tmp_path) as there:
        assert there
