"""Reasons not to run a test here: each is found by trying, and skips the test that calls it, saying what was found."""

from __future__ import annotations

import os
import shutil
from functools import cache

import pytest

from netlab import doctor

_user_namespaces = cache(doctor.user_namespaces)
_qdisc = cache(doctor.qdisc)


def skip_unless_root() -> None:
    """Skip unless this is root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


def skip_unless_userns() -> None:
    """Skip unless this user can make a user namespace."""
    _skip_unless(_user_namespaces())


def skip_unless_qdisc(kind: str) -> None:
    """Skip unless the kernel has that qdisc: "tbf", "htb" or "netem"."""
    _skip_unless(_qdisc(kind))


def skip_unless_program(name: str) -> None:
    """Skip unless there is a program of that name."""
    if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip(f"needs the program {name}")


def _skip_unless(check: doctor.Check) -> None:
    if not check.ok:
        pytest.skip(f"{check.name}: {check.detail}")
