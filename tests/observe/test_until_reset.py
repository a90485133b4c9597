"""A watch that waits for a reset ends after the right RST, and after no other packet."""

from __future__ import annotations

import pytest
from frames import segment

from netlab.observe import until_reset
from netlab.observe.until_reset import UntilReset
from netlab.record.events import ACK, RST, Direction, Packet

PACKET = Packet(0, "client", "eth0", Direction.IN, segment(RST, 0))
CLIENT = f"{PACKET.segment.src}:{PACKET.segment.sport}"


@pytest.mark.parametrize(
    ("flow", "flags", "over"),
    [
        (None, RST, True),
        (None, RST | ACK, True),
        (None, ACK, False),
        (CLIENT, RST, True),
        (f"{PACKET.segment.dst}:{PACKET.segment.dport}", RST, True),
        (f"[{PACKET.segment.src}]:{PACKET.segment.sport}", RST, True),
        (f"{CLIENT}0", RST, False),
    ],
)
def test_it_is_over_after_a_rst_of_the_flow(
    monkeypatch: pytest.MonkeyPatch, flow: str | None, flags: int, over: bool
) -> None:
    monkeypatch.setattr(until_reset, "_AFTER_RESET_S", -1.0)
    waiting = UntilReset(flow)
    waiting.look([Packet(0, "client", "eth0", Direction.IN, segment(flags, 0))])
    assert waiting.over() is over


def test_the_other_end_has_time_to_learn_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(until_reset, "_AFTER_RESET_S", 3600.0)
    waiting = UntilReset()
    waiting.look([PACKET])
    assert not waiting.over()
