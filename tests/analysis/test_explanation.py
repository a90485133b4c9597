"""What the stories of TCP and UDP have in common: the order of steps, names, and what was not observed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import stories
from hops import Hops, other_flow
from story import FLOW

from netlab.analysis import explain
from netlab.analysis.explanation import Step, in_order, name, not_observed
from netlab.analysis.findings import analyse
from netlab.record.events import ACK, PSH, InvalidReason, Tuple
from netlab.record.recording import Recording


def test_steps_are_in_order_and_one_without_a_time_stays_behind_its_own() -> None:
    first = [Step("a", time_ns=10), Step("b"), Step("c", time_ns=30)]
    second = [Step("d", time_ns=20), Step("e")]
    assert [step.text for step in in_order([first, second])] == ["a", "b", "d", "e", "c"]
    assert [step.text for step in in_order([second, first])] == ["a", "b", "d", "e", "c"]


def test_what_begins_without_a_time_goes_with_what_follows_it() -> None:
    late = [Step("c"), Step("d", time_ns=30)]
    assert [step.text for step in in_order([[Step("a", time_ns=10), Step("b", time_ns=20)], late])] == [*"abcd"]
    assert [step.text for step in in_order([late, [Step("a", time_ns=30)]])] == ["c", "d", "a"]
    assert [step.text for step in in_order([[Step("a", time_ns=10)], [Step("b")]])] == ["b", "a"]


def test_a_flow_by_name() -> None:
    assert name(FLOW) == "10.0.0.2:40000 > 192.168.0.2:80 (endpoint 10.0.1.2:8080)"
    assert name(replace(FLOW, vip=FLOW.endpoint, port=8080)) == "10.0.0.2:40000 > 10.0.1.2:8080"
    way = ((FLOW.client_address, 40000, FLOW.vip, 80), (ip_address("10.1.0.1"), 50000, FLOW.endpoint, 8080))
    masqueraded = replace(FLOW, way=tuple(Tuple(*header, 6) for header in way))
    assert name(masqueraded) == ("10.0.0.2:40000 > 192.168.0.2:80 (endpoint 10.0.1.2:8080, which sees 10.1.0.1:50000)")


def test_what_was_not_observed_is_named() -> None:
    parts = [("client", "the client"), ("client-node", "the node"), (None, "nobody")]
    assert not_observed(stories.reset(), parts) == []
    assert not_observed(stories.without_node(), parts) == [
        "the packets in client-node (the node): no interface of it was observed"
    ]
    assert not_observed(stories.with_losses(), parts) == ["1,234 events lost by the packets on client-node/eth0"]


# --- what could not be told for sure ---------------------------------------------------------------------------------


def unseen(recording: Recording) -> tuple[str, ...]:
    return explain.explain(analyse(recording)).unseen


def test_a_connection_whose_beginning_was_not_seen() -> None:
    hops = Hops()
    hops.to_client(500, ACK, 1, 5, 100)
    assert unseen(hops.recording()) == ("the connection's beginning: sequence numbers are those on the wire",)
    assert unseen(Hops().opened().recording()) == ()
    assert unseen(Hops().recording()) == ()


def test_reasons_whose_packets_nobody_saw() -> None:
    recording = stories.reset()
    reasons = tuple(event for event in recording.events if isinstance(event, InvalidReason))
    seen = Hops().opened().recording()
    assert unseen(replace(seen, events=(*seen.events, *reasons))) == (
        f'the packets of 2 of conntrack\'s log lines, as "{stories.OVER}"',
    )


def alike(groups: int) -> tuple[str, ...]:
    hops = Hops().opened()
    for number in range(groups):
        for at_us, seen in ((500, 3), (600, 5)):
            hops.to_server(at_us + number * 1000, PSH | ACK, 5 + number * 10, 1, 10, ip_id=0, hops=seen)
    return unseen(hops.recording())


def test_packets_that_look_alike() -> None:
    assert alike(1) == ("#6 and #7 look alike, and not all of them came as far: which did can't be told",)
    assert len(alike(5)) == 5
    assert alike(6)[5:] == ("1 more groups of packets that look alike",)


def test_what_is_not_as_computed_in_other_flows_is_counted() -> None:
    hops = Hops().opened().opened(other_flow(), 5)
    hops.to_client(700, PSH | ACK, 3000, 5, 4000, nat=False, flow=other_flow())
    story = explain.explain(analyse(hops.recording(flows=(FLOW, other_flow()))), "10.0.0.2:40000")
    assert story.disagreements[0] == "and about 1 packets of other flows"
    assert story.disagreements[1].startswith("not probed on that kernel, and taken from its release: ")
    assert explain.explain(analyse(Hops().opened().recording())).disagreements == ()
