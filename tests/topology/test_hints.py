"""Hints say what passes: each that says what to write is followed, and the problem is gone. And what lint warns of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command import Netlab
from places import DATA, TOPOLOGIES

from netlab.errors import Problem, TopologyError
from netlab.experiments import catalogue
from netlab.topology import load, parse
from netlab.yamlspec.document import nearest

MALFORMED = sorted(path for path in (DATA / "malformed").glob("*.yaml"))
WRITE = re.compile(r"(?:write|put it in quotes:|put it in brackets:) ([\[{\"].*)")
MEANT = re.compile(r"did you mean '([^']*)'\?")


def problems(text: str, *settings: tuple[str, str]) -> list[Problem]:
    try:
        catalogue.load(text, "lab.yaml", settings)
    except TopologyError as error:
        return error.problems
    return []


def followed(text: str, problem: Problem) -> list[Problem] | None:
    """What is wrong once a hint is followed; None where it doesn't say in so many words what to write."""
    if (written := WRITE.fullmatch(problem.hint)) and problem.line:
        return problems(text, (problem.path, written[1]))
    if (meant := MEANT.search(problem.hint)) and (wrong := re.search(r"'([^']*)'", problem.message)) and problem.line:
        lines = text.splitlines(keepends=True)
        line = lines[problem.line - 1]
        before, after = line[: problem.column - 1], line[problem.column - 1 :]
        lines[problem.line - 1] = before + after.replace(wrong[1], meant[1], 1)
        return problems("".join(lines))
    return None


@pytest.mark.parametrize("path", MALFORMED, ids=lambda path: path.stem)
def test_the_advice_of_every_hint_is_taken(path: Path) -> None:
    text = path.read_text()
    for problem in problems(text):
        left = followed(text, problem)
        if left is not None:
            assert [one for one in left if (one.path, one.message) == (problem.path, problem.message)] == [], problem
            if WRITE.fullmatch(problem.hint):
                assert [one for one in left if re.match(rf"{re.escape(problem.path)}($|[.\[])", one.path)] == [], (
                    problem
                )


NAMESPACES = "namespaces: {r1: {}, pc-1: {}}\n"


@pytest.mark.parametrize(
    ("text", "told", "hint"),
    [
        ("links: [{ends: r1-r1}]", "links[0].ends: expected a list", "put it in brackets: [r1, r1]"),
        ("links: [{ends: r1:eth1 -- pc-1}]", "links[0].ends: expected a list", "put it in brackets"),
        ("links: [{ends: r1-pc-1}]", "links[0].ends: expected a list", ""),
        ("links: [r1 r1]", "links[0]: expected a mapping", "write {ends: [r1, r1]}"),
        ("links: [[r1, pc-1]]", "links[0]: expected a mapping", "write {ends: [r1, pc-1]}"),
        ("links: [[r1]]", "links[0]: expected a mapping", ""),
        ("bridges: [br0]", "bridges[0]: expected a mapping", ""),
        ("links: [{ends: [r1, pc-1], end: x}]", "links[0].end: unknown key 'end'", "'ends' is there already"),
    ],
)
def test_a_hint_says_what_would_be_read(text: str, told: str, hint: str) -> None:
    found = problems(NAMESPACES + text)[0]
    assert f"{found.path}: {found.message}".startswith(told)
    assert found.hint.startswith(hint) and bool(found.hint) == bool(hint)


def test_a_route_may_be_written_as_ip_route_has_it() -> None:
    lab = "namespaces: {{a: {{routes: [{}]}}, b: {{}}}}\nlinks: [{{ends: [a, b]}}]\n"
    for words, keys in (
        ("default via 10.255.0.2", "{to: default, via: 10.255.0.2}"),
        ("blackhole 203.0.113.0/24", "{to: 203.0.113.0/24, kind: blackhole}"),
        ("198.51.100.7 dev eth0 metric 5", "{to: 198.51.100.7, dev: eth0, metric: 5}"),
    ):
        assert load(lab.format(words), "lab.yaml") == load(lab.format(keys), "lab.yaml")
    (found,) = problems(lab.format("{to: default via 10.255.0.2}"))
    assert found.hint == "write to: default, via: 10.255.0.2"
    (found,) = problems(lab.format("default through 10.255.0.2"))
    assert found.message == "'default through 10.255.0.2' is not a route: 'through'"


def test_a_bridge_whose_ports_are_too_small_for_ipv6_is_refused() -> None:
    ports = "[{netns: a, mtu: 1000, addresses: 10.0.0.2/24}]"
    text = f"namespaces: {{n: {{role: node}}, a: {{role: pod}}}}\nbridges: [{{name: br0, netns: n, BR ports: {ports}}}]"
    (found,) = problems(text.replace("BR", 'addresses: [10.0.0.1/24, "fd00::1/64"],'))
    assert (found.path, found.message) == (
        "bridges[0].ports[0].mtu",
        "br0 takes the smallest MTU of its ports, too small for its IPv6 address",
    )
    assert problems(text.replace("BR", 'mtu: 1500, addresses: [10.0.0.1/24, "fd00::1/64"],')) == []
    assert problems(text.replace("BR", "addresses: 10.0.0.1/24,")) == []


WARNED = """
namespaces:
  a: {programs: [{name: x, command: "echo $HOME > /tmp/foo; sleep 5"}, {name: y, command: "grep 'a|b' x"}]}
  b: {}
links:
  - ends: [{netns: a, mtu: 9000}, b]
  - ends: [{netns: a, ifname: up0, addresses: 10.2.0.1/32}, {netns: b, addresses: 10.2.0.2/32}]
"""


def test_lint_warns_and_says_sound_all_the_same(netlab: Netlab, tmp_path: Path) -> None:
    file = tmp_path / "warned.yaml"
    file.write_text(WARNED)
    done = netlab("lint", file)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.replace(f"{file}", "lab") == (
        "lab:3:37: warning: namespaces.a.programs[0].command: no shell runs the command: '$HOME' is only text in it\n"
        '  hint: write [sh, -c, "echo $HOME > /tmp/foo; sleep 5"]\n'
        "lab:6:28: warning: links[0].ends[0].mtu: a sends packets of 9000 bytes, and b drops those over 1500\n"
        "  hint: give both ends of the link the same MTU: mtu: 9000\n"
        "lab:7:47: warning: links[1].ends[0].addresses: a has no route from 10.2.0.1/32 to 10.2.0.2 at the other end\n"
        "  hint: a route: {to: 10.2.0.2, dev: up0}, or a subnet that both are in\n"
        "lab:7:83: warning: links[1].ends[1].addresses: b has no route from 10.2.0.2/32 to 10.2.0.1 at the other end\n"
        "  hint: a route: {to: 10.2.0.1, dev: eth1}, or a subnet that both are in\n"
        "lab: lab warned is sound\n"
    )


def test_who_follows_the_warnings_is_warned_no_more() -> None:
    text = WARNED.replace('"echo $HOME > /tmp/foo; sleep 5"', '[sh, -c, "echo $HOME > /tmp/foo; sleep 5"]')
    text = text.replace("9000}, b]", "9000}, {netns: b, mtu: 9000}]")
    text = text.replace("  a: {", "  a: {routes: [10.2.0.2 dev up0], ").replace(
        "b: {}", "b: {routes: [10.2.0.1 dev eth1]}"
    )
    assert parse(text, "lab.yaml").reader.warnings == []


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_nothing_is_wrong_with_a_shipped_topology(path: Path) -> None:
    assert parse(path.read_text(), path.name).reader.warnings == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0.0.0.0", "the unspecified address"),
        ("127.0.0.1", "a loopback address"),
        ("224.0.0.1", "a multicast address"),
        ("169.254.0.1", "a link-local address"),
        ("255.255.255.255", "a broadcast address"),
        ("'::'", "the unspecified address"),
        ("'::1'", "a loopback address"),
        ("fe80::1", "a link-local address"),
        ("240.0.0.1", "a class E (240.0.0.0/4) address"),
        ("'::ffff:10.0.0.1'", "an IPv4 address mapped into IPv6"),
    ],
)
@pytest.mark.parametrize("key", ["cluster_ip", "external_ips", "load_balancer_ips"])
def test_an_address_that_no_service_can_have(key: str, given: str, said: str) -> None:
    text = f"namespaces: {{n: {{role: node}}}}\nservices: {{web: {{port: 80, {key}: {given}}}}}\n"
    with pytest.raises(TopologyError) as raised:
        load(text, "t.yaml")
    assert (f"services.web.{key}", True) in {
        (one.path.partition("[")[0], said in one.message) for one in raised.value.problems
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("addresses: 240.0.0.1/24", "is a class E (240.0.0.0/4) address"),
        ("addresses: 255.255.255.255/24", "is a broadcast address"),
        ("addresses: '::ffff:10.0.0.1/96'", "is an IPv4-mapped address"),
        ("addresses: 10.0.0.255/24", "is the network's broadcast address"),
        ("subnet: 224.0.1.0/24", "is a multicast network"),
        ("subnet: 127.1.0.0/24", "is a loopback network"),
    ],
)
def test_an_address_that_no_interface_can_have(given: str, said: str) -> None:
    text = f"namespaces: {{n: {{role: node}}}}\nbridges: [{{name: br0, netns: n, {given}}}]\n"
    with pytest.raises(TopologyError) as raised:
        load(text, "t.yaml")
    assert [said in one.message for one in raised.value.problems] == [True]


def test_the_broadcast_address_of_a_subnet_reaches_no_service() -> None:
    text = """
    namespaces: {n: {role: node}}
    bridges: [{name: br0, netns: n, subnet: 10.0.0.0/24}]
    services: {web: {port: 80, external_ips: [10.0.0.255, 10.0.0.0, 10.0.0.9]}}
    """
    with pytest.raises(TopologyError) as raised:
        load(text, "t.yaml")
    assert [one.message for one in raised.value.problems] == [
        "10.0.0.255 is the broadcast address of 10.0.0.0/24, the subnet of n:br0",
        "10.0.0.0 is the network's own address of 10.0.0.0/24, the subnet of n:br0",
    ]


def test_a_bridge_that_sends_more_than_a_port_takes_is_warned_of(netlab: Netlab, tmp_path: Path) -> None:
    file = tmp_path / "mtu.yaml"
    port = "ports: [{netns: pod, mtu: 1400}]"
    words = "node sends packets of 1500 bytes on br0, and node's port veth-pod drops those over 1400"
    for given, warned in (("mtu: 1500, ", True), ("mtu: 1400, ", False), ("mtu: 1300, ", False), ("", False)):
        bridge = f"{{name: br0, netns: node, {given}addresses: 10.0.0.1/24, {port}}}"
        file.write_text(f"namespaces: {{node: {{role: node}}, pod: {{}}}}\nbridges: [{bridge}]\n")
        done = netlab("lint", file)
        assert done.returncode == 0, done.stderr
        assert warned == (f"warning: bridges[0].mtu: {words}" in done.stderr), done.stderr


@pytest.mark.parametrize(
    ("links", "path", "message", "hint"),
    [
        pytest.param(
            "bridges: [{name: br0, netns: n, ports: [{netns: a, mtu: 1400}, b]}]",
            "bridges[0].ports[0].mtu",
            "b sends packets of 1500 bytes, and n's port veth-a drops those over 1400",
            "give every interface of the segment the same MTU: mtu: 1400",
            id="two ports",
        ),
        pytest.param(
            "bridges: [{name: br0, netns: n, addresses: [], ports: [{netns: a, mtu: 9000}, b]}]",
            "bridges[0].ports[0].mtu",
            "a sends packets of 9000 bytes, and n's port veth-b drops those over 1500",
            "give every interface of the segment the same MTU: mtu: 9000",
            id="a larger one",
        ),
        pytest.param(
            "bridges: [{name: br0, netns: n, ports: [a]}, {name: br1, netns: m, ports: [b]}]\n"
            "links: [{ends: [{netns: n, bridge: br0, mtu: 1400}, {netns: m, bridge: br1}]}]",
            "links[0].ends[0].mtu",
            "m sends packets of 1500 bytes on br1, and n's port veth-m drops those over 1400",
            "give every interface of the segment the same MTU: mtu: 1400",
            id="between bridges",
        ),
        pytest.param(
            "bridges: [{name: br0, netns: n}]\nlinks: [{ends: [{netns: n, bridge: br0}, {netns: a, mtu: 9000}]}]",
            "links[0].ends[1].mtu",
            "a sends packets of 9000 bytes, and n's port veth-a drops those over 1500",
            "give every interface of the segment the same MTU: mtu: 9000",
            id="a link to a bridge",
        ),
    ],
)
def test_an_interface_of_a_segment_that_takes_less_than_another_sends_is_warned_of(
    links: str, path: str, message: str, hint: str
) -> None:
    text = f"namespaces: {{n: {{role: node}}, m: {{role: node}}, a: {{}}, b: {{}}}}\n{links}\n"
    assert [warning[2:] for warning in parse(text, "lab.yaml").reader.warnings] == [(path, message, hint)]
    assert parse(re.sub(r", mtu: \d+", "", text), "lab.yaml").reader.warnings == []


@pytest.mark.kernel
def test_up_warns_each_time(netlab: Netlab, lab_name: str, tmp_path: Path, privilege: str) -> None:
    file = tmp_path / "mtu.yaml"
    file.write_text("namespaces: {a: {}, b: {}}\nlinks: [{ends: [{netns: a, mtu: 9000}, b]}]\n")
    warning = "warning: links[0].ends[0].mtu: a sends packets of 9000 bytes, and b drops those over 1500"
    for outcome in ("is up: 2 namespaces", "is up: nothing to do", "is up: nothing to do", "is up: nothing to do"):
        said = netlab("up", file, "--name", lab_name, privilege)
        assert said.returncode == 0, said.stderr
        assert said.stderr.count(warning) == 1 and outcome in said.stderr, said.stderr
    assert netlab("up", "-q", file, "--name", lab_name).stderr == ""
    assert netlab("up", "-q", file, "--name", lab_name, "--set", "links[0].ends[0].mtu=8000").stderr == ""
    again = netlab("up", file, "--name", lab_name, "--set", "links[0].ends[0].mtu=8000").stderr
    assert "a sends packets of 8000 bytes" in again and "nothing to do" in again


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("targetport", "target_port"),
        ("endpoint", "endpoints"),
        ("endpoints", "ends"),
        ("wbe", "web"),
        ("masquerade_all", None),
        ("service", None),
        ("socket", None),
    ],
)
def test_only_what_is_misspelt_or_shortened_is_taken_for_another_word(word: str, meant: str | None) -> None:
    known = {
        "endpoint": ["endpoints", "node_port"],
        "endpoints": ["ends", "mtu"],
        "masquerade_all": ["masquerade_pods", "mode"],
        "service": ["netns", "port", "served_by"],
        "socket": ["set", "steps"],
    }
    assert nearest(word, known.get(word, ["node_port", "target_port", "web", "tbf"])) == meant
