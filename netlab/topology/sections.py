"""The sections of a topology document, and what they refer to each other by: names of namespaces, roles, pools."""

from __future__ import annotations

from ipaddress import ip_network

from netlab.model import Network, Role
from netlab.topology.kept import Former
from netlab.topology.language import POOL_DEFAULTS
from netlab.topology.size import Size
from netlab.yamlspec.document import Item, Reader, suggest


class Sections:
    """A document that was read, for those who make parts of the model of it; problems go to the reader."""

    def __init__(self, reader: Reader, root: Item) -> None:
        self.reader = reader
        self.root = root
        self.size = Size(reader, root)
        self.items: dict[str, Item] = root.get("namespaces", {})
        self.size.namespaces(len(self.items))
        self.roles = {name: Role(item.get("role", "host")) for name, item in self.items.items()}
        self.service_items: dict[str, Item] = root.get("services", {})
        self.ipv6: bool = root.get("ipv6", False)
        given = root.get("addressing", {})
        self.pools: dict[str, Network] = {
            pool: given[pool].value if pool in given else ip_network(default) for pool, default in POOL_DEFAULTS.items()
        }
        kept: dict[str, Item] = given["keep"].value if "keep" in given else {}
        self.former = Former({name: [address.value for address in item.value] for name, item in kept.items()})

    def known(self, item: Item) -> bool:
        """Whether an item names a namespace; a problem where it doesn't."""
        if item.value in self.roles:
            return True
        self.reader.at(item, f"no namespace is called {item.value!r}", suggest(item.value, self.roles))
        return False
