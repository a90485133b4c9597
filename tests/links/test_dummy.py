"""A dummy: its keys, its step, and that the kernel has it, keeps it and lets go of it."""

from __future__ import annotations

import errno
from pathlib import Path

import labs
import pytest
import skips
from command import Netlab
from simulated import Simulated

from netlab.errors import TopologyError
from netlab.lab import plan
from netlab.lab.diff import difference
from netlab.links.dummy import Dummy
from netlab.topology import load

LAB = """
namespaces: {a: {}, b: {routes: [{to: 192.0.2.1/32, via: 10.0.0.1}]}}
links: [{ends: [a, b], subnet: 10.0.0.0/24}]
dummies:
  - {name: dummy0, netns: a, addresses: 192.0.2.1/32, mtu: 9000}
"""


def test_a_dummy_is_made_and_gets_its_addresses() -> None:
    steps = [step for step in plan.up(load(LAB, "lab.yaml")) if "dummy0" in step.describe()]
    assert plan.as_text(steps, "lab-") == (
        "a: dummy dummy0\n"
        "    ip -n lab-a link add dummy0 mtu 9000 type dummy\n"
        "a: dummy0 up\n"
        "    ip -n lab-a link set dummy0 addrgenmode none\n"
        "    ip -n lab-a link set dummy0 up\n"
        "a: address 192.0.2.1/32 on dummy0\n"
        "    ip -n lab-a addr add 192.0.2.1/32 dev dummy0\n"
    )


def test_without_addresses_it_gets_none_and_it_may_be_a_bridges_port() -> None:
    topology = load("namespaces: {a: {}}\ndummies: [{name: d, netns: a}]", "lab.yaml")
    assert [(end.ifname, end.addresses) for end in topology.interfaces()] == [("d", ())]
    assert isinstance(topology.links[0], Dummy)


def test_what_is_wrong_with_one_is_told() -> None:
    text = "namespaces: {a: {}}\ndummies:\n  - {name: d, netns: b}\n  - {name: e, netns: a}\n  - {name: e, netns: a}\n"
    with pytest.raises(TopologyError) as caught:
        load(text, "lab.yaml")
    assert str(caught.value) == (
        "lab.yaml:3:22: dummies[0].netns: no namespace is called 'b'\n  hint: known: a\n"
        "lab.yaml:5:12: dummies[2].name: a has a dummy 'e' already\n  hint: see line 4"
    )


def test_one_that_goes_is_removed_and_one_that_changes_is_changed() -> None:
    kernel = Simulated()
    before = load(LAB, "lab.yaml")
    kernel.apply(plan.up(before))
    for text, changes in (
        (LAB.replace("mtu: 9000", "mtu: 8000"), ["a: attributes of dummy0"]),
        (LAB.partition("dummies")[0], ["a: dummy0 removed"]),
    ):
        after = load(text, "lab.yaml")
        steps = difference([before], after, kernel.look(before, after))
        assert [step.describe() for step in steps if "dummy" in step.describe()] == changes
        kernel.apply(steps)
        assert difference([after], after, kernel.look(after, after)) == []
        before = after


@pytest.mark.kernel
def test_the_kernel_has_it(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    skips.skip_unless_program("ip")
    lab = labs.make(netlab, lab_name, tmp_path, privilege, LAB)
    done = lab.try_up()
    if done.returncode == 77:
        assert "this kernel makes no dummy: load its module: sudo modprobe dummy" in done.stderr
        pytest.skip("this kernel makes no dummy")
    shown = lab.exec("a", "ip", "-d", "link", "show", "dummy0")
    assert "mtu 9000" in shown
    assert " dummy " in shown
    asked = "import socket; s = socket.socket(); s.settimeout(5); print(s.connect_ex(('192.0.2.1', 9)))"
    assert lab.exec("b", "python3", "-c", asked) == f"{errno.ECONNREFUSED}\n"
    assert lab.drift() == []
    lab.write(LAB.partition("dummies")[0])
    lab.up()
    assert "dummy0" not in lab.exec("a", "ip", "link")
    assert lab.drift() == []
