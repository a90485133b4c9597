"""Steps: what a plan is made of. Each is a value that says what it does, and its `ip` / `nft` / `sysctl` twin.

Pure. `plan.py` orders them, `apply.py` carries them out. A twin names namespaces as root's labs do, with the lab's
name and a dash before them: it is what someone types who has no netlab.

Steps are named tuples, not dataclasses, because `up` begins by making the classes: 0.06 ms each instead of 0.5.
"""

from __future__ import annotations

import re
import shlex
from typing import NamedTuple, TypeAlias

from netlab.escapes import shell_word, shell_words
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
from netlab.links.attributes import words_of_change
from netlab.model import Address, Interface, InterfaceAddress, Link, Program, Qdisc, Route


class CreateNetns(NamedTuple):
    """A network namespace, empty but for `lo`, which is down."""

    netns: str

    def describe(self) -> str:
        return f"{self.netns}: network namespace"

    def twin(self, prefix: str) -> str:
        return f"ip netns add {prefix}{self.netns}"


class CreateLink(NamedTuple):
    """A link of any kind, each interface in its namespace, all down; the first enslaved where it is a port."""

    link: Link

    @property
    def netns(self) -> str:
        return self.link.interfaces()[0].netns

    def describe(self) -> str:
        return self.link.describe()

    def twin(self, prefix: str) -> str:
        return self.link.twin(prefix)


class SetLink(NamedTuple):
    """Change the attributes and the bridge of an interface that is there already.

    keeps_master: it is a port of what somebody else has made, and stays that.
    """

    interface: Interface
    keeps_master: bool = False

    @property
    def netns(self) -> str:
        return self.interface.netns

    def describe(self) -> str:
        return f"{self.netns}: attributes of {self.interface.ifname}"

    def twin(self, prefix: str) -> str:
        interface = self.interface
        master = " nomaster" if interface.master is None else f" master {interface.master}"
        words = words_of_change(interface.attributes) + ("" if self.keeps_master else master)
        return f"ip -n {prefix}{self.netns} link set {interface.ifname}{words}"


class SetUp(NamedTuple):
    """An interface up or down; link_local says whether IPv6 may give it an address of its own."""

    netns: str
    ifname: str
    up: bool = True
    link_local: bool = True

    def describe(self) -> str:
        return f"{self.netns}: {self.ifname} {'up' if self.up else 'down'}"

    def twin(self, prefix: str) -> str:
        command = f"ip -n {prefix}{self.netns} link set {self.ifname}"
        quiet = "" if self.link_local else f"{command} addrgenmode none\n"
        return f"{quiet}{command} {'up' if self.up else 'down'}"


class AddAddress(NamedTuple):
    """An address on an interface; IPv6 ones skip duplicate address detection, so that they are usable at once."""

    netns: str
    ifname: str
    address: InterfaceAddress
    prefix_route: bool = True

    def describe(self) -> str:
        return f"{self.netns}: address {self.address} on {self.ifname}"

    def twin(self, prefix: str) -> str:
        network = self.address.network
        more = " nodad" if network.version == 6 else " broadcast +" if network.prefixlen < 31 else ""
        more += "" if self.prefix_route else " noprefixroute"
        return f"ip -n {prefix}{self.netns} addr add {self.address} dev {self.ifname}{more}"


class AddRoute(NamedTuple):
    """A route in the main table."""

    netns: str
    route: Route

    def describe(self) -> str:
        return f"{self.netns}: route {route_words(self.route)}"

    def twin(self, prefix: str) -> str:
        family = " -6" if self.route.dst.version == 6 else ""
        return f"ip{family} -n {prefix}{self.netns} route add {route_words(self.route)}"


def route_words(route: Route) -> str:
    """A route in iproute2's words: "default via 10.0.0.1"."""
    words = [] if route.kind == "unicast" else [route.kind]
    words.append("default" if route.dst.prefixlen == 0 else str(route.dst))
    for word, value in (("via", route.via), ("dev", route.dev), ("src", route.src), ("metric", route.metric)):
        if value is not None:
            words += [word, str(value)]
    return " ".join(words)


class SetSysctl(NamedTuple):
    """A sysctl of one network namespace; value is as /proc/sys takes it. if_there: a kernel may lack it."""

    netns: str
    key: str
    value: str
    if_there: bool = False

    def describe(self) -> str:
        return f"{self.netns}: sysctl {self.key} = {self.value}{' if it exists' if self.if_there else ''}"

    def twin(self, prefix: str) -> str:
        options = "-eqw" if self.if_there else "-qw"
        return f"ip netns exec {prefix}{self.netns} sysctl {options} {shell_word(f'{self.key}={self.value}')}"


class AddQdisc(NamedTuple):
    """A root queueing discipline, in the place of the one that is there."""

    netns: str
    ifname: str
    qdisc: Qdisc

    def describe(self) -> str:
        return f"{self.netns}: qdisc {self.qdisc.kind} on {self.ifname}"

    def twin(self, prefix: str) -> str:
        command = f"tc -n {prefix}{self.netns}"
        words = "".join(f" {word} {value}" for word, value in self.qdisc.parameters)
        if self.qdisc.kind == "htb":  # one class, which takes all traffic
            return (
                f"{command} qdisc replace dev {self.ifname} root handle 1: htb default 1\n"
                f"{command} class replace dev {self.ifname} parent 1: classid 1:1 htb{words}"
            )
        return f"{command} qdisc replace dev {self.ifname} root handle 1: {self.qdisc.kind}{words}"


class WriteHosts(NamedTuple):
    """The lab's /etc/hosts: names of namespaces and Services. No name server knows others: none is reachable."""

    text: str
    namespaces: tuple[str, ...]

    def describe(self) -> str:
        return "/etc/hosts of the lab"

    def twin(self, prefix: str) -> str:
        lines = [f"hosts=$(cat <<'HOSTS'\n{self.text.rstrip()}\nHOSTS\n)"]
        lines.append(f"for netns in {' '.join(prefix + name for name in self.namespaces)}; do")
        lines.append('  mkdir -p "/etc/netns/$netns"\n  echo "$hosts" >"/etc/netns/$netns/hosts"')
        lines.append('  [ ! -e /etc/resolv.conf ] || : >"/etc/netns/$netns/resolv.conf"\ndone')
        return "\n".join(lines)


class StartProgram(NamedTuple):
    """A program of the topology, started in its namespace; done when its readiness condition holds."""

    netns: str
    program: Program

    def describe(self) -> str:
        command, newline, _ = shlex.join(self.program.argv).partition("\n")
        ports = f" (listening on {', '.join(map(str, self.program.listen))})" if self.program.listen else ""
        more = f" (may {', '.join(self.program.capabilities)})" if self.program.capabilities else ""
        return f"{self.netns}: program {self.program.name}: {command}{' …' if newline else ''}{ports}{more}"

    def twin(self, prefix: str) -> str:
        run = f"ip netns exec {prefix}{self.netns}"
        env = "".join(f" {shell_word(f'{key}={value}')}" for key, value in self.program.env)
        environment = f" env{env}" if env else ""
        log = f"/tmp/{prefix}{self.netns}.{self.program.name}.log"  # noqa: S108 (the script is the reader's own)
        activate = "".join(f" -l {port}" for port in self.program.listen)
        listening = f" systemd-socket-activate{activate}" if activate else ""
        start = f"setsid {run}{listening}{environment} {shell_words(self.program.argv)} >{log} 2>&1 </dev/null &"
        ready = self.program.ready
        if ready.listening is not None:
            condition = f"{run} ss -Hltn 'sport = :{ready.listening}' | grep -q ."
        elif ready.output is not None:
            condition = f"grep -sqE {shell_word(ready.output)} {log}"
        elif ready.command is not None:
            condition = f"{run} {shell_words(ready.command)} >/dev/null 2>&1"
        else:
            return start
        wait = shlex.quote(f"until {condition}; do sleep 0.1; done")
        return f"{start}\ntimeout {ready.timeout_s:g} sh -c {wait}"


# --- undoing: what a change of the topology, or `down`, takes away --------------------------------------------------


class DeleteNetns(NamedTuple):
    """Take a namespace's name away; it goes with the last process and link in it."""

    netns: str

    def describe(self) -> str:
        return f"{self.netns}: network namespace removed"

    def twin(self, prefix: str) -> str:
        return f"ip netns del {prefix}{self.netns}"


class DeleteLink(NamedTuple):
    """Remove an interface; a veth's peer goes with it."""

    netns: str
    ifname: str

    def describe(self) -> str:
        return f"{self.netns}: {self.ifname} removed"

    def twin(self, prefix: str) -> str:
        return f"ip -n {prefix}{self.netns} link del {self.ifname}"


class DeleteAddress(NamedTuple):
    """Remove an address."""

    netns: str
    ifname: str
    address: InterfaceAddress

    def describe(self) -> str:
        return f"{self.netns}: address {self.address} on {self.ifname} removed"

    def twin(self, prefix: str) -> str:
        return f"ip -n {prefix}{self.netns} addr del {self.address} dev {self.ifname}"


class DeleteRoute(NamedTuple):
    """Remove a route."""

    netns: str
    route: Route

    def describe(self) -> str:
        return f"{self.netns}: route {route_words(self.route)} removed"

    def twin(self, prefix: str) -> str:
        family = " -6" if self.route.dst.version == 6 else ""
        return f"ip{family} -n {prefix}{self.netns} route del {route_words(self.route)}"


class ResetSysctl(NamedTuple):
    """Give a sysctl back the value that it had; where nobody knows that one (None), what a new namespace has."""

    netns: str
    key: str
    value: str | None = None

    @property
    def default_key(self) -> str:
        """Where a new namespace has the value: for an interface's own sysctl, as a new interface gets it.

        Only the initial namespace has net.ipv4.neigh.default; `lo` has what it says.
        """
        key = re.sub(r"^(net\.ipv[46]\.conf)\.(?!all\.)[^.]+\.", r"\1.default.", self.key)
        return re.sub(r"^(net\.ipv[46]\.neigh)\.[^.]+\.", r"\1.lo.", key)

    def describe(self) -> str:
        return f"{self.netns}: sysctl {self.key} back to {'its default' if self.value is None else self.value}"

    def twin(self, prefix: str) -> str:
        value = f'"$(unshare -n sysctl -n {self.default_key})"' if self.value is None else shlex.quote(self.value)
        return f"ip netns exec {prefix}{self.netns} sysctl -qw {self.key}={value}"


class DeleteQdisc(NamedTuple):
    """Remove the root queueing discipline; the kernel's default takes its place."""

    netns: str
    ifname: str

    def describe(self) -> str:
        return f"{self.netns}: qdisc on {self.ifname} removed"

    def twin(self, prefix: str) -> str:
        return f"tc -n {prefix}{self.netns} qdisc del dev {self.ifname} root"


class ForgetNeighbours(NamedTuple):
    """Delete what namespaces know of who has these addresses (not what somebody has said for good): they have moved to
    another interface, or to another MAC address. Who wants to send there asks anew, instead of after half a minute."""

    addresses: tuple[Address, ...]
    namespaces: tuple[str, ...]

    def describe(self) -> str:
        first = ", ".join(map(str, self.addresses[:3]))
        more = f" and {len(self.addresses) - 3} more" if len(self.addresses) > 3 else ""
        return f"neighbour entries of {first}{more} removed"

    def twin(self, prefix: str) -> str:
        addresses = " ".join(map(str, self.addresses))
        return (
            f"for netns in {' '.join(prefix + name for name in self.namespaces)}; do for address in {addresses}; do\n"
            '  ip -n "$netns" neigh flush to "$address"\ndone; done'
        )


class StopProgram(NamedTuple):
    """End a program that an earlier topology started."""

    netns: str
    name: str

    def describe(self) -> str:
        return f"{self.netns}: program {self.name} ended"

    def twin(self, prefix: str) -> str:
        return f"# end the program {self.name} in {prefix}{self.netns}"


RtnetlinkStep: TypeAlias = (
    CreateLink | SetLink | SetUp | AddAddress | AddRoute | DeleteLink | DeleteAddress | DeleteRoute
)
"""What rtnetlink carries out."""

OtherKernelStep: TypeAlias = (
    SetSysctl
    | AddQdisc
    | LoadRules
    | RestoreRules
    | CoverRules
    | UncoverRules
    | LoadTable
    | ResetSysctl
    | DeleteQdisc
    | DeleteRules
    | ClearRules
    | DeleteTable
    | DeleteStaleEntries
    | DeleteEntries
    | ForgetNeighbours
)
"""What other interfaces of the kernel carry out, in a namespace that is there."""

LabStep: TypeAlias = CreateNetns | WriteHosts | StartProgram | DeleteNetns | StopProgram
"""What changes what belongs to the lab: it has to be written down."""

UndoingStep: TypeAlias = (
    DeleteNetns
    | DeleteLink
    | DeleteAddress
    | DeleteRoute
    | ResetSysctl
    | DeleteQdisc
    | DeleteRules
    | ClearRules
    | CoverRules
    | UncoverRules
    | DeleteTable
    | DeleteStaleEntries
    | DeleteEntries
    | ForgetNeighbours
    | StopProgram
)
"""What a change of the topology, or `down`, takes away: no plan from nothing has them."""

KernelStep: TypeAlias = RtnetlinkStep | OtherKernelStep
Step: TypeAlias = KernelStep | LabStep


def step_name(step: Step) -> str:
    """A step's kind, as `netlab plan --format json` has it: CreateNetns, CreateVeth."""
    return f"Create{step.link.kind.capitalize()}" if isinstance(step, CreateLink) else type(step).__name__
