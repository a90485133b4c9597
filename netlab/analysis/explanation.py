"""What became of a connection, as a chain of steps: the values, and what TCP's and UDP's have in common. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from netlab.analysis.findings import Ending
from netlab.analysis.udp import UdpEnding
from netlab.record.flow import Ends, Flow
from netlab.record.observers import describe_observer, describe_unobserved
from netlab.record.recording import Recording
from netlab.record.words import arrow, endpoint


@dataclass(frozen=True, slots=True)
class Step:
    """One link of the chain. number is the packet's it speaks of, time_ns when it was; None where it has none."""

    text: str
    number: int | None = None
    time_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """A flow's story. chain are its links in order of time; notes what else is worth knowing of the flow.

    others names the other flows that were reset. unseen is what could not be observed, or not be told for sure, and
    disagreements where the kernel's log is not what the window model computes. protocol is the flow's, "tcp" or "udp".
    """

    lab: str
    kernel: str
    fixes: tuple[str, ...]
    flow: Flow
    ending: Ending | UdpEnding
    packets: int
    started_ns: int
    chain: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    disagreements: tuple[str, ...] = ()
    protocol: str = "tcp"

    def since(self, began: Mapping[Ends, int]) -> Self:
        """With times since the trial of this flow began, where it was one: by each flow's first header, in ns."""
        return replace(self, started_ns=began.get(self.flow.headers()[0], self.started_ns))


def in_order(groups: Iterable[Sequence[Step]]) -> list[Step]:
    """All steps by time; one without a time stays behind the step before it in its group."""
    keyed: list[tuple[int, int, Step]] = []
    for group in groups:
        timed = [step.time_ns for step in group if step.time_ns is not None]
        time_ns = timed[0] if timed else 0
        for step in group:
            time_ns = step.time_ns if step.time_ns is not None else time_ns
            keyed.append((time_ns, len(keyed), step))
    return [step for _, _, step in sorted(keyed, key=lambda item: item[:2])]


def name(flow: Flow) -> str:
    """A connection in words: "10.0.0.2:40000 > 192.168.0.2:80 (endpoint 10.0.1.2:8080)"."""
    header: Ends = flow.headers()[0]
    behind = f" (endpoint {endpoint(flow.endpoint, flow.target_port)})" if flow.translated else ""
    masqueraded = flow.peer != (flow.client_address, flow.client_port)
    seen = f", which sees {endpoint(*flow.peer)}" if masqueraded else ""
    return f"{arrow(header)}{behind[:-1] + seen + ')' if behind else ''}"


def not_observed(recording: Recording, parts: Iterable[tuple[str | None, str]]) -> list[str]:
    """What the observers didn't see, or lost, in a line each. parts are the namespaces that matter, and why."""
    tapped = {tap.netns for tap in recording.taps}
    found = [
        f"the packets in {netns} ({part}): no interface of it was observed"
        for netns, part in parts
        if netns is not None and netns not in tapped
    ]
    found += map(describe_unobserved, recording.unobserved)
    found += [f"{count:,} events lost by {describe_observer(observer)}" for observer, count in recording.lost if count]
    return found
