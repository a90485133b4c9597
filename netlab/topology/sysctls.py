"""Sysctls of a topology: which belong to a network namespace, and what a value is.

Each function takes the text and returns the value, or raises InvalidError with a message and a hint.
"""

from __future__ import annotations

import re
from functools import lru_cache

from netlab.links.words import visible
from netlab.yamlspec.shapes import InvalidError

SYSCTL = r"^net\.\S+$"

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


def sysctl_value(text: str) -> str:
    """A sysctl's value: one line, since the kernel reads the first one only."""
    if "\n" in text:
        raise InvalidError(f"{text!r} can't be a sysctl's value", "one line, with spaces between several numbers")
    return visible(text)


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
