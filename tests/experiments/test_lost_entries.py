"""Connections whose conntrack entry is gone while both ends live: deleted, or run out. On the real kernel."""

from __future__ import annotations

import errno
import json
import re
import socket
from functools import cache

import labs
import pytest
import skips
from command import Netlab
from flagship import FLAGSHIP, WITHOUT_ENTRIES, document
from private_lab import PrivateLab

from netlab.analysis import explain
from netlab.analysis.crosscheck import crosscheck
from netlab.analysis.findings import analyse
from netlab.analysis.result import Result, TrialResult
from netlab.analysis.timeline import build
from netlab.experiments.catalogue import runs
from netlab.linux import sysctl
from netlab.observe.recorder import Source
from netlab.record.events import ConntrackEvent, TraceStep
from netlab.record.recording import Recording
from netlab.report import explanation

pytestmark = pytest.mark.kernel

NAMES = ("entry-deleted", "entry-deleted-client-first", "idle-expiry", "idle-expiry-strict")
FIXES = (None, "drop-invalid", "be-liberal")


@cache
def run(name: str, fix: str | None = None) -> tuple[Result, Recording]:
    """One trial, in which the window model agrees with the kernel."""
    part = document(name, fix)
    for capability in part.experiment.needs:
        skips.skip_unless_capability(capability)
    file = FLAGSHIP.parent / "experiments" / f"{name}.yaml"
    (found,) = runs(file.read_text(), str(file))
    source = Source(found.text, found.settings, (fix,) if fix else ())
    with PrivateLab(part.topology) as namespaces:
        result, recording = part.run(namespaces, 1, fix, source=source)
    assert crosscheck(result.trials, build(recording))[1] == ()
    return result, recording


def links(trial: TrialResult) -> list[str]:
    """What the evidence has beyond the request, up to the reset of either socket."""
    return [piece.link.value for piece in trial.evidence if piece.link.value != "client-reset"][2:]


def story(recording: Recording) -> str:
    """How the connection's story is told, in one line."""
    return " ".join(explanation.render(explain.explain(analyse(recording))).split())


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("fix", FIXES)
@pytest.mark.parametrize("name", NAMES)
def test_a_trial_ends_as_its_document_expects(name: str, fix: str | None) -> None:
    result, _ = run(name, fix)
    assert [(trial.outcome, trial.missing[1:]) for trial in result.trials] == [(result.expected, ())]
    assert result.exit_code() == 0


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("name", ["entry-deleted", "idle-expiry"])
def test_the_server_is_taken_for_one_who_begins(name: str) -> None:
    result, recording = run(name)
    (trial,) = result.trials
    chain = ["reply", "adopted", "reply-untranslated", "rst", "rst-at-server", "server-reset"]
    assert [link for link in links(trial) if link != "observed"] == chain
    (adopted,) = (piece.event for piece in trial.evidence if piece.link.value == "adopted")
    assert isinstance(adopted, ConntrackEvent)
    assert (adopted.tuple_orig.src, adopted.tuple_orig.dst) == (trial.flow.endpoint, trial.flow.client_address)
    # What has run out is deleted where the kernel tidies up before a packet looks for it.
    finds = (
        "finds that the connection's entry has run out|lets the connection's entry run out, after 1 s without a packet|"
    )
    run_out = finds if name == "idle-expiry" else ""
    gone = f"conntrack on client-node ({run_out}deletes the connection's entry), and its translation with it"
    assert re.search(gone, story(recording))
    assert "conntrack on client-node has no entry for it: picked up in mid-stream" in story(recording)


@pytest.mark.usefixtures("as_root")
def test_nobody_is_taken_for_one_who_begins() -> None:
    result, recording = run("idle-expiry-strict")
    (trial,) = result.trials
    (verdict,) = (piece.event for piece in trial.evidence if piece.link.value == "invalid")
    assert isinstance(verdict, TraceStep)
    assert "INVALID (mid-stream, and tcp_loose is 0), without a log line; `ct state invalid` matched it" in story(
        recording
    )


@pytest.mark.usefixtures("as_root")
def test_the_client_gets_its_translation_anew() -> None:
    result, recording = run("entry-deleted-client-first")
    assert links(result.trials[0]) == ["observed", "observed", "observed"]
    assert [stimulus.text for stimulus in recording.stimuli] == [
        "connect",
        "send: {from: server, bytes: 3000}",
        "delete-entry: {in: client-node}",
        "send: {from: client, bytes: 100}",
        "finish",
        "",
    ]
    assert [type(each).__name__ for each in recording.stimuli[-1].made] == ["ClosedSocket", "ClosedSocket"]
    told = "-> conntrack on client-node makes an entry for a packet of client's in mid-stream, translated as a new"
    assert told in story(recording)


def tcp_info(sock: socket.socket) -> tuple[int, int]:
    """State and backoff (how many probes a closed window has had) of struct tcp_info (include/uapi/linux/tcp.h)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    return info[0], info[4]


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize(("whose", "lives"), [("client", True), ("server", False)])
def test_keepalives_keep_the_entry_where_the_end_that_sends_them_has_no_data_waiting(whose: str, lives: bool) -> None:
    payload, closed, fifth = bytes(8000), 7, 5
    with PrivateLab(document("entry-deleted").topology) as namespaces:
        with namespaces.inside("client-node"):
            sysctl.write("net.netfilter.nf_conntrack_tcp_timeout_max_retrans", "2")
        with (
            namespaces.socket("server", socket.AF_INET, socket.SOCK_STREAM) as listener,
            namespaces.socket("client", socket.AF_INET, socket.SOCK_STREAM) as client,
        ):
            listener.bind(("0.0.0.0", 80))
            listener.listen()
            client.settimeout(labs.DEADLINE_S)
            client.connect(("192.168.0.2", 80))
            server, _ = listener.accept()
            with server:
                alive = client if whose == "client" else server
                alive.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
                    alive.setsockopt(socket.IPPROTO_TCP, option, 1)
                assert server.send(payload) == len(payload)
                # It comes more than 3 s after the fourth: nothing else of the server's passes in between.
                labs.until(lambda: tcp_info(server)[1] >= fifth or tcp_info(server)[0] == closed, "a fifth probe")
                if lives:
                    with client.makefile("rb") as stream:
                        assert stream.read(len(payload)) == payload
                else:
                    labs.until(lambda: tcp_info(server)[0] == closed, "the reset")
                    assert server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET


@pytest.mark.parametrize("name", NAMES)
def test_as_an_ordinary_user(name: str, netlab: Netlab, lab_name: str, rootless: None) -> None:
    for capability in document(name).experiment.needs:
        skips.skip_unless_capability(capability)
    file = FLAGSHIP.parent / "experiments" / f"{name}.yaml"
    done = netlab("run", file, "--name", lab_name, "--rootless", "--trials", "1")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.usefixtures("as_root")
def test_a_reset_by_another_cause_is_not_taken_for_the_claimed_one(netlab: Netlab, lab_name: str) -> None:
    file = FLAGSHIP.parent / "experiments" / "idle-expiry-strict.yaml"
    loose = ("--set", "namespaces.client-node.sysctls.net.netfilter.nf_conntrack_tcp_loose=1")
    done = netlab("run", file, "--name", lab_name, "--trials", "1", "--format", "json", *loose)
    assert done.returncode == 1, done.stdout
    run = json.loads(done.stdout)
    assert (run["claim_is"], run["outcomes"]["reset"]) == ("refuted", 1)
    assert "a rule in client-node finds INVALID" in run["trials"][0]["refuted"]


@pytest.mark.usefixtures("as_root")
def test_an_entry_that_is_not_there_cannot_be_deleted(netlab: Netlab, lab_name: str) -> None:
    skips.skip_unless_capability("ctnetlink-delete")
    file = FLAGSHIP.parent / "experiments" / "entry-deleted.yaml"
    elsewhere = ("--set", "experiment.steps.2.delete-entry.in=server-node")
    done = netlab("run", file, "--name", lab_name, "--trials", "1", "--format", "json", *elsewhere, *WITHOUT_ENTRIES)
    assert done.returncode == 3
    assert '"an entry of the connection in server-node\'s conntrack"' in done.stdout
