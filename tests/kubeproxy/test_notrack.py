"""The fix `notrack`: its tables as text, and that TCP goes through them in labs that stand, with what that costs."""

from __future__ import annotations

import json
from pathlib import Path

import labs
import pytest
import skips
from command import Netlab
from places import DATA, TOPOLOGIES

from netlab.kubeproxy import notrack
from netlab.kubeproxy.fixes import apply, names
from netlab.lab.rule_steps import LoadTable
from netlab.model import Topology
from netlab.topology import load

PODS = """
namespaces:
  node-1: {role: node}
  node-2: {role: node}
  client: {role: pod}
  near: {role: pod}
  far: {role: pod}
bridges:
  - {name: cni0, netns: node-1, addresses: 10.0.1.1/24, ports: [client, near]}
  - {name: cni0, netns: node-2, addresses: 10.0.2.1/24, ports: [far]}
links:
  - {ends: ["node-1:eth0", "node-2:eth0"], subnet: 10.0.3.0/30}
"""


def pods(services: str) -> Topology:
    return load(PODS + "services:\n" + services, "lab.yaml")


# --- the text --------------------------------------------------------------------------------------------------------


def test_the_table_of_a_node() -> None:
    topology = pods("""\
  web:
    cluster_ip: 10.96.0.1
    ports: [{name: http, port: 80, target_port: 8080}, {name: dns, port: 53, protocol: UDP}]
    endpoints: [near, far]
  one: {namespace: other, cluster_ip: 10.96.0.2, port: 80, endpoints: [far]}
""")
    [table] = notrack.tables(topology, "node-1")
    assert LoadTable("node-1", table).commands == (DATA / "rules" / "notrack.node-1.nft").read_text()


def test_each_family_has_a_table_and_only_kube_proxys_nodes_have_any() -> None:
    text = PODS.replace("namespaces:", "ipv6: true\nkube_proxy: {nodes: [node-2]}\nnamespaces:")
    topology = load(text + "services: {web: {port: 80, endpoints: [near]}}", "lab.yaml")
    fixed = apply(apply(topology, ["notrack"]), ["notrack"])
    found = {netns.name: [(table.family, table.name) for table in netns.tables] for netns in fixed.namespaces}
    both = [("ip", "netlab_notrack"), ("ip6", "netlab_notrack")]
    assert found == {"node-1": [], "node-2": both, "client": [], "near": [], "far": []}
    _, table = fixed.netns("node-2").tables
    assert "counter ip6 saddr set fd00:10:96::1 tcp sport set 80\n" in table.body
    assert "return" not in table.body  # there is no other node whose clients it must leave to it
    assert notrack.untracks(fixed, "node-2", fixed.services[0].cluster_ips[1], 80)
    assert not notrack.untracks(fixed, "node-2", fixed.services[0].cluster_ips[1], 81)
    assert not notrack.untracks(fixed, "node-1", fixed.services[0].cluster_ips[1], 80)


@pytest.mark.parametrize(
    "service",
    [
        "{port: 80, protocol: UDP, endpoints: [near]}",
        "{port: 80, endpoints: []}",
        "{port: 80, node_port: 30080, endpoints: [near]}",
        "{port: 80, external_ips: 203.0.113.1, endpoints: [near]}",
        "{port: 80, load_balancer_ips: 203.0.113.1, endpoints: [near]}",
        "{port: 80, session_affinity: ClientIP, endpoints: [near]}",
        "{port: 80, internal_traffic_policy: Local, endpoints: [near]}",
        "{ports: [{name: a, port: 80}, {name: b, port: 81, target_port: 80}], endpoints: [near]}",
    ],
)
def test_what_a_replys_source_does_not_tell_is_left_to_conntrack(service: str) -> None:
    topology = pods(f"  web: {service}\n")
    assert notrack.tables(topology, "node-1") == ()
    assert "notrack" not in names(topology)
    both = pods(f"  web: {service}\n  more: {{port: 8, endpoints: [far]}}\n")
    [table] = notrack.tables(both, "node-1")
    assert "to/default/more/8" in table.body
    assert "web" not in table.body


# --- in labs that stand ----------------------------------------------------------------------------------------------

SERVER = """
import hashlib, socket, sys, threading

def serve(connection):
    whole = hashlib.sha256()
    while data := connection.recv(1 << 16):
        whole.update(data)
    peer = connection.getpeername()[0].removeprefix("::ffff:")
    connection.sendall(f"{peer} {whole.hexdigest()} ".encode() + bytes(4_000_000))
    connection.close()

kind = dict(family=socket.AF_INET6, dualstack_ipv6=True)
listener = socket.create_server(("", int(sys.argv[1])), **kind)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("", int(sys.argv[1])))

def answer():
    while True:
        data, sender = datagrams.recvfrom(100)
        datagrams.sendto(data, sender)

threading.Thread(target=answer, daemon=True).start()
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
"""
CLIENT = """
import hashlib, os, socket, sys
sent = os.urandom(4_000_000)
with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])) as connection:
    connection.sendall(sent)
    connection.shutdown(socket.SHUT_WR)
    with connection.makefile("rb") as stream:
        peer, digest, rest = stream.read().split(b" ", 2)
assert (digest, rest) == (hashlib.sha256(sent).hexdigest().encode(), bytes(4_000_000))
print("whole", peer.decode())
"""
"""Sends 4 MB, and gets the address that the server knows it by, its hash and 4 MB back."""
OFFLOADS = """
import array, fcntl, socket, struct
def ethtool(command, value):
    data = array.array("B", struct.pack("II", command, value))
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8946, struct.pack("16sP16x", b"eth0", data.buffer_info()[0]))  # SIOCETHTOOL
    return struct.unpack("II", data.tobytes())[1]
ethtool(0x17, 0)  # ETHTOOL_STXCSUM
print(ethtool(0x16, 0))  # ETHTOOL_GTXCSUM
"""
"""Equivalent to `ethtool -K eth0 tx off`: packets carry whole checksums, and are no larger than the MTU."""

PROGRAM = f"""\
programs: [{{name: server, command: {json.dumps(["python3", "-c", SERVER, "8080"])}, ready: {{listening: 8080}}}}]"""
CLUSTER = f"""
ipv6: true
namespaces:
  node-1: {{role: node, sysctls: {{net.ipv4.conf.all.rp_filter: 1}}}}
  node-2: {{role: node, sysctls: {{net.ipv4.conf.all.rp_filter: 1}}}}
  client: {{role: pod}}
  office: {{role: host}}
  near: {{role: pod, {PROGRAM}}}
  far: {{role: pod, {PROGRAM}}}
bridges:
  - {{name: cni0, netns: node-1, ports: [client, near]}}
  - {{name: cni0, netns: node-2, ports: [far]}}
links:
  - {{ends: ["node-1:eth0", "node-2:eth0"]}}
  - {{ends: ["node-1:eth1", office], subnet: 198.51.100.0/24}}
services:
"""
EACH = """\
  on-near: {cluster_ip: [10.96.0.1, "fd00:96::1"], port: 80, target_port: 8080, endpoints: [near]}
  on-far: {cluster_ip: [10.96.0.2, "fd00:96::2"], port: 80, target_port: 8080, endpoints: [far]}
  echo: {cluster_ip: 10.96.0.3, port: 7, target_port: 8080, protocol: UDP, endpoints: [far]}
"""
"""Servers on the client's node and on another, each behind a Service of its own."""


@pytest.fixture
def lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> labs.Lab:
    """The cluster, up with the fix."""
    for program in ("nft", "nstat"):
        skips.skip_unless_program(program)
    cluster = labs.make(netlab, lab_name, tmp_path, privilege, CLUSTER + EACH)
    cluster.up("--fix", "notrack")
    return cluster


def transfer(lab: labs.Lab, netns: str, address: str, port: int = 80, timeout_s: float = 20) -> str:
    """What came of a transfer: "whole", or the name of the exception."""
    return tried(lab, netns, address, port, timeout_s)[0]


def tried(lab: labs.Lab, netns: str, address: str, port: int = 80, timeout_s: float = 20) -> list[str]:
    """What came of a transfer; behind "whole" the address that the server saw."""
    argv = ("python3", "-c", CLIENT, address, str(port), str(timeout_s))
    done = lab.netlab("exec", "--lab", lab.name, netns, "--", *argv)
    return done.stdout.split() or [done.stderr.strip().splitlines()[-1].partition(":")[0]]


def counted(lab: labs.Lab, netns: str, name: str) -> int:
    """A counter of a namespace's (nstat's name for it)."""
    found: int = json.loads(lab.exec(netns, "nstat", "-ajsz", name))["kernel"][name]
    return found


def entries(lab: labs.Lab, netns: str) -> list[str]:
    """The protocols of the node's conntrack entries."""
    return [line.split()[2] for line in lab.exec(netns, "cat", "/proc/net/nf_conntrack").splitlines()]


@pytest.mark.kernel
@pytest.mark.inside
@pytest.mark.parametrize("offload", [True, False], ids=["offloads", "no offloads"])
def test_transfers_are_whole_and_conntrack_sees_nothing_of_them(lab: labs.Lab, *, offload: bool) -> None:
    for pod in ("client", "near", "far") if not offload else ():
        assert lab.exec(pod, "python3", "-c", OFFLOADS) == "0\n"
    for address in ("10.96.0.1", "10.96.0.2", "fd00:96::1", "fd00:96::2"):
        for client in ("client", "node-1", "node-2"):
            assert (client, address, transfer(lab, client, address)) == (client, address, "whole")
    assert {name: counted(lab, name, "TcpInCsumErrors") for name in ("client", "near", "far")} == {
        "client": 0,
        "near": 0,
        "far": 0,
    }
    assert [entries(lab, node) for node in ("node-1", "node-2")] == [[], []]


ASK = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
    datagram.settimeout(20)
    datagram.sendto(b"hello", ("10.96.0.3", 7))
    print(datagram.recv(100))
"""


@pytest.mark.kernel
@pytest.mark.inside
def test_udp_stays_with_conntrack(lab: labs.Lab) -> None:
    assert lab.exec("client", "python3", "-c", ASK) == "b'hello'\n"
    assert entries(lab, "node-1") == ["udp"]


@pytest.mark.kernel
@pytest.mark.inside
def test_a_direct_connection_to_the_endpoint_gets_the_service_for_an_answer(lab: labs.Lab) -> None:
    endpoint = next(a.ip for i in load(CLUSTER, "x").interfaces() if i.netns == "far" for a in i.addresses)
    assert transfer(lab, "client", str(endpoint), 8080, timeout_s=2) == "TimeoutError"
    assert counted(lab, "client", "TcpOutRsts") > 0  # to the cluster IP, whose SYN,ACK nobody has asked for
    lab.netlab("fix", "revert", "notrack", "--lab", lab.name)
    assert transfer(lab, "client", str(endpoint), 8080) == "whole"


@pytest.mark.kernel
@pytest.mark.inside
def test_a_pod_does_not_reach_itself_through_the_service(lab: labs.Lab) -> None:
    assert transfer(lab, "far", "10.96.0.2", timeout_s=2) == "TimeoutError"
    lab.netlab("fix", "revert", "notrack", "--lab", lab.name)
    assert transfer(lab, "far", "10.96.0.2") == "whole"


@pytest.mark.kernel
@pytest.mark.inside
def test_nothing_is_masqueraded(lab: labs.Lab) -> None:
    assert tried(lab, "office", "10.96.0.2") == ["whole", "198.51.100.2"]
    lab.netlab("fix", "revert", "notrack", "--lab", lab.name)
    assert tried(lab, "office", "10.96.0.2") == ["whole", "10.255.0.1"]


@pytest.mark.kernel
@pytest.mark.inside
def test_the_client_learns_of_no_smaller_mtu(lab: labs.Lab) -> None:
    for node in ("node-1", "node-2"):
        lab.exec(node, "ip", "link", "set", "eth0", "mtu", "1400")
    assert transfer(lab, "client", "10.96.0.2", timeout_s=2) == "TimeoutError"
    lab.netlab("fix", "revert", "notrack", "--lab", lab.name)
    assert transfer(lab, "client", "10.96.0.2") == "whole"


@pytest.mark.kernel
@pytest.mark.inside
def test_nothing_is_invalid_in_the_flagship(netlab: Netlab, lab_name: str, privilege: str) -> None:
    flagship = TOPOLOGIES / "kube-proxy-reset.yaml"
    done = netlab(
        *("run", flagship, "--name", lab_name, privilege, "--fix", "notrack", "--trials", "2", "--format", "json")
    )
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["result"] == "not-reproduced"
    assert [(trial["outcome"], trial["invalid"]) for trial in result["trials"]] == [("completed", 0)] * 2


@pytest.mark.kernel
@pytest.mark.inside
def test_connections_are_spread_over_the_endpoints_and_each_stays_where_it_is(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    """Of 40 connections fewer than three go to one of the endpoints once in 670 million runs."""
    text = f"{CLUSTER}  both: {{cluster_ip: 10.96.0.1, port: 80, target_port: 8080, endpoints: [near, far]}}\n"
    lab = labs.make(netlab, lab_name, tmp_path, privilege, text)
    lab.up("--fix", "notrack", "--fix", "nftables-mode")
    for _ in range(40):
        assert transfer(lab, "client", "10.96.0.1") == "whole"
        served = [counted(lab, pod, "TcpPassiveOpens") for pod in ("near", "far")]
        if min(served) >= 3:
            break
    assert min(served) >= 3
