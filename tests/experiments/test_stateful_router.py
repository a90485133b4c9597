"""What conntrack makes of odd segments, by the documents of the stateful router. On the real kernel."""

from __future__ import annotations

import pytest
from command import Netlab
from flagship import run_document
from places import TOPOLOGIES

from netlab.analysis.result import Claim, Outcome
from netlab.record.events import Packet
from netlab.record.recording import CraftedSegment, Recording

pytestmark = pytest.mark.kernel

NAMES = ("rst-invalid", "rst-inexact", "syn-challenge-ack", "synack-old", "synack-reuse", "ack-loss-stall")


def crafted(recording: Recording) -> list[CraftedSegment]:
    """The segments that the steps wrote by hand."""
    return [each for step in recording.stimuli for each in step.made if isinstance(each, CraftedSegment)]


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("name", NAMES)
def test_conntrack_says_of_each_what_its_document_claims(name: str) -> None:
    result, recording, expected = run_document(name, 1)
    (trial,) = result.trials
    assert (trial.outcome, trial.missing, trial.refuted) == (expected, (), "")
    by_hand = crafted(recording)
    assert len(by_hand) == sum(step.text.startswith("craft-segment") for step in recording.stimuli)
    left = {
        packet.segment.seq for packet in recording.events if isinstance(packet, Packet) and packet.netns == "server"
    }
    assert {each.segment.seq for each in by_hand} <= left


@pytest.mark.usefixtures("as_root")
def test_a_firewall_that_keeps_no_numbers_refutes_the_claim(netlab: Netlab, lab_name: str) -> None:
    file = TOPOLOGIES / "experiments" / "rst-invalid.yaml"
    liberal = ("--set", "namespaces.router.sysctls.net.netfilter.nf_conntrack_tcp_ignore_invalid_rst=1")
    done = netlab(
        "run", file, "--name", lab_name, "--trials", "1", "--set", "experiment.steps.2.within_s=0.5", *liberal
    )
    assert done.returncode == 1, done.stdout
    assert Claim.REFUTED.value in done.stdout.lower()
    assert Outcome.INCONCLUSIVE.value not in done.stdout.splitlines()[0]


def test_as_an_ordinary_user(netlab: Netlab, lab_name: str, rootless: None) -> None:
    file = TOPOLOGIES / "experiments" / "synack-reuse.yaml"
    done = netlab("run", file, "--name", lab_name, "--rootless", "--trials", "1")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
