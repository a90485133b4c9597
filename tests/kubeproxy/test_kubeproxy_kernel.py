"""What kube-proxy's rules do to packets: real sockets in private namespaces around one node that carries the rules.

Each test runs three times, which must act alike: the rules of the iptables mode, with the text for libnftables and with
the text for iptables-restore, and those of the nftables mode.

            client 10.0.0.2 ─┐
              a    10.0.1.2 ─┤
              b    10.0.2.2 ─┼─ node ── outsider 172.16.0.2 (not in the cluster; the node's default route)
              c    10.0.3.2 ─┘
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest

from netlab.kubeproxy import ruleset
from netlab.model import Endpoint, KubeProxy, Mode, Netns, Protocol, Role, Service, ServicePort, Topology

pytestmark = [pytest.mark.kernel, pytest.mark.inside]

SUBNETS = {
    "client": ("10.0.0", "fd00:0:0:0"),
    "a": ("10.0.1", "fd00:0:0:1"),
    "b": ("10.0.2", "fd00:0:0:2"),
    "c": ("10.0.3", "fd00:0:0:3"),
    "outsider": ("172.16.0", "fd99:0:0:0"),
}
SERVERS = ("a", "b", "c")


def addresses(netns: str, host: int = 2) -> tuple[str, str]:
    """A namespace's IPv4 and IPv6 address; host 1 is the node's, on the link to that namespace."""
    v4, v6 = SUBNETS[netns]
    return f"{v4}.{host}", str(ip_address(f"{v6}::{host}"))


ENDPOINTS = tuple(Endpoint(name, tuple(ip_address(address) for address in addresses(name))) for name in SERVERS)
WEB = Service(
    "web",
    (ip_address("192.168.0.2"), ip_address("fd01::2")),
    (ServicePort(80, 8080, Protocol.TCP, "http"), ServicePort(53, 8080, Protocol.UDP, "dns")),
    ENDPOINTS,
)
ONE = Service("one", (ip_address("192.168.0.3"), ip_address("fd01::3")), (ServicePort(80, 8080),), ENDPOINTS[:1])
EMPTY = Service(
    "empty",
    (ip_address("192.168.0.4"), ip_address("fd01::4")),
    (ServicePort(80, 8080, Protocol.TCP, "http"), ServicePort(53, 8080, Protocol.UDP, "dns")),
    (),
)


CIDRS = ("10.0.0.0/16", "fd00::/48")


def rules(*services: Service, cidrs: tuple[str, ...] = CIDRS) -> Topology:
    """What of a topology the rules depend on."""
    kube_proxy = KubeProxy(("node",), tuple(ip_network(cidr) for cidr in cidrs))
    return Topology("lab", (Netns("node", Role.NODE),), services=services, kube_proxy=kube_proxy)


ECHO_SERVER = """
import socket, socketserver, sys, threading
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        greeting = f"{sys.argv[1]} {self.client_address[0].removeprefix('::ffff:')}\\n".encode()
        if isinstance(self.request, tuple):
            self.request[1].sendto(greeting, self.client_address)
            return
        self.request.sendall(greeting)
        while data := self.request.recv(4096):
            self.request.sendall(data)
for kind in (socketserver.ThreadingTCPServer, socketserver.ThreadingUDPServer):
    kind.address_family, kind.daemon_threads, kind.request_queue_size = socket.AF_INET6, True, 128
    threading.Thread(target=kind(("::", 8080), Handler).serve_forever).start()
print("ready", flush=True)
"""
"""On port 8080, TCP and UDP, IPv4 and IPv6: tells its name and the peer's address, then (TCP) sends back what comes."""

GREETINGS = """
import errno, json, socket, sys
kind, address, port, times = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
answers = []
for _ in range(times):
    with socket.socket(family, socket.SOCK_DGRAM if kind == "UDP" else socket.SOCK_STREAM) as s:
        s.settimeout(10)
        try:
            s.connect((address, port))
            if kind == "UDP":
                s.send(b"?")
            answers.append(s.recv(4096).decode().split())
        except OSError as error:
            answers.append([errno.errorcode.get(error.errno, str(error))])
json.dump(answers, sys.stdout)
"""
"""Connects so many times; prints the greetings, or the errors, as JSON."""

TALK = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
stream = s.makefile("rwb", buffering=0)
print(stream.readline().decode(), end="", flush=True)
for line in sys.stdin:
    stream.write(line.encode())
    print(stream.readline().decode(), end="", flush=True)
"""
"""One connection: prints the greeting, then sends each line of stdin and prints what comes back."""

LOAD = "import nftables, sys; code, _, error = nftables.Nftables().cmd(sys.stdin.read()); sys.exit(error or code)"


@dataclass(frozen=True)
class Lab:
    """Namespaces by name, each as the process that holds it, and the way rules are loaded on the node."""

    holders: dict[str, subprocess.Popen[str]]
    loader: str

    def argv(self, netns: str, *argv: str) -> list[str]:
        pid = self.holders[netns].pid
        return ["nsenter", f"--target={pid}", "--user", "--net", "--preserve-credentials", *argv]

    def run(self, netns: str, *argv: str, text: str = "") -> str:
        done = subprocess.run(self.argv(netns, *argv), input=text, capture_output=True, text=True, timeout=60)
        assert (done.stderr, done.returncode) == ("", 0), argv
        return done.stdout

    def python(self, netns: str, script: str, *argv: str, text: str = "") -> str:
        return self.run(netns, sys.executable, "-c", script, *argv, text=text)

    def load(self, topology: Topology) -> None:
        """Put the rules in the place of those that are there."""
        mode = Mode.NFTABLES if self.loader == "nftables" else Mode.IPTABLES
        made = ruleset(topology._replace(kube_proxy=topology.kube_proxy._replace(mode=mode)), "node")
        assert made is not None
        if self.loader != "iptables":
            self.python("node", LOAD, text=made.nft())
        else:
            self.run("node", "iptables-nft-restore", text=made.iptables_restore("ip"))
            self.run("node", "ip6tables-nft-restore", text=made.iptables_restore("ip6"))

    def greetings(self, netns: str, address: str, port: int = 80, kind: str = "TCP", times: int = 1) -> list[list[str]]:
        """[name, peer's address as the server saw it] of each connection made, or [errno's name]."""
        answers: list[list[str]] = json.loads(self.python(netns, GREETINGS, kind, address, str(port), str(times)))
        return answers


def hold(stack: ExitStack, argv: list[str], ready: str) -> subprocess.Popen[str]:
    """Start a process that lives until the stack is closed, and wait until it has printed the line `ready`."""
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    stack.callback(process.wait)
    stack.callback(process.kill)
    assert process.stdout is not None
    assert process.stdout.readline() == f"{ready}\n"
    return process


@pytest.fixture(scope="module", params=["nft", "iptables", "nftables"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The namespaces of the picture above, rules for WEB, ONE and EMPTY on the node, servers in a, b and c."""
    needed = ["unshare", "nsenter", "ip", "sysctl"]
    if request.param != "iptables":
        pytest.importorskip("nftables", reason="no libnftables binding")
    else:
        needed += ["iptables-nft-restore", "ip6tables-nft-restore"]
    if missing := [program for program in needed if shutil.which(program) is None]:
        pytest.skip(f"no program {', '.join(missing)}")

    unshare = ["unshare", "--user", "--map-root-user", "--net"]
    probe = subprocess.run([*unshare, "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no private namespaces: {probe.stderr.strip()}")

    with ExitStack() as stack:
        wait = ["sh", "-c", "echo held && exec cat"]
        made = Lab({"node": hold(stack, [*unshare, *wait], "held")}, request.param)
        made.run("node", "ip", "link", "set", "dev", "lo", "up")
        for name in SUBNETS:
            made.holders[name] = hold(stack, made.argv("node", "unshare", "--net", *wait), "held")
            connect(made, name)
        made.run("node", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        made.run("node", "ip", "route", "add", "default", "via", addresses("outsider")[0])
        made.run("node", "ip", "-6", "route", "add", "default", "via", addresses("outsider")[1])
        for name in SERVERS:
            hold(stack, made.argv(name, sys.executable, "-c", ECHO_SERVER, name), "ready")
        made.load(rules(WEB, ONE, EMPTY))
        yield made


def connect(lab: Lab, name: str) -> None:
    """A veth from the node to this namespace, whose default route it is."""
    pid = lab.holders[name].pid
    (v4, v6), (node_v4, node_v6) = addresses(name), addresses(name, 1)
    lab.run("node", "ip", "link", "add", "name", name, "type", "veth", "peer", "eth0", "netns", str(pid))
    for netns, ifname, ipv4, ipv6 in (("node", name, node_v4, node_v6), (name, "eth0", v4, v6)):
        lab.run(netns, "ip", "address", "add", f"{ipv4}/24", "dev", ifname)
        lab.run(netns, "ip", "address", "add", f"{ipv6}/64", "dev", ifname, "nodad")
        lab.run(netns, "ip", "link", "set", "dev", ifname, "up")
    lab.run(name, "ip", "link", "set", "dev", "lo", "up")
    lab.run(name, "ip", "route", "add", "default", "via", node_v4)
    lab.run(name, "ip", "-6", "route", "add", "default", "via", node_v6)


def test_each_endpoint_gets_its_equal_share(lab: Lab) -> None:
    """3,000 connections: each endpoint's count is Binomial(3000, 1/3), mean 1000, sigma 25.8.

    The bound is 6 sigma. Summed exactly over the three counts, right rules miss it once in 145 million runs.
    """
    answers = lab.greetings("client", "192.168.0.2", times=3000)
    counts = {name: sum(answer[0] == name for answer in answers) for name in SERVERS}
    assert sum(counts.values()) == 3000
    assert all(846 <= count <= 1154 for count in counts.values()), counts


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_a_pod_that_reaches_itself_sees_the_node(lab: Lab, version: int) -> None:
    """Hairpin: the only endpoint of ONE is the client itself."""
    assert lab.greetings("a", str(ONE.cluster_ips[version])) == [["a", addresses("a", 1)[version]]]


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_only_clients_from_outside_the_cluster_are_masqueraded(lab: Lab, version: int) -> None:
    cluster_ip = str(ONE.cluster_ips[version])
    assert lab.greetings("client", cluster_ip) == [["a", addresses("client")[version]]]
    assert lab.greetings("outsider", cluster_ip) == [["a", addresses("a", 1)[version]]]


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_a_client_in_any_of_several_cluster_networks_is_in_the_cluster(lab: Lab, version: int) -> None:
    """Here the cluster is the networks of client and c; b is in neither. Each of them reaches the endpoint."""
    cluster_ip = str(ONE.cluster_ips[version])
    with ExitStack() as stack:
        stack.callback(lab.load, rules(WEB, ONE, EMPTY))
        lab.load(rules(ONE, cidrs=("10.0.3.0/24", "10.0.0.0/24", "fd00:0:0:3::/64", "fd00:0:0:0::/64")))
        assert lab.greetings("client", cluster_ip) == [["a", addresses("client")[version]]]
        assert lab.greetings("c", cluster_ip) == [["a", addresses("c")[version]]]
        assert lab.greetings("b", cluster_ip) == [["a", addresses("a", 1)[version]]]


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_the_node_itself_reaches_the_service(lab: Lab, version: int) -> None:
    """The output hook translates; the source, chosen for the default route, is off the cluster: masqueraded."""
    assert lab.greetings("node", str(ONE.cluster_ips[version])) == [["a", addresses("a", 1)[version]]]


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("netns", "kind", "port", "error"),
    [
        ("client", "TCP", 80, "ECONNREFUSED"),
        ("client", "UDP", 53, "ECONNREFUSED"),
        ("node", "TCP", 80, "ECONNREFUSED"),
        ("node", "UDP", 53, "EPERM"),
    ],
)
def test_no_endpoints_is_refused(lab: Lab, netns: str, kind: str, port: int, error: str, version: int) -> None:
    """By the forward hook for the client, by the output hook for the node, where silence would end in "timed out".

    EPERM is what send() says where the output hook drops the datagram, whatever else the rule does.
    """
    assert lab.greetings(netns, str(EMPTY.cluster_ips[version]), port, kind) == [[error]]


@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize(("kind", "port"), [("TCP", 80), ("UDP", 53)])
def test_both_families_and_protocols_reach_every_endpoint(lab: Lab, kind: str, port: int, version: int) -> None:
    """Of 90 connections none goes to a certain endpoint once in 7 * 10**15 runs."""
    answers = lab.greetings("client", str(WEB.cluster_ips[version]), port, kind, times=90)
    assert {tuple(answer) for answer in answers} == {(name, addresses("client")[version]) for name in SERVERS}


def test_a_reload_leaves_established_connections_alone(lab: Lab) -> None:
    """Even where the new rules have no endpoint for the Service: only a new connection is refused then."""
    with ExitStack() as stack:
        stack.callback(lab.load, rules(WEB, ONE, EMPTY))
        talk = hold(
            stack,
            lab.argv("client", sys.executable, "-c", TALK, str(ONE.cluster_ips[0]), "80"),
            f"a {addresses('client')[0]}",
        )

        def say(line: str) -> str:
            assert talk.stdin is not None
            assert talk.stdout is not None
            talk.stdin.write(f"{line}\n")
            talk.stdin.flush()
            return talk.stdout.readline().rstrip("\n")

        assert say("before") == "before"
        lab.load(rules(WEB, ONE, EMPTY))
        assert say("the same rules again") == "the same rules again"
        lab.load(rules(WEB, ONE._replace(endpoints=()), EMPTY))
        assert say("no endpoints any more") == "no endpoints any more"
        assert lab.greetings("client", str(ONE.cluster_ips[0])) == [["ECONNREFUSED"]]
