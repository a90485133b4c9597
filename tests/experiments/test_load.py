"""Loads: what is told of many connections, on hand-made events; and run on the real kernel."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pictures
import pytest
import run_json
import skips
import story
from command import Netlab
from crowd import mixed, of_port, run_of
from flagship import FLAGSHIP, document
from labs import until
from private_lab import PrivateLab

from netlab.analysis.crosscheck import crosscheck
from netlab.analysis.findings import analyse
from netlab.analysis.judge_load import client_port
from netlab.analysis.paths import Fate
from netlab.analysis.result import Outcome, Result
from netlab.analysis.timeline import build
from netlab.capabilities.probes import probe
from netlab.errors import NetlabError
from netlab.experiments import load as loads
from netlab.experiments.load import Demand, Load
from netlab.experiments.roles import Roles, assign
from netlab.linux import cgroups
from netlab.observe.recorder import Source
from netlab.record import codec
from netlab.record.flow import CANARY_PORT
from netlab.record.recording import Recording
from netlab.report import html, text
from netlab.report import json as report_json

LOAD, SLOW_READERS = "load", "load-slow-readers"


# --- reported --------------------------------------------------------------------------------------------------------


def test_the_text_of_a_load() -> None:
    shown = text.render(run_of(mixed(), mixed())).partition("\n\n  client")[0]
    assert (
        shown
        == """\
REPRODUCED 2/6 connections reset
load in lab kube-proxy-reset, no fix, kernel 6.18.44
2 reset in 0.5 s; 44,608 of 60,000 bytes arrived; events lost: 0
6 connections: 2 reset, 2 stalled, 2 completed
resets per thousand connections: 333.3 (96.8 to 700.0 with 95% confidence)
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
    assert "/netlab-cpu-limit-" in group


LIMITING = """
import os, signal
from netlab.linux.cgroups import limited_cpu
with limited_cpu(20_000) as group:
    other = group.parent / f"netlab-{os.getpid()}"
    other.mkdir()
    print(group, other, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.kernel
def test_the_cgroup_of_a_killed_run_goes_with_the_next_command(netlab: Netlab) -> None:
    skips.skip_unless_capability("cgroup-cpu")
    killed = subprocess.run([sys.executable, "-c", LIMITING], stdout=subprocess.PIPE, text=True)
    left, others = map(Path, killed.stdout.split())
    try:
        with cgroups.limited_cpu(20_000) as mine:
            assert not left.exists()
            assert netlab("down", "--all").returncode == 0
            assert mine.exists()
    finally:
        others.rmdir()  # the user's own, which was left alone


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
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
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
    assert crosscheck(result.trials, build(recording))[1] == ()


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
