"""Single words of the topology language and what each must look like: names, addresses, MACs, rates, sysctls.

Each function takes the text and returns the value, or raises InvalidError with a message and a hint. Whether a name is
known or an address fits its subnet is decided later, in `resolve.py`. Where a thousand pods repeat a word (a gateway, a
sysctl) its value is remembered.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import TypeAlias

from netlab.kubeproxy.fixes import FIXES, PLAIN
from netlab.model import IFNAMSIZ, Address, InterfaceAddress, Network
from netlab.yamlspec.shapes import InvalidError

LAB_NAME_MAX = 32
TABLE_NAME_MAX = 255
"""NFT_NAME_MAXLEN less its NUL (include/uapi/linux/netfilter/nf_tables.h)."""
LABEL_MAX = 63
"""Longest label of a host name (RFC 1035, 2.3.4): names of namespaces and services resolve inside the lab."""

SESSION_AFFINITY_S = 10_800
"""How long a client keeps its endpoint if nothing else is said: Kubernetes' DefaultClientIPServiceAffinitySeconds."""

LOOPBACK_NAMES = ("localhost", "ip6-localhost", "ip6-loopback")
"""What the lab's /etc/hosts has for 127.0.0.1 and ::1."""

LABEL = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
IFNAME = r"^[^\s/:%]{1,15}$"
MAC = r"^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$"
FILE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
SYSCTL = r"^net\.\S+$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
VARIABLE_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")
NFT_TABLE = rf"^({'|'.join(FAMILIES)}) [A-Za-z_.][A-Za-z0-9_./-]*$"
OWN_TABLES = "netlab_"
"""How the names of the tables begin that netlab itself makes in a lab."""

_NAME_HINT = "a-z, 0-9 and -, not first or last"
_LABEL, _MAC, _FILE_NAME = re.compile(LABEL), re.compile(MAC), re.compile(FILE_NAME)
_NAME = re.compile(ENV_NAME)
_NFT_TABLE = re.compile(NFT_TABLE)
_NFT_TOKENS = re.compile(r'"[^"]*"|#.*|[{}]')
_NO_IFNAME = re.compile(r"[\s/:%]")

GivenAddress: TypeAlias = Address | InterfaceAddress
"""An address as written: without a prefix length it takes that of the subnet it lies in."""


def lab_name(text: str) -> str:
    """A lab's name: it is the first part of `/run/netns/<lab>-<namespace>`."""
    return _label(text, LAB_NAME_MAX, "a lab's name")


def netns_name(text: str) -> str:
    """A namespace's name: a host name inside the lab, and a file name below /run/netns."""
    return _host_name(text, "a namespace's name")


def service_name(text: str) -> str:
    """A Service's name, a host name inside the lab; the same rule holds for Kubernetes' namespaces and port names."""
    return _host_name(text, "a service's name")


def port_name(text: str) -> str:
    """A Service port's name, as kube-proxy's."""
    return _label(text, LABEL_MAX, "a port's name")


def experiment_name(text: str) -> str:
    """An experiment's name, as `--experiment` has it."""
    return _label(text, LABEL_MAX, "an experiment's name", _NAME_HINT)


def connection_name(text: str) -> str:
    """The name by which an experiment's steps call a connection."""
    return _label(text, LABEL_MAX, "a connection's name", _NAME_HINT)


def prose(text: str) -> str:
    """Text to be read by people, on terminals too: something to read, and nothing that a terminal would obey."""
    if not text.strip():
        raise InvalidError("there is nothing to read in it", "say it in words")
    strange = next((letter for letter in text if not letter.isprintable() and letter not in "\n\t"), None)
    if strange is not None:
        raise InvalidError(f"it has the control character {strange!r}", "leave it out")
    return text


def _host_name(text: str, what: str) -> str:
    if text in LOOPBACK_NAMES:
        raise InvalidError(f"{text!r} can't be {what}", "inside each namespace that is its own lo")
    return _label(text, LABEL_MAX, what)


def _label(
    text: str,
    longest: int,
    what: str,
    hint: str = "a-z, 0-9 and -, not first or last; it is a host name and part of a file name",
) -> str:
    if len(text) > longest:
        raise InvalidError(f"{text!r} has {len(text)} characters, {what} at most {longest}")
    if not _LABEL.match(text) or text.endswith("\n"):
        raise InvalidError(f"{text!r} can't be {what}", hint)
    return text


def fix_name(text: str) -> str:
    """The name of a fix that a topology defines; the built-in ones keep theirs."""
    if text in (*FIXES, PLAIN):
        whose = "that of a trial without a fix" if text == PLAIN else "a built-in fix's"
        raise InvalidError(f"the name {text!r} is {whose}", "call yours differently")
    return _label(text, LABEL_MAX, "a fix's name", _NAME_HINT)


def one_line(text: str) -> str:
    """A line of text, with something in it."""
    if not text.strip() or not text.isprintable():
        raise InvalidError(f"{text!r} is not a line of text", "one line that says what it does")
    return text


def program_name(text: str) -> str:
    """A program's name; its log file is called so."""
    if not _FILE_NAME.fullmatch(text) or len(text) > LABEL_MAX:
        hint = f"letters, digits, '.', '_' and '-', at most {LABEL_MAX}; its log file is called so"
        raise InvalidError(f"{text!r} can't be a program's name", hint)
    return text


def sysctl_value(text: str) -> str:
    """A sysctl's value: one line, since the kernel reads the first one only."""
    if "\n" in text or "\0" in text:
        raise InvalidError(f"{text!r} can't be a sysctl's value", "one line, with spaces between several numbers")
    return text


def nft_table(text: str) -> tuple[str, str]:
    """An nftables table as nft names it: its family and its name, one blank between."""
    if not _NFT_TABLE.fullmatch(text) or text.endswith("\n"):
        family, _, name = text.partition(" ")
        hint = "its family and its name, one blank between: inet filter"
        if name and family not in FAMILIES:
            hint = f"nft's families are {', '.join(FAMILIES)}"
        raise InvalidError(f"{text!r} names no table of nftables", hint)
    family, name = text.split(" ")
    if len(name) > TABLE_NAME_MAX:
        raise InvalidError(f"the table's name has {len(name)} characters", f"the kernel holds {TABLE_NAME_MAX}")
    if name.startswith(OWN_TABLES):
        raise InvalidError(f"{text!r} is a name of netlab's own tables", f"one that doesn't begin with {OWN_TABLES}")
    return family, name


def nft_body(text: str) -> str:
    """What stands between a table's braces: its own braces are in pairs, or it would end the table early."""
    depth = 0
    for token in _NFT_TOKENS.findall(text):
        depth += {"{": 1, "}": -1}.get(token, 0)
        if depth < 0:
            break
    if depth:
        said = "a brace that closes nothing" if depth < 0 else "a brace that nothing closes"
        raise InvalidError(f"the table's text has {said}", "write what stands between the table's own braces")
    if "\0" in text:
        raise InvalidError("nft reads no NUL character", "leave it out")
    return text


def env_value(text: str) -> str:
    """The value of an environment variable; execve(2) ends it at a NUL."""
    if "\0" in text:
        raise InvalidError(f"{text!r} can't be a variable's value", "leave out the NUL character")
    return text


def env_name(text: str) -> str:
    """The name of an environment variable."""
    if not _NAME.fullmatch(text):
        raise InvalidError(f"{text!r} can't name an environment variable", "letters, digits and _, no digit first")
    return text


def variable_name(text: str) -> str:
    """The name of a `${variable}`."""
    if not _NAME.fullmatch(text):
        raise InvalidError(f"{text!r} can't name a variable", "letters, digits and _, no digit first")
    return text


def ifname(text: str) -> str:
    """An interface's name as the kernel takes it (dev_valid_name, net/core/dev.c); `eth%d` it would number."""
    if len(text.encode()) > IFNAMSIZ:
        hint = f"the kernel holds {IFNAMSIZ}"
        raise InvalidError(f"the interface name {text!r} has {len(text.encode())} characters", hint)
    if not text or text in (".", "..") or _NO_IFNAME.search(text):
        raise InvalidError(f"{text!r} can't be an interface's name", "no '/', ':', '%' or white space")
    if text in ("lo", "all", "default"):
        raise InvalidError(
            f"{text!r} can't be an interface's name", "each namespace has a lo and sysctls for all and default"
        )
    return text


def mac(text: str) -> str:
    """A unicast MAC address, in lower case."""
    if not _MAC.fullmatch(text):
        raise InvalidError(f"{text!r} is not a MAC address", "six pairs of hex digits: 02:00:00:00:00:01")
    first = int(text[:2], 16)
    if first & 1:
        hint = f"the lowest bit of its first byte must be 0: {first & ~1 | 2:02x}{text[2:].lower()}"
        raise InvalidError(f"{text!r} is a multicast address, no interface can have it", hint)
    if text == "00:00:00:00:00:00":
        raise InvalidError("the MAC address is all zero, no interface can have it", "for instance 02:00:00:00:00:01")
    return text.lower()


def interface_address(text: str) -> GivenAddress:
    """An address with its prefix length (10.0.0.2/24), or alone: it takes its subnet's prefix length then."""
    if "%" in text:
        raise InvalidError(f"{text!r} has a zone", "leave out what follows the %")
    try:
        address: GivenAddress = ip_interface(text) if "/" in text else ip_address(text)
    except ValueError:
        raise InvalidError(f"{text!r} is not an address", "for instance 10.0.0.2/24 or fd00::2/64") from None
    ip = address.ip if isinstance(address, IPv4Interface | IPv6Interface) else address
    if ip.is_multicast or ip.is_unspecified or ip.is_loopback:
        kind = "a multicast" if ip.is_multicast else "the unspecified" if ip.is_unspecified else "a loopback"
        raise InvalidError(f"{text} is {kind} address, no interface can have it")
    if isinstance(address, IPv4Interface | IPv6Interface) and address.network.prefixlen < ip.max_prefixlen - 1:
        network = address.network
        if ip == network.network_address:
            raise InvalidError(f"{text} is the network's own address", f"the first for an interface is {network[1]}")
        if isinstance(network, IPv4Network) and ip == network.broadcast_address:
            raise InvalidError(
                f"{text} is the network's broadcast address", f"the last for an interface is {network[-2]}"
            )
    return address


@lru_cache
def address(text: str) -> Address:
    """One address without a prefix length."""
    try:
        return ip_address(text)
    except ValueError:
        hint = "leave out the prefix length" if "/" in text else "for instance 10.0.0.1 or fd00::1"
        raise InvalidError(f"{text!r} is not an address", hint) from None


def virtual_ip(text: str) -> Address:
    """An address of a Service beside its cluster IPs, where Kubernetes would take it (ValidateNonSpecialIP)."""
    found = address(text)
    for kind in ("unspecified", "loopback", "link_local", "multicast"):
        if getattr(found, f"is_{kind}"):
            article = "an" if kind == "unspecified" else "a"
            hint = "an address that the clients' packets reach a node with, for instance 203.0.113.10"
            raise InvalidError(f"{text} is {article} {kind.replace('_', '-')} address, no service can have it", hint)
    return found


def session_affinity(text: str) -> dict[str, str]:
    """Kubernetes' word for the one kind of session affinity there is, as the mapping that it is short for."""
    if text != "ClientIP":
        hint = f"ClientIP, or a mapping with the time: {{timeout_s: {SESSION_AFFINITY_S}}}"
        raise InvalidError(f"{text!r} is not a session affinity", hint)
    return {"timeout_s": str(SESSION_AFFINITY_S)}


@lru_cache
def network(text: str) -> Network:
    """A subnet; bits beyond its prefix length are a mistake."""
    if "/" not in text:
        raise InvalidError(f"{text!r} has no prefix length", "for instance 10.0.0.0/24 or fd00::/64")
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise InvalidError(f"{text!r} is not a subnet", "for instance 10.0.0.0/24 or fd00::/64") from None
    raise InvalidError(f"{text} is an address inside a subnet", f"did you mean {meant}?")


def network4(text: str) -> IPv4Network:
    """An IPv4 subnet."""
    subnet = network(text)
    if not isinstance(subnet, IPv4Network):
        raise InvalidError(f"{text} is not an IPv4 subnet", "the pools for IPv6 are bridges6, links6 and services6")
    return subnet


def network6(text: str) -> IPv6Network:
    """An IPv6 subnet."""
    subnet = network(text)
    if not isinstance(subnet, IPv6Network):
        raise InvalidError(f"{text} is not an IPv6 subnet", "the pools for IPv4 are bridges, links and services")
    return subnet


def destination(text: str) -> Network | None:
    """Where a route leads: a subnet, an address alone (its host route), or None for `default`."""
    if text == "default":
        return None
    if "/" in text:
        return network(text)
    try:
        return ip_network(text)
    except ValueError:
        raise InvalidError(f"{text!r} is not a destination", "default, 10.0.0.0/24 or fd00::/64") from None


def regex(text: str) -> str:
    """A regular expression of Python's."""
    try:
        re.compile(text)
    except re.error as error:
        raise InvalidError(f"not a regular expression: {error}") from None
    return text


# What a child namespace of Linux 6.18 shows below /proc/sys/net, and lets its owner write. Everything else there is
# either not shown (it belongs to the initial namespace) or read-only.
CORE_PER_NETNS = (
    "optmem_max",
    "rps_default_mask",
    "somaxconn",
    "tstamp_allow_data",
    "txrehash",
    "xfrm_acq_expires",
    "xfrm_aevent_etime",
    "xfrm_aevent_rseqth",
    "xfrm_larval_drop",
)
HOST_WIDE = frozenset(
    {
        "net.ipv4.fib_sync_mem",
        "net.ipv4.inet_peer_maxttl",
        "net.ipv4.inet_peer_minttl",
        "net.ipv4.inet_peer_threshold",
        "net.ipv4.ipfrag_secret_interval",
        "net.ipv4.tcp_allowed_congestion_control",
        "net.ipv4.tcp_available_congestion_control",
        "net.ipv4.tcp_available_ulp",
        "net.ipv4.tcp_low_latency",
        "net.ipv4.tcp_max_orphans",
        "net.ipv4.tcp_mem",
        "net.ipv4.udp_mem",
        "net.ipv6.ip6frag_secret_interval",
        "net.ipv6.mld_max_msf",
        "net.ipv6.mld_qrv",
        "net.netfilter.nf_conntrack_buckets",
        "net.netfilter.nf_conntrack_count",
        "net.netfilter.nf_conntrack_expect_max",
        "net.netfilter.nf_conntrack_max",
        "net.netfilter.nf_log_all_netns",
        "net.nf_conntrack_max",
    }
)
_SUBSYSTEMS = ("net.core.", "net.ipv4.", "net.ipv6.", "net.netfilter.", "net.unix.", "net.mptcp.", "net.sctp.")
_SYSCTL = re.compile(r"net(\.[A-Za-z0-9_@/-]+)+")
CONF = re.compile(r"^net\.ipv[46]\.(?:conf|neigh)\.([^.]+)\.")
"""How the sysctls of one interface begin; its name is the group."""


@lru_cache
def sysctl(text: str) -> str:
    """A sysctl's name; only those that a network namespace has for itself.

    A slash stands for a dot in an interface's name, as sysctl(8) has it: `net.ipv4.conf.eth0/7.rp_filter`.
    """
    if "/" in CONF.sub("", text):
        raise InvalidError(f"{text!r} can't be a sysctl's name", f"with dots: {text.strip('/').replace('/', '.')}")
    if not text.startswith("net."):
        hint = "only sysctls below net. belong to a network namespace"
        raise InvalidError(f"{text!r} is not of a network namespace", hint)
    if not _SYSCTL.fullmatch(text) or not text.startswith(_SUBSYSTEMS):
        known = ", ".join(prefix + "*" for prefix in _SUBSYSTEMS)
        raise InvalidError(f"{text!r} is not a sysctl of a network namespace", f"known: {known}")
    host_wide = text in HOST_WIDE or (text.startswith("net.ipv4.route.") and not text.endswith((".flush", "min_pmtu")))
    if text.startswith("net.core.") and text.removeprefix("net.core.") not in CORE_PER_NETNS:
        host_wide = True
    if host_wide:
        hint = "a lab never writes what concerns the whole host"
        if text.startswith("net.core."):
            hint += f"; of net.core a namespace has {', '.join(CORE_PER_NETNS[:3])} and xfrm_*"
        raise InvalidError(f"{text} is one value for the whole host", hint)
    return text


# tc's own units, tc(8), PARAMETERS. tc also takes bare numbers, each with a unit of its own: here the unit is written.
_NUMBER = r"[0-9]+(\.[0-9]+)?"
_TIME = rf"{_NUMBER}(s|sec|secs|ms|msec|msecs|us|usec|usecs)"
_PERCENT = rf"{_NUMBER}%"
RATE = rf"^{_NUMBER}([kKmMgGtT][iI]?)?([bB][iI][tT]|[bB][pP][sS])$"
SIZE = rf"^{_NUMBER}([bB]|[kKmMgG][bB]?|[kKmMgG][bB][iI][tT])?$"
TIME = rf"^{_TIME}$"
COUNT = r"^[0-9]+$"
DELAY = rf"^{_TIME}( {_TIME}( {_PERCENT})?)?$"
CHANCE = rf"^{_PERCENT}( {_PERCENT})?$"
