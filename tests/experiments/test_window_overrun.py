"""The flagship experiment on the real kernel: what it shows, and that it says so only with proof."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flagship import LARGE, Part, over_ipv6, part, with_timeout
from private_lab import PrivateLab

from netlab.analysis.findings import Findings
from netlab.analysis.judge import Observed, judge_trial
from netlab.analysis.result import Conclusion, Link, Outcome, Proof, Result, TrialResult
from netlab.errors import LabError
from netlab.experiments import trials
from netlab.experiments.conditions.burst import reached_by
from netlab.experiments.stimuli import connect, stale_window
from netlab.observe import packets, recorder
from netlab.observe.packets import PacketObserver
from netlab.observe.watch import Watch
from netlab.record.events import DatagramPacket, InvalidReason, Packet, SocketEvent, SocketEventKind
from netlab.record.flow import FlowEvents
from netlab.record.observers import ObserverId, ObserverKind

TRIALS = 20
TRANSFERS = 3
"""How many trials there are in which every byte arrives, which takes longest."""
BLIND = struct.pack("=HBBI", 0x06, 0, 0, 0)
"""A filter that takes nothing: `ret #0`."""

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("as_root")]


def run(
    given: Part, trials: int = TRIALS, fix: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Result:
    with PrivateLab(given.topology) as namespaces:
        return given.run(namespaces, trials, fix, progress)[0]


def links(trial: TrialResult) -> list[str]:
    return [piece.link.value for piece in trial.evidence]


def of_all(result: Result) -> tuple[Conclusion, dict[str, int], set[str], int]:
    """What a run must agree on as a whole: result, outcomes, missing pieces, lost events."""
    outcomes = {outcome.value: count for outcome in Outcome if (count := result.count(outcome))}
    missing = {piece for trial in result.trials for piece in trial.missing}
    return result.result, outcomes, missing, sum(trial.lost for trial in result.trials)


# --- what it shows ---------------------------------------------------------------------------------------------------


def test_without_a_fix_every_connection_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Observed] = []

    def judge_and_keep(observed: Observed, proof: Proof, findings: Findings) -> TrialResult:
        seen.append(observed)
        return judge_trial(observed, proof, findings)

    monkeypatch.setattr(trials, "judge_trial", judge_and_keep)
    steps: list[tuple[int, int]] = []
    result = run(part(), progress=lambda done, total: steps.append((done, total)))
    assert of_all(result) == (Conclusion.REPRODUCED, {"reset": TRIALS}, set(), 0)
    assert result.exit_code() == 0
    assert steps == [(number, TRIALS) for number in range(1, TRIALS + 1)]
    for trial in result.trials:
        assert links(trial) == [
            "request",
            "request-translated",
            "stale-window",
            "reply",
            "invalid",
            "reply-untranslated",
            "rst",
            "rst-at-server",
            "server-reset",
            "client-reset",
        ]
    # The kernel's own upper bound is the edge of the window model, plus one.
    for observed, trial in zip(seen, result.trials, strict=True):
        (text,) = (piece.event.text for piece in trial.evidence if isinstance(piece.event, InvalidReason))
        reached = reached_by(FlowEvents(observed.flow, observed.events))
        assert reached is not None
        assert re.findall(r"SEQ is over upper bound (\d+)", text) == [str(reached.edge + 1 & 0xFFFFFFFF)]


@pytest.mark.parametrize(("fix", "fate"), [("drop-invalid", "invalid"), ("be-liberal", "reply-translated")])
def test_with_a_fix_none_is_reset_and_every_byte_arrives(fix: str, fate: str) -> None:
    result = run(part(fix=fix), TRANSFERS, fix)
    assert of_all(result) == (Conclusion.NOT_REPRODUCED, {"completed": TRANSFERS}, set(), 0)
    assert result.exit_code() == 0
    for trial in result.trials:
        assert (trial.bytes_received, trial.payload_bytes) == (1_000_000, 1_000_000)
        assert links(trial) == ["request", "request-translated", "stale-window", "reply", fate]


def test_with_a_large_window_none_is_reset() -> None:
    result = run(part([LARGE]), TRANSFERS)
    assert of_all(result) == (Conclusion.NOT_REPRODUCED, {"completed": TRANSFERS}, set(), 0)
    assert (result.exit_code(), result.exit_code("not-reproduced")) == (1, 0)
    for trial in result.trials:
        notes = [piece.note for piece in trial.evidence if piece.link is Link.REPLY]
        assert notes == ["inside the client's window, as every byte the server sent"]


def test_it_works_over_ipv6() -> None:
    result = run(part(text=over_ipv6()), 3)
    assert of_all(result) == (Conclusion.REPRODUCED, {"reset": 3}, set(), 0)


# --- what it does not claim ------------------------------------------------------------------------------------------


def unchanged_window(server: socket.socket, netns: str, _window_bytes: int) -> SocketEvent:
    """Reads the window and leaves it: what a kernel would do that ignores TCP_REPAIR_WINDOW."""
    return SocketEvent(0, netns, SocketEventKind.STALE_WINDOW, window_bytes=0, was_bytes=0)


def test_without_the_stimulus_it_is_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stale_window, "set_stale_window", unchanged_window)
    result = run(part(), 2)
    missing = {"a larger send window: the kernel's went from 0 to 0 bytes (within 5 s of steps[5], finish)"}
    assert of_all(result) == (Conclusion.INCONCLUSIVE, {"inconclusive": 2}, missing, 0)
    assert result.exit_code() == 3


def with_burst(given: Part, burst_bytes: int) -> Part:
    """The same, but the server sends so much only before its window is made stale."""
    steps = tuple(
        step._replace(stimulus=step.stimulus._replace(arguments={"from": "server", "bytes": burst_bytes}))
        if step.stimulus is not None and step.stimulus.name == "send"
        else step
        for step in given.experiment.steps
    )
    return replace(given, experiment=given.experiment._replace(steps=steps))


def test_a_burst_too_small_to_matter_is_inconclusive() -> None:
    result = run(with_burst(part(fix="be-liberal"), 3000), 1, fix="be-liberal")
    (missing,) = result.trials[0].missing
    assert re.fullmatch(
        r"a burst far enough past the client's window: it went [\d,]+ bytes past it, and conntrack forgives [\d,]+"
        r" \(within 5 s of steps\[5\], finish\)",
        missing,
    )
    assert result.result is Conclusion.INCONCLUSIVE


def test_blind_packet_observers_make_it_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "ports_filter", lambda *_: BLIND)
    result = run(part(), 1)
    assert of_all(result) == (
        Conclusion.INCONCLUSIVE,
        {"inconclusive": 1},
        {
            "the canary before the trial, among the packets leaving client",
            "the canary before the trial, among the packets reaching client-node",
            "the canary after the trial, among the packets leaving client",
            "the canary after the trial, among the packets reaching client-node",
            "the client's connection, among the packets reaching server",
            "the SYN,ACK, among the packets leaving server",
        },
        0,
    )


def test_one_blind_packet_observer_at_the_server_makes_it_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind(PacketObserver):
        def read(self) -> list[Packet | DatagramPacket]:
            return [] if self.id == ObserverId(ObserverKind.PACKETS, "server", "eth0") else super().read()

    monkeypatch.setattr(recorder, "PacketObserver", Blind)
    result = run(part(), 1)
    assert of_all(result) == (
        Conclusion.INCONCLUSIVE,
        {"inconclusive": 1},
        {
            "the client's connection, among the packets reaching server",
            "the SYN,ACK, among the packets leaving server",
        },
        0,
    )


def test_a_reason_observer_that_dies_in_mid_run_makes_the_result_inconclusive() -> None:
    lab = part()
    with PrivateLab(lab.topology) as namespaces:

        def stop_logging(done: int, _: int) -> None:
            if done == 1:
                with namespaces.inside("client-node"):
                    Path("/proc/sys/net/netfilter/nf_conntrack_log_invalid").write_text("0")

        result = lab.run(namespaces, 2, progress=stop_logging)[0]
    assert [trial.outcome for trial in result.trials] == [Outcome.RESET, Outcome.INCONCLUSIVE]
    assert result.trials[1].missing == (
        "the canary before the trial, among conntrack's reasons on client-node",
        "the canary after the trial, among conntrack's reasons on client-node",
    )
    assert result.exit_code() == 3


@pytest.mark.parametrize("settings", [(), (LARGE,)], ids=["reset", "completed"])
def test_lost_packets_make_it_inconclusive(
    settings: tuple[tuple[str, str], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_LEAST_SLOTS", 16)
    monkeypatch.setattr(recorder, "_MOST_SLOTS", 16)
    # Asleep until the transfer is over, so that the ring surely fills.
    monkeypatch.setattr(Watch, "_read", lambda _: None)
    result = run(with_timeout(part(settings), 5.0), 1)
    (trial,) = result.trials
    assert (result.result, trial.outcome) == (Conclusion.INCONCLUSIVE, Outcome.INCONCLUSIVE)
    assert trial.lost > 0
    assert [piece for piece in trial.missing if piece.endswith("lost by the packets on client/eth0")]


def test_a_trial_that_times_out_is_stalled_and_no_pass() -> None:
    # A dropped burst takes at least the smallest retransmission timeout, 0.2 s, to be sent again.
    result = run(with_timeout(part(fix="drop-invalid"), 0.05), 1, fix="drop-invalid")
    (trial,) = result.trials
    assert (result.result, trial.outcome) == (Conclusion.INCONCLUSIVE, Outcome.STALLED)
    assert re.fullmatch(r"the end of the stream: [\d,]+ of 1,000,000 bytes in \d\.\d s", trial.missing[0])
    assert result.exit_code() == 1


CORRUPT = """table ip corrupt {
  chain forward {
    type filter hook forward priority 0
    ip saddr 10.0.1.2 ip length > 500 @th,256,8 set 0
  }
}"""
"""The first byte of TCP payload becomes 0; the header before it has 20 bytes and 12 of timestamps."""


def test_wrong_bytes_are_not_taken_for_the_right_ones() -> None:
    lab = part([LARGE])
    with PrivateLab(lab.topology) as namespaces:
        namespaces.run("client-node", "nft", "-f", "-", stdin=CORRUPT)
        result = lab.run(namespaces, 1)[0]
    missing = {"the right bytes: the client got 1,000,000 of 1,000,000 bytes, not all as they were sent"}
    assert of_all(result) == (Conclusion.INCONCLUSIVE, {"inconclusive": 1}, missing, 0)


def test_a_service_nobody_translates_is_inconclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "TIMEOUT_S", 0.3)
    lab = part()
    with PrivateLab(lab.topology) as namespaces:
        namespaces.run("client-node", "nft", "flush", "ruleset")
        result = lab.run(namespaces, 1)[0]
    assert result.result is Conclusion.INCONCLUSIVE
    assert "a connection from client to 192.168.0.2 port 80" in result.trials[0].missing


def test_a_client_without_a_route_is_inconclusive() -> None:
    lab = part()
    with PrivateLab(lab.topology) as namespaces:
        namespaces.run("client", "ip", "route", "delete", "default")
        result = lab.run(namespaces, 1)[0]
    assert result.result is Conclusion.INCONCLUSIVE
    assert result.trials[0].missing[0] == "a connection from client to 192.168.0.2 port 80"


# --- what it leaves behind, and what it can't do ---------------------------------------------------------------------


@pytest.fixture
def flagship() -> Iterator[PrivateLab]:
    with PrivateLab(part().topology) as namespaces:
        yield namespaces


def test_the_nodes_are_left_as_they_were(flagship: PrivateLab) -> None:
    keys = ("net.netfilter.nf_conntrack_log_invalid", "net.netfilter.nf_log.2")
    before = [flagship.sysctl(node, key) for node in ("client-node", "server-node") for key in keys]
    part().run(flagship, 1)
    assert [flagship.sysctl(node, key) for node in ("client-node", "server-node") for key in keys] == before


def test_a_port_that_is_taken_is_an_error(flagship: PrivateLab) -> None:
    with flagship.socket("server", socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("0.0.0.0", 80))
        other.listen()
        with pytest.raises(LabError) as caught:
            part().run(flagship, 1)
    assert str(caught.value) == (
        "server: can't listen on 10.0.1.2 port 80: Address already in use\n"
        "  hint: the experiment is its own server there: a program of the lab may have that port only by `listen`"
    )


def test_an_interface_that_is_gone_is_an_error(flagship: PrivateLab) -> None:
    flagship.run("client", "ip", "link", "delete", "eth0")
    with pytest.raises(LabError) as caught:
        part().run(flagship, 1)
    assert str(caught.value) == (
        "can't observe packets on client-node/veth-client: No such device\n  hint: `netlab up` makes what is missing"
    )
