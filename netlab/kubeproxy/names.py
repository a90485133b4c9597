"""kube-proxy's names of iptables chains: hashed, so that they fit into iptables' 28 characters.

Owns the hash and the strings that are hashed (kube-proxy's pkg/proxy/iptables/proxier.go: `portProtoHash` and
`servicePortEndpointChainName`). Which chain holds which rule is `iptables_layout.py`'s.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from enum import StrEnum
from functools import lru_cache

from netlab.model import Address, Protocol, Service, ServicePort

HASH_LENGTH = 16
"""Characters of base32(sha256(...)) that a chain's name keeps: 80 bits."""

_REMEMBERED = 1 << 15
"""Names and addresses stand in several rules each, and in those of the next topology."""


class Prefix(StrEnum):
    """What the chains of a service port are for: choosing among all endpoints, among the node's own, what comes from
    outside, and source ranges."""

    CLUSTER = "KUBE-SVC-"
    LOCAL = "KUBE-SVL-"
    EXTERNAL = "KUBE-EXT-"
    FIREWALL = "KUBE-FW-"


def service_port_name(service: Service, port: ServicePort) -> str:
    """What kube-proxy calls one port of a Service: "default/web:http", or "default/web" for an unnamed port."""
    name = f"{service.namespace}/{service.name}"
    return f"{name}:{port.name}" if port.name else name


def service_chain(port_name: str, protocol: Protocol, prefix: Prefix = Prefix.CLUSTER) -> str:
    """A chain of a service port: "KUBE-SVC-4SW47YFZTEDKD3PK"; one name for both families."""
    return prefix + _hash(port_name + protocol.lower())


def endpoint_chain(port_name: str, protocol: Protocol, address: Address, port: int) -> str:
    """The chain that translates to one endpoint of a service port: "KUBE-SEP-UKSFD7AGPMPPLUHC"."""
    return "KUBE-SEP-" + _hash(port_name + protocol.lower() + socket_address(address, port))


@lru_cache(maxsize=_REMEMBERED)
def socket_address(address: Address, port: int) -> str:
    """ "10.0.1.2:80", or "[fd00::2]:80": kube-proxy, nft and iptables write it alike."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


@lru_cache(maxsize=_REMEMBERED)
def _hash(text: str) -> str:
    return b32encode(hashlib.sha256(text.encode()).digest()[: HASH_LENGTH * 5 // 8]).decode()
