"""The model held against a kernel's log lines."""

from __future__ import annotations

from dataclasses import replace

from conntrack_wire import Wire, overshoot

from netlab.conntrack.agreement import Differs, disagreements
from netlab.conntrack.values import CtOutcome
from netlab.record.events import InvalidReason, Packet


def reason(about: Packet, text: str) -> InvalidReason:
    return InvalidReason(about.time_ns, "client-node", "eth0", text, about.segment)


def test_agreement_is_silent() -> None:
    checked = overshoot(2302).checked()
    right = [reason(checked[-1].packet, "2304 bytes more than expected")]
    assert disagreements([(each, right if each is checked[-1] else []) for each in checked]) == ()


def test_disagreements_are_told() -> None:
    checked = overshoot(2302).checked()
    wrong = [reason(checked[-1].packet, "42 bytes more than expected")]
    stray = [reason(checked[0].packet, "invalid state")]
    pairs = [(each, wrong if each is checked[-1] else stray if each is checked[0] else []) for each in checked]
    assert [str(each) for each in disagreements(pairs)] == [
        'the kernel logged "invalid state" where the model expects nothing',
        'the kernel logged "42 bytes more than expected" where the model expects "2304 bytes more than expected"',
    ]
    silent = disagreements([(checked[-1], [])])
    assert [str(each) for each in silent] == [
        'the model expects "2304 bytes more than expected", and the kernel logged nothing'
    ]


def test_what_the_model_cannot_see_is_no_disagreement() -> None:
    fine = Wire().opened().last()
    broken = [reason(fine.packet, "bad checksum")]
    lowered = [reason(fine.packet, "packet (index 2, dir 0) response for index 4 lower timeout to 300")]
    again = [reason(fine.packet, "lowered timeout to UNACK")]
    assert disagreements([(fine, broken), (fine, lowered), (fine, again)]) == ()
    checked = overshoot(2303).last()
    right = reason(checked.packet, checked.log)
    assert disagreements([(checked, [right, *lowered])]) == ()
    assert disagreements([(checked, [right, *again])]) == ()
    # A wrong checksum says why a line that was expected isn't there; another line doesn't.
    assert disagreements([(checked, broken)]) == ()
    assert len(disagreements([(checked, lowered)])) == 1
    assert len(disagreements([(fine, [right])])) == 1
    assert len(disagreements([(fine, [*broken, right])])) == 1


def test_what_is_not_modelled_is_left_out() -> None:
    fine = Wire().opened().last()
    unknown = replace(fine, outcome=CtOutcome.UNMODELLED)
    assert disagreements([(unknown, [reason(fine.packet, "invalid state")])]) == ()
    kinds = [each.kind for each in disagreements([(fine, [reason(fine.packet, "invalid state")])])]
    assert kinds == [Differs.LOGGED_ONLY]
