"""The Services of a topology and its kube_proxy section: cluster IPs, ports, the other ways in, who serves.

Pure, a part of `resolve.py`'s work: problems go to the reader, and what has problems comes out incomplete.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from netlab.kubeproxy.portals import cluster_networks
from netlab.model import (
    Address,
    DropInvalid,
    Endpoint,
    InterfaceAddress,
    KubeProxy,
    Loader,
    Mode,
    Netns,
    Network,
    NftTable,
    Protocol,
    Role,
    Service,
    ServicePort,
    TrafficPolicy,
    is_per_link,
)
from netlab.topology import addresses as addressing
from netlab.topology.language import PORT_KEYS
from netlab.topology.sections import Sections
from netlab.topology.wiring import Wiring
from netlab.yamlspec.document import Item

KUBE_PROXY_TABLES = tuple(f"{family} {name}" for family in ("ip", "ip6") for name in ("nat", "filter", "kube-proxy"))
"""The tables that kube-proxy's rules stand in, in either mode."""

_POD_MASQUERADE = "pod-masquerade"


class Services:
    """Makes the Services of one document. namespaces are finished but for their routes."""

    def __init__(self, sections: Sections, wiring: Wiring, namespaces: Sequence[Netns]) -> None:
        self.reader = sections.reader
        self.sections = sections
        self.items = sections.service_items
        self.wiring = wiring
        self.nodes = {n.name: n.name if n.role is Role.NODE else n.node for n in namespaces}
        self.addresses: dict[str, list[Address]] = {name: [] for name in sections.items}
        self.subnets: dict[Network, str] = {}
        for interface in wiring.interfaces():
            for address in (each for each in interface.addresses if not is_per_link(each.ip)):
                self.addresses[interface.netns].append(address.ip)
                self.subnets.setdefault(address.network, f"{interface.netns}:{interface.ifname}")
        self.around = addressing.Networks(self.subnets)
        for name, item in sections.items.items():
            self.addresses[name] += [_ip(address.value) for address in item.get("loopback", [])]
        self.taken: dict[Address, str] = {ip: name for name, ips in self.addresses.items() for ip in ips}
        self.node_ports: dict[tuple[Protocol, int], int] = {}
        self.sockets: dict[tuple[Protocol, Address, int], str] = {}

    def all(self) -> list[Service]:
        """Every Service, its cluster IPs assigned where they were left open."""
        for name, item in self.items.items():
            for given in item.get("cluster_ip", []):
                self._check_cluster_ip(given)
                self.taken.setdefault(given.value, f"the service {name}")
        virtual = {
            given.value
            for item in self.items.values()
            for key in ("external_ips", "load_balancer_ips")
            for given in item.get(key, [])
        }
        pools = {4: self.sections.pools["services"], 6: self.sections.pools["services6"]}
        taken = {*self.taken, *virtual}
        self.kept: dict[tuple[str, int], Address] = {}
        for name in (name for name, item in self.items.items() if "cluster_ip" not in item):
            for version, pool in pools.items():
                if (again := self.sections.former.service(name, pool, taken)) is not None:
                    self.kept[name, version] = again
                    taken.add(again)
        self.free = {
            version: addressing.hosts(pool, {int(ip) for ip in taken if ip.version == version})
            for version, pool in pools.items()
        }
        made = [self._service(name, item) for name, item in self.items.items()]
        self.cluster_ips = {ip: service.name for service in made for ip in service.cluster_ips}
        return [self._with_other_ways(service, item) for service, item in zip(made, self.items.values(), strict=True)]

    def ranges(self) -> tuple[Network, ...]:
        """The ranges that cluster IPs are given from, which are then known: without those that others live in too."""
        pools = (self.sections.pools["services"], self.sections.pools["services6"])
        used = [pool for pool in pools if any(ip in pool for ip in self.cluster_ips)]
        own = [ip for ips in self.addresses.values() for ip in ips]
        return tuple(p for p in used if not any(ip in p for ip in own) and not any(p.overlaps(s) for s in self.subnets))

    def _service(self, name: str, item: Item) -> Service:
        if name in self.sections.items:
            hint = "names of both resolve inside the lab; call one of them differently"
            self.reader.at(item, f"a namespace is called {name!r} too", hint)
        backends = self._endpoints(item)
        cluster_ips = (
            self._families(item["cluster_ip"]) if "cluster_ip" in item else self._assigned(name, item, backends)
        )
        endpoints = []
        for backend in backends:
            broken = backend.value in self.wiring.broken
            ips = self._endpoint_addresses(backend, cluster_ips, self.addresses[backend.value], broken)
            endpoints.append(Endpoint(backend.value, ips, self.nodes.get(backend.value)))
        return Service(
            name,
            tuple(cluster_ips),
            self._ports(item),
            tuple(endpoints),
            item.get("namespace", "default"),
            session_affinity_s=item["session_affinity"].get("timeout_s") if "session_affinity" in item else None,
            internal_traffic_policy=TrafficPolicy(item.get("internal_traffic_policy", "Cluster")),
            external_traffic_policy=TrafficPolicy(item.get("external_traffic_policy", "Cluster")),
        )

    def _assigned(self, name: str, item: Item, backends: Iterable[Item]) -> list[Address]:
        found = {ip.version for backend in backends for ip in self.addresses[backend.value]}
        versions = [4] if 4 in found or not found else [6]
        if self.sections.ipv6 and versions == [4]:
            versions.append(6)
        cluster_ips: list[Address] = []
        for version in versions:
            if (name, version) in self.kept:
                cluster_ips.append(self.kept[name, version])
                continue
            number = next(self.free[version], None)
            if number is None:
                pool = "services" if version == 4 else "services6"
                message = f"no address is left in {self.sections.pools[pool]}"
                self.reader.at(item, message, f"a larger pool: addressing.{pool}")
            else:
                cluster_ips.append(IPv4Address(number) if version == 4 else IPv6Address(number))
        return cluster_ips

    def _check_cluster_ip(self, given: Item) -> None:
        ip = given.value
        if ip in self.taken:
            message = f"{ip} is the address of {self.taken[ip]} already"
            self.reader.at(given, message, "a cluster IP belongs to one service")
            return
        number = self.around.first(ip)
        if number is not None:
            subnet, user = list(self.subnets.items())[number]
            hint = "hosts in that subnet look for it on their own link and never send it to a node"
            self.reader.at(given, f"{ip} is inside {subnet}, the subnet of {user}", hint)

    def _families(self, given: Item) -> list[Address]:
        result: list[Address] = []
        for item in given.value:
            if any(ip.version == item.value.version for ip in result):
                family = f"IPv{item.value.version}"
                self.reader.at(item, f"the service has an {family} cluster IP already", "one of each family")
            else:
                result.append(item.value)
        return result

    def _endpoints(self, item: Item) -> list[Item]:
        result: dict[str, Item] = {}
        for endpoint in item.get("endpoints", []):
            if endpoint.value in result:
                self.reader.at(endpoint, f"{endpoint.value!r} is an endpoint already")
            elif self.sections.known(endpoint):
                result[endpoint.value] = endpoint
        return list(result.values())

    def _endpoint_addresses(
        self, endpoint: Item, cluster_ips: Iterable[Address], own: Sequence[Address], broken: bool
    ) -> tuple[Address, ...]:
        result = []
        for version in (ip.version for ip in cluster_ips):
            address = next((ip for ip in own if ip.version == version), None)
            if address is not None:
                result.append(address)
            elif not broken:
                hint = "the service has a cluster IP of that family; put it on a bridge or link, or set ipv6: true"
                self.reader.at(endpoint, f"{endpoint.value} has no IPv{version} address", hint)
        return tuple(result)

    def _ports(self, item: Item) -> tuple[ServicePort, ...]:
        short = [key for key in PORT_KEYS if key in item]
        if "ports" in item and short:
            self.reader.at(item[short[0]], f"{short[0]!r} beside 'ports'", "put it into the list")
        if "ports" not in item and "port" not in item:
            if not item.broken:
                self.reader.at(item, "the service has no port", "port: 80, or a list: ports: [{port: 80}]")
            return ()
        result: list[ServicePort] = []
        taken: set[object] = set()
        for port in item.get("ports", [item]):
            if "port" not in port:
                continue
            number = port["port"].value
            name = port.get("name", "") if "ports" in item else ""
            protocol = Protocol(port.get("protocol", "TCP"))
            made = ServicePort(number, port.get("target_port", number), protocol, name, port.get("node_port"))
            if (made.port, made.protocol) in taken:
                self.reader.at(port["port"], f"the service has {made.protocol} port {number} already")
            if not name and len(item.get("ports", [])) > 1:
                self.reader.at(port, "one of several ports needs a name", "name: http")
            elif name and name in taken:
                self.reader.at(port["name"], f"the service has a port {name!r} already")
            if made.node_port is not None:
                self._check_node_port(port["node_port"], made)
            result.append(made)
            taken.update(((made.port, made.protocol), name))
        return tuple(result)

    def _check_node_port(self, given: Item, port: ServicePort) -> None:
        key = port.protocol, given.value
        if key in self.node_ports:
            message = f"the {port.protocol} node port {given.value} is taken already"
            hint = f"see line {self.node_ports[key]}; a node port belongs to one port of one service"
            self.reader.at(given, message, hint)
        self.node_ports.setdefault(key, given.line)

    def _with_other_ways(self, service: Service, item: Item) -> Service:
        """The Service with what reaches it beside its cluster IPs, once every cluster IP is known."""
        given = {key: item.get(key, []) for key in ("external_ips", "load_balancer_ips")}
        self.sections.size.sockets(len(service.ports) * sum(map(len, given.values())))
        for addresses in given.values():
            for address in addresses:
                self._check_virtual_ip(service, address)
        ranges = item.get("load_balancer_source_ranges", [])
        balanced = {address.value.version for address in given["load_balancer_ips"]}
        for source in ranges:
            if source.value.version not in balanced:
                family = f"IPv{source.value.version}"
                hint = f"load_balancer_ips: one {family} address or more, which the ranges are for"
                self.reader.at(source, f"the service has no {family} load-balancer IP", hint)
        ways = any(given.values()) or any(port.node_port is not None for port in service.ports)
        if service.external_traffic_policy is TrafficPolicy.LOCAL and not ways and not item.broken:
            hint = (
                "give it a node_port, external_ips or load_balancer_ips; for its cluster IPs: internal_traffic_policy"
            )
            self.reader.at(item["external_traffic_policy"], "nothing outside reaches the service", hint)
        return service._replace(
            external_ips=tuple(address.value for address in given["external_ips"]),
            load_balancer_ips=tuple(address.value for address in given["load_balancer_ips"]),
            load_balancer_source_ranges=tuple(source.value for source in ranges),
        )

    def _check_virtual_ip(self, service: Service, given: Item) -> None:
        ip = given.value
        if not any(ip.version == cluster_ip.version for cluster_ip in service.cluster_ips):
            hint = "kube-proxy serves a family only where the service has a cluster IP of it: add one to cluster_ip"
            self.reader.at(given, f"the service has no IPv{ip.version} cluster IP", hint)
        if ip in self.cluster_ips:
            owner = self.cluster_ips[ip]
            self.reader.at(given, f"{ip} is the cluster IP of the service {owner}", "use another address")
            return
        for subnet, user in self.subnets.items():
            if ip.version == 4 and subnet.prefixlen < 31 and ip in (subnet.network_address, subnet.broadcast_address):
                said = "broadcast" if ip == subnet.broadcast_address else "network's own"
                self.reader.at(given, f"{ip} is the {said} address of {subnet}, the subnet of {user}")
                return
        for port in service.ports:
            key = port.protocol, ip, port.port
            if key in self.sockets:
                message = f"{port.protocol} port {port.port} of {ip} is the service {self.sockets[key]}'s already"
                self.reader.at(given, message, "another address, or another port")
            self.sockets.setdefault(key, service.name)


def kube_proxy_of(sections: Sections, wiring: Wiring, service_cidrs: tuple[Network, ...]) -> KubeProxy:
    """Where rules go and which networks are the pods', with the defaults that follow from the rest."""
    fields: dict[str, Item] = sections.root.get("kube_proxy", {})
    busy = bool(sections.service_items) or _masquerades_pods(sections)
    if "nodes" in fields:
        nodes: list[str] = []
        twice: set[str] = set()
        for item in fields["nodes"].value:
            if not sections.known(item):
                continue
            if sections.roles[item.value] is not Role.NODE:
                hint = "kube-proxy's rules translate what a node forwards"
                sections.reader.at(item, f"{item.value!r} is a {sections.roles[item.value]}, not a node", hint)
            elif item.value in twice:
                sections.reader.at(item, f"{item.value!r} is there twice")
            nodes.append(item.value)
            twice.add(item.value)
    else:
        nodes = [name for name, role in sections.roles.items() if role is Role.NODE] if busy else []
        read = "namespaces" in sections.root and not sections.root["namespaces"].broken
        if sections.service_items and not nodes and read:
            hint = "give the namespace that forwards the clients' packets role: node"
            sections.reader.at(
                sections.root["services"], "nothing translates a cluster IP: no namespace is a node", hint
            )
    for node in nodes:
        for name, table in sections.items[node].get("tables", {}).items():
            if name in KUBE_PROXY_TABLES:
                sections.reader.at(table, f"{name} is kube-proxy's table on {node}", "call yours differently")
            elif name.split()[-1] == _POD_MASQUERADE and _masquerades_pods(sections):
                sections.reader.at(table, f"{name} is masquerade_pods' table on {node}", "call yours differently")
    if "cluster_cidrs" in fields:
        cidrs = [item.value for item in fields["cluster_cidrs"].value]
    else:
        cidrs = list(
            dict.fromkeys(
                address.network
                for interface in wiring.interfaces()
                if sections.roles[interface.netns] is Role.POD
                for address in interface.addresses
                if not is_per_link(address.ip)
            )
        )
    given = fields["drop_invalid"].value if "drop_invalid" in fields else False
    drop_invalid = {True: DropInvalid.ALWAYS, False: DropInvalid.NEVER}.get(given, DropInvalid.UNLESS_LIBERAL)
    mode = Mode(fields["mode"].value) if "mode" in fields else Mode.IPTABLES
    load_with = Loader(fields["load_with"].value) if "load_with" in fields else Loader.LIBNFTABLES
    if mode is Mode.NFTABLES and load_with is Loader.IPTABLES_RESTORE:
        hint = "leave out load_with: libnftables does it"
        sections.reader.at(fields["load_with"], "iptables-restore can't load the rules of the nftables mode", hint)
    return KubeProxy(tuple(nodes), tuple(cidrs) if busy else (), drop_invalid, mode, load_with, service_cidrs)


def _masquerades_pods(sections: Sections) -> bool:
    fields: dict[str, Item] = sections.root.get("kube_proxy", {})
    return "masquerade_pods" in fields and bool(fields["masquerade_pods"].value)


def pod_masquerade(sections: Sections, kube_proxy: KubeProxy) -> tuple[NftTable, ...]:
    """The tables that give what pods send out of the cluster its node's address, where that is asked for.

    kube-proxy has no part in it: in a cluster it is the network plugin's (`ipMasq` of the CNI plugins, in
    pkg/ip/ipmasq_linux.go) or ip-masq-agent's, who leave multicast alone too. So the tables are apart from its own.
    """
    if not _masquerades_pods(sections):
        return ()
    made = []
    for family, version, multicast in (("ip", 4, "224.0.0.0/4"), ("ip6", 6, "ff00::/8")):
        networks = [str(network) for network in cluster_networks(kube_proxy, version)]
        if networks:
            inside = ", ".join(networks)
            body = f"""chain postrouting {{
\ttype nat hook postrouting priority 100; policy accept;
\t{family} saddr {{ {inside} }} {family} daddr != {{ {inside}, {multicast} }} counter masquerade
}}"""
            made.append(NftTable(family, _POD_MASQUERADE, body))
    return tuple(made)


def _ip(address: Address | InterfaceAddress) -> Address:
    return address.ip if isinstance(address, IPv4Interface | IPv6Interface) else address
