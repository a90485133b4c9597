"""kube-proxy's rules as text: names against kube-proxy's own, small rule sets whole, and what nft and iptables read.

What the rules do to packets is `test_kubeproxy_kernel.py`'s.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from ipaddress import ip_address, ip_network

import pytest
from places import DATA

from netlab.kubeproxy import Family, Ruleset, iptables_layout, ruleset
from netlab.kubeproxy.names import endpoint_chain, service_chain, service_port_name
from netlab.model import (
    BE_LIBERAL,
    DropInvalid,
    Endpoint,
    KubeProxy,
    Mode,
    Netns,
    Protocol,
    Role,
    Service,
    ServicePort,
    Topology,
)
from netlab.topology import read

WEB = Service(
    "web", (ip_address("192.168.0.2"),), (ServicePort(80, 8080),), (Endpoint("a", (ip_address("10.0.1.2"),)),)
)
THREE = WEB._replace(endpoints=tuple(Endpoint(n, (ip_address(f"10.0.1.{i}"),)) for i, n in enumerate("abc", start=2)))
EMPTY = WEB._replace(endpoints=())
DNS = Service(
    "dns",
    (ip_address("192.168.0.10"), ip_address("fd00:1::10")),
    (ServicePort(53, 5353, Protocol.UDP, "dns"), ServicePort(53, 5353, Protocol.TCP, "dns-tcp")),
    tuple(Endpoint(n, (ip_address(f"10.0.1.{i}"), ip_address(f"fd00::{i}"))) for i, n in enumerate("ab", start=2)),
    namespace="kube-system",
)
CIDRS = ("10.0.0.0/16",)
RULES = DATA / "rules"


def rules(*services: Service, cidrs: tuple[str, ...] = CIDRS, drop_invalid: DropInvalid = DropInvalid.NEVER) -> Ruleset:
    kube_proxy = KubeProxy(("node",), tuple(ip_network(cidr) for cidr in cidrs), drop_invalid)
    made = ruleset(Topology("lab", (Netns("node", Role.NODE),), services=services, kube_proxy=kube_proxy), "node")
    assert made is not None
    return made


def rules_of(node: str) -> Ruleset:
    """What a node of tests/data/services.yaml gets in the iptables mode: a Service of each kind."""
    topology = read(str(RULES.parent / "services.yaml"), [("kube_proxy.mode", "iptables")])[1]
    made = ruleset(topology, node)
    assert made is not None
    return made


def lines_of(made: Ruleset, beginning: str) -> list[str]:
    """The iptables-save lines that begin so, without it."""
    return [line.removeprefix(beginning) for line in made.iptables_save().splitlines() if line.startswith(beginning)]


def test_names_are_kube_proxys_own() -> None:
    """The names that kube-proxy's own unit tests expect for these services (pkg/proxy/iptables/proxier_test.go)."""
    svc4 = Service("svc4", (), (), (), namespace="ns4")
    name = service_port_name(svc4, ServicePort(80, 80, name="p80"))
    assert name == "ns4/svc4:p80"
    assert service_chain(name, Protocol.TCP) == "KUBE-SVC-4SW47YFZTEDKD3PK"
    assert endpoint_chain(name, Protocol.TCP, ip_address("10.180.0.4"), 80) == "KUBE-SEP-UKSFD7AGPMPPLUHC"
    assert endpoint_chain(name, Protocol.TCP, ip_address("10.180.0.5"), 80) == "KUBE-SEP-C6EBXVWJJZMIWKLZ"
    assert service_chain("ns1/svc1:p80", Protocol.TCP) == "KUBE-SVC-XPGD46QRK7WJZT7O"
    assert endpoint_chain("ns1/svc1:p80", Protocol.TCP, ip_address("10.180.0.1"), 80) == "KUBE-SEP-SXIVWICOYRO3J4NJ"


def test_names_that_every_cluster_has() -> None:
    assert service_chain("default/kubernetes:https", Protocol.TCP) == "KUBE-SVC-NPX46M4PTMTKRN6Y"
    assert service_chain("kube-system/kube-dns:dns", Protocol.UDP) == "KUBE-SVC-TCOU7JCQXEZGVUNU"


def test_unnamed_port_is_the_service_alone() -> None:
    assert service_port_name(WEB, WEB.ports[0]) == "default/web"


NFT_ONE_ENDPOINT = """\
table ip filter
delete table ip filter
table ip filter {
	chain INPUT {
		type filter hook input priority 0; policy accept;
		counter jump KUBE-FIREWALL
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		counter jump KUBE-NODEPORTS comment "kubernetes health check service ports"
		ct state new counter jump KUBE-EXTERNAL-SERVICES comment "kubernetes externally-visible service portals"
	}
	chain FORWARD {
		type filter hook forward priority 0; policy accept;
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		counter jump KUBE-FORWARD comment "kubernetes forwarding rules"
		ct state new counter jump KUBE-SERVICES comment "kubernetes service portals"
		ct state new counter jump KUBE-EXTERNAL-SERVICES comment "kubernetes externally-visible service portals"
	}
	chain OUTPUT {
		type filter hook output priority 0; policy accept;
		counter jump KUBE-FIREWALL
		ct state new counter jump KUBE-PROXY-FIREWALL comment "kubernetes load balancer firewall"
		ct state new counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain KUBE-SERVICES {
	}
	chain KUBE-EXTERNAL-SERVICES {
	}
	chain KUBE-FORWARD {
		meta mark & 0x4000 == 0x4000 counter accept comment "kubernetes forwarding rules"
		ct state related,established counter accept comment "kubernetes forwarding conntrack rule"
	}
	chain KUBE-NODEPORTS {
	}
	chain KUBE-PROXY-FIREWALL {
	}
	chain KUBE-FIREWALL {
		ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 ct state != { related, established } ct status & dnat == 0 \
counter drop comment "block incoming localnet connections"
	}
}
table ip nat
delete table ip nat
table ip nat {
	chain PREROUTING {
		type nat hook prerouting priority -100; policy accept;
		counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain OUTPUT {
		type nat hook output priority -100; policy accept;
		counter jump KUBE-SERVICES comment "kubernetes service portals"
	}
	chain POSTROUTING {
		type nat hook postrouting priority 100; policy accept;
		counter jump KUBE-POSTROUTING comment "kubernetes postrouting rules"
	}
	chain KUBE-SERVICES {
		ip daddr 192.168.0.2 tcp dport 80 counter jump KUBE-SVC-LOLE4ISW44XBNF3G comment "default/web cluster IP"
		fib daddr type local counter jump KUBE-NODEPORTS \
comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
	}
	chain KUBE-NODEPORTS {
	}
	chain KUBE-POSTROUTING {
		meta mark & 0x4000 != 0x4000 counter return
		counter meta mark set meta mark ^ 0x4000
		counter masquerade fully-random comment "kubernetes service traffic requiring SNAT"
	}
	chain KUBE-MARK-MASQ {
		counter meta mark set meta mark | 0x4000
	}
	chain KUBE-SVC-LOLE4ISW44XBNF3G {
		ip saddr != 10.0.0.0/16 ip daddr 192.168.0.2 tcp dport 80 counter jump KUBE-MARK-MASQ \
comment "default/web cluster IP"
		counter jump KUBE-SEP-CLJD2HVAOG7NX5JI comment "default/web -> 10.0.1.2:8080"
	}
	chain KUBE-SEP-CLJD2HVAOG7NX5JI {
		ip saddr 10.0.1.2 counter jump KUBE-MARK-MASQ comment "default/web"
		meta l4proto tcp counter dnat to 10.0.1.2:8080 comment "default/web"
	}
}
"""


def test_nft_text_of_one_endpoint() -> None:
    assert rules(WEB).nft() == NFT_ONE_ENDPOINT


SAVE_NO_ENDPOINTS_IPV6 = """\
# ip6tables-restore --noflush --counters
*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A KUBE-SERVICES -m comment --comment "kube-system/dns:dns has no endpoints" \
-m udp -p udp -d fd00:1::10 --dport 53 -j REJECT
-A KUBE-SERVICES -m comment --comment "kube-system/dns:dns-tcp has no endpoints" \
-m tcp -p tcp -d fd00:1::10 --dport 53 -j REJECT
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x00004000/0x00004000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack \
--ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A KUBE-POSTROUTING -m mark ! --mark 0x00004000/0x00004000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x00004000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x00004000
-A KUBE-SERVICES -m comment \
--comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" \
-m addrtype --dst-type LOCAL ! -d ::1/128 -j KUBE-NODEPORTS
COMMIT
# ip6tables-restore --noflush: the jumps, which kube-proxy inserts one by one
*filter
:KUBE-FIREWALL - [0:0]
-I INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" \
-j KUBE-EXTERNAL-SERVICES
-I INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-I INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-I INPUT -j KUBE-FIREWALL
-I FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes externally-visible service portals" \
-j KUBE-EXTERNAL-SERVICES
-I FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-I FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-I OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-I OUTPUT -j KUBE-FIREWALL
COMMIT
*nat
-I PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
COMMIT
"""


def test_iptables_text_of_an_ipv6_service_without_endpoints_and_with_the_fix() -> None:
    """The endpoints have no IPv6 address: in this family there are none."""
    only_ipv6 = DNS._replace(cluster_ips=DNS.cluster_ips[1:], endpoints=THREE.endpoints)
    assert rules(only_ipv6, drop_invalid=DropInvalid.ALWAYS).iptables_save() == SAVE_NO_ENDPOINTS_IPV6


@pytest.mark.parametrize("node", ["node-a", "node-b"])
def test_one_of_each_kind(node: str) -> None:
    """`tests/data/rules/` has what `netlab rules NODE --set kube_proxy.mode=iptables` prints of services.yaml."""
    made = rules_of(node)
    assert made.nft() == (RULES / f"services.{node}.iptables.nft").read_text()
    assert made.iptables_save() == (RULES / f"services.{node}.iptables-save").read_text()


def sections(text: str) -> dict[str, list[str]]:
    """The lines of an iptables text by table."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            lines = found.setdefault(line, [])
        elif line != "COMMIT":
            lines.append(line)
    return found


def test_the_whole_tables_have_the_same_rules_and_the_jumps_in_their_final_order() -> None:
    made = rules_of("node-a")
    parts = re.split("^# .*\n", made.iptables_save(), flags=re.MULTILINE)[1:]
    for whole, loaded, inserted in (
        (made.iptables_restore("ip"), parts[0], parts[1]),
        (made.iptables_restore("ip6"), parts[2], parts[3]),
    ):
        for table, lines in sections(whole).items():
            rules_here = [line for line in lines if line.startswith("-")]
            jumps = [line for line in rules_here if not line.startswith("-A KUBE-")]
            with_the_jumps = [line for line in sections(inserted)[table] if line.startswith(":")]
            assert with_the_jumps in ([], [":KUBE-FIREWALL - [0:0]"])
            apart = {*jumps, *with_the_jumps}
            assert [line for line in lines if "KUBE-" in line and line not in apart] == sections(loaded)[table]
            assert rules_here[: len(jumps)] == jumps
            for chain in ("INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING"):
                final = [line.replace("-A", "-I", 1) for line in jumps if line.split()[1] == chain]
                assert final[::-1] == [line for line in sections(inserted)[table] if line.split()[1] == chain]


def test_iptables_text_of_three_endpoints() -> None:
    """Each endpoint i of n is taken with probability 1/(n-i): 1/3, 1/2, always."""
    web = "KUBE-SVC-LOLE4ISW44XBNF3G"
    assert lines_of(rules(THREE), f"-A {web} ") == [
        '-m comment --comment "default/web cluster IP" '
        "-m tcp -p tcp -d 192.168.0.2 --dport 80 ! -s 10.0.0.0/16 -j KUBE-MARK-MASQ",
        '-m comment --comment "default/web -> 10.0.1.2:8080" '
        "-m statistic --mode random --probability 0.3333333333 -j KUBE-SEP-CLJD2HVAOG7NX5JI",
        '-m comment --comment "default/web -> 10.0.1.3:8080" '
        "-m statistic --mode random --probability 0.5000000000 -j KUBE-SEP-YGS3AUK5IK65MQTP",
        '-m comment --comment "default/web -> 10.0.1.4:8080" -j KUBE-SEP-5YGYVO734NTPKY4I',
    ]
    assert lines_of(rules(THREE), "-A KUBE-SEP-YGS3AUK5IK65MQTP ") == [
        "-m comment --comment default/web -s 10.0.1.3 -j KUBE-MARK-MASQ",
        "-m comment --comment default/web -m tcp -p tcp -j DNAT --to-destination 10.0.1.3:8080",
    ]


def test_endpoints_come_in_the_order_of_their_texts() -> None:
    """As kube-proxy sorts them, where "10.0.1.10:8080" comes before "10.0.1.2:8080"."""
    hosts = (2, 30, 10)
    many = WEB._replace(endpoints=tuple(Endpoint(f"e{i}", (ip_address(f"10.0.1.{i}"),)) for i in hosts))
    found = re.findall(r"-> (\S+):8080", rules(many).iptables_save())
    assert found == ["10.0.1.10", "10.0.1.2", "10.0.1.30"]


def test_nft_text_of_three_endpoints() -> None:
    text = rules(THREE).nft()
    assert [line.strip() for line in text.splitlines() if "numgen" in line] == [
        'numgen random mod 3 == 0 counter jump KUBE-SEP-CLJD2HVAOG7NX5JI comment "default/web -> 10.0.1.2:8080"',
        'numgen random mod 2 == 0 counter jump KUBE-SEP-YGS3AUK5IK65MQTP comment "default/web -> 10.0.1.3:8080"',
    ]


def test_dual_stack_udp_has_one_table_pair_a_family_and_the_same_service_chain_in_both() -> None:
    made = rules(DNS)
    assert [(table.family, table.name) for table in made.tables] == [
        ("ip", "filter"),
        ("ip", "nat"),
        ("ip6", "filter"),
        ("ip6", "nat"),
    ]
    dns = service_chain("kube-system/dns:dns", Protocol.UDP)
    for table in made.tables[1::2]:
        assert dns in [chain.name for chain in table.chains]
    nft = [line.strip() for line in made.nft().splitlines() if "dnat to" in line]
    assert nft == [
        f'meta l4proto {protocol} counter dnat to {address}:5353 comment "kube-system/dns:{port}"'
        for addresses in (("10.0.1.2", "10.0.1.3"), ("[fd00::2]", "[fd00::3]"))
        for port, protocol in (("dns", "udp"), ("dns-tcp", "tcp"))
        for address in addresses
    ]


def test_a_family_without_rules_has_nothing_to_load() -> None:
    assert rules(WEB).iptables_restore("ip6") == ""


def test_only_what_is_outside_every_cluster_network_is_marked() -> None:
    made = rules(WEB, cidrs=("10.0.0.0/16", "10.8.0.0/16", "172.16.0.0/12"))
    assert lines_of(made, "-A KUBE-OFF-CLUSTER ") == [
        "-s 10.0.0.0/16 -j RETURN",
        "-s 10.8.0.0/16 -j RETURN",
        "-s 172.16.0.0/12 -j RETURN",
        "-j KUBE-MARK-MASQ",
    ]
    assert lines_of(made, f"-A {service_chain('default/web', Protocol.TCP)} ")[0] == (
        '-m comment --comment "default/web cluster IP" -m tcp -p tcp -d 192.168.0.2 --dport 80 -j KUBE-OFF-CLUSTER'
    )
    assert "! -s 1" not in made.iptables_save().replace("! -s 127.0.0.0/8", "")


@pytest.mark.parametrize("cidrs", [(), ("fd00::/48",), ("10.0.0.0/8", "0.0.0.0/0")])
def test_without_a_cluster_network_of_the_family_no_source_is_off_cluster(cidrs: tuple[str, ...]) -> None:
    """The third case is the network that holds every address."""
    marking = [line for line in rules(WEB, cidrs=cidrs).iptables_save().splitlines() if "KUBE-MARK-MASQ" in line]
    assert marking == [
        ":KUBE-MARK-MASQ - [0:0]",
        "-A KUBE-MARK-MASQ -j MARK --or-mark 0x00004000",
        "-A KUBE-SEP-CLJD2HVAOG7NX5JI -m comment --comment default/web -s 10.0.1.2 -j KUBE-MARK-MASQ",
    ]


def test_neighbouring_cluster_networks_are_one() -> None:
    made = rules(WEB, cidrs=("10.0.0.0/24", "10.0.1.0/24", "10.0.1.128/25"))
    assert made == rules(WEB, cidrs=("10.0.0.0/23",))


def test_drop_invalid_is_the_first_rule_of_kube_forward() -> None:
    plain = rules(WEB).nft()
    fixed = rules(WEB, drop_invalid=DropInvalid.ALWAYS).nft()
    assert fixed == plain.replace(
        "\tchain KUBE-FORWARD {\n", "\tchain KUBE-FORWARD {\n\t\tct state invalid counter drop\n"
    )


def test_drop_invalid_unless_liberal_is_a_matter_of_the_node() -> None:
    """As kube-proxy since v1.29, which reads its node's sysctl."""
    nodes = (Netns("strict", Role.NODE), Netns("liberal", Role.NODE, sysctls=((BE_LIBERAL, "1"),)))
    names = tuple(netns.name for netns in nodes)
    unless = Topology("lab", nodes, services=(WEB,), kube_proxy=KubeProxy(names, (), DropInvalid.UNLESS_LIBERAL))
    dropping = [name for name in names if (made := ruleset(unless, name)) and "ct state invalid" in made.nft()]
    assert dropping == ["strict"]


def test_no_rules_for_others_and_without_services() -> None:
    topology = Topology(
        "lab",
        (Netns("node", Role.NODE), Netns("other", Role.NODE)),
        services=(WEB,),
        kube_proxy=KubeProxy(("node",)),
    )
    assert ruleset(topology, "other") is None
    assert ruleset(topology._replace(services=()), "node") is None


def test_a_long_comment_is_cut_for_nft_only() -> None:
    """Kubernetes allows names of 63 characters; nft's comments end at 128, iptables' at 255."""
    long = EMPTY._replace(namespace="n" * 63, name="s" * 63, ports=(ServicePort(80, 80, name="p" * 15),))
    comment = f"{'n' * 63}/{'s' * 63}:{'p' * 15} has no endpoints"
    assert f'"{comment[:128]}"' in rules(long).nft()
    assert f'"{comment}"' in rules(long).iptables_save()


SETS = {
    "one endpoint": rules(WEB),
    "three endpoints": rules(THREE),
    "dual stack, UDP": rules(DNS, cidrs=("10.0.0.0/16", "fd00::/64", "fd00:5::/64")),
    "no endpoints": rules(EMPTY, DNS._replace(endpoints=())),
    "forty networks": rules(WEB, cidrs=tuple(f"10.{i}.0.0/16" for i in range(0, 80, 2))),
    "drop invalid, two networks": rules(
        THREE, DNS, cidrs=("10.0.0.0/16", "172.16.0.0/12"), drop_invalid=DropInvalid.ALWAYS
    ),
    "one of each kind, no endpoints of its own": rules_of("node-a"),
    "one of each kind, endpoints of its own": rules_of("node-b"),
    "longest names": rules(
        THREE._replace(namespace="n" * 63, name="s" * 63, ports=(ServicePort(1, 2, name="p" * 15),))
    ),
}

LOAD_TWICE = """
import sys
import nftables
nft = nftables.Nftables()
for _ in range(2):
    code, _, error = nft.cmd(sys.argv[1])
    if code:
        sys.exit(error)
"""


def privately(argv: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program in a network namespace of its own, as its root; skip where no such namespace can be made."""
    unshare = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare program")
    probe = subprocess.run([*unshare, "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"no private network namespace: {probe.stderr.strip()}")
    return subprocess.run([*unshare, *argv], input=text, capture_output=True, text=True)


@pytest.mark.kernel
@pytest.mark.inside
@pytest.mark.parametrize("made", SETS.values(), ids=SETS.keys())
def test_libnftables_loads_it_over_itself(made: Ruleset) -> None:
    pytest.importorskip("nftables", reason="no libnftables binding")
    loaded = privately([sys.executable, "-c", LOAD_TWICE, made.nft()])
    assert (loaded.stderr, loaded.returncode) == ("", 0)


def by_table(text: str) -> dict[str, list[str]]:
    """Rules by table, each table's in the order of its chains' names; counters, policies and dates left out."""
    found: dict[str, list[str]] = {}
    rules_here: list[str] = []
    for line in text.splitlines():
        if line.startswith("*"):
            rules_here = found.setdefault(line, [])
        elif line.startswith("-A "):
            rules_here.append(line)
    return {table: sorted(lines, key=lambda line: line.split()[1]) for table, lines in found.items()}


@pytest.mark.kernel
@pytest.mark.inside
@pytest.mark.parametrize("family", ["ip", "ip6"])
@pytest.mark.parametrize("made", SETS.values(), ids=SETS.keys())
def test_iptables_reads_both_texts_and_makes_the_same_of_them(made: Ruleset, family: Family) -> None:
    """What kube-proxy loads, with its jumps, and the whole tables, twice; each line is one rule."""
    iptables = {"ip": "iptables-nft", "ip6": "ip6tables-nft"}[family]
    if shutil.which(f"{iptables}-restore") is None:
        pytest.skip(f"no {iptables}-restore program (Debian's package iptables)")
    whole = made.iptables_restore(family)
    once = f"{iptables}-restore --noflush && {iptables}-save"
    twice = f"cat >$0; {iptables}-restore <$0 && {iptables}-restore <$0 && {iptables}-save"
    _, _, given = made.iptables_save().partition("# ip6tables" if family == "ip6" else "# iptables")
    if family == "ip":
        given, _, _ = given.partition("# ip6tables")
    as_kube_proxy = privately(["sh", "-c", once], f"# {given}" if given else "")
    assert (as_kube_proxy.stderr, as_kube_proxy.returncode) == ("", 0)
    with tempfile.NamedTemporaryFile() as file:
        at_once = privately(["sh", "-c", twice, file.name], whole)
    assert (at_once.stderr, at_once.returncode) == ("", 0)
    found = by_table(at_once.stdout)
    assert by_table(as_kube_proxy.stdout) == found
    assert sum(map(len, found.values())) == whole.count("\n-A ")


def test_rules_are_made_when_asked_for_and_known_by_what_they_are_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    first, same, other = rules(WEB), rules(WEB), rules(THREE)
    for each in (first, other):
        assert each.names == (("ip", "filter"), ("ip", "nat"))
    made: list[object] = []
    monkeypatch.setattr(iptables_layout, "tables", made.append)
    assert first == same
    assert hash(first) == hash(same)
    assert made == []


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("services", [(WEB,), (DNS,), (EMPTY, DNS), (THREE, WEB._replace(name="more"))])
def test_the_names_of_tables_are_known_without_them(mode: Mode, services: tuple[Service, ...]) -> None:
    kube_proxy = KubeProxy(("node",), (ip_network("10.0.0.0/16"),), mode=mode)
    topology = Topology("lab", (Netns("node", Role.NODE),), services=services, kube_proxy=kube_proxy)
    made = ruleset(topology, "node")
    assert made is not None
    assert made.names == tuple((table.family, table.name) for table in made.tables)
    without = topology._replace(services=tuple(each._replace(ports=()) for each in services))
    assert ruleset(without, "node") is None
