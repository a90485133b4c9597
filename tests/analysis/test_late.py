"""Segments that come to a namespace after a copy of their data that was sent later."""

from __future__ import annotations

from dataclasses import replace

import pytest
import story

from netlab.analysis.late import late_segments
from netlab.analysis.result import Evidence, Link
from netlab.record.events import ACK, Packet, Segment
from netlab.record.flow import FlowEvents, Leg

FIRST = replace(story.segment(Leg.ENDPOINT_TO_CLIENT, ACK, 9001, 1005, 100), ip_id=7)
COPY = replace(FIRST, ip_id=8)


def sent(at_us: int, segment: Segment) -> Packet:
    return story.packet(at_us, "server", "out", segment)


def came(at_us: int, segment: Segment, netns: str = "client-node") -> Packet:
    return story.packet(at_us, netns, "in", segment)


OVERTAKEN = (sent(0, FIRST), sent(2000, COPY), came(3000, COPY), came(9000, FIRST))


def found(*events: Packet, netns: str = "client-node", since_us: int = 0, by_us: float = 0) -> list[Evidence]:
    since_ns = story.START_NS + since_us * 1000
    return list(late_segments(FlowEvents(story.FLOW, events), netns, since_ns, by_us * 1000))


def test_a_segment_that_its_copy_overtakes_is_late() -> None:
    note = "comes to client-node 9.0 ms after it left, and 6.0 ms after its copy"
    assert found(*OVERTAKEN) == [Evidence(Link.REPLY, OVERTAKEN[0], note)]


def test_one_that_comes_first_is_not() -> None:
    assert found(sent(0, FIRST), sent(2000, COPY), came(1000, FIRST), came(3000, COPY)) == []


def test_one_that_comes_with_its_copy_is_not() -> None:
    assert found(sent(0, FIRST), sent(2000, COPY), came(3000, COPY), came(3000, FIRST)) == []


def test_it_is_told_after_the_first_of_its_copies_to_come() -> None:
    third = replace(FIRST, ip_id=9)
    events = (sent(0, FIRST), sent(1000, COPY), sent(2000, third), came(3000, third), came(4000, COPY))
    late = found(*events, came(6000, FIRST))
    assert [piece.note for piece in late] == [
        "comes to client-node 6.0 ms after it left, and 3.0 ms after its copy",
        "comes to client-node 3.0 ms after it left, and 1.0 ms after its copy",
    ]


def test_what_never_came_is_late_for_nobody() -> None:
    assert found(sent(0, FIRST), sent(2000, COPY), came(3000, COPY)) == []
    assert found(sent(0, FIRST), sent(2000, COPY), came(9000, FIRST)) == []


@pytest.mark.parametrize(("by_us", "count"), [(5999, 1), (6000, 0)])
def test_it_may_have_to_be_late_by_more(by_us: float, count: int) -> None:
    assert len(found(*OVERTAKEN, by_us=by_us)) == count


@pytest.mark.parametrize(("since_us", "count"), [(0, 1), (1, 0)])
def test_what_left_before_the_moment_is_left_out(since_us: int, count: int) -> None:
    assert len(found(*OVERTAKEN, since_us=since_us)) == count


def test_what_carries_nothing_has_no_copies() -> None:
    bare, again = replace(FIRST, payload_bytes=0), replace(COPY, payload_bytes=0)
    assert found(sent(0, bare), sent(2000, again), came(3000, again), came(9000, bare)) == []


def test_other_data_is_no_copy() -> None:
    other = replace(COPY, seq=9101)
    assert found(sent(0, FIRST), sent(2000, other), came(3000, other), came(9000, FIRST)) == []


def test_what_was_seen_there_before_it_left_is_another() -> None:
    """Identifications come round again."""
    assert found(sent(100, FIRST), sent(2000, COPY), came(50, COPY), came(9000, FIRST)) == []


def test_it_is_known_again_with_the_vips_address() -> None:
    back = story.FLOW.header(Leg.VIP_TO_CLIENT)
    src, sport, dst, dport = back
    translated = [replace(each, src=src, sport=sport, dst=dst, dport=dport) for each in (COPY, FIRST)]
    events = (*OVERTAKEN[:2], came(3000, translated[0], "client"), came(9000, translated[1], "client"))
    assert [piece.note for piece in found(*events, netns="client")] == [
        "comes to client 9.0 ms after it left, and 6.0 ms after its copy"
    ]
    assert found(*events) == []
