"""kube-proxy's names in its nftables mode: long ones, that say what they are for, with a short hash before.

Owns the hash and the strings that are hashed (kube-proxy's pkg/proxy/nftables/proxier.go: `hashAndTruncate`,
`servicePortChainNameBase` and `servicePortEndpointChainNameBase`). What is called so is `nftables_layout.py`'s.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode

from netlab.model import Address, Service, ServicePort

HASH_LENGTH = 8
"""Characters of base32(sha256(...)) before a name."""

NAME_MAX = 240
"""Longest name in characters: nftables' 256 (NFT_NAME_MAXLEN in include/uapi/linux/netfilter/nf_tables.h) without the
16 that kube-proxy leaves for "service-" and its like."""


def service_port_base(service: Service, port: ServicePort) -> str:
    """What the chains of a service port are called after: "ULMVA6XW-ns1/svc1/tcp/p80", with an empty last part for an
    unnamed port."""
    return _hashed(_path(service, port))


def endpoint_base(service: Service, port: ServicePort, address: Address) -> str:
    """What the chain and the set of an endpoint are called after: "5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80"."""
    # A colon is no part of a name in nft.
    return _hashed(f"{_path(service, port)}__{str(address).replace(':', '.')}/{port.target_port}")


def _path(service: Service, port: ServicePort) -> str:
    return f"{service.namespace}/{service.name}/{port.protocol.lower()}/{port.name}"


def _hashed(name: str) -> str:
    digest = b32encode(hashlib.sha256(name.encode()).digest()).decode()
    whole = f"{digest[:HASH_LENGTH]}-{name}"
    return whole if len(whole) <= NAME_MAX else f"{whole[: NAME_MAX - 3]}..."
