"""libnftables: what it refuses, and what is said where it isn't there."""

from __future__ import annotations

import errno
import sys

import pytest
import skips
from private_lab import PrivateLab

from netlab.errors import told
from netlab.linux import nft
from netlab.model import Netns, Role, Topology


def test_without_its_python_binding_nft_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nftables", None)
    with pytest.raises(OSError) as raised:
        nft.run("list ruleset")
    assert raised.value.errno == errno.ENOPKG
    assert told(raised.value) == (
        "libnftables: its Python binding is missing: sudo apt-get install python3-nftables, then scripts/setup"
    )


@pytest.mark.kernel
def test_what_nft_refuses_is_an_error_in_its_own_words() -> None:
    skips.skip_unless_root()
    with PrivateLab(Topology("tiny", (Netns("here", Role.HOST),))) as lab, lab.inside("here"):
        with pytest.raises(OSError) as raised:
            nft.run("add rule ip nothing here accept\n")
        assert (raised.value.errno, raised.value.filename) == (errno.EINVAL, "nft")
        assert raised.value.strerror == (
            "Error: Could not process rule: No such file or directory\n"
            "add rule ip nothing here accept\n            ^^^^^^^"
        )
        nft.run("table ip t { set seen { type ipv4_addr; size 16; flags dynamic; elements = { 10.0.0.1 }; }; }")
        assert "handle" in nft.ruleset_with_handles()
        assert nft.list_tables([("ip", "t"), ("ip6", "none")]) == (
            "table ip t {\n\tset seen {\n\t\ttype ipv4_addr\n\t\tsize 16\n\t\tflags dynamic\n\t}\n}\n"
        )
