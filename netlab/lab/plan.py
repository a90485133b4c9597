"""The plan: a topology as a list of steps, in the order in which the kernel can take them.

Pure. `up` is the whole lab from nothing; what changes a lab that stands is `diff/`'s. The renderings show
exactly the steps that `netlab up` carries out: as text, as JSON, and as a shell script that builds the same lab.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from netlab import escapes
from netlab.kubeproxy import loaded_by
from netlab.lab.rule_steps import LoadRules, LoadTable, RestoreRules
from netlab.lab.steps import (
    AddAddress,
    AddQdisc,
    AddRoute,
    CreateLink,
    CreateNetns,
    SetLink,
    SetSysctl,
    SetUp,
    StartProgram,
    Step,
    WriteHosts,
    step_name,
)
from netlab.model import Interface, Link, Loader, Netns, Route, Topology
from netlab.topology.sysctls import CONF


def up(topology: Topology) -> list[Step]:
    """Every step from nothing to the running lab.

    Links come before the sysctls that are theirs (net.ipv4.conf.eth0…), rules before conntrack's sysctls (loading a
    rule that tracks makes a modular kernel load conntrack), programs last. An IPv6 MTU comes once all links are up, and
    what needs an interface that no link of the topology makes once the programs are ready, of which one may.
    """
    by_netns: dict[str, list[Interface]] = {netns.name: [] for netns in topology.namespaces}
    for interface in topology.interfaces():
        by_netns[interface.netns].append(interface)
    steps: list[Step] = [CreateNetns(netns.name) for netns in topology.namespaces]
    steps += [CreateLink(link) for link in topology.links]
    steps += [SetLink(interface) for link in topology.links for interface in _late(link)]
    namespaces = [_without_programs_interfaces(netns, by_netns[netns.name]) for netns in topology.namespaces]
    for netns in namespaces:
        first = [(key, value) for key, value in netns.sysctls if not is_netfilter(key) and not follows_the_link(key)]
        steps += [SetSysctl(netns.name, key, value) for key, value in sorted(first, key=_overwrites)]
        steps += [SetSysctl(netns.name, key, value, if_there=True) for key, value in netns.sysctls_if_there]
    for netns in namespaces:
        steps += _configure(netns, by_netns[netns.name])
    for netns in namespaces:
        if (rules := loaded_by(Loader.LIBNFTABLES, topology, netns.name)) is not None:
            steps.append(LoadRules(netns.name, rules))
        if (rules := loaded_by(Loader.IPTABLES_RESTORE, topology, netns.name)) is not None:
            steps += [RestoreRules(netns.name, f, rules.iptables_restore(f)) for f in rules.families]
        steps += [LoadTable(netns.name, table) for table in netns.tables]
        late = [(key, value) for key, value in netns.sysctls if is_netfilter(key) or follows_the_link(key)]
        steps += [SetSysctl(netns.name, key, value) for key, value in late]
    for interface in topology.interfaces():
        if interface.qdisc is not None:
            steps.append(AddQdisc(interface.netns, interface.ifname, interface.qdisc))
    steps.append(WriteHosts(hosts(topology), tuple(netns.name for netns in topology.namespaces)))
    for netns in topology.namespaces:
        steps += [StartProgram(netns.name, program) for program in netns.programs]
    for netns, early in zip(topology.namespaces, namespaces, strict=True):
        if early is not netns:
            steps += [SetSysctl(netns.name, *pair) for pair in netns.sysctls if pair not in early.sysctls]
            steps += [AddRoute(netns.name, route) for route in netns.routes if route not in early.routes]
    return steps


def _without_programs_interfaces(netns: Netns, interfaces: Sequence[Interface]) -> Netns:
    """A namespace without the routes and sysctls of interfaces that are none of the topology's; itself without any."""
    names = {"lo", "all", "default", *(interface.ifname for interface in interfaces)}
    routes = tuple(route for route in netns.routes if route.dev is None or route.dev in names)
    sysctls = tuple(pair for pair in netns.sysctls if interface_of(pair[0]) in (None, *names))
    if len(routes) == len(netns.routes) and len(sysctls) == len(netns.sysctls):
        return netns
    return netns._replace(routes=routes, sysctls=sysctls)


def interface_of(key: str) -> str | None:
    """The interface that a sysctl is of, `all` or `default`; None for one of the whole namespace."""
    found = CONF.match(key)
    return found[1].replace("/", ".") if found else None


def _late(link: Link) -> Iterator[Interface]:
    """The interfaces with what the kernel doesn't take, or doesn't keep, when it makes a link: an alias, the master of
    a peer, and the MTU of what has ports."""
    for number, interface in enumerate(link.interfaces()):
        attributes = interface.attributes
        if (
            attributes.alias is not None
            or (number > 0 and interface.master is not None)
            or (link.mtu_follows_ports and attributes.mtu is not None)
        ):
            yield interface


def _overwrites(sysctl: tuple[str, str]) -> int:
    """Where a sysctl comes: one that resets or sets others before them, those of one interface last.

    Forwarding resets the others below net.ipv4.conf (ip-sysctl.rst); `all` and `default` set each interface's.
    """
    key = sysctl[0]
    if key == "net.ipv4.ip_forward" or key.endswith(".conf.all.forwarding"):
        return 0
    _, _, below_conf = key.partition(".conf.")
    return 2 if below_conf and not below_conf.startswith(("all.", "default.")) else 1


def is_netfilter(key: str) -> bool:
    """Whether a sysctl is conntrack's or the packet filter's, and so comes after the rules."""
    return key.startswith("net.netfilter.")


def follows_the_link(key: str) -> bool:
    """Whether a sysctl is an interface's IPv6 MTU: the kernel sets it to the link's whenever that comes up, or gets
    carrier or another MTU (addrconf_notify, net/ipv6/addrconf.c)."""
    return key.startswith("net.ipv6.conf.") and key.endswith(".mtu")


def _configure(netns: Netns, interfaces: list[Interface]) -> Iterator[Step]:
    yield SetUp(netns.name, "lo")
    for address in netns.loopback:
        yield AddAddress(netns.name, "lo", address)
    for interface in interfaces:
        yield _set_up(netns, interface)
        for address in interface.addresses:
            yield AddAddress(netns.name, interface.ifname, address, interface.prefix_route)
    for route in netns.routes:
        if _passable(route, interfaces):
            yield AddRoute(netns.name, route)


def _passable(route: Route, interfaces: list[Interface]) -> bool:
    """Whether a route's interface is up: through one that isn't, the kernel has no route."""
    if route.dev is not None:
        through = [interface.up for interface in interfaces if interface.ifname == route.dev]
    elif route.via is not None:
        via = route.via
        through = [i.up for i in interfaces if any(via in address.network for address in i.addresses)]
    else:
        return True
    return not through or any(through)


def _set_up(netns: Netns, interface: Interface) -> SetUp:
    """The step that brings an interface up (or leaves it down), with IPv6 only where the topology asks for it: by an
    address, or by a sysctl that says how link-local addresses are made.

    Each new port's duplicate address detection and router solicitation floods its bridge: the square of the ports.
    """
    names = (interface.ifname.replace(".", "/"), "all", "default")
    said = {f"net.ipv6.conf.{name}.addr_gen_mode" for name in names}
    link_local = any(address.version == 6 for address in interface.addresses)
    link_local = link_local or any(key in said for key, _ in netns.sysctls)
    return SetUp(interface.netns, interface.ifname, interface.up, link_local)


def hosts(topology: Topology) -> str:
    """The lab's /etc/hosts: each namespace by its primary addresses, each Service by its cluster IPs."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    primary = topology.primary_addresses()
    for netns in topology.namespaces:
        lines += [f"{primary[netns.name, v]} {netns.name}" for v in (4, 6) if (netns.name, v) in primary]
    for service in topology.services:
        names = (
            f"{service.name} {service.name}.{service.namespace} {service.name}.{service.namespace}.svc.cluster.local"
        )
        lines += [f"{address} {names}" for address in service.cluster_ips]
    return "\n".join(lines) + "\n"


def as_text(steps: list[Step], prefix: str) -> str:
    """One description a line, with its twin below it."""
    lines = []
    for step in steps:
        lines.append(step.describe())
        lines += [f"    {line}" for line in step.twin(prefix).splitlines()]
    return "\n".join(lines) + "\n"


def as_json(steps: list[Step], topology: Topology) -> str:
    """An object with `lab` and `steps`, each with `step` (its kind), `describes` and `twin`."""
    items = [
        {"step": step_name(step), "describes": step.describe(), "twin": step.twin(topology.name + "-")}
        for step in steps
    ]
    return escapes.as_json({"lab": topology.name, "steps": items})


def as_shell(steps: list[Step], topology: Topology) -> str:
    """A script that builds the same lab with iproute2, nftables and procps alone; its head says how to remove it."""
    prefix = topology.name + "-"
    removal = " ".join(prefix + netns.name for netns in topology.namespaces)
    head = f"""#!/bin/sh
# The lab {topology.name}. Run as root, or as anyone in a shell with a /run, and an /etc to write to, of its own:
#   unshare -Urnm sh -c 'mount -t tmpfs none /run; cp -r /etc /run 2>/dev/null; mount --bind /run/etc /etc; exec sh'
# To remove it: for n in {removal}; do ip netns pids $n | xargs -r kill; ip netns del $n; rm -rf /etc/netns/$n; done
set -eu
"""
    return head + "".join(f"\n# {step.describe()}\n{step.twin(prefix)}\n" for step in steps)
