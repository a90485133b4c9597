"""Reports on hand-made trials, compared as whole texts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import run_json
import story
from places import DOCS

from netlab.analysis.judge import Observed
from netlab.analysis.result import Advice, Link, Outcome, Result, TrialResult
from netlab.kubeproxy.remedies import REMEDIES
from netlab.record.observers import ObserverId, ObserverKind
from netlab.report import json as report_json
from netlab.report import text

DOCUMENT = DOCS / "run-json.md"


def result(*trials: Observed, fixes: tuple[str, ...] = ()) -> Result:
    judged = tuple(story.judge(trial) for trial in trials)
    return Result("window-overrun", story.CLAIM, "kube-proxy-reset", fixes, "6.18.44", judged)


def reset() -> Observed:
    return story.observed(story.reset(), bytes_received=2304, ended=False)


def test_reproduced() -> None:
    assert (
        text.render(result(reset(), reset()))
        == """\
REPRODUCED 2/2
window-overrun in lab kube-proxy-reset, no fix, kernel 6.18.44
2 reset in 0.5 s; 4,608 of 20,000 bytes arrived; events lost: 0
resets in 34% to 100% of trials (95% confidence)

Trial 1 of 2, as seen in the kernel:

  client                           client-node                            server
  10.0.0.2                       VIP 192.168.0.2                        10.0.1.2
  |                                     |                                      |
  |-(1)- +0.020 ms -------------------->|                                      |
  | 10.0.0.2:40000 > 192.168.0.2:80     |                                      |
  | PSH,ACK len 4                       |                                      |
  | seq 1 (1001)                        |                                      |
  | ack 1 (5001)                        |                                      |
  |                                     |-(2)- +0.022 ms --------------------->|
  |                                     | 10.0.0.2:40000 > 10.0.1.2:8080       |
  |                                     | PSH,ACK len 4                        |
  |                                     | seq 1 (1001)                         |
  |                                     | ack 1 (5001)                         |
  |                                     | the kernel now assumes a send window |
  |                                     | of 1,048,576 bytes (was 0)           |
  |                                     |                                      |
  |                                     |<--------------------- +0.061 ms -(3)-|
  | conntrack on client-node: SEQ is    | 10.0.1.2:8080 > 10.0.0.2:40000       |
  | over upper bound 7307 (over the     | PSH,ACK len 4000                     |
  | window of the receiver)             | seq 3073 (8073)                      |
  | INVALID: NAT skips it, its source   | ack 5 (1005)                         |
  | stays                               | ends 4,767 bytes past what the       |
  |                                     | client allowed; conntrack forgives   |
  |                                     | at most 3,070                        |
  |<-------------------- +0.064 ms -(4)-|                                      |
  | 10.0.1.2:8080 > 10.0.0.2:40000      |                                      |
  | PSH,ACK len 4000                    |                                      |
  | seq 3073 (8073)                     |                                      |
  | ack 5 (1005)                        |                                      |
  |-(5)- +0.065 ms ---------------------+------------------------- +0.067 ms ->|
  | 10.0.0.2:40000 > 10.0.1.2:8080      |                                      |
  | RST                                 |                                      |
  | seq 5 (1005)                        |                                      |
  | the client knows no such            |                                      |
  | connection; its seq is (4)'s ack    |                                      |
  | ECONNRESET, +0.095 ms               | ECONNRESET, +0.090 ms                |
  | got 2,304 of 10,000 bytes: reset    |                                      |
"""
    )


def test_not_reproduced_because_it_was_dropped() -> None:
    dropped = story.observed(story.dropped())
    assert (
        text.render(result(dropped, fixes=("drop-invalid",)))
        == """\
NOT REPRODUCED 0/1 reset
window-overrun in lab kube-proxy-reset, with drop-invalid, kernel 6.18.44
1 completed in 0.2 s; 10,000 of 10,000 bytes arrived; events lost: 0

Trial 1 of 1, as seen in the kernel:

  client                           client-node                            server
  10.0.0.2                       VIP 192.168.0.2                        10.0.1.2
  |                                     |                                      |
  |-(1)- +0.020 ms -------------------->|                                      |
  | 10.0.0.2:40000 > 192.168.0.2:80     |                                      |
  | PSH,ACK len 4                       |                                      |
  | seq 1 (1001)                        |                                      |
  | ack 1 (5001)                        |                                      |
  |                                     |-(2)- +0.022 ms --------------------->|
  |                                     | 10.0.0.2:40000 > 10.0.1.2:8080       |
  |                                     | PSH,ACK len 4                        |
  |                                     | seq 1 (1001)                         |
  |                                     | ack 1 (5001)                         |
  |                                     | the kernel now assumes a send window |
  |                                     | of 1,048,576 bytes (was 0)           |
  |                                     |                                      |
  |                                     |x--------------------- +0.061 ms -(3)-|
  | conntrack on server-node: SEQ is    | 10.0.1.2:8080 > 10.0.0.2:40000       |
  | over upper bound 7307 (over the     | PSH,ACK len 4000                     |
  | window of the receiver)             | seq 3073 (8073)                      |
  | dropped: this packet never reached  | ack 5 (1005)                         |
  | the client                          | ends 4,767 bytes past what the       |
  |                                     | client allowed; conntrack forgives   |
  |                                     | at most 3,070                        |
  | got 10,000 of 10,000 bytes:         |                                      |
  | completed                           |                                      |
"""
    )


def test_not_reproduced_because_it_was_accepted() -> None:
    accepted = story.observed(story.accepted())
    assert (
        text.render(result(accepted, fixes=("be-liberal",)))
        == """\
NOT REPRODUCED 0/1 reset
window-overrun in lab kube-proxy-reset, with be-liberal, kernel 6.18.44
1 completed in 0.2 s; 10,000 of 10,000 bytes arrived; events lost: 0

Trial 1 of 1, as seen in the kernel:

  client                           client-node                            server
  10.0.0.2                       VIP 192.168.0.2                        10.0.1.2
  |                                     |                                      |
  |-(1)- +0.020 ms -------------------->|                                      |
  | 10.0.0.2:40000 > 192.168.0.2:80     |                                      |
  | PSH,ACK len 4                       |                                      |
  | seq 1 (1001)                        |                                      |
  | ack 1 (5001)                        |                                      |
  |                                     |-(2)- +0.022 ms --------------------->|
  |                                     | 10.0.0.2:40000 > 10.0.1.2:8080       |
  |                                     | PSH,ACK len 4                        |
  |                                     | seq 1 (1001)                         |
  |                                     | ack 1 (5001)                         |
  |                                     | the kernel now assumes a send window |
  |                                     | of 1,048,576 bytes (was 0)           |
  |                                     |                                      |
  |                                     |<--------------------- +0.061 ms -(3)-|
  |                                     | 10.0.1.2:8080 > 10.0.0.2:40000       |
  |                                     | PSH,ACK len 4000                     |
  |                                     | seq 3073 (8073)                      |
  |                                     | ack 5 (1005)                         |
  |                                     | ends 4,767 bytes past what the       |
  |                                     | client allowed; conntrack forgives   |
  |                                     | at most 3,070                        |
  |<-------------------- +0.064 ms -(4)-|                                      |
  | 192.168.0.2:80 > 10.0.0.2:40000     |                                      |
  | PSH,ACK len 4000                    |                                      |
  | seq 3073 (8073)                     |                                      |
  | ack 5 (1005)                        |                                      |
  | NAT gave it the VIP as source       |                                      |
  | got 10,000 of 10,000 bytes:         |                                      |
  | completed                           |                                      |
"""
    )


def test_inconclusive_names_each_missing_piece_once_and_fits_60_columns() -> None:
    cut = story.observed(story.without(story.reset(), "rst at server"))
    lossy = story.observed(story.accepted(), lost=((ObserverId(ObserverKind.PACKETS, "client", "eth0"), 12),))
    assert (
        text.render(result(story.observed(story.accepted()), cut, cut, lossy), 60)
        == """\
INCONCLUSIVE 3/4 undecided
window-overrun in lab kube-proxy-reset, no fix, kernel
6.18.44
1 completed, 3 inconclusive in 1.0 s; 40,000 of 40,000 bytes
arrived; events lost: 12
missing in 2 trials: the RST that reset the socket in server
missing in 1 trial: 12 events lost by the packets on
  client/eth0

Trial 2 of 4, as seen in the kernel:

  client                 client-node                  server
  10.0.0.2             VIP 192.168.0.2              10.0.1.2
  |                           |                            |
  |-(1)- +0.020 ms ---------->|                            |
  | 10.0.0.2:40000 >          |                            |
  | 192.168.0.2:80            |                            |
  | PSH,ACK len 4             |                            |
  | seq 1 (1001)              |                            |
  | ack 1 (5001)              |                            |
  |                           |-(2)- +0.022 ms ----------->|
  |                           | 10.0.0.2:40000 >           |
  |                           | 10.0.1.2:8080              |
  |                           | PSH,ACK len 4              |
  |                           | seq 1 (1001)               |
  |                           | ack 1 (5001)               |
  |                           | the kernel now assumes a   |
  |                           | send window of 1,048,576   |
  |                           | bytes (was 0)              |
  |                           |                            |
  |                           |<----------- +0.061 ms -(3)-|
  | conntrack on client-node: | 10.0.1.2:8080 >            |
  | SEQ is over upper bound   | 10.0.0.2:40000             |
  | 7307 (over the window of  | PSH,ACK len 4000           |
  | the receiver)             | seq 3073 (8073)            |
  | INVALID: NAT skips it,    | ack 5 (1005)               |
  | its source stays          | ends 4,767 bytes past what |
  |                           | the client allowed;        |
  |                           | conntrack forgives at most |
  |                           | 3,070                      |
  |<---------- +0.064 ms -(4)-|                            |
  | 10.0.1.2:8080 >           |                            |
  | 10.0.0.2:40000            |                            |
  | PSH,ACK len 4000          |                            |
  | seq 3073 (8073)           |                            |
  | ack 5 (1005)              |                            |
  |-(5)- +0.065 ms ---------->|                            |
  | 10.0.0.2:40000 >          |                            |
  | 10.0.1.2:8080             |                            |
  | RST                       |                            |
  | seq 5 (1005)              |                            |
  | the client knows no such  |                            |
  | connection; its seq is    |                            |
  | (4)'s ack                 |                            |
  | got 10,000 of 10,000      |                            |
  | bytes: inconclusive       |                            |
"""
    )


def test_a_reply_whose_fate_was_not_seen_is_not_called_dropped() -> None:
    unseen = story.observed(story.without(story.reset(), "invalid"))
    picture = text.render(result(unseen))
    assert "|<--------------------- +0.061 ms -(3)-|" in picture
    assert "dropped" not in picture


def test_a_run_of_no_trials_has_no_picture() -> None:
    assert (
        text.render(result())
        == """\
INCONCLUSIVE 0/0 undecided
window-overrun in lab kube-proxy-reset, no fix, kernel 6.18.44
no trial in 0.0 s; events lost: 0
"""
    )


def test_no_line_is_longer_than_the_width_whatever_the_names() -> None:
    flow = replace(
        story.FLOW,
        client="a-client-with-a-name-longer-than-a-column-of-it",
        node="a-node-with-a-name-longer-than-a-column-of-it",
        server="a-server-with-a-name-longer-than-a-column-of-it",
        client_address=ip_address("2001:db8:1111:2222:3333:4444:5555:6666"),
        vip=ip_address("2001:db8:1111:2222:3333:4444:5555:7777"),
        endpoint=ip_address("2001:db8:1111:2222:3333:4444:5555:8888"),
    )
    whole = result(reset())
    long_names = replace(whole, trials=(_with_addresses(replace(whole.trials[0], flow=flow)),))
    for width in (60, 80, 81, 120):
        lines = text.render(long_names, width).splitlines()
        assert max(len(line) for line in lines) <= width
        assert not [line for line in lines if line != line.rstrip()]
        above = lines[: lines.index(next(line for line in lines if "(1)" in line))]
        assert any(line.endswith("it") for line in above) and any(line.endswith("88") for line in above)
    assert max(len(line) for line in text.render(long_names, 20).splitlines()) <= 60


def _with_addresses(trial: TrialResult) -> TrialResult:
    """The trial with its flow's client and endpoint as every packet's addresses."""
    evidence: list[Any] = []
    for piece in trial.evidence:
        event: Any = piece.event
        if hasattr(event, "segment"):
            segment = replace(event.segment, src=trial.flow.client_address, dst=trial.flow.endpoint)
            event = replace(event, segment=segment)
        evidence.append(replace(piece, event=event))
    return replace(trial, evidence=tuple(evidence))


def test_ipv6_addresses_stand_in_brackets() -> None:
    flow = replace(story.FLOW, client_address=ip_address("fd00::2"), endpoint=ip_address("fd00:1::2"))
    whole = result(reset())
    picture = text.render(replace(whole, trials=(_with_addresses(replace(whole.trials[0], flow=flow)),)))
    assert "| [fd00::2]:40000 > [fd00:1::2]:8080 " in picture


def test_json_of_one_piece_of_each_kind() -> None:
    trial = json.loads(report_json.render(result(reset())))["trials"][0]
    pieces = {piece["link"]: piece for piece in trial.pop("evidence")}
    assert trial == {
        "number": 1,
        "outcome": "reset",
        "missing": [],
        "refuted": None,
        "started": "2023-11-14T22:13:20.000000000Z",
        "duration_s": 0.25,
        "bytes_received": 2304,
        "payload_bytes": 10000,
        "events_lost": 0,
        "invalid": 0,
        "retransmits": 0,
        "client": {"netns": "client", "address": "10.0.0.2", "port": 40000},
        "node": {"netns": "client-node"},
        "vip": {"address": "192.168.0.2", "port": 80},
        "server": {"netns": "server", "address": "10.0.1.2", "port": 8080},
    }
    reply = {
        "src": "10.0.1.2",
        "sport": 8080,
        "dst": "10.0.0.2",
        "dport": 40000,
        "flags": ["PSH", "ACK"],
        "seq": 8073,
        "ack": 1005,
        "relative_seq": 3073,
        "relative_ack": 5,
        "window": 64,
        "payload_bytes": 4000,
    }
    assert pieces["reply-untranslated"] == {
        "link": "reply-untranslated",
        "netns": "client",
        "interface": "eth0",
        "time": "2023-11-14T22:13:20.000064000Z",
        "elapsed_s": 6.4e-05,
        "note": "",
        "packet": reply,
        "direction": "in",
    }
    assert pieces["invalid"] == {
        "link": "invalid",
        "netns": "client-node",
        "interface": "eth0",
        "time": "2023-11-14T22:13:20.000063000Z",
        "elapsed_s": 6.3e-05,
        "note": "",
        "packet": reply,
        "reason": "SEQ is over upper bound 7307 (over the window of the receiver)",
    }
    assert pieces["server-reset"] == {
        "link": "server-reset",
        "netns": "server",
        "interface": None,
        "time": "2023-11-14T22:13:20.000090000Z",
        "elapsed_s": 9e-05,
        "note": "",
        "packet": None,
        "errno": "ECONNRESET",
    }
    assert pieces["stale-window"]["send_window_bytes"] == {"before": 0, "after": 1048576}
    assert pieces["rst"]["packet"]["relative_ack"] is None


def test_json_of_the_run() -> None:
    run = json.loads(report_json.render(result(reset(), reset(), fixes=("drop-invalid",))))
    assert [trial["number"] for trial in run.pop("trials")] == [1, 2]
    assert run == {
        "format": 1,
        "result": "reproduced",
        "experiment": "window-overrun",
        "claim": story.CLAIM,
        "lab": "kube-proxy-reset",
        "fixes": ["drop-invalid"],
        "kernel": "6.18.44",
        "expected": None,
        "claim_is": "refuted",
        "prevents": None,
        "outcomes": dict.fromkeys(Outcome, 0) | {"reset": 2},
        "reset_rate": {"confidence": 0.95, "low": 0.34238, "high": 1.0},
        "advice": {"fixes": [], "kernels": "", "remedy": "", "see": []},
    }


def test_json_says_what_to_do() -> None:
    advice = Advice(
        (("be-liberal", Outcome.COMPLETED), ("mine", Outcome.RESET)), "all", see=(("The post", "https://x"),)
    )
    run = json.loads(report_json.render(replace(result(reset()), advice=advice)))
    assert run["advice"] == {
        "fixes": [
            {
                "name": "be-liberal",
                "expected": "completed",
                "cost": REMEDIES["be-liberal"].cost,
                "kube_proxy": "conntrack.tcpBeLiberal: true, since v1.29",
                "command": "sysctl -w net.netfilter.nf_conntrack_tcp_be_liberal=1",
                "see": [
                    {"text": "kubernetes#120354", "url": "https://github.com/kubernetes/kubernetes/pull/120354"},
                ],
            },
            {"name": "mine", "expected": "reset"},
        ],
        "kernels": "all",
        "remedy": "",
        "see": [{"text": "The post", "url": "https://x"}],
    }


def test_every_member_is_documented_and_nothing_else() -> None:
    run = json.loads(report_json.render(result(reset(), story.observed(story.accepted()))))
    evidence = [piece for trial in run["trials"] for piece in trial["evidence"]]
    packets = [piece["packet"] for piece in evidence if piece["packet"]]
    assert _documented() == {
        "The run": {*run, "resets_per_thousand"},
        "A trial": {key for trial in run["trials"] for key in trial} | {"load"},
        "A load": {*run_json.LOAD},
        "A piece of evidence": {key for piece in evidence for key in piece} | {"datagram", "entry", "rule"},
        "links": {link.value for link in Link},
        "A packet": {key for packet in packets for key in packet},
    }
    words = DOCUMENT.read_text()
    assert [outcome for outcome in Outcome if f"`{outcome}`" not in words] == []


def _documented() -> dict[str, set[str]]:
    """The names in the first column of each table; a section's second table is the one of the links."""
    tables: dict[str, set[str]] = {}
    name = ""
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("## "):
            name = line[3:]
        elif line.startswith("| `link` | shows"):
            name = "links"
        elif line.startswith("| `"):
            tables.setdefault(name, set()).update(re.findall("`([^`]+)`", line.split("|")[1]))
    return tables
