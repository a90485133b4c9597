"""The words that netlab's messages, reports and pages use, each with one meaning. Pure.

docs/glossary.md is made from this by `scripts/pages`; a report links each word to its meaning at its foot
(`linking.py`). A word is here if a reader of a report may not know it: netlab's own, and the field's.
"""

from __future__ import annotations

from typing import NamedTuple


class Term(NamedTuple):
    """A word and what it means: one to three sentences, with code between backticks.

    spellings are the other forms under which a report prints it, as patterns of `re`.
    """

    name: str
    meaning: str
    spellings: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """The id of its place on a page: `word-td-maxend`."""
        kept = "".join(char if char.isascii() and char.isalnum() else " " for char in self.name.lower())
        return f"word-{'-'.join(kept.split())}"


NETLABS = (
    Term(
        "adopted",
        "Conntrack has lost a connection's entry and takes a packet from the middle of that connection for the first "
        "packet of a new one. The new entry has no translation, so NAT leaves the packet's addresses as they are.",
    ),
    Term("bundle", "One file with all of a run: what was asked, what was seen, what it proves (`run --bundle FILE`)."),
    Term(
        "canary",
        "A packet that netlab sends before and after each trial, and that every observer must see. If an observer "
        "misses one, the trial is inconclusive. Canaries have no TCP flags and a wrong checksum: they belong to no "
        "connection, and conntrack finds them INVALID.",
        ("canaries",),
    ),
    Term(
        "capability",
        "Something that this kernel and this user can do. netlab finds out by trying it, never from a version number "
        "(`netlab doctor` lists them).",
        ("capabilities",),
    ),
    Term("cause", "What makes a healthy connection fail: one experiment, one row of the matrix."),
    Term("cell", "One cause with one fix in the matrix: an experiment that was run in a lab of its own.", ("cells",)),
    Term("claim", "What an experiment says about the kernel, in one sentence. A run confirms or refutes it."),
    Term(
        "crosscheck",
        "The comparison of what netlab's model of conntrack computes for each packet with what the kernel logged.",
    ),
    Term(
        "events lost",
        "Events that the kernel had for netlab and could not deliver, because a buffer was full. They are counted. A "
        "trial that lost any is inconclusive.",
    ),
    Term("evidence", "An event that was seen in the kernel and that an outcome rests on."),
    Term(
        "experiment",
        "A document: a claim, steps in the order of time, what must be observed after each, and the expected outcome.",
    ),
    Term("fix", "A change to a lab that may prevent the reset (`--fix NAME`; `netlab fix list`).", ("fixes",)),
    Term(
        "holder",
        "The one small process that keeps a lab's namespaces alive while nothing runs in them. `netlab down` ends it.",
    ),
    Term(
        "incarnation",
        "One life of a connection. A client that uses a port again, to the same server, begins a new incarnation.",
        ("incarnations",),
    ),
    Term(
        "inconclusive",
        "The outcome of a trial that proves nothing: a step could not be done, an observer lost events, or the cause "
        "was not seen. It never counts as a pass.",
        ("INCONCLUSIVE",),
    ),
    Term("lab", "The network namespaces, links, addresses, rules and programs that were built from one topology."),
    Term("ladder", "The diagram of all packets of a connection: a line for each namespace, time runs downwards."),
    Term(
        "leg",
        "The part of a packet's path on which it has the same addresses: `client-to-vip` before NAT and "
        "`client-to-endpoint` after it, `endpoint-to-client` and `vip-to-client` on the way back.",
        ("legs",),
    ),
    Term(
        "observer",
        "What watches one source of events: packets, conntrack's log, conntrack's entries, rules, sockets.",
    ),
    Term(
        "outcome",
        "What became of the connection in one trial: `reset`, `completed`, `stalled`, `refused` and so on.",
        ("outcomes",),
    ),
    Term(
        "picked up",
        "Conntrack met a connection in the middle, without its SYN. It still made an entry "
        "(`nf_conntrack_tcp_loose=1`), and checks no window of it.",
    ),
    Term("plain", "A lab without any fix: the first column of the matrix."),
    Term("recording", "All events of a run, as values. Reports are made from it, at once or later."),
    Term("Result", "What all trials of a run together say about the claim."),
    Term(
        "role",
        "What a namespace stands for: a `node` forwards packets and may run kube-proxy's rules, a `pod` hangs on a "
        "node's bridge, a `host` is neither.",
    ),
    Term("rootless", "Of a lab: built without root, inside a user namespace of its own."),
    Term("run directory", "Where a lab's state and logs are while it is up: root's is `/run/netns-lab`."),
    Term("spec", "What the topology says a lab should be. What the kernel has is its *status*."),
    Term("stimulus", "What a step of an experiment does: connect, send, stop reading, change a route.", ("stimuli",)),
    Term("topology", "The YAML file that describes a lab.", ("topologies",)),
    Term("trial", "One repetition of an experiment: one connection, or one load.", ("trials",)),
    Term("twin", "The `ip`, `nft` or `sysctl` command that does the same as a step of `netlab plan`."),
)
"""netlab's own."""

CONNTRACKS = (
    Term(
        "be-liberal",
        "The fix that sets `net.netfilter.nf_conntrack_tcp_be_liberal` to 1: conntrack checks no window.",
    ),
    Term("conntrack", "The kernel's connection tracking. NAT rests on it."),
    Term(
        "drop-invalid",
        "The fix that drops INVALID packets where the node forwards them: kube-proxy's own rule in iptables mode, "
        "always in v1.15 to v1.28, since v1.29 only on a node where `nf_conntrack_tcp_be_liberal` is 0.",
    ),
    Term(
        "entry",
        "What conntrack remembers of one connection: two tuples, a state, the windows, a timeout.",
        ("entries",),
    ),
    Term("ESTABLISHED", "What conntrack calls a packet of a connection that was seen in both directions."),
    Term(
        "INVALID",
        "What conntrack calls a packet that fits no connection, or lies too far outside its connection's window. It "
        "has no entry, so NAT does not translate it.",
    ),
    Term("NEW", "What conntrack calls the first packet of a connection. NAT's rules are consulted only for it."),
    Term(
        "nf_conntrack_tcp_loose",
        "The sysctl by which conntrack picks up connections in the middle. It is 1 unless someone changed it.",
        ("_loose",),
    ),
    Term("notrack", "The fix that translates packets of cluster IPs one by one, without conntrack."),
    Term(
        "overshoot",
        "How many bytes a segment ends past what its receiver allowed. Since Linux 6.1 conntrack forgives less than "
        "one window of it.",
        ("overshoots", "overrun"),
    ),
    Term("RELATED", "What conntrack calls a packet that belongs to another connection: an ICMP error, FTP's data."),
    Term(
        "SEQ is over upper bound",
        "What conntrack logs of a segment that lies too far past what its receiver allowed. The number after it is "
        "`td_maxend` + 1.",
    ),
    Term("td_end", "In a conntrack entry, for each side: the end of the data that this side has sent."),
    Term(
        "td_maxend",
        "In a conntrack entry, for each side: the end of the data that the other side has allowed it to send. It is "
        "the largest ack + window that conntrack saw from the other side.",
    ),
    Term("td_maxwin", "In a conntrack entry, for each side: the largest window that this side has offered."),
    Term(
        "tuple",
        "Addresses, ports and protocol of one direction of a connection, as conntrack keeps them.",
        ("tuples",),
    ),
    Term("UNTRACKED", "What conntrack calls a packet that a rule told it not to look at.", ("untracked",)),
)
"""Conntrack's."""

NETWORKS = (
    Term("bridge", "A virtual switch inside one namespace. `cni0` is a node's bridge to its pods.", ("bridges",)),
    Term(
        "challenge ACK",
        "The ACK by which a TCP answers a segment that it doubts (RFC 5961). A peer that really sent it sends a RST "
        "next.",
        ("challenge ACKs",),
    ),
    Term(
        "cluster IP",
        "The virtual address of a Service. No interface has it; NAT replaces it.",
        ("cluster_ip", "VIP"),
    ),
    Term("DNAT", "NAT of the destination address: the Service's address becomes an endpoint's."),
    Term("ECONNRESET", "The error that a program gets from its socket when a RST ended the connection."),
    Term("endpoint", "A server behind a Service: a pod's address and port.", ("endpoints", "Endpoint")),
    Term("GSO", "Segmentation offload: the kernel handles a burst as one large packet and cuts it up late or never."),
    Term("hairpin", "A pod that talks to itself through a Service."),
    Term("kube-proxy", "The part of Kubernetes that installs NAT rules for Services on each node."),
    Term("masquerade", "NAT of the source address to the node's own.", ("masqueraded", "masquerades", "MASQUERADE")),
    Term("NAT", "The kernel's rewriting of a packet's addresses and ports, by the rules of nftables or iptables."),
    Term("netns", "A network namespace: interfaces, routes, rules and conntrack of its own.", ("network namespace",)),
    Term("NFLOG", "How the kernel hands packets and log lines to a program. Conntrack's reasons come this way."),
    Term("nftables-mode", "kube-proxy's nftables mode. It is listed among the fixes, and has no rule against INVALID."),
    Term("pcapng", "The file format of packet captures that Wireshark reads."),
    Term("qdisc", "The queue of an interface, which may limit, delay, lose or reorder packets.", ("qdiscs",)),
    Term("retransmission", "A segment that TCP sends again, because no acknowledgement came.", ("retransmissions",)),
    Term("RST", "The TCP flag that ends a connection at once. The receiver's program gets ECONNRESET.", ("RSTs",)),
    Term("SACK", "Selective acknowledgement: a TCP option that tells which later bytes have arrived."),
    Term(
        "sequence number",
        "The number of a segment's first byte. Reports count from the connection's first byte, and add the number on "
        "the wire where the kernel's log has it.",
        ("sequence numbers",),
    ),
    Term("Service", "In Kubernetes: one address and port for several servers."),
    Term("SNAT", "NAT of the source address."),
    Term("TIME_WAIT", "The state in which a socket waits for late segments after its connection has ended."),
    Term("TCP_REPAIR", "The socket option by which a program may set a connection's state, here its send window."),
    Term("user namespace", "What lets an ordinary user be root over namespaces of its own, and over nothing else."),
    Term("veth", "A pair of virtual interfaces: what goes in at one end comes out at the other."),
    Term(
        "window",
        "How many bytes a receiver lets its sender have in flight. The *send window* is what the sender believes of "
        "it.",
        ("windows",),
    ),
    Term("window probe", "The segment that a sender uses to ask whether a closed window is open again."),
    Term(
        "window scale",
        "By how many bits the header's window field is shifted. Both SYNs must offer it.",
        ("window scales", "scales"),
    ),
)
"""Of TCP, of Linux and of Kubernetes."""

GROUPS = (("netlab's words", NETLABS), ("Conntrack's words", CONNTRACKS), ("The network's words", NETWORKS))
"""All terms under the headings of their page."""
TERMS = tuple(sorted((term for _, terms in GROUPS for term in terms), key=lambda term: term.name.lower()))


def page() -> str:
    """docs/glossary.md."""
    lines = [
        "# Glossary",
        "",
        "Each word that netlab's messages, reports and pages use, with its one meaning. A report (`--html`) brings the",
        "meanings of its own words at its foot, and links them.",
    ]
    for heading, terms in GROUPS:
        lines += ["", f"## {heading}"]
        for term in sorted(terms, key=lambda term: term.name.lower()):
            lines += ["", f'<a id="{term.anchor}"></a>**{term.name}**: {term.meaning}']
    return "\n".join(lines) + "\n"
