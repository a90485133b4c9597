"""Which sightings of a packet are its first."""

from __future__ import annotations

import pytest
from frames import FRAME

from netlab.record.once import Sightings, identity

HERE, THERE = ("client", "eth0", "out"), ("node", "veth0", "in")


def with_bytes(frame: bytes, changes: dict[int, int]) -> bytes:
    changed = bytearray(frame)
    for at, value in changes.items():
        changed[at] = value
    return bytes(changed)


def test_a_packet_sent_again_is_told_from_its_own_passage_through_the_next_interface() -> None:
    seen = Sightings()
    assert [seen.add(b"x", place) for place in (HERE, THERE, HERE, THERE)] == [
        (1, True),
        (1, False),
        (2, True),
        (2, False),
    ]
    assert seen.add(b"y", THERE) == (1, True)


def test_one_that_comes_back_through_the_same_interface_is_another_sighting() -> None:
    seen = Sightings()
    assert seen.add(b"x", HERE) == (1, True)
    assert seen.add(b"x", HERE) == (2, True)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        pytest.param({0: 9, 7: 9}, True, id="Ethernet's addresses"),
        pytest.param({14 + 8: 9, 14 + 10: 1, 14 + 11: 2}, True, id="time to live"),
        pytest.param({14 + 20 + 16: 1, 14 + 20 + 17: 2}, True, id="TCP's checksum"),
        pytest.param({14 + 5: 77}, False, id="IP id"),
        pytest.param({14 + 19: 77}, False, id="an address"),
        pytest.param({14 + 20 + 4: 77}, False, id="a sequence number"),
    ],
)
def test_what_tells_packets_apart(changes: dict[int, int], same: bool) -> None:
    whole = len(FRAME)
    assert (identity(with_bytes(FRAME, changes), whole) == identity(FRAME, whole)) is same


def test_a_vlan_tag_is_not_part_of_the_packet() -> None:
    tagged = FRAME[:12] + b"\x81\0\0\5" + FRAME[12:]
    assert identity(tagged, len(tagged)) == identity(FRAME, len(FRAME))
    assert identity(FRAME, len(FRAME) + 1) != identity(FRAME, len(FRAME))


@pytest.mark.parametrize("length", range(60))
def test_however_short_a_frame_is_it_has_an_identity(length: int) -> None:
    for kind in (b"\x08\0", b"\x86\xdd", b"\x81\0"):
        frame = (b"\2" * 12 + kind + b"\xff" * 60)[:length]
        assert identity(frame, 60) == identity(frame, 60)
