"""How errors of the system are told."""

from __future__ import annotations

import errno

import pytest

from netlab.errors import UnsupportedError, unsupported


def test_a_refusal_can_be_told_as_what_the_kernel_lacks() -> None:
    refusal = PermissionError(errno.EPERM, "Operation not permitted", "TCP_REPAIR")
    with pytest.raises(UnsupportedError) as raised, unsupported("can't forget a socket"):
        raise refusal
    assert str(raised.value) == "can't forget a socket: TCP_REPAIR: Operation not permitted"
    assert (raised.value.exit_code, raised.value.__cause__) == (77, refusal)
