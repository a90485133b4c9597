"""Reasons not to run a test here: each is found by trying, and skips the test that calls it, saying what was found."""

from __future__ import annotations

import os
import shutil
from functools import cache

import pytest

from netlab.capabilities import doctor
from netlab.capabilities import probes as capabilities
from netlab.capabilities.capability import Capability

_user_namespaces = cache(doctor.user_namespaces)


def skip_unless_root() -> None:
    """Skip unless this is root."""
    if os.geteuid() != 0:
        pytest.skip("needs root")


def skip_unless_userns() -> None:
    """Skip unless this user can make a user namespace."""
    check = _user_namespaces()
    if not check.ok:
        pytest.skip(f"{check.name}: {check.detail}")


@cache
def _capability(name: str) -> Capability:
    return capabilities.probe([name])[name]


def skip_unless_capability(name: str) -> None:
    """Skip unless this kernel and user have what is called so."""
    found = _capability(name)
    if not found.there:
        pytest.skip(f"{name}: {found.reason}")


def skip_unless_program(name: str) -> None:
    """Skip unless there is a program of that name."""
    if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip(f"needs the program {name}")
