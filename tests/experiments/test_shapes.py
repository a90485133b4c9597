"""Connections of every shape: who the roles go to, and on the real kernel that each is run, observed and found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from textwrap import dedent

import pytest
from flagship import Part
from places import DATA
from private_lab import PrivateLab

from netlab.analysis.findings import analyse
from netlab.analysis.result import Outcome, TrialResult
from netlab.errors import NetlabError
from netlab.experiments import catalogue
from netlab.experiments.roles import Roles, assign
from netlab.record.flow import Flow

CLUSTER, ROUTERS = DATA / "shapes" / "cluster.yaml", DATA / "shapes" / "routers.yaml"


@dataclass(frozen=True, slots=True)
class Shape:
    """A connection as a document says it; headers are the client's packets', with `*` for the source's port."""

    lab: str
    says: str
    headers: tuple[str, ...]
    node: str | None
    server: str = "web-1"


SHAPES = {
    "a pod to a cluster IP": Shape(
        "cluster",
        "client: client\nservice: one",
        ("10.244.1.2:* > 10.96.0.2:90", "10.244.1.2:* > 10.244.2.2:90"),
        "node-a",
    ),
    "another port": Shape(
        "cluster",
        "client: client\nservice: {name: web, port: 81}",
        ("10.244.1.2:* > 10.96.0.1:81", "10.244.1.2:* > web:8081"),
        "node-a",
        "web",
    ),
    "from outside to a cluster IP": Shape(
        "cluster",
        "client: outside\nservice: one",
        ("192.0.2.1:* > 10.96.0.2:90", "10.1.0.1:* > 10.244.2.2:90"),
        "node-a",
    ),
    "a node port": Shape(
        "cluster",
        "client: outside\nservice: {name: web, way: node-port}",
        ("192.0.2.1:* > 192.0.2.2:30080", "10.1.0.1:* > web:8080"),
        "node-a",
        "web",
    ),
    "the other node's node port": Shape(
        "cluster",
        "client: client\nservice: {name: web, way: node-port, node: node-b}",
        ("10.244.1.2:* > 10.1.0.2:30080", "10.244.2.1:* > web:8080"),
        "node-b",
        "web",
    ),
    "an external IP": Shape(
        "cluster",
        "client: outside\nservice: {name: web, way: external-ip}",
        ("192.0.2.1:* > 203.0.113.10:80", "10.1.0.1:* > web:8080"),
        "node-a",
        "web",
    ),
    "a load-balancer IP": Shape(
        "cluster",
        "client: outside\nservice: {name: web, way: load-balancer-ip, address: 203.0.113.20}",
        ("192.0.2.1:* > 203.0.113.20:80", "10.1.0.1:* > web:8080"),
        "node-a",
        "web",
    ),
    "a node to a cluster IP": Shape(
        "cluster",
        "client: node-a\nservice: one",
        ("10.244.1.1:* > 10.96.0.2:90", "10.244.1.1:* > 10.244.2.2:90"),
        "node-a",
    ),
    "a pod to itself": Shape(
        "cluster",
        "client: web-1\nservice: one",
        ("10.244.2.2:* > 10.96.0.2:90", "10.244.2.1:* > 10.244.2.2:90"),
        "node-b",
    ),
    "a pod to its neighbour": Shape(
        "cluster",
        "client: web-2\nservice: one",
        ("10.244.2.3:* > 10.96.0.2:90", "10.244.2.3:* > 10.244.2.2:90"),
        "node-b",
    ),
    "a pod to a pod": Shape(
        "cluster",
        "client: client\nto: {netns: web-1, port: 90}",
        ("10.244.1.2:* > 10.244.2.2:90",),
        "node-a",
    ),
    "a host to a host": Shape(
        "routers",
        "client: near\nto: {netns: plain, port: 90}",
        ("10.0.0.1:* > 10.0.1.2:90",),
        None,
        "plain",
    ),
    "through a stateful router": Shape(
        "routers",
        "client: near\nto: {netns: guarded, port: 90}",
        ("10.0.4.1:* > 10.0.2.2:90",),
        "r2",
        "guarded",
    ),
    "through a router that masquerades": Shape(
        "routers",
        "client: inner\nto: {netns: near, port: 90, address: 10.0.5.1}",
        ("10.0.3.2:* > 10.0.5.1:90", "10.0.5.2:* > 10.0.5.1:90"),
        "r3",
        "near",
    ),
    "to a forwarded port": Shape(
        "routers",
        "client: near\nto: {netns: r3, port: 8080, served_by: {netns: inner, port: 80}, address: 10.0.5.2}",
        ("10.0.5.1:* > 10.0.5.2:8080", "10.0.5.1:* > 10.0.3.2:80"),
        "r3",
        "inner",
    ),
}


def document(shape: Shape, steps: str = "[connect, finish]", expect: str = "completed", version: int = 4) -> Part:
    """An experiment with that shape in its lab."""
    says = shape.says
    if version == 6:
        says = over_ipv6(says)
    text = dedent(f"""\
        claim: It is as it says.
        topology: {DATA / "shapes" / shape.lab}.yaml
        payload_bytes: 20000
        timeout_s: 5
        steps: {steps}
        expect: {{plain: {expect}}}
        """)
    (run,) = catalogue.runs(f"{says}\n{text}", "shape.yaml")
    return Part(run.topology, run.experiment)


def over_ipv6(says: str) -> str:
    """What a shape says, with IPv6 in the place of IPv4."""
    for ipv4, ipv6 in (("203.0.113.20", '"fd00:f::20"'), ("10.0.5.1", '"fd00:5::1"'), ("10.0.5.2", '"fd00:5::2"')):
        if ipv4 in says:
            return says.replace(f"address: {ipv4}", f"address: {ipv6}")
    before, _, target = says.rpartition("\n")
    if "{" in target:
        return f"{before}\n{target.removesuffix('}')}, ip_version: 6}}"
    return f"{before}\nservice: {{name: {target.removeprefix('service: ')}, ip_version: 6}}"


@pytest.fixture(scope="module")
def labs() -> Iterator[dict[str, PrivateLab]]:
    """Both labs, up."""
    topologies = {file.stem: catalogue.load(file.read_text(), str(file)) for file in (CLUSTER, ROUTERS)}
    with PrivateLab(topologies["cluster"]) as cluster, PrivateLab(topologies["routers"]) as routers:
        yield {"cluster": cluster, "routers": routers}


def trial(labs: dict[str, PrivateLab], shape: Shape, part: Part) -> TrialResult:
    """One trial in the lab that is up."""
    result, recording = part.run(labs[shape.lab], 1)
    assert recording.flows == (result.trials[0].flow,)
    return result.trials[0]


def told(flow: Flow) -> tuple[str, ...]:
    """The client's packets' headers as a shape has them."""
    return tuple(f"{src}:* > {dst}:{dport}" for src, _, dst, dport in flow.headers())


@pytest.mark.kernel
@pytest.mark.inside
@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_run_and_found(labs: dict[str, PrivateLab], name: str) -> None:
    shape = SHAPES[name]
    found = trial(labs, shape, document(shape))
    assert (found.outcome, found.missing) == (Outcome.COMPLETED, ())
    flow = found.flow
    assert flow.server in (("web-1", "web-2") if shape.server == "web" else (shape.server,))
    assert told(flow) == tuple(header.replace("web:", f"{flow.endpoint}:") for header in shape.headers)
    assert flow.node == shape.node


@pytest.mark.kernel
@pytest.mark.inside
@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_run_over_ipv6(labs: dict[str, PrivateLab], name: str) -> None:
    shape = SHAPES[name]
    found = trial(labs, shape, document(shape, version=6))
    assert (found.outcome, found.missing) == (Outcome.COMPLETED, ())
    assert found.flow.vip.version == 6
    assert (len(found.flow.headers()), found.flow.node) == (len(shape.headers), shape.node)


AHEAD = """[connect, {send: {from: server, bytes: 1000}, observe: {received: {by: client, bytes: 1000}}},
    {craft-segment: {from: server, offset: 1000000}}, finish]"""
"""A segment of the server's that every kernel's conntrack finds INVALID."""
UNHARMED = {"a pod to a pod", "a host to a host", "through a stateful router", "to a forwarded port"}
"""Nothing translates, or the client has no way to the server's own address: its RST goes nowhere."""


@pytest.mark.kernel
@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", SHAPES)
def test_a_reply_that_nat_leaves_alone_is_found_in_every_shape(
    labs: dict[str, PrivateLab], name: str, version: int
) -> None:
    shape = SHAPES[name]
    result, recording = document(shape, " ".join(AHEAD.split()), version=version).run(labs[shape.lab], 1)
    (found,) = result.trials
    assert found.outcome == (Outcome.COMPLETED if name in UNHARMED else Outcome.RESET), found.missing
    findings = analyse(recording)
    assert findings.timeline.disagreements == ()


ENDS = {
    "nobody listens behind the service": ("a pod to a cluster IP", "listens: false\n", "[connect, finish]", "refused"),
    "nobody listens at the host": ("through a stateful router", "listens: false\n", "[connect, finish]", "refused"),
    "nobody answers": (
        "a host to a host",
        "",
        "[silence: server, {connect: {wait: false}}, finish]",
        "syn-unanswered",
    ),
    "nobody answers any more": ("a node port", "", "[connect, silence: server, finish]", "stalled"),
}


@pytest.mark.kernel
@pytest.mark.inside
@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("name", ENDS)
def test_what_becomes_of_it_where_no_server_answers(labs: dict[str, PrivateLab], name: str) -> None:
    of, listens, steps, outcome = ENDS[name]
    shape = SHAPES[of]
    part = document(replace(shape, says=f"{listens}{shape.says}"), steps, outcome)
    found = trial(labs, shape, Part(part.topology, part.experiment._replace(timeout_s=1.5, payload_bytes=500_000)))
    assert found.outcome == outcome, found.missing


@pytest.mark.kernel
@pytest.mark.inside
@pytest.mark.usefixtures("as_root")
def test_a_service_without_endpoints_refuses_by_its_rules(labs: dict[str, PrivateLab]) -> None:
    shape = Shape("cluster", "client: client\nservice: none", (), "node-a")
    found = trial(labs, shape, document(shape, "[{connect: {wait: false}}, finish]", "refused"))
    assert (found.outcome, found.missing) == (Outcome.REFUSED, ())


@pytest.mark.kernel
@pytest.mark.usefixtures("as_root")
def test_an_entry_is_known_by_its_own_header_past_a_translation(labs: dict[str, PrivateLab]) -> None:
    shape = SHAPES["from outside to a cluster IP"]
    steps = """[connect, {delete-entry: {in: node-b}, observe: [
        {entry: {in: node-b, change: destroy}}, {tracked: {in: node-b, there: false}},
        {tracked: {in: node-a, tcp_state: ESTABLISHED, assured: true}}]}, finish]"""
    found = trial(labs, shape, document(shape, " ".join(steps.split())))
    assert (found.outcome, found.missing, found.refuted) == (Outcome.COMPLETED, (), "")


def test_a_load_has_one_server() -> None:
    with pytest.raises(NetlabError) as caught:
        document(Shape("cluster", "client: client\nservice: web", (), None), "[load]")
    assert str(caught.value) == (
        "shape.yaml:2:10: service: a load has one server, and there are 2 endpoints\n  hint: name a service with one"
    )


@cache
def roles(says: str, lab: str = "cluster") -> Roles:
    """Who has which role."""
    part = document(Shape(lab, says, (), None))
    return assign(part.topology, part.experiment)


def test_the_namespaces_on_the_way_are_observed() -> None:
    assert roles("client: outside\nservice: {name: web, way: node-port, node: node-b}").netns == (
        "outside",
        "node-b",
        "web-1",
        "web-2",
        "node-a",
    )
    assert roles("client: near\nto: {netns: guarded, port: 9}", "routers").netns == ("near", "r2", "guarded")


WRONG = {
    "client: client\nservice: {name: web, port: 82}": (
        "2:10: service: service 'web' has no TCP port 82\n  hint: it has: 80, 81"
    ),
    "client: client\nservice: {name: one, way: node-port}": (
        "2:10: service: port 90 of service 'one' has no node port"
    ),
    "client: client\nservice: {name: one, way: external-ip}": "2:10: service: service 'one' has no external-ip",
    "client: client\nservice: {name: web, way: node-port, node: client}": (
        "2:10: service: 'client' is no node with kube-proxy's rules\n  hint: known: node-a, node-b"
    ),
    "client: client\nservice: {name: web, node: node-a}": (
        "2:28: service.node: `node` goes with node ports only\n  hint: way: node-port"
    ),
    "client: client\nservice: {name: web, ip_version: 5}": "2:34: service.ip_version: there is no IPv5\n  hint: 4 or 6",
    "client: client\nto: {netns: web-3, port: 1}": (
        "2:13: to.netns: no namespace is called 'web-3'\n  hint: did you mean 'web-2'?"
    ),
    "client: client\nto: {netns: web-1, port: 1, address: 10.0.0.9}": (
        "2:5: to: 10.0.0.9 is no address of the namespace 'web-1'\n  hint: known: 10.244.2.2, fd00:244:2::2"
    ),
    "client: client\nservice: web\nto: {netns: web-1, port: 1}": (
        "3:5: to: the client connects to a service already\n  hint: keep one of service and to"
    ),
    "client: client": (
        "1:1: it doesn't say where the client connects\n  hint: service: NAME, or to: {netns: NAME, port: NUMBER}"
    ),
    "client: web-1\nto: {netns: web-1, port: 1}": (
        "1:9: client: the client 'web-1' is the server too, and its packets pass no interface\n"
        "  hint: let another namespace connect"
    ),
}


@pytest.mark.parametrize("says", WRONG)
def test_a_target_that_is_none_is_a_problem(says: str) -> None:
    with pytest.raises(NetlabError) as caught:
        document(Shape("cluster", says, (), None))
    assert str(caught.value) == f"shape.yaml:{WRONG[says]}"


def test_lint_refuses_what_nobody_can_see() -> None:
    shape = Shape("routers", "client: near\nto: {netns: plain, port: 9}", (), None)
    with pytest.raises(NetlabError) as caught:
        document(shape, "[{connect: , observe: {entry: {in: r1}}}]", "reset")
    assert str(caught.value) == dedent("""\
        shape.yaml:7:43: steps[0].observe.entry.in: r1 tracks no connections: none of its rules asks conntrack
        shape.yaml:8:17: expect.plain: no namespace on the way translates, so no reply can come untranslated
          hint: another outcome""")
