"""Single words of the topology language and what each must look like: names, addresses, MACs, rates, sysctls.

Each function takes the text and returns the value, or raises InvalidError with a message and a hint. Whether a name is
known or an address fits its subnet is decided later, in `resolve.py`. Where a thousand pods repeat a word (a gateway, a
sysctl) its value is remembered.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import (
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from netlab.kubeproxy.fixes import FIXES, PLAIN
from netlab.links.words import network, special, subnet, visible
from netlab.model import CAPABILITIES, Address, Network
from netlab.yamlspec.limits import MAX_REGEX, MAX_TABLE
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
FILE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
CAPABILITY = f"^({'|'.join(CAPABILITIES)})$"
VARIABLE_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")
NFT_TABLE = rf"^({'|'.join(FAMILIES)}) [A-Za-z_.][A-Za-z0-9_./-]*$"
OWN_TABLES = "netlab_"
"""How the names of the tables begin that netlab itself makes in a lab."""

_NAME_HINT = "a-z, 0-9 and -, not first or last"
_NFT_LEXERS = tuple(rf'{string}|#.*|[{{}}]|include(?:[ \t\r\f\v]|\\\r?\n)*"' for string in ('"[^"]*"', r'"[^"\n]*"'))
"""Strings, comments, braces and `include "`, as nft tells them apart. Whether a string may go on in the next line
depends on its version: what isn't refused is harmless either way."""


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
    return visible(text)


WEB_ADDRESS = r"^https://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]+)?(/[!#$%&'()*+,./:;=?@A-Za-z0-9_~-]*)?$"


def web_address(text: str) -> str:
    """Where something can be read, as a report links to it."""
    if not re.fullmatch(WEB_ADDRESS, text):
        raise InvalidError(f"{text!r} is no address on the web", "as https://example.org/page")
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
    if not re.match(LABEL, text) or text.endswith("\n"):
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
    if not re.fullmatch(FILE_NAME, text) or len(text) > LABEL_MAX:
        hint = f"letters, digits, '.', '_' and '-', at most {LABEL_MAX}; its log file is called so"
        raise InvalidError(f"{text!r} can't be a program's name", hint)
    return text


def nft_table(text: str) -> tuple[str, str]:
    """An nftables table as nft names it: its family and its name, one blank between."""
    if not re.fullmatch(NFT_TABLE, text) or text.endswith("\n"):
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
    if len(text) > MAX_TABLE:
        raise InvalidError(f"the table's text has {len(text):,} characters", f"at most {MAX_TABLE:,}")
    for lexer in _NFT_LEXERS:
        _check_tokens(re.findall(lexer, text))
    return visible(text)


def _check_tokens(tokens: Iterable[str]) -> None:
    depth = 0
    for token in tokens:
        depth += {"{": 1, "}": -1}.get(token, 0)
        if depth < 0:
            break
        if token.startswith("include"):
            raise InvalidError("the table includes a file: a topology reads no others", "write out what is in it")
    if depth:
        said = "a brace that closes nothing" if depth < 0 else "a brace that nothing closes"
        raise InvalidError(f"the table's text has {said}", "write what stands between the table's own braces")


def env_value(text: str) -> str:
    """The value of an environment variable; execve(2) ends it at a NUL."""
    if "\0" in text:
        raise InvalidError(f"{text!r} can't be a variable's value", "leave out the NUL character")
    return text


def env_name(text: str) -> str:
    """The name of an environment variable."""
    if not re.fullmatch(ENV_NAME, text):
        raise InvalidError(f"{text!r} can't name an environment variable", "letters, digits and _, no digit first")
    return text


def capability(text: str) -> str:
    """One of the kernel's capabilities, as Kubernetes writes it."""
    if text not in CAPABILITIES:
        meant = text.upper().removeprefix("CAP_")
        hint = f"write {meant}" if meant in CAPABILITIES else "one of capabilities(7) without CAP_, as SYS_ADMIN"
        raise InvalidError(f"{text!r} is not a capability", hint)
    return text


def variable_name(text: str) -> str:
    """The name of a `${variable}`."""
    if not re.fullmatch(VARIABLE_NAME, text):
        raise InvalidError(f"{text!r} can't name a variable", "letters, digits and _, no digit first")
    return text


@lru_cache
def address(text: str) -> Address:
    """One address without a prefix length."""
    try:
        return ip_address(text)
    except ValueError:
        hint = "leave out the prefix length" if "/" in text else "for instance 10.0.0.1 or fd00::1"
        raise InvalidError(f"{text!r} is not an address", hint) from None


def virtual_ip(text: str) -> Address:
    """An address of a Service, where Kubernetes would take it (ValidateNonSpecialIP) and packets can go to it."""
    found = address(text)
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        raise InvalidError(f"{text} is an IPv4 address mapped into IPv6", f"write {found.ipv4_mapped}")
    said = "a link-local" if found.is_link_local else special(found)
    if said is not None:
        hint = "an address that the clients' packets reach a node with, for instance 203.0.113.10"
        raise InvalidError(f"{text} is {said} address, no service can have it", hint)
    return found


def session_affinity(text: str) -> dict[str, str]:
    """Kubernetes' word for the one kind of session affinity there is, as the mapping that it is short for."""
    if text != "ClientIP":
        hint = f"ClientIP, or a mapping with the time: {{timeout_s: {SESSION_AFFINITY_S}}}"
        raise InvalidError(f"{text!r} is not a session affinity", hint)
    return {"timeout_s": str(SESSION_AFFINITY_S)}


def network4(text: str) -> IPv4Network:
    """An IPv4 subnet that interfaces and Services get addresses from."""
    found = subnet(text)
    if not isinstance(found, IPv4Network):
        raise InvalidError(f"{text} is not an IPv4 subnet", "the pools for IPv6 are bridges6, links6 and services6")
    return found


def network6(text: str) -> IPv6Network:
    """An IPv6 subnet that interfaces and Services get addresses from."""
    found = subnet(text)
    if not isinstance(found, IPv6Network):
        raise InvalidError(f"{text} is not an IPv6 subnet", "the pools for IPv4 are bridges, links and services")
    return found


def destination(text: str) -> Network | None:
    """Where a route leads: a subnet, an address alone (its host route), or None for `default`."""
    if text == "default":
        return None
    if " " in text.strip():
        keys = ", ".join(f"{key}: {value}" for key, value in route(text).items())
        raise InvalidError(f"{text!r} is a whole route; only a destination may stand here", f"write {keys}")
    if "/" in text:
        return network(text)
    try:
        return ip_network(text)
    except ValueError:
        raise InvalidError(f"{text!r} is not a destination", "default, 10.0.0.0/24 or fd00::/64") from None


_ROUTE_WORDS = ("via", "dev", "src", "metric")
ROUTE_KINDS = ("unicast", "blackhole", "unreachable", "prohibit")


def route(text: str) -> dict[str, str]:
    """A route as `ip route` has it, as the texts of its keys: `default via 10.0.0.1`, `blackhole 203.0.113.0/24`."""
    words = text.split()
    found = {"kind": words.pop(0)} if words and words[0] in ROUTE_KINDS else {}
    found = {"to": words.pop(0) if words else "", **found}
    for name, value in zip(words[::2], [*words[1::2], ""], strict=False):
        if name not in _ROUTE_WORDS or not value or name in found:
            hint = f"after the destination come {', '.join(_ROUTE_WORDS)}, each with its value, once"
            raise InvalidError(f"{text!r} is not a route: {name!r}", hint)
        found[name] = value
    if not {"via", "dev", "kind"} & set(found):
        raise InvalidError(
            f"the route {text!r} has neither a gateway nor an interface", "for instance default via 10.0.0.1"
        )
    return found


def regex(text: str) -> str:
    """A regular expression of Python's. How long it may take on a text is for whoever uses it to bound."""
    if len(text) > MAX_REGEX:
        raise InvalidError(f"the regular expression has {len(text):,} characters", f"at most {MAX_REGEX:,}")
    try:
        with warnings.catch_warnings():  # of what another version of Python would read differently
            warnings.simplefilter("ignore")
            re.compile(text)
    except re.error as error:
        raise InvalidError(f"not a regular expression: {error}") from None
    except (RecursionError, OverflowError) as error:
        raise InvalidError(f"not a regular expression that Python can use: {error}") from None
    return text
