"""What the kernel says of a lab, through iproute2, tc, nft and sysctl: two equal labs say the same."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator

from labs import Lab

_LOOK = (
    "ip -j -d addr; echo --; ip -j route; echo --; ip -j -6 route; echo --; tc -j qdisc; echo --; nft -s list ruleset; "
    "ip rule; ip -6 rule; sysctl -a -r '^net\\.' 2>/dev/null; cat /etc/hosts; echo ====="
)

_VOLATILE = re.compile(
    r"\.(ifindex|link_index|link_netnsid|address|\w*timer|bridge_id|root(_id)?|designated_\w+|id|no|handle)( |$)"
    r"|\.tso_max_size "
    r"|\.topology_change|\.operstate|= (LOWER_UP|NO-CARRIER|linkdown)$|\.(tentative|dadfailed|optimistic) "
    r"|: net\.netfilter\.nf_conntrack_count |: net\.ipv6\.conf\.[^.]+\.addr_gen_mode |\.inet6_addr_gen_mode | fe80::mac"
    r"|: route6 fe80::/64 "
)
"""What differs between two equal labs: numbers and addresses that no topology gives, timers, carrier and duplicate
address detection that are to come. And link-local addresses: an interface that came without IPv6 gets none when it is
given another."""

_MADE_OF_THE_MAC = re.compile(r"fe80:(?::[0-9a-f]{1,4}){0,2}:[0-9a-f]{0,2}ff:fe[0-9a-f]{2}:[0-9a-f]{1,4}")


def as_the_kernel_says(lab: Lab) -> list[str]:
    """All of a lab that is up, a thing a line, but for what no topology says."""
    names = [name for name, _ in json.loads((lab.directory() / "state.json").read_text())["namespaces"]]
    prefix = f"{lab.name}-" if lab.privilege == "--root" else ""
    loop = f'for n in {" ".join(names)}; do ip netns exec {prefix}$n sh -c "{_LOOK}"; done'
    told: list[str] = []
    for name, text in zip(names, lab.exec(names[0], "sh", "-c", loop).split("=====\n"), strict=False):
        links, routes, routes6, qdiscs, rest = text.split("--\n")
        for kind, output in (("link", links), ("route", routes), ("route6", routes6), ("qdisc", qdiscs)):
            told += _plain(output, f"{name}: {kind}")
        told += [f"{name}: {line}" for line in rest.splitlines()]
    told = [_MADE_OF_THE_MAC.sub("fe80::mac", line) for line in told]
    return sorted(line for line in told if not _VOLATILE.search(line))


def diff(a: list[str], b: list[str]) -> str:
    """How the two differ."""
    return "\n".join(difflib.unified_diff(a, b, n=0, lineterm=""))


def _flat(value: object, path: str) -> Iterator[str]:
    """A value out of JSON as lines: each number, text or truth with the keys that lead to it."""
    if isinstance(value, dict):
        name = " ".join(str(value[key]) for key in ("ifname", "local", "dst", "dev", "kind") if key in value)
        for key, item in value.items():
            yield from _flat(item, f"{path} {name}.{key}" if name else f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from _flat(item, path)
    else:
        yield f"{path} = {value}"


def _plain(output: str, path: str) -> list[str]:
    """JSON of iproute2 as lines."""
    items = json.loads(output or "[]")
    items = [item for item in items if item.get("kind") not in ("noqueue", "noop")]
    for item in items:
        if "qdisc" in item:
            item["qdisc"] = item["qdisc"].replace("noop", "noqueue")  # noop until it is first up
    return list(_flat(items, path))
