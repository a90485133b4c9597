"""How large a lab may be: told while it is made, before what takes time or memory with its size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netlab.model import Service
from netlab.yamlspec.document import Item, Reader
from netlab.yamlspec.limits import MAX_INTERFACES, MAX_NAMESPACES, MAX_ROUTES, MAX_RULES


class Size:
    """What a lab of this document has, so far; each method raises TopologyError once that is too much."""

    def __init__(self, reader: Reader, root: Item) -> None:
        self._reader = reader
        self._root = root
        self._interfaces = self._routes = self._sockets = 0

    def namespaces(self, count: int) -> None:
        """So many there are."""
        self._check("namespaces", "namespaces", count, MAX_NAMESPACES)

    def interfaces(self, count: int) -> None:
        """So many more there are."""
        self._interfaces += count
        self._check("namespaces", "interfaces", self._interfaces, MAX_INTERFACES)

    def routes(self, count: int) -> None:
        """So many more there are, or are looked for."""
        self._routes += count
        self._check("namespaces", "routes", self._routes, MAX_ROUTES, "routing: none derives none")

    def rules(self, services: Iterable[Service], nodes: Sequence[str]) -> None:
        """So many there are of kube-proxy's for a port and an endpoint, on all nodes together."""
        count = sum(map(_rules, services)) * len(nodes)
        self._check("services", "rules on its nodes, by its services' ports and endpoints", count, MAX_RULES)

    def sockets(self, count: int) -> None:
        """So many more ports there are at addresses of Services beside their cluster IPs."""
        self._sockets += count
        self._check("services", "ports of virtual addresses", self._sockets, MAX_RULES)

    def _check(self, section: str, what: str, count: int, most: int, hint: str = "make it smaller") -> None:
        if count > most:
            given = section in self._root
            self._reader.refuse(
                self._root[section] if given else self._root, f"the lab has more than {most:,} {what}", hint
            )


def _rules(service: Service) -> int:
    """How many a Service has on a node, by its ports, endpoints and families: those of session affinity are longer."""
    each = len(service.ports) * (len(service.endpoints) + 2)
    return each * len(service.cluster_ips) * (1 if service.session_affinity_s is None else 2)
