"""Single words of an interface and what each must look like: its name, its MAC address, its addresses, a subnet.

Each function takes the text and returns the value, or raises InvalidError with a message and a hint. Whether an address
fits its subnet is decided later, where the lab is wired.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address, ip_interface, ip_network
from typing import TypeAlias

from netlab.escapes import is_hidden
from netlab.model import IFNAMSIZ, Address, InterfaceAddress, Network
from netlab.yamlspec.shapes import InvalidError

IFNAME = r"^[^\s/:%]{1,15}$"
MAC = r"^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$"
_NO_IFNAME = re.compile(r"[\s/:%]")

GivenAddress: TypeAlias = Address | InterfaceAddress
"""An address as written: without a prefix length it takes that of the subnet it lies in."""


def visible(text: str) -> str:
    """Text in which nothing is hidden: other programs than netlab show it, and a terminal would obey it."""
    strange = next(filter(is_hidden, text), None)
    if strange is not None:
        raise InvalidError(f"it has the control character {strange!r}", "leave it out")
    return text


def ifname(text: str) -> str:
    """An interface's name as the kernel takes it (dev_valid_name, net/core/dev.c); `eth%d` it would number."""
    if len(text.encode()) > IFNAMSIZ:
        hint = f"the kernel holds {IFNAMSIZ}"
        raise InvalidError(f"the interface name {text!r} has {len(text.encode())} characters", hint)
    if not text or text in (".", "..") or _NO_IFNAME.search(text):
        raise InvalidError(f"{text!r} can't be an interface's name", "no '/', ':', '%' or white space")
    visible(text)
    if text in ("lo", "all", "default"):
        raise InvalidError(
            f"{text!r} can't be an interface's name", "each namespace has a lo and sysctls for all and default"
        )
    return text


def mac(text: str) -> str:
    """A unicast MAC address, in lower case."""
    if not re.fullmatch(MAC, text):
        raise InvalidError(f"{text!r} is not a MAC address", "six pairs of hex digits: 02:00:00:00:00:01")
    first = int(text[:2], 16)
    if first & 1:
        hint = f"the lowest bit of its first byte must be 0: {first & ~1 | 2:02x}{text[2:].lower()}"
        raise InvalidError(f"{text!r} is a multicast address, no interface can have it", hint)
    if text == "00:00:00:00:00:00":
        raise InvalidError("the MAC address is all zero, no interface can have it", "for instance 02:00:00:00:00:01")
    return text.lower()


_SPECIAL = (
    (IPv4Network("255.255.255.255/32"), "a broadcast"),
    (IPv4Network("0.0.0.0/32"), "the unspecified"),
    (IPv4Network("127.0.0.0/8"), "a loopback"),
    (IPv4Network("224.0.0.0/4"), "a multicast"),
    (IPv4Network("240.0.0.0/4"), "a class E (240.0.0.0/4)"),
    (IPv6Network("::/128"), "the unspecified"),
    (IPv6Network("::1/128"), "a loopback"),
    (IPv6Network("ff00::/8"), "a multicast"),
    (IPv6Network("::ffff:0:0/96"), "an IPv4-mapped"),
)


def special(ip: Address) -> str | None:
    """What kind of address it is, with its article, where no interface and no Service can have it; None where one can.

    Kinds are those of RFC 6890. Linux takes class E since 2.6.25, other systems, and most routers, drop it.
    """
    return next((kind for network, kind in _SPECIAL if ip in network), None)


def interface_address(text: str) -> GivenAddress:
    """An address with its prefix length (10.0.0.2/24), or alone: it takes its subnet's prefix length then."""
    if "%" in text:
        raise InvalidError(f"{text!r} has a zone", "leave out what follows the %")
    try:
        address: GivenAddress = ip_interface(text) if "/" in text else ip_address(text)
    except ValueError:
        raise InvalidError(f"{text!r} is not an address", "for instance 10.0.0.2/24 or fd00::2/64") from None
    ip = address.ip if isinstance(address, IPv4Interface | IPv6Interface) else address
    if (kind := special(ip)) is not None:
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


def subnet(text: str) -> Network:
    """A subnet that interfaces get their addresses from."""
    found = network(text)
    if (kind := special(found.network_address)) is not None and found.prefixlen:
        raise InvalidError(f"{text} is {kind} network, no interface can have an address of it")
    return found
