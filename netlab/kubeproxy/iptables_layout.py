"""kube-proxy's iptables mode: which chains a node gets for the Services of a lab, and which rules stand in them.

The decisions, names, comments and the order of rules are those of kube-proxy v1.33 (pkg/proxy/iptables/proxier.go of
Kubernetes' release-1.33) as it starts without options, on a kernel without nfnetlink_acct, whose counters it would put
into the rule against INVALID packets and into one more for each node port. Services come in the topology's order;
kube-proxy's own is any. These differ:

- KUBE-FORWARD drops INVALID packets only where the topology's `drop_invalid` asks for it, as if the cluster were older
  than v1.15: that is what the labs are about.
- Where the pods have several networks of a family, all of them are the cluster's, while kube-proxy knows one.
- Some empty chains are missing: KUBE-PROXY-CANARY in the tables filter, nat and mangle, by whose absence kube-proxy
  learns that the rules were flushed, and kubelet's own, KUBE-KUBELET-CANARY and KUBE-IPTABLES-HINT.
- The rules of endpoints have their comments always: with more than 1,000 endpoints kube-proxy leaves them out.
- No port for health checks is accepted in KUBE-NODEPORTS: the labs have none.

As with kube-proxy, a node needs a route towards the Services' addresses (its default route will do): the packet is
rejected in the forward hook, and translated in the output hook, only after routing has found it a way.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from netlab.kubeproxy.names import Prefix, endpoint_chain, service_chain, socket_address
from netlab.kubeproxy.portals import MASQUERADE_BIT, VERSIONS, NodeView, Portal, cluster_networks, portals
from netlab.kubeproxy.rules import (
    ANY,
    Chain,
    CtState,
    Dnat,
    Family,
    FlipMark,
    Hook,
    Jump,
    Match,
    Recent,
    Rule,
    SetMark,
    Statement,
    Table,
    Verdict,
)
from netlab.model import Address, Network

_LOCALNET = IPv4Network("127.0.0.0/8")
_LOCALHOST6 = IPv6Network("::1/128")
_NEW = Match(ct_state=(CtState.NEW,))

# kube-proxy puts each of its jumps before what is in the chain: the last one of its list stands first.
_TO_LOCALNET = Rule(Jump("KUBE-FIREWALL"))
_TO_FIREWALL = Rule(Jump("KUBE-PROXY-FIREWALL"), _NEW, "kubernetes load balancer firewall")
_TO_HEALTH_CHECKS = Rule(Jump("KUBE-NODEPORTS"), comment="kubernetes health check service ports")
_TO_EXTERNAL = Rule(Jump("KUBE-EXTERNAL-SERVICES"), _NEW, "kubernetes externally-visible service portals")
_TO_FORWARD = Rule(Jump("KUBE-FORWARD"), comment="kubernetes forwarding rules")
_TO_FILTER = Rule(Jump("KUBE-SERVICES"), _NEW, "kubernetes service portals")
_TO_NAT = Rule(Jump("KUBE-SERVICES"), comment="kubernetes service portals")
_TO_POSTROUTING = Rule(Jump("KUBE-POSTROUTING"), comment="kubernetes postrouting rules")


TABLES = ("filter", "nat")
"""The names of the tables of each family."""


def tables(view: NodeView) -> tuple[Table, ...]:
    """The node's tables filter and nat of each family that a Service has a cluster IP of; ip comes before ip6."""
    made: list[Table] = []
    for family, version in VERSIONS.items():
        seen = tuple(portals(view.services, view.node, version))
        if seen:
            made.append(_filter(family, seen, view.drops_invalid))
            cluster = cluster_networks(view.kube_proxy, version)
            made.append(_Nat(family, cluster, view.address(version)).table(seen))
    return tuple(made)


class _Writer:
    """Takes down a table as kube-proxy does: rules of many chains in turn, each at the end of its chain."""

    def __init__(self) -> None:
        self.declared: list[str] = []
        self.rules: dict[str, list[Rule]] = {}
        self.written: list[str] = []

    def declare(self, *chains: str) -> None:
        self.declared += chains

    def write(self, chain: str, statement: Statement, match: Match = ANY, comment: str = "") -> None:
        self.rules.setdefault(chain, []).append(Rule(statement, match, comment))
        self.written.append(chain)

    def made(self) -> tuple[Chain, ...]:
        return tuple(Chain(name, tuple(self.rules.get(name, ()))) for name in self.declared)


# --- filter -----------------------------------------------------------------------------------------------------------


def _filter(family: Family, seen: tuple[Portal, ...], drop_invalid: bool) -> Table:
    writer = _Writer()
    writer.declare("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL")
    writer.declare("KUBE-FIREWALL")
    if family == "ip":
        # Node ports are open at 127.0.0.1 too, and the sysctl for that would let others reach it from outside.
        known = (CtState.RELATED, CtState.ESTABLISHED, CtState.DNAT)
        coming = Match(destination=_LOCALNET, source_outside=_LOCALNET, ct_state_not=known)
        writer.write("KUBE-FIREWALL", Verdict.DROP, coming, "block incoming localnet connections")
    for portal in seen:
        _refuse(writer, portal)
    if drop_invalid:
        writer.write("KUBE-FORWARD", Verdict.DROP, Match(ct_state=(CtState.INVALID,)))
    writer.write("KUBE-FORWARD", Verdict.ACCEPT, Match(marked=MASQUERADE_BIT), "kubernetes forwarding rules")
    tracked = (CtState.RELATED, CtState.ESTABLISHED)
    writer.write("KUBE-FORWARD", Verdict.ACCEPT, Match(ct_state=tracked), "kubernetes forwarding conntrack rule")
    base = (
        Chain("INPUT", (_TO_LOCALNET, _TO_FIREWALL, _TO_HEALTH_CHECKS, _TO_EXTERNAL), Hook("filter", "input", 0)),
        Chain("FORWARD", (_TO_FIREWALL, _TO_FORWARD, _TO_FILTER, _TO_EXTERNAL), Hook("filter", "forward", 0)),
        Chain("OUTPUT", (_TO_LOCALNET, _TO_FIREWALL, _TO_FILTER), Hook("filter", "output", 0)),
    )
    unwritten = ("KUBE-FIREWALL",) if family == "ip6" else ()
    return Table(family, "filter", (*base, *writer.made()), tuple(writer.written), unwritten=unwritten)


def _refuse(writer: _Writer, portal: Portal) -> None:
    # With endpoints on other nodes only, it is the sender's load balancer that chose the wrong node: silence.
    target = Verdict.DROP if portal.endpoints else Verdict.REJECT
    comment = f"{portal.name} has no {'local ' if portal.endpoints else ''}endpoints"
    if not portal.for_internal:
        writer.write("KUBE-SERVICES", target, _at(portal, portal.cluster_ip), comment)
    if not portal.for_external:
        for address in portal.external_ips:
            writer.write("KUBE-EXTERNAL-SERVICES", target, _at(portal, address), comment)
    if _is_walled(portal):
        firewall = f"{portal.name} traffic not accepted by {_chain(portal, Prefix.FIREWALL)}"
        for address in portal.load_balancer_ips:
            writer.write("KUBE-PROXY-FIREWALL", Verdict.DROP, _at(portal, address), firewall)
    if not portal.for_external:
        for address in portal.load_balancer_ips:
            writer.write("KUBE-EXTERNAL-SERVICES", target, _at(portal, address), comment)
        if portal.port.node_port is not None:
            at = Match(destination_is_local=True, protocol=portal.port.protocol, port=portal.port.node_port)
            writer.write("KUBE-EXTERNAL-SERVICES", target, at, comment)


# --- nat --------------------------------------------------------------------------------------------------------------


class _Nat:
    """The table nat of one family. cluster are the pods' networks, node_ip is the node's primary address."""

    def __init__(self, family: Family, cluster: tuple[Network, ...], node_ip: Address | None) -> None:
        self.family = family
        self.everywhere = any(network.prefixlen == 0 for network in cluster)
        self.cluster = cluster
        self.node_ip = node_ip
        self.writer = _Writer()
        self.timeouts_s: dict[str, int] = {}

    def table(self, seen: tuple[Portal, ...]) -> Table:
        """The whole table for these portals."""
        writer = self.writer
        writer.declare("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ")
        writer.write("KUBE-POSTROUTING", Verdict.RETURN, Match(unmarked=MASQUERADE_BIT))
        # Cleared, so that the packet isn't masqueraded again when it comes by a second time.
        writer.write("KUBE-POSTROUTING", FlipMark(MASQUERADE_BIT))
        requiring = "kubernetes service traffic requiring SNAT"
        writer.write("KUBE-POSTROUTING", Verdict.MASQUERADE, comment=requiring)
        writer.write("KUBE-MARK-MASQ", SetMark(MASQUERADE_BIT))
        if len(self.cluster) > 1 and not self.everywhere:
            self._off_cluster()
        for portal in seen:
            self._capture(portal)
            self._chains(portal)
        # At ::1 no node port ever works, at 127.0.0.1 with the sysctl route_localnet.
        not_here = _LOCALHOST6 if self.family == "ip6" else None
        writer.write(
            "KUBE-SERVICES",
            Jump("KUBE-NODEPORTS"),
            Match(destination_is_local=True, destination_outside=not_here),
            "kubernetes service nodeports; NOTE: this must be the last rule in this chain",
        )
        base = (
            Chain("PREROUTING", (_TO_NAT,), Hook("nat", "prerouting", -100)),
            Chain("OUTPUT", (_TO_NAT,), Hook("nat", "output", -100)),
            Chain("POSTROUTING", (_TO_POSTROUTING,), Hook("nat", "postrouting", 100)),
        )
        chains = (*base, *writer.made())
        return Table(self.family, "nat", chains, tuple(writer.written), tuple(self.timeouts_s.items()))

    def _off_cluster(self) -> None:
        # iptables can't say "in none of these" in one rule, and the kernel follows no more than 16 jumps into one
        # another (NFT_JUMP_STACK_SIZE): so this is a chain of its own, to return from.
        self.writer.declare("KUBE-OFF-CLUSTER")
        for network in self.cluster:
            self.writer.write("KUBE-OFF-CLUSTER", Verdict.RETURN, Match(source=network))
        self.writer.write("KUBE-OFF-CLUSTER", Jump("KUBE-MARK-MASQ"))

    def _capture(self, portal: Portal) -> None:
        """Which destinations lead to the portal's chains."""
        write, external = self.writer.write, Jump(_chain(portal, Prefix.EXTERNAL))
        if portal.for_internal:
            internal = Jump(_chain(portal, Prefix.LOCAL if portal.internal_local else Prefix.CLUSTER))
            write("KUBE-SERVICES", internal, _at(portal, portal.cluster_ip), f"{portal.name} cluster IP")
        if not portal.endpoints:
            return
        for address in portal.external_ips:
            write("KUBE-SERVICES", external, _at(portal, address), f"{portal.name} external IP")
        load_balancer = Jump(_chain(portal, Prefix.FIREWALL)) if _is_walled(portal) else external
        for address in portal.load_balancer_ips:
            write("KUBE-SERVICES", load_balancer, _at(portal, address), f"{portal.name} loadbalancer IP")
        if portal.port.node_port is not None:
            at = Match(protocol=portal.port.protocol, port=portal.port.node_port)
            write("KUBE-NODEPORTS", external, at, portal.name)

    def _chains(self, portal: Portal) -> None:
        """The portal's own chains."""
        if portal.for_internal:
            self._mark_off_cluster(portal)
        if portal.endpoints and portal.external:
            self._from_outside(portal)
        if _is_walled(portal):
            self._firewall(portal)
        if portal.by_cluster_policy:
            self._balance(portal, Prefix.CLUSTER, portal.by_cluster_policy)
        if portal.by_local_policy:
            self._balance(portal, Prefix.LOCAL, portal.by_local_policy)
        for endpoint in portal.reachable:
            self._translate(portal, endpoint)

    def _mark_off_cluster(self, portal: Portal) -> None:
        # Whatever node such a client's packet was routed to, the answer must come back to it.
        chain = _chain(portal, Prefix.LOCAL if portal.internal_local else Prefix.CLUSTER)
        at, comment = _at(portal, portal.cluster_ip), f"{portal.name} cluster IP"
        if not self.cluster or self.everywhere:
            return
        if len(self.cluster) > 1:
            self.writer.write(chain, Jump("KUBE-OFF-CLUSTER"), at, comment)
        else:
            self.writer.write(chain, Jump("KUBE-MARK-MASQ"), at._replace(source_outside=self.cluster[0]), comment)

    def _from_outside(self, portal: Portal) -> None:
        chain = _chain(portal, Prefix.EXTERNAL)
        to, any_endpoint = f"{portal.name} external destinations", Jump(_chain(portal, Prefix.CLUSTER))
        self.writer.declare(chain)
        if not portal.external_local:
            # The endpoint may be on another node, and its answer must come back to this one.
            self.writer.write(chain, Jump("KUBE-MARK-MASQ"), comment=f"masquerade traffic for {to}")
        else:
            # What the cluster itself sends may use any endpoint, as if it had gone out to the load balancer and back.
            for network in (None,) if self.everywhere else self.cluster:
                self.writer.write(chain, any_endpoint, Match(source=network), f"pod traffic for {to}")
            own = Match(source_is_local=True)
            self.writer.write(chain, Jump("KUBE-MARK-MASQ"), own, f"masquerade LOCAL traffic for {to}")
            self.writer.write(chain, any_endpoint, own, f"route LOCAL traffic for {to}")
        if portal.for_external:
            policy = Prefix.LOCAL if portal.external_local else Prefix.CLUSTER
            self.writer.write(chain, Jump(_chain(portal, policy)))

    def _firewall(self, portal: Portal) -> None:
        # Who gets to its end is not translated, so that the rule in the filter table knows him.
        chain, external = _chain(portal, Prefix.FIREWALL), Jump(_chain(portal, Prefix.EXTERNAL))
        comment = f"{portal.name} loadbalancer IP"
        self.writer.declare(chain)
        for network in portal.source_ranges:
            self.writer.write(chain, external, Match(source=network), comment)
        # A node in the ranges may reach the load balancer from the very address, where that is one of the node's own.
        if self.node_ip is not None and any(self.node_ip in network for network in portal.source_ranges):
            for address in portal.load_balancer_ips:
                self.writer.write(chain, external, Match(source=address), comment)
        others = f"other traffic to {portal.name} will be dropped by KUBE-PROXY-FIREWALL"
        self.writer.write(chain, Verdict.COUNT, comment=others)

    def _balance(self, portal: Portal, prefix: Prefix, endpoints: tuple[Address, ...]) -> None:
        chain = _chain(portal, prefix)
        self.writer.declare(chain)
        comments = [f"{portal.name} -> {socket_address(e, portal.port.target_port)}" for e in endpoints]
        chains = [_endpoint_chain(portal, endpoint) for endpoint in endpoints]
        timeout_s = portal.service.session_affinity_s
        if timeout_s is not None:
            for to, comment in zip(chains, comments, strict=True):
                self.writer.write(chain, Jump(to), Match(recent=Recent(to, timeout_s)), comment)
                self.timeouts_s[to] = timeout_s
        for index, (to, comment) in enumerate(zip(chains, comments, strict=True)):
            left = len(endpoints) - index
            self.writer.write(chain, Jump(to), Match(one_in=left) if left > 1 else ANY, comment)

    def _translate(self, portal: Portal, endpoint: Address) -> None:
        chain = _endpoint_chain(portal, endpoint)
        self.writer.declare(chain)
        # A pod that reaches itself through the Service must see another address than its own, or the reply never
        # leaves it.
        self.writer.write(chain, Jump("KUBE-MARK-MASQ"), Match(source=endpoint), portal.name)
        seen = Recent(chain) if portal.service.session_affinity_s is not None else None
        to = Dnat(endpoint, portal.port.target_port)
        self.writer.write(chain, to, Match(protocol=portal.port.protocol, recent=seen), portal.name)


def _at(portal: Portal, address: Address) -> Match:
    return Match(destination=address, protocol=portal.port.protocol, port=portal.port.port)


def _chain(portal: Portal, prefix: Prefix) -> str:
    return service_chain(portal.name, portal.port.protocol, prefix)


def _endpoint_chain(portal: Portal, endpoint: Address) -> str:
    return endpoint_chain(portal.name, portal.port.protocol, endpoint, portal.port.target_port)


def _is_walled(portal: Portal) -> bool:
    return bool(portal.endpoints and portal.load_balancer_ips and portal.source_ranges)
