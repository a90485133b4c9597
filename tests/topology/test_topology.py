"""Topology files: what the shipped ones mean, what every malformed one is told, and what `--set` does."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import sys
from collections.abc import Iterator
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from places import DATA, TOPOLOGIES

from netlab.errors import TopologyError, UsageError
from netlab.experiments import catalogue
from netlab.model import Topology
from netlab.topology import load, read, with_each_fix
from netlab.topology.language import TOPOLOGY
from netlab.yamlspec import compose

SHIPPED = sorted(path.stem for path in TOPOLOGIES.glob("*.yaml"))
MALFORMED = sorted(path.stem for path in (DATA / "malformed").glob("*.yaml"))
_IPADDRESS = IPv4Address | IPv4Interface | IPv4Network | IPv6Address | IPv6Interface | IPv6Network


def render(value: object) -> str:
    """A value of the model on one line, without the fields that have their defaults."""
    if isinstance(value, str) and "\n" in value:
        return repr(value)
    if isinstance(value, Enum | str | _IPADDRESS):
        return str(value)
    if not isinstance(value, tuple):
        return repr(value)
    if not hasattr(value, "_fields"):
        return f"[{', '.join(render(item) for item in value)}]"
    defaults = type(value)._field_defaults  # type: ignore[attr-defined]
    fields = [
        f"{name}={render(item)}"
        for name, item in zip(value._fields, value, strict=True)
        if name not in defaults or item != defaults[name]
    ]
    return f"{type(value).__name__}({' '.join(fields)})"


def render_topology(topology: Topology) -> str:
    """A topology as text, one line for each thing in it."""
    lines = []
    for name, value in zip(topology._fields, topology, strict=True):
        items = value if isinstance(value, tuple) and not hasattr(value, "_fields") else (value,)
        lines += [f"{name}: {render(item)}" for item in items]
    return "\n".join(lines) + "\n"


def lab(text: str, *settings: tuple[str, str]) -> Topology:
    return load(dedent(text), "lab.yaml", settings)


def problems(text: str, *settings: tuple[str, str]) -> str:
    with pytest.raises(TopologyError) as caught:
        lab(text, *settings)
    assert caught.value.exit_code == 2
    return f"{caught.value}\n"


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_topology_means_this(name: str) -> None:
    _, topology = read(str(TOPOLOGIES / f"{name}.yaml"))
    assert render_topology(topology) == (DATA / "shipped" / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", MALFORMED)
def test_every_problem_of_a_malformed_topology_is_told(name: str) -> None:
    with pytest.raises(TopologyError) as caught:
        with_each_fix((DATA / "malformed" / f"{name}.yaml").read_text(), f"{name}.yaml", load=catalogue.load)
    told = f"{caught.value}\n".replace(f"known: {', '.join(TOPOLOGY.keys)}", "known: every key of the top level")
    assert told == (DATA / "malformed" / f"{name}.txt").read_text()


def test_aliases_that_stand_for_millions_of_values_are_refused() -> None:
    sysctls = ", ".join(f"net.ipv4.a{number}: 1" for number in range(1000))
    pods = "".join(f"  pod-{number}: *pod\n" for number in range(1000))
    assert problems(f"namespaces:\n  pod: &pod {{sysctls: {{{sysctls}}}}}\n{pods}") == (
        "lab.yaml:2:3: the file has more than 500,000 keys, values and list items\n"
        "  hint: those of an alias (*name) count each time it is used\n"
    )


@pytest.mark.parametrize("levels", [65, 999, 1000, 1001, 100_000])
@pytest.mark.parametrize("level", ["[", "- ", "{a: "])
@pytest.mark.parametrize("base", ["CBaseLoader", "BaseLoader"])
def test_a_deeply_nested_file_is_refused_and_ends_no_process(
    base: str, level: str, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether PyYAML reads it with libyaml or by itself, and whatever limit it has of its own."""
    if not hasattr(yaml, base):
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(compose, "_Loader", type("_Loader", (compose._Bounded, getattr(yaml, base)), {}))
    text = level * levels
    assert problems(text).startswith("lab.yaml:1:")
    assert problems(text).endswith("not YAML: nested more than 64 levels deep\n")


def test_aliases_and_merge_keys_stand_for_what_they_name() -> None:
    topology = lab("""
        namespaces:
          one: &pod {role: pod, sysctls: &small {net.ipv4.tcp_rmem: 4096 4096 4096}}
          two: *pod
          three: {<<: *pod, role: host}
          four: {sysctls: {<<: [*small], net.ipv4.tcp_rmem: 1 2 3, net.ipv4.tcp_sack: 0}}
        """)
    assert [render(netns) for netns in topology.namespaces] == [
        "Netns(name=one role=pod sysctls=[[net.ipv4.tcp_rmem, 4096 4096 4096]])",
        "Netns(name=two role=pod sysctls=[[net.ipv4.tcp_rmem, 4096 4096 4096]])",
        "Netns(name=three role=host sysctls=[[net.ipv4.tcp_rmem, 4096 4096 4096]])",
        "Netns(name=four role=host sysctls=[[net.ipv4.tcp_rmem, 1 2 3], [net.ipv4.tcp_sack, 0]])",
    ]


def test_variables_keep_their_type_where_they_stand_alone() -> None:
    topology = lab("""
        vars: {mtu: 9000, on: true, name: web, greeting: "hello ${name}"}
        namespaces:
          a:
            programs:
              - {name: "${name}", command: ["echo", "${greeting}, $${HOME} costs $5"], env: {MTU: "${mtu}"}}
        bridges: [{name: br0, netns: a, mtu: "${mtu}", stp: "${on}"}]
        """)
    assert render(topology.namespaces[0].programs) == (
        "[Program(name=web argv=[echo, hello web, ${HOME} costs $5] env=[[MTU, 9000]])]"
    )
    assert render(topology.links) == (
        "[Bridge(interface=Interface(netns=a ifname=br0 addresses=[10.244.0.1/24]"
        " attributes=LinkAttributes(mtu=9000 mac=02:62:8d:65:85:b3)) stp=True)]"
    )


FLAGSHIP = (TOPOLOGIES / "kube-proxy-reset.yaml").read_text()


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("vars.client_window", "1048576", "sysctls=[[net.ipv4.tcp_rmem, 4096 1048576 1048576]]"),
        ("namespaces.client.sysctls.net.ipv4.tcp_rmem", "1 2 3", "sysctls=[[net.ipv4.tcp_rmem, 1 2 3]]"),
        ("namespaces.client.sysctls.net.ipv4.conf.eth0.rp_filter", "0", "[net.ipv4.conf.eth0.rp_filter, 0]"),
        ("links[0].subnet", "10.9.0.0/24", "addresses=[10.9.0.1/24]"),
        ("links.0.subnet", "10.9.0.0/24", "addresses=[10.9.0.1/24]"),
        ("links[0].subnet", "[10.9.0.0/24, 'fd00::/64']", "addresses=[10.9.0.1/24, fd00::1/64]"),
        ("bridges.cni0.mtu", "1400", "LinkAttributes(mtu=1400 mac="),
        ("bridges[1].ports[0].gso_max_segs", "2", "LinkAttributes(gso_max_segs=2)"),
        ("bridges.1.ports.0.qdisc.kind", "pfifo", "qdisc=Qdisc(kind=pfifo parameters=[])"),
        ("kube_proxy.drop_invalid", "true", "drop_invalid=always"),
        ("kube_proxy.drop_invalid", "unless-liberal", "drop_invalid=unless-liberal"),
        ("kube_proxy.mode", "nftables", "mode=nftables"),
        ("services.web.session_affinity", "ClientIP", "session_affinity_s=10800"),
        ("services.web.session_affinity", "{timeout_s: 30}", "session_affinity_s=30"),
        ("services.web.internal_traffic_policy", "Local", "internal_traffic_policy=Local"),
        ("services.web.node_port", "30080", "node_port=30080"),
        ("services.web.protocol", "SCTP", "protocol=SCTP"),
        ("services.web.external_ips", "203.0.113.1", "external_ips=[203.0.113.1]"),
        ("services.web.load_balancer_ips", "[203.0.113.1]", "load_balancer_ips=[203.0.113.1]"),
        ("services.web.endpoints", "[]", "endpoints=[])"),
        ("services.web.endpoints", "", "endpoints=[])"),
        ("description", "'a: b'", "description: a: b"),
        (
            "namespaces.client.tables.inet tour",
            "'set x { type mark; }'",
            "[NftTable(family=inet name=tour body=set x {",
        ),
        ("namespaces.client.routes[+]", "{to: 198.51.100.0/24, kind: prohibit}", "Route(dst=198.51.100.0/24 kind=pro"),
        ("services.web.endpoints[+]", "client-node", "Endpoint(netns=client-node"),
        ("services.dns", "{port: 53, protocol: UDP, endpoints: [server]}", "Service(name=dns"),
        ("namespaces.more", "{role: host, sysctls: {net.ipv4.tcp_sack: 0}}", "Netns(name=more role=host sysctls="),
    ],
)
def test_set_changes_the_document(path: str, value: str, expected: str) -> None:
    before, after = load(FLAGSHIP, "lab.yaml"), load(FLAGSHIP, "lab.yaml", [(path, value)])
    assert expected not in render_topology(before)
    assert expected in render_topology(after)


def test_set_in_an_alias_changes_one_place() -> None:
    text = """
        namespaces:
          one: &pod {role: pod}
          two: *pod
          three: {<<: *pod}
        """
    settings = [("namespaces.two.role", "host"), ("namespaces.three.role", "node")]
    assert [str(netns.role) for netns in lab(text, *settings).namespaces] == ["pod", "host", "node"]


def test_set_takes_the_longest_key_that_fits() -> None:
    text = "namespaces: {a: {sysctls: {net.ipv4.tcp: 1, net.ipv4.tcp.rmem: 2}}}"
    topology = lab(text, ("namespaces.a.sysctls.net.ipv4.tcp.rmem", "3"))
    assert topology.netns("a").sysctls == (("net.ipv4.tcp", "1"), ("net.ipv4.tcp.rmem", "3"))


def test_set_makes_the_list_or_the_mapping_that_an_item_more_needs() -> None:
    text = "namespaces: {a: {routes: , loopback: 10.9.9.9/32}}"
    topology = lab(
        text,
        ("namespaces.a.routes[+].to", "198.51.100.0/24"),
        ("namespaces.a.routes[0].kind", "blackhole"),
        ("namespaces.a.programs.+", "{name: one, command: sleep 1}"),
        ("namespaces.a.programs.one.env.LANG", "C"),
        ("namespaces.a.loopback[+]", "10.9.9.8/32"),
    )
    assert render(topology.netns("a")) == (
        "Netns(name=a role=host loopback=[10.9.9.9/32, 10.9.9.8/32] routes=[Route(dst=198.51.100.0/24 kind=blackhole)]"
        " programs=[Program(name=one argv=[sleep, 1] env=[[LANG, C]])])"
    )


FIXES = """
    vars: {window: 4096}
    namespaces:
      a: {sysctls: &sysctls {net.ipv4.tcp_rmem: "4096 ${window} ${window}"}}
      b: {sysctls: *sysctls}
    links: [{ends: [a, b]}]
    fixes:
      large-window: {summary: room for all, set: {vars.window: 1048576}}
      one-route:
        summary: a blackhole in a
        set:
          namespaces.a.routes[+]: &route {to: 198.51.100.0/24, kind: blackhole}
          namespaces.a.sysctls.net.ipv4.tcp_sack: 0
    """


def test_a_fix_of_the_files_own_sets_what_set_would_and_after_it() -> None:
    plain = lab(FIXES)
    assert render(plain.fixes) == (
        "[UserFix(name=large-window summary=room for all), UserFix(name=one-route summary=a blackhole in a)]"
    )
    settings = (("vars.window", "1"), ("fixes.one-route.set.namespaces.a.sysctls.net.ipv4.tcp_sack", "2"))
    text = dedent(FIXES)
    both = load(text, "lab.yaml", settings, fixes=["one-route", "unknown", "large-window"])
    assert [render(netns) for netns in both.namespaces] == [
        "Netns(name=a role=host sysctls=[[net.ipv4.tcp_rmem, 4096 1048576 1048576], [net.ipv4.tcp_sack, 2]]"
        " routes=[Route(dst=198.51.100.0/24 kind=blackhole)])",
        "Netns(name=b role=host sysctls=[[net.ipv4.tcp_rmem, 4096 1048576 1048576]])",
    ]
    assert with_each_fix(text, "lab.yaml") == {
        "": plain,
        "large-window": load(text, "lab.yaml", [("vars.window", "1048576")]),
        "one-route": load(text, "lab.yaml", fixes=["one-route"]),
    }


def test_a_later_set_wins() -> None:
    topology = load(FLAGSHIP, "lab.yaml", [("vars.client_window", "1"), ("vars.client_window", "2")])
    assert topology.netns("client").sysctls == (("net.ipv4.tcp_rmem", "4096 2 2"),)


def test_set_is_checked_like_the_file_and_reported_together_with_it() -> None:
    settings = [
        ("vars.client_windw", "1"),
        ("vars", "1"),
        ("namespaces.clinet.role", "pod"),
        ("links[1].subnet", "10.0.0.0/24"),
        ("links.first.subnet", "10.0.0.0/24"),
        ("bridges.cni1.mtu", "1400"),
        ("bridges[0].mtu", "big"),
        ("services.web.port", "[80"),
        ("kube_prox.drop_invalid", "true"),
        (" ", "1"),
    ]
    assert problems(FLAGSHIP, *settings) == dedent("""\
        --set: no path for the value
          hint: for instance vars.client_window
        --set: bridges.cni1.mtu: there is no item 'cni1'
          hint: did you mean 'cni0'?
        --set: bridges[0].mtu: expected a whole number from 68 to 65535, found the text 'big'
        --set: kube_prox.drop_invalid: there is no 'kube_prox'
          hint: did you mean 'kube_proxy'?
        --set: links.first.subnet: there is no item 'first'
          hint: items are counted from 0: [0]; [+] is one more
        --set: links[1].subnet: there is no item 1
          hint: the list has 1, counted from 0; [+] is one more
        --set: namespaces.clinet.role: there is no 'clinet'
          hint: did you mean 'client'?
        --set: services.web.port: the value '[80' is not YAML: did not find expected ',' or ']'
          hint: put it in quotes
        --set: vars: expected a mapping, found the whole number 1
        --set: vars.client_windw: there is no 'client_windw'
          hint: did you mean 'client_window'?
        lab.yaml:24:26: namespaces.client.sysctls.net.ipv4.tcp_rmem: no variable is called 'client_window'
          hint: name it under vars, above its first use there; $${client_window} is the text itself
        """)


ODD: tuple[object, ...] = (
    None,
    -1,
    1.5,
    float("inf"),
    True,
    "",
    "x",
    "\0",
    "${",
    "a:b:c",
    "::/0",
    "255.255.255.255/32",
    [],
    [[]],
    {},
    {None: 1},
)


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value inside a value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@pytest.mark.parametrize("name", SHIPPED)
def test_an_odd_value_anywhere_is_a_problem_or_means_something(name: str) -> None:
    original = yaml.safe_load((TOPOLOGIES / f"{name}.yaml").read_text())
    for path in places(original):
        for odd in ODD:
            document = {"": copy.deepcopy(original)}
            keys: tuple[Any, ...] = ("", *path)
            spot: Any = document
            for key in keys[:-1]:
                spot = spot[key]
            spot[keys[-1]] = odd
            with contextlib.suppress(TopologyError):
                load(json.dumps(document[""]), "lab.yaml")  # JSON is YAML, and quicker to write


def test_names_of_labs() -> None:
    text = "namespaces: {a: }"
    assert load(text, "some/My Lab_2.yaml").name == "my-lab-2"
    assert load(text, "-").name == "lab"
    assert load(text, "...").name == "lab"
    assert load(text, f"{'x' * 40}.yaml").name == "x" * 32
    assert load("name: given\n" + text, "file.yaml").name == "given"
    assert load("name: given\n" + text, "file.yaml", name="wins").name == "wins"
    with pytest.raises(UsageError, match="'No Name' can't be a lab's name"):
        load(text, "file.yaml", name="No Name")
    with pytest.raises(UsageError) as caught:
        load("namespaces: {a: {}}", "lab.yaml", name="a" * 33)
    assert str(caught.value) == f"'{'a' * 33}' has 33 characters, a lab's name at most 32"  # and no hint


def test_read_says_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "latin1.yaml").write_bytes(b"namespaces:\n  caf\xe9: {}\n")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfnamespaces: {a: }\n")
    with pytest.raises(UsageError) as caught:
        read(str(tmp_path / "nothing.yaml"))
    assert (
        str(caught.value)
        == f"{tmp_path}/nothing.yaml: there is no such file\n  hint: name a topology file, or - for stdin"
    )
    with pytest.raises(UsageError) as caught:
        read(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path} is a directory\n  hint: name a file in it, such as {tmp_path}/topology.yaml"
    )
    with pytest.raises(UsageError) as caught:
        read(str(tmp_path / "latin1.yaml"))
    assert str(caught.value) == f"{tmp_path}/latin1.yaml is not UTF-8 text (line 2)\n  hint: save it as UTF-8"
    with pytest.raises(UsageError) as caught:
        read("")
    assert str(caught.value) == "the topology file's name is empty\n  hint: name a topology file, or - for stdin"
    with pytest.raises(UsageError):
        read("a\0b")
    assert read(str(tmp_path / "bom.yaml"))[1].name == "bom"


def test_read_takes_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"namespaces: {a: }\n")))
    text, topology = read("-")
    assert (text, topology.name) == ("namespaces: {a: }\n", "lab")
