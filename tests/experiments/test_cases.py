"""Connections that people reported, each in a few lines: what is judged of it, what is told, and what must not be."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import skips
from command import Netlab
from places import DATA

from netlab.experiments import catalogue

CASES = DATA / "cases"
DISAGREE = "disagree"


@dataclass(frozen=True, slots=True)
class Case:
    """A document of tests/data/cases, a fix, and what comes of each trial.

    says are words that `netlab explain` tells of it, in this order, lines joined; never are words that neither it nor
    `netlab run` says.
    """

    document: str
    outcome: str
    claim: str
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    fix: str | None = None


CLAIMS = {
    "a RST with an old number does no harm": Case(
        "old-number",
        "completed",
        "confirmed",
        (
            "COMPLETED",
            "INVALID",
            "its source stays 10.0.1.2",
            "client knows no connection with 10.0.1.2:80",
            "its number is outside of what server waits for, and server ignores it",
        ),
    ),
    "a client's own abort is no untranslated reply's doing": Case(
        "own-abort", "reset-by-peer", "confirmed", ("RESET", "client", "to server"), ("REPRODUCED 1/1",)
    ),
    "the host that masquerades answers, not the container": Case(
        "past-window",
        "reset",
        "confirmed",
        (
            "RESET:",
            "leaves outside",
            "NAT on host skips it",
            "host knows no connection with 192.0.2.100:80",
            "reaches outside: its socket is reset",
        ),
        (DISAGREE, "container knows no connection"),
    ),
    "dropping INVALID packets that are forwarded misses it": Case(
        "past-window", "reset", "confirmed", ("host knows no connection",), fix="drop-invalid"
    ),
    "dropping what comes to the host itself prevents it": Case(
        "past-window", "completed", "confirmed", ("COMPLETED",), fix="input-drop"
    ),
    "a masqueraded client is reset by the node": Case(
        "node-port",
        "reset",
        "confirmed",
        ("RESET:", "leaves web-1", "NAT on node-a skips it", "node-a knows no connection"),
        (DISAGREE,),
    ),
    "a masqueraded client's download is healthy": Case(
        "healthy-node-port", "completed", "confirmed", ("COMPLETED",), (DISAGREE, "INVALID")
    ),
    "a server closes as the client sends": Case(
        "keepalive-race",
        "reset-by-peer",
        "confirmed",
        ("RESET",),
        ("COMPLETED", "skips it", DISAGREE),
    ),
    "an entry runs out before the FIN": Case(
        "outlived",
        "half-closed",
        "confirmed",
        ("HALF CLOSED", "entry", "invalid new"),
        (DISAGREE,),
    ),
    "a reply that stays on the bridge": Case(
        "beside-nat",
        "reset-in-handshake",
        "confirmed",
        ("SYN,ACK", "it stays on the bridge of node", "client knows no connection with 10.0.0.3:80"),
        ("NAT on node skips it", DISAGREE),
    ),
    "a pod calls itself": Case("hairpin", "completed", "confirmed", ("COMPLETED",), (DISAGREE,)),
    "ICMP says that the packet is too big": Case("black-hole", "completed", "confirmed", ("COMPLETED",)),
    "nobody says that the packet is too big": Case(
        "black-hole",
        "stalled",
        "confirmed",
        ("UNFINISHED", "need fragmentation on server-node", "ICMP error", "goes on"),
        fix="icmp-dropped",
    ),
    "a FIN leaves with the container's own address": Case(
        "leaking-fin", "completed", "confirmed", ("FIN,ACK", "NAT on host skips it", "reaches outside"), (DISAGREE,)
    ),
    "replies that go past the firewall": Case(
        "asymmetric",
        "stalled",
        "confirmed",
        ("UNFINISHED", "INVALID", "state SYN_SENT", "dropped on firewall by rule"),
        (DISAGREE,),
    ),
    "replies that go past a liberal firewall": Case(
        "asymmetric", "stalled", "confirmed", ("dropped on firewall by rule",), (DISAGREE,), fix="be-liberal-here"
    ),
    "a firewall that forgets what is idle": Case(
        "idle-firewall",
        "stalled",
        "confirmed",
        ("UNFINISHED", "tcp_loose is 0", "dropped on router by rule"),
        (DISAGREE,),
    ),
    "the server's node drops what the client's would not translate": Case(
        "node-port", "completed", "confirmed", ("dropped on node-b",), fix="drop-invalid"
    ),
    "a claim of harmlessness that holds": Case("old-rst", "completed", "confirmed", never=("NOT REPRODUCED",)),
    "a claim that a packet refutes": Case("rst-is-dropped", "inconclusive", "refuted", never=("NOT REPRODUCED",)),
    "a claim that a missing verdict refutes": Case(
        "probe-is-invalid", "inconclusive", "refuted", never=("NOT REPRODUCED", "proves nothing")
    ),
}


def in_order(words: tuple[str, ...], text: str) -> bool:
    """Whether the text has all of these, one after the other."""
    for each in words:
        _, found, text = text.partition(each)
        if not found:
            return False
    return True


@pytest.mark.kernel
@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("name", CLAIMS)
def test_what_comes_of_it_and_what_is_told(netlab: Netlab, lab_name: str, tmp_path: Path, name: str) -> None:
    case = CLAIMS[name]
    file, bundle = CASES / f"{case.document}.yaml", tmp_path / "bundle.zip"
    (run,) = catalogue.runs(file.read_text(), str(file))
    for capability in run.experiment.needs:
        skips.skip_unless_capability(capability)
    fix = ("--fix", case.fix) if case.fix else ()
    options = ("--name", lab_name, "--root", "--trials", "1", "--bundle", bundle, *fix)
    done = netlab("run", file, *options, "--format", "json")
    assert "Traceback" not in done.stderr, done.stderr
    told = json.loads(done.stdout)
    (trial,) = told["trials"]
    assert (trial["outcome"], told["claim_is"]) == (case.outcome, case.claim), trial
    explained = netlab("explain", bundle)
    assert explained.returncode == 0, explained.stderr
    story = " ".join(explained.stdout.split())
    assert in_order(case.says, story), explained.stdout
    said = done.stderr + netlab("report", bundle).stdout
    for words in case.never:
        assert words not in story, explained.stdout
        assert words not in said, said
