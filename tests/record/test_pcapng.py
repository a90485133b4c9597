"""pcapng files: exact bytes, and what tshark reads in them."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import skips
import story
from captures import TAPS, recording, told, tshark
from frames import FRAME, packet

from netlab.analysis.findings import analyse
from netlab.record import pcapng
from netlab.record.events import Direction
from netlab.record.observers import ObserverId, ObserverKind
from netlab.record.recording import Tap
from netlab.report import packets


def option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def stamp(at_us: int) -> bytes:
    return struct.pack("<II", *divmod(story.START_NS + at_us * 1000, 2**32))


def test_a_file_is_these_bytes() -> None:
    frame = FRAME[:55]  # an odd length, for the padding
    partial = packet(7, frame, Direction.IN, wire_bytes=len(FRAME))
    tiny = recording(partial, taps=TAPS[:1], lost={ObserverId(ObserverKind.PACKETS, "client", "eth0"): 2})
    assert pcapng.write(tiny, [partial], {0: ["INVALID: é", "two"]}, comment="what it is") == b"".join(
        (
            block(
                0x0A0D0D0A,
                bytes.fromhex("4d3c2b1a 0100 0000 ffffffffffffffff")
                + option(1, b"what it is")
                + option(3, b"Linux 6.18.44")
                + option(4, b"netlab")
                + option(0, b""),
            ),
            block(
                1,
                bytes.fromhex("0100 0000 00000000")
                + option(2, b"client/eth0")
                + option(3, b"pod")
                + option(9, b"\x09")
                + option(0, b""),
            ),
            block(
                6,
                bytes.fromhex("00000000")
                + stamp(7)
                + struct.pack("<II", 55, len(FRAME))
                + frame
                + b"\0"
                + option(1, "INVALID: é".encode())
                + option(1, b"two")
                + option(2, bytes.fromhex("01000000"))
                + option(0, b""),
            ),
            block(
                5,
                bytes.fromhex("00000000")
                + stamp(1000)
                + option(2, stamp(0))
                + option(3, stamp(1000))
                + option(4, struct.pack("<Q", 3))
                + option(5, struct.pack("<Q", 2))
                + option(0, b""),
            ),
        )
    )


def test_a_live_capture_names_its_filter_and_machine() -> None:
    assert pcapng.section_header(hardware="x86_64") == block(
        0x0A0D0D0A,
        bytes.fromhex("4d3c2b1a 0100 0000 ffffffffffffffff")
        + option(2, b"x86_64")
        + option(4, b"netlab")
        + option(0, b""),
    )
    assert pcapng.interface_description(Tap("a", "lo", ""), snaplen_bytes=96, expression="tcp port 80") == block(
        1,
        bytes.fromhex("0100 0000 60000000")
        + option(2, b"a/lo")
        + option(9, b"\x09")
        + option(11, b"\0tcp port 80")
        + option(0, b""),
    )


def test_a_comment_too_long_for_an_option_is_cut_between_characters() -> None:
    written = pcapng.section_header(comment="é" * 40_000)
    assert struct.unpack_from("<HH", written, 24) == (1, 65534)
    assert written[28 : 28 + 65534].decode() == "é" * 32767


def test_packets_are_in_the_order_of_their_times_and_only_with_their_frames() -> None:
    late, early, empty = packet(9), packet(3), replace(packet(5), frame=b"")
    both = recording(late, early, empty)
    assert pcapng.kept(both) == [early, late]


# --- comments --------------------------------------------------------------------------------------------------------


def test_all_that_the_report_says_of_a_packet_is_said_with_its_number() -> None:
    result, told_of = told(story.reset())
    lines = [
        f"#{number}: {text}" for number, words in packets.said(analyse(told_of), result.trials[0]) for text in words
    ]
    assert lines == [
        "#1: NAT where it was not observed: destination 192.168.0.2:80 becomes 10.0.1.2:8080",
        "#2: NAT where it was not observed: source 10.0.1.2:8080 becomes 192.168.0.2:80",
        "#3: LOST: it was last seen at client/eth0",
        "#4: The client's request to the VIP",
        "#4: NAT: the request goes on to the server pod",
        "#6: LOST: it was last seen at client/eth0",
        "#8: The reply leaves the server",
        "#8: The reply reaches the client without NAT",
        "#8: ends 4,767 bytes past what the client allowed; conntrack forgives at most 3,070",
        "#8: NAT left it alone: it reaches client with 10.0.1.2:8080 as its source",
        "#9: The client answers with a RST",
        "#9: The RST reaches the server",
        "#9: client has no connection with 10.0.1.2:8080, and answers with a RST, whose seq is #8's ack",
    ]


# --- tshark ----------------------------------------------------------------------------------------------------------


def test_tshark_reads_names_times_directions_lengths_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "reset.pcapng"
    result, told_of = told(story.reset())
    written = packets.render("reset.pcapng", result, analyse(told_of), every_interface=True)
    file.write_bytes(written.data)
    names = ("frame.interface_name", "frame.interface_description", "frame.packet_flags_direction")
    lengths = ("frame.len", "frame.cap_len", "frame.time_epoch")
    lines = tshark(file, *names, *lengths, "frame.comment")
    assert len(lines) == len(told_of.events)
    assert lines[0] == "client/eth0|pod|0x00000002|54|54|1700000000.000000000|" + packets.CANARY
    assert [line for line in lines if "#4:" in line or "#9:" in line] == [
        "client/eth0|pod|0x00000002|58|58|1700000000.000020000|"
        "#4: The client's request to the VIP,#4: NAT: the request goes on to the server pod",
        "client/eth0|pod|0x00000002|54|54|1700000000.000065000|#9: The client answers with a RST,"
        "#9: The RST reaches the server,"
        "#9: client has no connection with 10.0.1.2:8080, and answers with a RST, whose seq is #8's ack",
    ]


def test_tshark_finds_nothing_malformed_and_who_wrote_it(tmp_path: Path) -> None:
    skips.skip_unless_program("capinfos")
    file = tmp_path / "tiny.pcapng"
    tiny = recording(
        packet(1),
        packet(2),
        lost={
            ObserverId(ObserverKind.PACKETS, "client", "eth0"): 40,
            ObserverId(ObserverKind.PACKETS, "server", "eth0"): 0,
        },
    )
    file.write_bytes(pcapng.write(tiny, pcapng.kept(tiny), {}, comment="of two packets"))
    assert tshark(file, "frame.number", options=("-Y", "_ws.malformed")) == []
    done = subprocess.run(["capinfos", "-M", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told_by = {" ".join(line.split()) for line in done.stdout.splitlines()}
    assert told_by >= {
        "Capture oper-sys: Linux 6.18.44",
        "Capture application: netlab",
        "Capture comment: of two packets",
        "Number of interfaces in file: 2",
        "Name = client/eth0",
        "Number of packets: 2",
    }
