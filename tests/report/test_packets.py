"""A run's capture as Wireshark's own analysis sees it."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest
from captures import tshark
from command import Netlab
from flagship import FLAGSHIP

pytestmark = [pytest.mark.kernel, pytest.mark.inside]

RETRANSMITTED = ("-Y", "tcp.analysis.retransmission or tcp.analysis.fast_retransmission or tcp.analysis.duplicate_ack")


@pytest.mark.parametrize("fix", [(), ("--fix", "drop-invalid")], ids=["plain", "drop-invalid"])
def test_no_packet_is_taken_for_a_retransmission_and_each_invalid_one_says_so(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path, fix: tuple[str, ...]
) -> None:
    pcap, page, bundle = tmp_path / "run.pcapng", tmp_path / "run.html", tmp_path / "run.zip"
    options = ("--name", lab_name, privilege, "--trials", "1", "--set", "experiment.payload_bytes=40000", *fix)
    files = ("--pcapng", pcap, "--html", page, "--bundle", bundle)
    done = netlab("run", FLAGSHIP, *options, *files)
    assert done.returncode == 0, done.stdout + done.stderr
    comments = dict(enumerate(tshark(pcap, "frame.comment"), 1))
    told = {number for number, comment in comments.items() if "INVALID: conntrack on client-node" in comment}
    with zipfile.ZipFile(bundle) as archive:
        events = json.loads(archive.read("events.json"))["events"]
        of_bundle = archive.read("report.html").decode()
    logged = sum(event["is"] == "InvalidReason" and "SEQ is over" in event["text"] for event in events)
    assert sum("SEQ is over upper bound" in comment for comment in comments.values()) == logged > 0
    for text, name in ((page.read_text(), pcap.name), (of_bundle, "packets.pcapng")):
        assert re.search(rf"In {name}: frames? [0-9]", text)
    if not fix:
        assert tshark(pcap, "frame.number", options=RETRANSMITTED) == []
    detail = r'<details id="packet-([0-9]+)"(?:(?!</details>).)*In run.pcapng: frames? ([0-9, ]+)\.'
    details = re.findall(detail, page.read_text(), re.DOTALL)
    for number, frames in details:
        for frame in map(int, frames.split(",")):
            assert f"#{number}:" in comments[frame] or "#" not in comments[frame]
    assert {int(frame) for _, frames in details for frame in frames.split(",")} & told
