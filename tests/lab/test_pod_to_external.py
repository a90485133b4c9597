"""What leaves the cluster leaves with the node's address: topologies/pod-to-external.yaml, in both of kube-proxy's
modes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import labs
import pytest
from command import Netlab
from places import TOPOLOGIES

from netlab.errors import TopologyError
from netlab.topology import load

TOPOLOGY = (TOPOLOGIES / "pod-to-external.yaml").read_text()

LISTENER = """
import socket
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as listener:
    listener.bind(("::", 9))
    print("ready", flush=True)
    while True:
        data, (address, *_) = listener.recvfrom(99)
        print(data.decode(), address.removeprefix("::ffff:"), flush=True)
"""
SEND = """
import socket, sys
with socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.sendto(sys.argv[2].encode(), (sys.argv[1], 9))
"""
"""Datagrams, since they tell where they come from even if no answer finds the way back."""


@contextmanager
def listening(lab: labs.Lab, netns: str) -> Iterator[Callable[[], str]]:
    """Something listens there meanwhile; a call gives the next datagram's text and sender."""
    argv = lab.netlab.argv("exec", "--lab", lab.name, netns, "--", "python3", "-c", LISTENER)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=lab.netlab.environment()) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield lambda: process.stdout.readline().strip()  # type: ignore[union-attr]
        finally:
            process.terminate()


def table_of(text: str, netns: str) -> str:
    """The tables that a namespace has beside kube-proxy's."""
    return "\n".join(f"{t.family} {t.name}: {t.body}" for t in load(text, "lab.yaml").netns(netns).tables)


def test_the_table_of_a_node() -> None:
    assert table_of(TOPOLOGY, "node-2") == (
        "ip pod-masquerade: chain postrouting {\n"
        "\ttype nat hook postrouting priority 100; policy accept;\n"
        "\tip saddr { 10.244.0.0/16 } ip daddr != { 10.244.0.0/16, 224.0.0.0/4 } counter masquerade\n"
        "}"
    )
    assert table_of(TOPOLOGY, "outside") == ""
    assert table_of(TOPOLOGY.replace("masquerade_pods: true", "masquerade_pods: false"), "node-2") == ""


def test_a_network_of_each_family_and_several_of_one() -> None:
    text = TOPOLOGY.replace('cluster_cidrs: ["${pods}"]', 'cluster_cidrs: [10.1.0.0/16, 10.9.0.0/24, "fd00::/48"]')
    assert [line for line in table_of(text, "node-1").splitlines() if "saddr" in line] == [
        "\tip saddr { 10.1.0.0/16, 10.9.0.0/24 } ip daddr != { 10.1.0.0/16, 10.9.0.0/24, 224.0.0.0/4 } "
        "counter masquerade",
        "\tip6 saddr { fd00::/48 } ip6 daddr != { fd00::/48, ff00::/8 } counter masquerade",
    ]


def test_without_services_every_node_masquerades_its_pods() -> None:
    text = TOPOLOGY[: TOPOLOGY.index("services:")] + "kube_proxy: {masquerade_pods: true}\n"
    assert "ip saddr { 10.244.1.0/24, 10.244.2.0/24 }" in table_of(text, "node-1")


def test_the_table_has_its_name_for_itself() -> None:
    text = TOPOLOGY.replace("node-1: {role: node}", 'node-1: {role: node, tables: {ip pod-masquerade: ""}}')
    with pytest.raises(TopologyError) as caught:
        load(text, "lab.yaml")
    assert [(p.message, p.hint) for p in caught.value.problems] == [
        ("ip pod-masquerade is masquerade_pods' table on node-1", "call yours differently")
    ]


@pytest.mark.kernel
def test_the_world_sees_the_node_and_pods_see_each_other(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege, TOPOLOGY)
    lab.up()

    def curl(netns: str, host: str) -> str:
        return lab.exec(netns, "curl", "-sS", "-m", "20", f"http://{host}/").strip()

    def seen() -> dict[str, str]:
        return {netns: curl(netns, "outside") for netns in ("client", "web", "node-1")}

    by_node = {"client": "you are 192.0.2.1", "web": "you are 192.0.2.2", "node-1": "you are 192.0.2.1"}
    for mode in ("iptables", "nftables"):
        lab.up("--set", f"kube_proxy.mode={mode}")
        assert seen() == by_node
        assert curl("client", "web") == curl("client", "front") == "you are 10.244.1.2"
        assert lab.drift() == []
    with listening(lab, "outside") as next_datagram:
        lab.exec("client", "python3", "-c", SEND, "192.0.2.100", "masqueraded")
        assert next_datagram() == "masqueraded 192.0.2.1"
        said = lab.up("--set", "kube_proxy.masquerade_pods=false", "--set", "kube_proxy.mode=nftables")
        assert [line.strip() for line in said.splitlines()[1:]] == [
            "node-2: table ip pod-masquerade removed",
            "node-1: table ip pod-masquerade removed",
        ]
        lab.exec("client", "python3", "-c", SEND, "192.0.2.100", "plain")
        assert next_datagram() == "plain 10.244.1.2"
