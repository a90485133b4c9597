"""What `watch` colours: what ends connections, and what is lost."""

from __future__ import annotations

import pictures
import pytest
import story

from netlab.record.events import ACK, RST, Event, InvalidReason, Packet
from netlab.record.flow import Leg
from netlab.report.live import style
from netlab.style import Style


@pytest.mark.parametrize(("flags", "wanted"), [(RST, Style.BAD), (RST | ACK, Style.BAD), (ACK, None)])
def test_a_packet_with_rst_is_to_be_seen(flags: int, wanted: Style | None) -> None:
    packet = story.packet(0, "client", "in", story.segment(Leg.CLIENT_TO_VIP, flags, 1, 1), "eth0")
    assert isinstance(packet, Packet)
    assert style(packet) is wanted


def test_conntracks_reasons_are_to_be_seen() -> None:
    reasons: list[Event] = [event for event in pictures.reset() if isinstance(event, InvalidReason)]
    assert reasons
    assert {style(event) for event in reasons} == {Style.BAD}
