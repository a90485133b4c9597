"""apply: carries steps out in the kernel, through rtnetlink, libnftables and /proc/sys.

rtnetlink requests that follow each other in one namespace are sent together, with one acknowledgement at the end; the
kernel carries them out in order and reports each that fails. Making and removing namespaces and starting programs is
`lifecycle.py`'s, who knows what must be written down first.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, assert_never

from netlab import advice
from netlab.errors import NetlabError, StepError, UnsupportedError, told
from netlab.escapes import Lines
from netlab.kubeproxy import iptables_save
from netlab.kubeproxy.affinity import reminders
from netlab.kubeproxy.iptables_save import NO_RULES
from netlab.kubeproxy.rules import Table
from netlab.lab import iptables, qdiscs
from netlab.lab.netns import Namespaces
from netlab.lab.plan import follows_the_link, interface_of
from netlab.lab.rule_steps import (
    ClearRules,
    CoverRules,
    DeleteEntries,
    DeleteRules,
    DeleteStaleEntries,
    DeleteTable,
    LoadRules,
    LoadTable,
    RestoreRules,
    UncoverRules,
)
from netlab.lab.steps import (
    AddAddress,
    AddQdisc,
    AddRoute,
    CreateLink,
    DeleteAddress,
    DeleteLink,
    DeleteQdisc,
    DeleteRoute,
    ForgetNeighbours,
    KernelStep,
    OtherKernelStep,
    ResetSysctl,
    RtnetlinkStep,
    SetLink,
    SetSysctl,
    SetUp,
)
from netlab.links.attributes import numbered, numbered_of_change
from netlab.linux import nft, rtnl, sysctl, tc
from netlab.model import Interface, NftTable

if TYPE_CHECKING:
    from netlab.kubeproxy import Family, Ruleset
    from netlab.kubeproxy.stale import Frontend
    from netlab.model import Address, Link

FIRST_IFINDEX = 100
"""Where a lab's ifindexes begin in each namespace: above the tunnel devices that some kernels put into every one."""

_FORWARDS = "net.ipv4.ip_forward"
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11  # include/uapi/linux/netlink.h
_SEND_BYTES = 1 << 16
"""How much is sent at once: well under the default send buffer (net.core.wmem_default, 212,992 bytes)."""

_LONGEST_TWIN = 20
"""Lines of what does the same by hand: more of them help nobody in a message."""


class Kernel:
    """Applies steps to the namespaces of one lab.

    indexes maps (netns, ifname) to the ifindex of every link that is there already; new links get the next free ones.
    """

    def __init__(self, namespaces: Namespaces, indexes: dict[tuple[str, str], int] | None = None) -> None:
        self._namespaces = namespaces
        self._indexes = dict(indexes or {})
        self._next: dict[str, int] = {}
        for (netns, _), index in self._indexes.items():
            self._next[netns] = max(self._next.get(netns, FIRST_IFINDEX), index + 1)
        self._batch = _Batch()

    def apply(self, steps: Iterable[KernelStep], done: Callable[[KernelStep], None] = lambda _step: None) -> None:
        """Carry out the steps in order; done is called with each before the next begins or is batched.

        Raises StepError with the step and the kernel's own words at the first that fails; the steps batched with it
        may have been carried out.
        """
        for step in steps:
            if isinstance(step, RtnetlinkStep):
                if self._batch.netns != step.netns or self._batch.size > _SEND_BYTES:
                    self._flush()
                    self._batch.netns = step.netns
                for message in self._messages(step):
                    self._batch.add(step, message)
            else:
                self._flush()
                self._effect(step)
            done(step)
        self._flush()

    # --- rtnetlink ---------------------------------------------------------------------------------------------------

    def _messages(self, step: RtnetlinkStep) -> list[bytes]:
        """The rtnetlink requests that carry a step out."""
        match step:
            case SetUp(netns, ifname, up, link_local):
                index = self._index(netns, ifname)
                quiet = [] if link_local else [rtnl.no_link_local(index)]
                return [*quiet, rtnl.set_up(index, up=up)]
            case AddAddress(netns, ifname, address, prefix_route):
                return [rtnl.new_address(self._index(netns, ifname), address, prefix_route=prefix_route)]
            case AddRoute(netns, route):
                return [rtnl.new_route(route, None if route.dev is None else self._index(netns, route.dev))]
            case CreateLink(link):
                return [self._new_link(link)]
            case SetLink(interface, keeps_master):
                master = 0 if interface.master is None else self._index(interface.netns, interface.master)
                attributes = numbered_of_change(interface.attributes)
                index = self._index(interface.netns, interface.ifname)
                return [rtnl.set_link(index, attributes, None if keeps_master else master)]
            case DeleteLink(netns, ifname):
                return [rtnl.del_link(self._indexes.pop((netns, ifname)))]
            case DeleteAddress(netns, ifname, address):
                return [rtnl.del_address(self._index(netns, ifname), address)]
            case DeleteRoute(netns, route):
                return [rtnl.del_route(route, None if route.dev is None else self._index(netns, route.dev))]
            case _:
                assert_never(step)

    def _new_link(self, link: Link) -> bytes:
        first = link.interfaces()[0]
        master = None if first.master is None else self._index(first.netns, first.master)
        index = self._new_index(first.netns, first.ifname)
        data: list[tuple[int, int | bytes]] = [
            (attribute.number, self._peer(link, value) if isinstance(value, Interface) else value)
            for attribute, value in link.data()
        ]
        attributes = numbered(first.attributes, queues=link.queues)
        return rtnl.new_link(first.ifname, index, link.kind, attributes, master, data)

    def _peer(self, link: Link, end: Interface) -> bytes:
        index = self._new_index(end.netns, end.ifname)
        attributes = numbered(end.attributes, queues=link.queues)
        return rtnl.peer(end.ifname, index, attributes, self._namespaces.fd(end.netns))

    def _index(self, netns: str, ifname: str) -> int:
        if ifname == "lo":
            return 1
        if (netns, ifname) not in self._indexes:  # a program has made it, or nobody
            with self._namespaces.inside(netns):
                return _ifindex(netns, ifname)
        return self._indexes[netns, ifname]

    def _new_index(self, netns: str, ifname: str) -> int:
        index = self._next.get(netns, FIRST_IFINDEX)
        self._next[netns] = index + 1
        self._indexes[netns, ifname] = index
        return index

    def _flush(self) -> None:
        batch, self._batch = self._batch, _Batch()
        if not batch.messages:
            return
        with _rtnl_socket(self._namespaces, batch.netns) as rtnl_socket:
            refusal = batch.send(rtnl_socket)
        if refusal is not None:
            raise self._refused(*refusal)

    def _refused(self, step: KernelStep, code: int | None, words: str) -> NetlabError:
        message = Lines(f"{step.describe()}: {words}")
        if isinstance(step, CreateLink) and code == errno.EOPNOTSUPP:
            kind = step.link.kind
            return UnsupportedError(message, f"this kernel makes no {kind}: load its module: sudo modprobe {kind}")
        if isinstance(step, CreateLink) and code == errno.EEXIST:
            return StepError(
                message, "another program has made one of that name there: remove it, or rename one of the two"
            )
        if code == errno.EMSGSIZE:
            return StepError(
                message, "it is more than an ordinary user may send at once: `netlab down`, then `netlab up`"
            )
        if (reached := advice.limits(code)) is not None:
            return StepError(message, reached)
        twin = step.twin(self._namespaces.prefix)
        if twin.count("\n") > _LONGEST_TWIN:
            twin = "`netlab plan` prints it"
        return StepError(message, Lines(f"the same by hand: {twin}"))

    # --- everything else ---------------------------------------------------------------------------------------------

    def _effect(self, step: OtherKernelStep) -> None:
        try:
            match step:
                case SetSysctl(netns, key, value, if_there):
                    with self._namespaces.inside(netns):
                        if follows_the_link(key):
                            _settle_carrier(key)
                        if not if_there or sysctl.path(key).exists():
                            _write_sysctl(netns, key, value)
                case ResetSysctl(netns, key, value):
                    if value is None and not follows_the_link(key):
                        value = self._default(netns, step.default_key)
                    with self._namespaces.inside(netns):
                        _write_sysctl(netns, key, _mtu_of_the_link(key) if value is None else value)
                case LoadRules(netns, ruleset, replace):
                    with self._namespaces.inside(netns):
                        if not replace:
                            _load_first(ruleset)
                        elif not _changed_alone(step):
                            nft.run(_over_what_is_there(step))
                case RestoreRules(netns, family, text, rulesets):
                    with self._namespaces.inside(netns):
                        if not _restored_among_others(family, rulesets[:1], rulesets):
                            iptables.restore(family, text)
                case ClearRules(netns, family, rulesets):
                    with self._namespaces.inside(netns):
                        if not _restored_among_others(family, (), rulesets):
                            iptables.restore(family, NO_RULES)
                            nft.run(step.no_tables)
                case DeleteStaleEntries(netns, frontends):
                    self._delete_stale(netns, frontends)
                case DeleteEntries(netns, sockets):
                    self._delete_entries(netns, sockets)
                case ForgetNeighbours(addresses, namespaces):
                    self._forget_neighbours(addresses, namespaces)
                case DeleteRules(netns):
                    with self._namespaces.inside(netns):
                        nft.run(_over_what_is_there(step))
                case CoverRules(netns) | UncoverRules(netns):
                    with self._namespaces.inside(netns):
                        nft.run(step.commands)
                case LoadTable(netns) if step.foreign:
                    table = f"{step.table.family} {step.table.name}"
                    hint = f"remove it (nft delete table {table}), or call the topology's differently"
                    raise StepError(f"{step.describe()}: another program has made a table of that name there", hint)
                case LoadTable(netns, table, replace, former):
                    with self._namespaces.inside(netns):
                        nft.run(_over_table((*former, table), step.body) if replace else step.commands)
                case DeleteTable(netns, _, _, former):
                    with self._namespaces.inside(netns):
                        nft.run(_over_table(former, None))
                case AddQdisc(netns, ifname, qdisc):
                    with self._namespaces.inside(netns):
                        qdiscs.replace_root(self._index(netns, ifname), qdisc)
                case DeleteQdisc(netns, ifname):
                    with self._namespaces.inside(netns):
                        tc.delete_root(self._index(netns, ifname))
                case _:
                    assert_never(step)
        except OSError as error:
            if error.errno == errno.ENOPKG:
                raise UnsupportedError(told(error)) from error
            raise self._refused(step, error.errno, error.strerror or str(error)) from error

    def _default(self, netns: str, key: str) -> str:
        """What a sysctl is in a new namespace; of conf.all, in one that forwards as this one does, which decides what
        the others there begin with (inet_forward_change, net/ipv4/devinet.c)."""
        with self._namespaces.inside(netns):
            forwards = sysctl.read(_FORWARDS)
        with self._namespaces.scratch():
            if key.startswith("net.ipv4.conf.all.") and not key.endswith(".forwarding"):
                sysctl.write(_FORWARDS, forwards)
            return sysctl.read(key)

    def _forget_neighbours(self, addresses: Sequence[Address], namespaces: Sequence[str]) -> None:
        from netlab.linux import neighbours

        for netns in namespaces:
            with self._namespaces.inside(netns):
                neighbours.forget(frozenset(addresses))

    def _delete_stale(self, netns: str, frontends: Sequence[Frontend]) -> None:
        from netlab.linux import ctnetlink

        alive = {frontend[:3]: frontend.endpoints for frontend in frontends}
        with self._namespaces.inside(netns):
            for entry in ctnetlink.entries():
                asked, answer = entry.original, entry.reply
                version = asked.dst.version
                endpoints = alive.get((version, asked.dst, asked.dport)) or alive.get((version, None, asked.dport))
                if asked.proto == socket.IPPROTO_UDP and endpoints and (answer.src, answer.sport) not in endpoints:
                    ctnetlink.delete(asked)

    def _delete_entries(self, netns: str, sockets: Sequence[tuple[Address, int]]) -> None:
        from netlab.linux import ctnetlink

        with self._namespaces.inside(netns):
            for entry in ctnetlink.entries():
                asked = entry.original
                if asked.proto == socket.IPPROTO_TCP and (asked.dst, asked.dport) in sockets:
                    ctnetlink.delete(asked)


class _Batch:
    """Requests for one namespace, to be sent together."""

    def __init__(self) -> None:
        self.netns = ""
        self.messages: list[bytes] = []
        self.steps: list[RtnetlinkStep] = []
        self.size = 0

    def add(self, step: RtnetlinkStep, message: bytes) -> None:
        self.messages.append(message)
        self.steps.append(step)
        self.size += len(message)

    def send(self, rtnl_socket: socket.socket) -> tuple[RtnetlinkStep, int, str] | None:
        """Send them and wait for the end; the first step that the kernel refused, with its errno and words."""
        last = len(self.messages)
        rtnl_socket.send(b"".join(rtnl.numbered(m, i, ack=i == last) for i, m in enumerate(self.messages, 1)))
        refusal: tuple[RtnetlinkStep, int, str] | None = None
        while True:
            for sequence, code, words in rtnl.errors(rtnl_socket.recv(1 << 16)):
                step = self.steps[sequence - 1]
                # no_link_local's: where there is no IPv6 (MTU below 1280, ipv6.disable=1) no address comes by itself.
                no_ipv6 = code == errno.EAFNOSUPPORT and isinstance(step, SetUp)
                if code and not no_ipv6 and refusal is None:
                    refusal = step, code, f"{os.strerror(code)}{f' ({words})' if words else ''}"
                if sequence == last:
                    return refusal


def _rtnl_socket(namespaces: Namespaces, netns: str) -> socket.socket:
    rtnl_socket = namespaces.socket(netns, socket.AF_NETLINK, socket.SOCK_RAW, 0)
    for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
        with suppress(OSError):  # since Linux 4.3 and 4.12; without them an error has no words of its own
            rtnl_socket.setsockopt(_SOL_NETLINK, option, 1)
    return rtnl_socket


def _settle_carrier(key: str) -> None:
    """Let the kernel do first what it does at an interface's carrier, or it would undo what is set now."""
    from netlab.linux import ethtool

    with suppress(OSError):
        ethtool.has_link(sysctl.path(key).parent.name)


def _mtu_of_the_link(key: str) -> str:
    """The MTU of the interface whose IPv6 MTU a sysctl is."""
    from netlab.linux import netdevice

    return str(netdevice.mtu(sysctl.path(key).parent.name))


def _load_first(ruleset: Ruleset) -> None:
    """Make these rules in the calling thread's namespace, which has none; OSError."""
    try:
        nft.run(ruleset.nft(replace=False))
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        nft.run_in_parts(ruleset.nft_commands())  # nothing of it works before the last part


def _changed_alone(step: LoadRules) -> bool:
    """Change what differs of the rules that stand in the calling thread's namespace; whether that was possible."""
    from netlab.kubeproxy.changed import transaction

    text = None if step.standing is None else transaction(step.standing.tables, step.ruleset.tables)
    if text is None:
        return False
    try:
        nft.run(text)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False  # somebody has come between, or has a rule that leads to what goes
    return True


def _over_what_is_there(step: LoadRules | DeleteRules) -> str:
    """What makes the tables of rules as wanted in the calling thread's namespace, and touches nobody else's objects."""
    from netlab.kubeproxy.shared import owned_by, replacement

    rules = step.ruleset if isinstance(step, LoadRules) else None
    own = [table for former in step.former for table in former.tables]
    own += rules.tables if rules is not None else ()
    listing = nft.list_with_handles({(table.family, table.name) for table in own})
    memories = rules.memories if rules is not None else ()
    keep = reminders(nft.run("list ruleset"), memories) if memories else ""
    return replacement(listing, owned_by(own), rules.tables if rules is not None else ()) + keep


def _restored_among_others(family: Family, wanted: Sequence[Ruleset], rulesets: Sequence[Ruleset]) -> bool:
    """Make the rules wanted of what is in the calling thread's namespace, if others have rules there; whether so."""
    tables = [table for ruleset in rulesets for table in ruleset.tables if isinstance(table, Table)]
    saved = iptables.saved(family, ("filter", "nat")) if rulesets else ""
    own = iptables_save.own_chains(tables, family)
    if not iptables_save.has_others(saved, own):
        return False
    new = [table for ruleset in wanted for table in ruleset.tables if isinstance(table, Table)]
    iptables.restore(family, iptables_save.among_others(saved, new, family, own), beside=True)
    return True


def _over_table(tables: Sequence[NftTable], body: str | None) -> str:
    """What puts a body in the place of a table's own objects, as all of its tables declare them."""
    from netlab.kubeproxy.shared import declared, replaced_body

    name = tables[0].family, tables[0].name
    return replaced_body(
        nft.list_with_handles([name]), name, [one for table in tables for one in declared(table.body)], body
    )


def _write_sysctl(netns: str, key: str, value: str) -> None:
    try:
        sysctl.write(key, value)
    except FileNotFoundError:
        ifname = interface_of(key)
        if ifname not in (None, "all", "default"):
            _ifindex(netns, ifname)
        raise no_sysctl(key) from None


def _ifindex(netns: str, ifname: str) -> int:
    """The number of an interface of the namespace, the calling thread's, that isn't the topology's; StepError."""
    try:
        return socket.if_nametoindex(ifname)
    except OSError:
        hint = "no link makes it; if a program does, its `ready` must wait until it exists"
        raise StepError(f"{netns} has no interface {ifname}", hint) from None


def no_sysctl(key: str) -> UnsupportedError:
    """What is said where this kernel has no sysctl of that name."""
    return UnsupportedError(
        f"this kernel has no sysctl {key} in a network namespace of its own",
        "load its module, or check the key's spelling with `sysctl -a`",
    )
