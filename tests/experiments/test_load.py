"""Loads: what many connections prove together, on hand-made events; and run on the real kernel."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pictures
import pytest
import run_json
import skips
import story
from command import Netlab
from flagship import FLAGSHIP, document
from labs import until
from private_lab import PrivateLab

from netlab.analysis.crosscheck import crosscheck
from netlab.analysis.findings import analyse
from netlab.analysis.judge_load import Member, by_connection, client_port, judge_load
from netlab.analysis.paths import Fate
from netlab.analysis.result import Outcome, Proof, Result, TrialResult
from netlab.analysis.timeline import build
from netlab.capabilities.probes import probe
from netlab.errors import NetlabError
from netlab.experiments import load as loads
from netlab.experiments.load import Demand, Load
from netlab.experiments.roles import Roles, assign
from netlab.linux import cgroups
from netlab.observe.recorder import Source
from netlab.record import codec
from netlab.record.events import ACK, InvalidReason, Packet, Segment, SocketEvent, Witness
from netlab.record.flow import CANARY_PORT, Leg
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import Recording
from netlab.report import html, text
from netlab.report import json as report_json

LOAD, SLOW_READERS = "load", "load-slow-readers"


# --- judged ----------------------------------------------------------------------------------------------------------


def of_port(events: Mapping[str, Witness], port: int) -> Iterator[Witness]:
    """The story's events as those of another client's port; its canaries are left out."""
    for name, event in events.items():
        if name.startswith("canary"):
            continue
        if isinstance(event, SocketEvent):
            own = event.netns == "client"
            yield replace(event, local_port=port if own else 8080, peer_port=80 if own else port)
        else:
            assert isinstance(event, Packet | InvalidReason)
            yield replace(event, segment=_with_port(event.segment, port))


def _with_port(segment: Segment, port: int) -> Segment:
    own = story.FLOW.client_port
    return replace(
        segment,
        sport=port if segment.sport == own else segment.sport,
        dport=port if segment.dport == own else segment.dport,
    )


def canaries() -> Iterator[Witness]:
    return (event for name, event in story.accepted().items() if name.startswith("canary"))


def late(port: int) -> list[Witness]:
    """A segment's copy overtakes it on the way to the client's node, whose conntrack logs something about it."""
    original = replace(story.segment(Leg.ENDPOINT_TO_CLIENT, ACK, 9001, 1005, 100), ip_id=7)
    copy = replace(original, ip_id=8)
    events: list[Witness] = [
        story.packet(70, "server", "out", original),
        story.packet(72, "server", "out", copy),
        story.packet(73, "client-node", "in", copy),
        story.packet(79, "client-node", "in", original),
        story.reason(79, "client-node", "SEQ is under lower bound 1 (already ACKed data retransmitted)", original),
    ]
    return list(of_port({str(number): event for number, event in enumerate(events)}, port))


def member(port: int, *, received: int = story.PAYLOAD_BYTES, ended: bool = True, whole: bool = False) -> Member:
    return Member(replace(story.FLOW, client_port=port), received, True, ended, 0.1, whole)


def without_stimulus(events: Mapping[str, Witness]) -> dict[str, Witness]:
    return story.without(events, "stale window")


def judged(members: list[Member], events: Iterable[Witness], proof: Proof = Proof(())) -> TrialResult:  # noqa: B008
    everything = (*canaries(), *events)
    observed = story.observed(everything, flow=replace(story.FLOW, client_port=0))
    each = by_connection([member.flow for member in members], everything)
    findings = analyse(story.recording_of(observed, *(member.flow for member in members)))
    return judge_load(observed, members, each, proof, findings, 30)


def mixed() -> TrialResult:
    """One connection is reset, one completes, one stalls."""
    return judged(
        [member(40001, received=2304, ended=False, whole=True), member(40002), member(40003, ended=False)],
        [
            *of_port(without_stimulus(story.reset()), 40001),
            *of_port(without_stimulus(story.accepted()), 40002),
            *late(40002),
            *of_port(without_stimulus(story.accepted()), 40003),
        ],
    )


def run_of(*trials: TrialResult) -> Result:
    return Result("load", "A load resets.", "kube-proxy-reset", (), "6.18.44", trials)


def test_each_connection_is_judged_by_itself() -> None:
    trial = mixed()
    assert trial.load is not None
    assert (trial.outcome, trial.missing) == (Outcome.RESET, ())
    assert {outcome.value: n for outcome in Outcome if (n := trial.load.count(outcome))} == {
        "reset": 1,
        "stalled": 1,
        "completed": 1,
    }
    assert (trial.load.connections, trial.load.late, trial.load.logged) == (3, 1, 2)
    reset, stalled = trial.load.others
    assert [piece.link.value for piece in reset.evidence] == [
        *("request", "request-translated", "reply", "invalid", "reply-untranslated"),
        *("rst", "rst-at-server", "server-reset", "client-reset"),
    ]
    assert (reset.flow.client_port, stalled.flow.client_port) == (40001, 40003)
    assert trial.load.drawn == replace(reset, duration_s=0.25)
    assert (trial.bytes_received, trial.payload_bytes) == (2304 + 2 * 10_000, 3 * 10_000)


def test_a_reset_without_its_evidence_makes_the_trial_unclear() -> None:
    broken = story.without(without_stimulus(story.reset()), "invalid")
    trial = judged([member(40001, ended=False)], of_port(broken, 40001))
    assert (trial.outcome, trial.missing) == (
        Outcome.INCONCLUSIVE,
        ("in 1 of 1 connections: why NAT on client-node left alone the reply that was answered with a RST",),
    )


def test_only_so_many_kinds_of_what_is_missing_are_told() -> None:
    names = (("syn at server", "request at server"), ("syn,ack",), ("fin",), ("fin at client",))
    events = [
        event
        for port, gone in enumerate(names, 40001)
        for event in of_port(story.without(without_stimulus(story.accepted()), *gone), port)
    ]
    trial = judged([member(port) for port in range(40001, 40005)], events)
    assert trial.outcome is Outcome.INCONCLUSIVE
    assert trial.missing[0] == "in 1 of 4 connections: the client's connection, among the packets reaching server"
    assert (len(trial.missing), trial.missing[-1]) == (4, "and 1 things more")


def test_all_complete_or_one_is_reset_only_where_the_stimulus_is_proven() -> None:
    events = list(of_port(without_stimulus(story.accepted()), 40001))
    assert judged([member(40001)], events).outcome is Outcome.COMPLETED
    unproven = judged([member(40001)], events, Proof((), "a late segment"))
    assert (unproven.outcome, unproven.missing) == (Outcome.INCONCLUSIVE, ("a late segment",))
    assert judged([], []).missing == ("a connection",)
    reset = list(of_port(without_stimulus(story.reset()), 40001))
    unproven = judged([member(40001, ended=False)], reset, Proof((), "a late segment"))
    assert (unproven.outcome, unproven.missing) == (Outcome.INCONCLUSIVE, ("a late segment",))
    stalled = judged([member(40001, ended=False)], events)
    assert (stalled.outcome, stalled.missing) == (
        Outcome.STALLED,
        ("the end of the stream in 1 of 1 connections",),
    )


def test_a_lost_event_makes_the_whole_load_unclear() -> None:
    observed = story.observed(
        (*canaries(), *of_port(without_stimulus(story.accepted()), 40001)),
        lost=((ObserverId(ObserverKind.PACKETS, "client", "eth0"), 7),),
    )
    each = by_connection([member(40001).flow], observed.events)
    trial = judge_load(
        observed, [member(40001)], each, Proof(()), analyse(story.recording_of(observed, member(40001).flow))
    )
    assert (trial.outcome, trial.missing) == (
        Outcome.INCONCLUSIVE,
        ("7 events lost by the packets on client/eth0",),
    )


def test_the_connection_that_shows_most_is_drawn() -> None:
    events = [
        *of_port(without_stimulus(story.accepted()), 40001),
        *of_port(without_stimulus(story.accepted()), 40002),
        *late(40002),
    ]
    trial = judged([member(40001, whole=True), member(40002, whole=True)], events)
    assert trial.flow.client_port == 40002
    assert [(piece.link.value, piece.note) for piece in trial.evidence[2:3]] == [
        ("reply", "comes to client-node 0.0 ms after it left, and 0.0 ms after its copy")
    ]
    # Of the others the packets between their ends are missing.
    assert judged([member(40001, whole=True), member(40002)], events).flow.client_port == 40001


def test_resets_are_told_per_thousand_with_an_interval() -> None:
    found = run_of(mixed(), mixed()).per_thousand()
    assert found is not None
    assert (found.resets, found.connections, round(found.rate, 1)) == (2, 6, 333.3)
    assert (round(found.low, 1), round(found.high, 1)) == (96.8, 700.0)
    assert run_of().per_thousand() is None
    assert run_of(replace(mixed(), outcome=Outcome.INCONCLUSIVE)).per_thousand() is None


def test_the_text_of_a_load() -> None:
    shown = text.render(run_of(mixed(), mixed())).partition("\n\n  client")[0]
    assert (
        shown
        == """\
REPRODUCED 2/6 connections reset
load in lab kube-proxy-reset, no fix, kernel 6.18.44
2 reset in 0.5 s; 44,608 of 60,000 bytes arrived; events lost: 0
6 connections: 2 reset, 2 stalled, 2 completed
resets per thousand connections: 333.3 (96.8 to 700.0 with 95 % confidence)
2 segments came after a copy of their data; conntrack logged something about 4
the server had 30 % of a CPU

Trial 1 of 2, one of its connections, as seen in the kernel:"""
    )


def test_the_text_says_why_a_server_was_not_limited() -> None:
    trial = mixed()
    assert trial.load is not None
    unlimited = replace(trial, load=replace(trial.load, cpu_percent=None, unlimited="no cgroup"))
    assert text.load(run_of(unlimited))[-1] == "the server's CPU was not limited: no cgroup"


def test_json_of_a_load() -> None:
    run = json.loads(report_json.render(run_of(mixed())))
    assert run["resets_per_thousand"] == {
        "connections": 3,
        "resets": 1,
        "rate": 333.333,
        "confidence": 0.95,
        "low": 61.492,
        "high": 792.34,
    }
    load = run["trials"][0]["load"]
    assert tuple(load) == run_json.LOAD
    others = load.pop("not_completed")
    assert load == {
        "connections": 3,
        "outcomes": dict.fromkeys(Outcome, 0) | {"reset": 1, "completed": 1, "stalled": 1},
        "late_segments": 1,
        "segments_logged": 2,
        "cpu_percent": 30,
        "unlimited": None,
    }
    assert [(other["client_port"], other["outcome"], len(other["evidence"])) for other in others] == [
        (40001, "reset", 9),
        (40003, "stalled", 2),
    ]


def test_a_load_comes_back_from_a_bundle() -> None:
    whole = run_of(mixed())
    assert codec.from_json(json.loads(json.dumps(codec.to_json(whole))), Result) == whole


def test_the_page_of_a_load() -> None:
    trial = mixed()
    recording = pictures.recording([trial.flow], of_port(story.reset(), 40001), in_part=True)
    page = html.render(run_of(trial), analyse(recording))
    assert "The connections of the load" in page
    assert "Those that did not complete: all 2" in page
    assert "The client learns of it +0.1" in page
    assert "missing: the end of the stream: 10,000 of 10,000 bytes in 0.1 s" in page


def test_an_event_belongs_to_its_clients_port() -> None:
    segment = story.segment(Leg.VIP_TO_CLIENT, ACK, 1, 1)
    assert client_port(story.packet(1, "client", "in", segment), story.FLOW) == 40000
    assert client_port(replace(story.error(1, "server"), peer_port=5, local_port=80), story.FLOW) == 5
    canary = replace(segment, src=story.FLOW.client_address, sport=CANARY_PORT)
    assert client_port(story.packet(1, "client", "out", canary), story.FLOW) == CANARY_PORT


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.fixture
def lab(as_root: None) -> Iterator[tuple[PrivateLab, Roles]]:
    """The flagship, without slow lanes."""
    part = document(LOAD)
    with PrivateLab(part.topology) as namespaces:
        yield namespaces, assign(part.topology, part.experiment)


def listener(namespaces: PrivateLab, roles: Roles) -> socket.socket:
    sock = namespaces.socket(roles.server, socket.AF_INET, socket.SOCK_STREAM)
    sock.bind((str(roles.endpoint), roles.target_port))
    return sock


def open_load(namespaces: PrivateLab, roles: Roles, demand: Demand, cpu_percent: int | None = None) -> Load:
    with listener(namespaces, roles) as listening:
        load = Load(roles, namespaces, listening, demand, cpu_percent)  # type: ignore[arg-type]  # as for a test's lab
        load.start()
        return load


@pytest.mark.kernel
def test_a_crowd_gets_every_byte_and_is_gone(lab: tuple[PrivateLab, Roles]) -> None:
    load = open_load(*lab, Demand(40, 7, 20, range(20000, 20003)))
    server, clients = load._server.pid, load._clients.pid
    until(load.ended, "the end of the load")
    told = load.told()
    assert {(each.received_bytes, each.intact, each.ended) for each in told} == {(100_000, True, True)}
    assert [each for each in told if each.client_error or each.server_error] == []
    assert len({each.port for each in told}) == 40
    assert {20000, 20001, 20002} < {each.port for each in told}
    load.close()
    assert not [pid for pid in (server, clients) if Path(f"/proc/{pid}").exists()]


@pytest.mark.kernel
def test_a_reset_is_told_by_the_end_that_has_it(lab: tuple[PrivateLab, Roles]) -> None:
    namespaces, roles = lab
    load = open_load(namespaces, roles, Demand(1, 1, 20, range(20000, 20001), 100, 10))
    # The server may have written all of it into its queue, and closed its side.
    until(lambda: "FIN-WAIT" in namespaces.run(roles.server, "ss", "-Htan", "dport = :20000"), "the connection")
    namespaces.run(roles.server, "ss", "-K", "dport = :20000")  # the kernel ends it, and sends a RST
    (told,) = load.told()
    load.close()
    assert told.server_error is not None
    assert errno.errorcode[told.server_error[1]] == "ECONNABORTED"


@pytest.mark.kernel
def test_who_is_not_through_in_time_is_told_of_all_the_same(lab: tuple[PrivateLab, Roles]) -> None:
    load = open_load(*lab, Demand(4, 2, 0.3, range(0), 50, 30))
    until(load.ended, "the end of the load")
    told = load.told()
    load.close()
    assert sum(not each.ended for each in told) >= 1
    # Nobody's socket was closed before it was told of: that would look like a reset.
    assert [each for each in told if each.client_error or each.server_error] == []


@pytest.mark.kernel
def test_without_a_port_for_each_fewer_begin(lab: tuple[PrivateLab, Roles]) -> None:
    namespaces, roles = lab
    namespaces.run(roles.client, "sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40009")
    load = open_load(namespaces, roles, Demand(30, 2, 20, range(20000, 20001)))
    until(load.ended, "the end of the load")
    told = load.told()
    load.close()
    assert {each.ended for each in told} == {True}
    assert {each.port for each in told} <= {20000, *range(40000, 40010)}


@pytest.mark.kernel
def test_a_server_is_limited_where_that_can_be(lab: tuple[PrivateLab, Roles], monkeypatch: pytest.MonkeyPatch) -> None:
    skips.skip_unless_capability("cgroup-cpu")
    asked: list[int] = []

    def limit(quota_us: int) -> AbstractContextManager[Path]:
        asked.append(quota_us)
        return cgroups.limited_cpu(quota_us)

    monkeypatch.setattr(loads, "limited_cpu", limit)
    load = open_load(*lab, Demand(3, 3, 20, range(0)), 20)
    group = Path(f"/proc/{load._server.pid}/cgroup").read_text()
    load.close()
    assert (asked, load.cpu_percent, load.unlimited) == ([20_000], 20, "")
    assert "/netlab-" in group


@pytest.mark.kernel
def test_a_server_that_cannot_be_limited_serves_all_the_same(
    lab: tuple[PrivateLab, Roles], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_quota_us: int) -> None:
        raise OSError(errno.EPERM, "no cgroup for this user")

    monkeypatch.setattr(loads, "limited_cpu", refuse)
    load = open_load(*lab, Demand(3, 3, 20, range(0)), 20)
    until(load.ended, "the end of the load")
    assert [each.ended for each in load.told()] == [True] * 3
    load.close()
    assert (load.cpu_percent, load.unlimited) == (None, "no cgroup for this user")


@pytest.mark.kernel
def test_a_process_that_ends_before_it_tells_is_no_empty_load(lab: tuple[PrivateLab, Roles]) -> None:
    load = open_load(*lab, Demand(1, 1, 20, range(0), 100, 10))
    os.kill(load._server.pid, signal.SIGKILL)
    with pytest.raises(NetlabError, match="ended before it told what it saw"):
        load.told()
    load.close()


@pytest.mark.kernel
def test_its_processes_end_with_the_one_that_made_them(lab: tuple[PrivateLab, Roles]) -> None:
    read, write = os.pipe()
    maker = os.fork()
    if maker == 0:
        load = open_load(*lab, Demand(1, 1, 60, range(0), 100, 60))
        os.write(write, f"{load._server.pid} {load._clients.pid}".encode())
        os._exit(0)  # as if killed: nothing is closed
    os.waitpid(maker, 0)
    pids = os.read(read, 100).decode().split()
    os.close(read)
    os.close(write)
    until(lambda: not any(_runs(pid) for pid in pids), "the end of its processes")


def _runs(pid: str) -> bool:
    """Whether there is such a process that isn't dead but unburied."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- run on a kernel -------------------------------------------------------------------------------------------------


def run(name: str, fix: str | None, load: Mapping[str, int], trials: int = 1) -> tuple[Result, Recording]:
    part = document(name, fix)
    for capability in part.experiment.needs:
        skips.skip_unless_capability(capability)
    there = [each.name for each in probe(part.experiment.capabilities()).values() if each.there]
    steps = tuple(
        step._replace(stimulus=step.stimulus._replace(arguments={**step.stimulus.arguments, **load}))
        if step.stimulus is not None and step.stimulus.name == "load"
        else step
        for step in part.experiment.steps
    )
    with PrivateLab(part.topology) as namespaces:
        smaller = replace(part, experiment=part.experiment._replace(steps=steps))
        source = Source(FLAGSHIP.read_text(), fixes=(fix,) if fix else ())
        result, recording = smaller.run(namespaces, trials, fix, source=source)
        assert namespaces.run("server-node", "nft", "list", "tables") == ""
        assert "htb" not in namespaces.run("server-node", "tc", "qdisc", "show")
    expected = part.experiment.expected((fix,) if fix else (), there)
    return replace(result, expected=expected), recording


@pytest.mark.kernel
@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("fix", [None, "drop-invalid", "be-liberal", "notrack"])
def test_a_load_ends_as_its_document_expects(fix: str | None) -> None:
    result, recording = run(LOAD, fix, {"connections": 150, "parallel": 75})
    (trial,) = result.trials
    assert (trial.outcome, trial.missing) == (result.expected, ())
    assert trial.load is not None
    assert (trial.load.connections, trial.load.late >= 3) == (150, True)
    assert bool(trial.load.logged) is (fix not in ("be-liberal", "notrack"))
    # The connection that is drawn was observed whole, and the model agrees with the kernel about it.
    timeline = build(recording)
    assert [flow.client_port for flow in timeline.flows] == [trial.flow.client_port]
    # What the slow lane has no room for it drops.
    lost = {path.last.netns for path in timeline.of(trial.flow) if path.fate is not Fate.DELIVERED}
    assert lost <= {"server-node"}
    assert crosscheck(result, build(recording))[1] == ()


@pytest.mark.kernel
@pytest.mark.usefixtures("as_root")
def test_slow_readers_are_reset_and_each_reset_has_its_evidence() -> None:
    result, recording = run(SLOW_READERS, "drop-invalid", {"connections": 60, "parallel": 60})
    (trial,) = result.trials
    assert (trial.outcome, trial.missing, result.expected) == (Outcome.RESET, (), Outcome.RESET)
    assert trial.load is not None
    assert trial.load.count(Outcome.RESET) + trial.load.completed == 60
    assert 1 <= trial.load.count(Outcome.RESET) <= 6
    for other in trial.load.others:
        links = [piece.link.value for piece in other.evidence]
        assert links[2:8] == ["reply", "adopted", "reply-untranslated", "rst", "rst-at-server", "server-reset"]
    # Of the others, only the events of those that were reset are kept.
    kept = {client_port(event, trial.flow) for event in recording.events} - {0, CANARY_PORT}
    reset = {other.flow.client_port for other in trial.load.others}
    assert reset <= kept <= reset | set(range(20000, 28000))


@pytest.mark.kernel
@pytest.mark.usefixtures("as_root")
def test_trials_have_ports_of_their_own() -> None:
    result, _ = run(LOAD, None, {"connections": 20, "parallel": 20}, trials=3)
    drawn = [trial.flow.client_port for trial in result.trials]
    assert [port // 8 for port in drawn] == [2500, 2501, 2502]


@pytest.mark.kernel
def test_run_tells_of_a_load_rootless_too(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    file = FLAGSHIP.parent / "experiments" / f"{SLOW_READERS}.yaml"
    options = ("--name", lab_name, privilege, "--set", "experiment.steps.1.load.connections=20")
    bundle = tmp_path / "run.zip"
    done = netlab("run", file, *options, "--bundle", bundle)
    assert (done.returncode, done.stderr) == (0, f"wrote {bundle}\n")
    assert done.stdout.startswith("REPRODUCED ")
    assert "resets per thousand connections: " in done.stdout
    again = netlab("report", bundle)
    assert (again.stdout, again.returncode) == (done.stdout, 0)
    assert netlab("explain", bundle).stdout.startswith("RESET: ")
