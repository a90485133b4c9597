"""All observers over some namespaces of a lab, and the Recording of what they saw.

What each observer sees is in `observe/`. What can't be observed on this kernel is named, not passed over. Experiments
run inside a Recorder; `record` is for a lab in which something else makes the traffic.
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from netlab.errors import LabError, NetlabError, UnsupportedError, told
from netlab.linux import interrupts, nft
from netlab.model import Role, Topology
from netlab.observe import Namespaces
from netlab.observe.conntrack import ConntrackObserver
from netlab.observe.counters import Counters
from netlab.observe.drops import DropObserver
from netlab.observe.invalid import InvalidObserver
from netlab.observe.network import NetworkObserver, network_state
from netlab.observe.packets import SNAPLEN_BYTES, Outline, PacketObserver
from netlab.observe.resets import ResetObserver
from netlab.observe.sockets import ClosedSocketObserver, samples
from netlab.observe.trace import TraceObserver
from netlab.observe.watch import Watch
from netlab.record.events import ConntrackEvent, EntryChange, Event
from netlab.record.flow import Flow
from netlab.record.network import NetworkState
from netlab.record.observers import Gap, ObserverId, ObserverKind, Unobserved
from netlab.record.recording import Recording, Stimulus, Tap

SLOTS_IN_ALL = 1 << 18
"""How many packets may wait to be read, over all interfaces together: 64 MiB of rings, each of 256 slots or more."""

_MOST_SLOTS, _LEAST_SLOTS = 32768, 256
_BATCH_S = 0.1
"""How often `record` hands on what came."""


@dataclass(frozen=True, slots=True)
class Source:
    """What a lab was made from: its YAML text, the `--set` pairs, the fixes.

    experiment is the document's text, experiment_settings the `--set` pairs that changed the experiment. capabilities
    are what the kernel was found to have, or to lack, of those that conntrack's arithmetic depends on.
    """

    text: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    fixes: tuple[str, ...] = ()
    experiment: str = ""
    experiment_settings: tuple[tuple[str, str], ...] = ()
    capabilities: tuple[tuple[str, bool], ...] = ()


class Recorder:
    """Observers over the given namespaces of a lab, open inside a `with`; what they bring is kept for the Recording.

    Packets are TCP, UDP and SCTP from or to one of `ports` (any without), and ICMP's errors. needs_reasons: where
    conntrack's reasons can't be observed, entering fails instead of naming it in `unobserved`. Entering raises LabError
    where an interface is missing, UnsupportedError where packets can't be observed. With keep_events=False only the
    losses are kept: for an observation without end. No signal may interrupt entering or leaving it: what it adds to the
    lab would stay. With an outline, only what it says is observed of packets, and no
    rules' traces: for a load.
    """

    def __init__(
        self,
        topology: Topology,
        namespaces: Namespaces,
        netns: Sequence[str],
        ports: Collection[int],
        *,
        keep_frames: bool = False,
        snaplen_bytes: int = SNAPLEN_BYTES,
        needs_reasons: bool = False,
        keep_events: bool = True,
        outline: Outline | None = None,
    ) -> None:
        self.watch = Watch()
        self.taps = tuple(
            Tap(end.netns, end.ifname, topology.netns(end.netns).role)
            for end in topology.interfaces()
            if end.netns in netns
        )
        self._topology, self._namespaces = topology, namespaces
        self._netns, self._ports = tuple(netns), frozenset(ports)
        self._keep_frames, self._snaplen = keep_frames, snaplen_bytes
        self._needs_reasons, self._keep_events = needs_reasons, keep_events
        self._outline = outline
        self._unobserved: list[Unobserved] = []
        self._counters: list[Counters] = []
        self._network: list[NetworkState] = []
        self._events: list[Event] = []
        self._stimuli: list[Stimulus] = []
        self._lost: Counter[ObserverId] = Counter()
        self._started_ns = 0
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            opening.enter_context(self.watch)
            self._open()
            self._closing = opening.pop_all()
        self._forget_what_some_saw_early()
        self._started_ns = time.time_ns()
        return self

    def _forget_what_some_saw_early(self) -> None:
        """Events from before every observer was ready: one packet of many, or a packet at the first of its interfaces,
        tells of a loss that there wasn't. The entries that are there by now are kept, as found."""
        events, _ = self.watch.take()
        for event in events:
            if isinstance(event, ConntrackEvent):
                self.watch.note(replace(event, change=EntryChange.FOUND) if event.change is EntryChange.NEW else event)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def _open(self) -> None:
        slots = max(_LEAST_SLOTS, min(_MOST_SLOTS, SLOTS_IN_ALL // max(1, len(self.taps)) // 64 * 64))
        for tap in self.taps:
            self._open_tap(tap, slots)
        if self._outline is not None:
            whole = self._outline.whole
            most = f"of a connection whose client's port isn't one of {whole.start} to {whole.stop - 1}, "
            self._unobserved.append(
                Unobserved(ObserverId(ObserverKind.PACKETS, ""), f"{most}what is between its ends", Gap.MOST)
            )
        for netns in self._netns:
            interrupts.arrive()
            with self._or_unobserved(ObserverKind.NETWORK, netns):
                self.watch.add(NetworkObserver(self._namespaces, netns))
            with self._or_unobserved(ObserverKind.CLOSED_SOCKETS, netns):
                self.watch.add(ClosedSocketObserver(self._namespaces, netns, self._ports))
            rules = self._rules(netns)
            if rules or self._topology.netns(netns).role is Role.NODE:
                self._open_node(netns, rules)
        if self._netns:
            with self._or_unobserved(ObserverKind.DROPS, ""):
                self.watch.add(DropObserver(self._namespaces, self._netns, self._ports))
            with self._or_unobserved(ObserverKind.RESETS, ""):
                self.watch.add(ResetObserver(self._namespaces, self._netns, self._ports))
        self._counters = [
            Counters(self._namespaces, netns, nftables=bool(self._topology.netns(netns).tables))
            for netns in self._netns
        ]
        self._network = list(self._network_states())

    def _network_states(self) -> Iterator[NetworkState]:
        for netns in self._netns:
            with self._or_unobserved(ObserverKind.NETWORK, netns):
                yield network_state(self._namespaces, netns)

    def _open_tap(self, tap: Tap, slots: int) -> None:
        outline = self._outline
        if outline is not None and tap.netns not in outline.where:
            outline = outline._replace(source=None)
        try:
            self.watch.add(
                PacketObserver(
                    self._namespaces,
                    tap.netns,
                    tap.ifname,
                    self._ports,
                    slots,
                    keep_frames=self._keep_frames,
                    snaplen_bytes=self._snaplen,
                    outline=outline,
                )
            )
        except OSError as error:
            raise LabError(
                f"can't observe packets on {tap.netns}/{tap.ifname}: {error.strerror}",
                "`netlab up` makes what is missing",
            ) from error

    def _rules(self, netns: str) -> str:
        with self._or_unobserved(ObserverKind.RULES, netns), self._namespaces.inside(netns):
            return nft.run("list ruleset")
        return ""

    def _open_node(self, netns: str, rules: str) -> None:
        namespaces = self._namespaces
        versions = {address.version for end in self._topology.interfaces() for address in end.addresses}
        families = [family for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)) if version in versions]
        with self._or_unobserved(ObserverKind.REASONS, netns, needed=self._needs_reasons):
            self.watch.add(InvalidObserver(namespaces, netns, *families))
        with self._or_unobserved(ObserverKind.ENTRIES, netns):
            self.watch.add(ConntrackObserver(namespaces, netns))
        if self._outline:
            self._unobserved.append(Unobserved(ObserverId(ObserverKind.TRACES, netns), "a load has too many packets"))
        elif rules:
            with self._or_unobserved(ObserverKind.TRACES, netns):
                conntrack = any(word in rules for word in ("ct ", "type nat"))
                self.watch.add(TraceObserver(namespaces, netns, self._ports, conntrack=conntrack))

    @contextmanager
    def _or_unobserved(self, kind: ObserverKind, netns: str, *, needed: bool = False) -> Iterator[None]:
        try:
            yield
        except (NetlabError, OSError) as error:
            words = told(error) if isinstance(error, OSError) else error.message
            if needed:
                raise UnsupportedError(words) from error
            self._unobserved.append(Unobserved(ObserverId(kind, netns), words))

    def sample_sockets(self) -> None:
        """Note TCP_INFO of the sockets with one of the ports, in every namespace."""
        for netns in self._netns:
            with self._or_unobserved(ObserverKind.SOCKETS, netns):
                for sample in samples(self._namespaces, netns, self._ports):
                    self.watch.note(sample)

    def note_counters(self) -> None:
        """Note how the counters have changed since this was last called, or since the beginning."""
        for counters in self._counters:
            for change in counters.changes():
                self.watch.note(change)

    def note_stimulus(self, stimulus: Stimulus) -> None:
        """Note a step of the experiment once it is done."""
        self._stimuli.append(stimulus)

    def take(self) -> tuple[tuple[Event, ...], tuple[tuple[ObserverId, int], ...]]:
        """What came since the last time, and how many events each observer lost meanwhile; both are kept too."""
        events, lost = self.watch.take()
        if self._keep_events:
            self._events += events
        self._lost.update(dict(lost))
        return events, lost

    def begin_anew(self) -> None:
        """Forget all that was taken: the next recording begins here."""
        self._events, self._stimuli = [], []
        self._lost.clear()
        self._network = list(self._network_states())
        self._started_ns = time.time_ns()

    def kept(self) -> int:
        """How many events were taken, and are kept."""
        return len(self._events)

    def forget(self, wanted: Callable[[Event], bool]) -> None:
        """Keep only these of the events that were taken."""
        self._events = [event for event in self._events if wanted(event)]

    def failed(self) -> tuple[Unobserved, ...]:
        """What could not be observed to the end, up to now, in the order in which it ended."""
        return tuple(Unobserved(observer, reason, Gap.END) for observer, reason in self.watch.failed)

    def recording(self, source: Source, flows: Iterable[Flow] = ()) -> Recording:
        """All that was taken, as one value, up to now. flows are those under study."""
        events = tuple(sorted(self._events, key=lambda event: event.time_ns))
        network = (*self._network, *self._network_states())
        return Recording(
            lab=self._topology.name,
            kernel=os.uname().release,
            started_ns=self._started_ns,
            ended_ns=time.time_ns(),
            topology=source.text,
            settings=source.settings,
            fixes=source.fixes,
            experiment=source.experiment,
            experiment_settings=source.experiment_settings,
            taps=self.taps,
            flows=tuple(flows),
            in_part=self._outline is not None,
            stimuli=tuple(self._stimuli),
            events=events,
            lost=tuple(self._lost.items()),
            unobserved=tuple(dict.fromkeys((*self._unobserved, *self.failed()))),
            capabilities=source.capabilities,
            network=network,
            described=self._topology,
        )


def record(
    topology: Topology,
    namespaces: Namespaces,
    source: Source,
    netns: Sequence[str] | None = None,
    seconds: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_events: Callable[[Sequence[Event]], None] = lambda _events: None,
    on_failed: Callable[[Unobserved], None] = lambda _unobserved: None,
    *,
    keep_frames: bool = False,
    keep_events: bool = True,
) -> Recording:
    """Observe a lab that is up until `stop()` or for some seconds, whichever comes first; None is without end.

    netns names the namespaces to observe, None all of them. Packets are those of the Services' ports, or of
    all ports in a lab without Services. on_events gets what came, several times a second and once at the end, sorted
    by time; it is called with nothing as soon as every observer is ready. on_failed gets what can't be observed any
    longer, once. keep_frames and keep_events are the Recorder's. Raises what entering a Recorder raises.
    """
    names = [each.name for each in topology.namespaces] if netns is None else netns
    own = (port for service in topology.services for port in service.ports)
    ports = {number for port in own for number in (port.port, port.target_port, port.node_port) if number is not None}
    deadline = time.monotonic() + seconds if seconds is not None else float("inf")
    with (
        interrupts.held_back(),
        Recorder(topology, namespaces, names, ports, keep_frames=keep_frames, keep_events=keep_events) as recorder,
        interrupts.let_through(),
    ):
        on_events(())
        told = 0
        recorder.sample_sockets()
        while not stop() and (left_s := deadline - time.monotonic()) > 0:
            recorder.watch.until(stop, min(left_s, _BATCH_S))
            _hand_on(recorder, on_events)
            for unobserved in recorder.failed()[told:]:
                on_failed(unobserved)
                told += 1
        recorder.sample_sockets()
        recorder.note_counters()
        _hand_on(recorder, on_events)
        return recorder.recording(source)


def _hand_on(recorder: Recorder, on_events: Callable[[Sequence[Event]], None]) -> None:
    events, _ = recorder.take()
    if events:
        on_events(sorted(events, key=lambda event: event.time_ns))
