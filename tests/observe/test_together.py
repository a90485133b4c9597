"""Any number of commands observe one lab at once, beside a run in it: none makes another fail, however one ends."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import labs
import pytest
import skips
from captures import tshark
from command import Netlab, new_lab_name
from flagship import FLAGSHIP
from labs import Lab

pytestmark = pytest.mark.kernel

NODES = ("client-node", "server-node")
SYSCTLS = ("nf_conntrack_log_invalid", "nf_log/2", "nf_conntrack_events", "nf_conntrack_timestamp")


@pytest.fixture(scope="module")
def lab(shared_netlab: Netlab, privilege: str) -> Iterator[Lab]:
    """The flagship, up."""
    lab = Lab(shared_netlab, new_lab_name(), FLAGSHIP, privilege)
    lab.up()
    yield lab
    lab.down()


def left_by_observers(lab: Lab) -> dict[str, str]:
    """What observers change in the nodes: sysctls, tables, their keeper's name."""
    paths = " ".join(f"/proc/sys/net/netfilter/{key}" for key in SYSCTLS)
    script = f"cat {paths}; nft list tables; grep -o @netlab.* /proc/net/unix | sort -u"
    return {node: lab.exec(node, "sh", "-c", f"{script} || true") for node in NODES}


def keepers(lab: Lab) -> list[int]:
    """The keepers of the lab's nodes that there are now."""
    nodes = {lab.exec(node, "readlink", "/proc/self/ns/net").strip() for node in NODES}
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            named = (entry / "comm").read_bytes() == b"netlab-keeper\n"  # others' names needn't be text
            if named and str((entry / "ns/net").readlink()) in nodes:
                found.append(int(entry.name))
    return found


def ended(process: subprocess.Popen[bytes], number: signal.Signals) -> tuple[str, str]:
    """What an observer has written once the signal has ended it, to stdout and to stderr."""
    process.send_signal(number)
    out, said = process.communicate(timeout=labs.DEADLINE_S)
    return out.decode(), said.decode()


def test_observers_beside_a_run_of_the_same_lab(lab: Lab, tmp_path: Path) -> None:
    before = left_by_observers(lab)
    with ExitStack() as stack:
        watch, other_watch, explain, capture = (
            stack.enter_context(labs.observing(lab, *arguments))[0]
            for arguments in (
                ("watch", lab.name),
                ("watch", lab.name, "--netns", "client-node"),
                ("explain", lab.name, "--for", "600"),
                ("capture", "--lab", lab.name, "-w", tmp_path / "f.pcapng"),
            )
        )
        assert len(keepers(lab)) == len(NODES)
        assert lab.up() == lab.up()
        assert lab.drift() == []
        run = stack.enter_context(
            subprocess.Popen(
                lab.netlab.argv("run", "-l", lab.name, "--trials", "6", "--format", "json"),
                env=lab.netlab.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
        explained, said = explain.communicate(timeout=labs.DEADLINE_S)  # it has seen the first reset
        assert (explain.returncode, explained.decode().split(":")[0]) == (0, "RESET"), said
        assert b"SEQ is over upper bound" in explained
        labs.kill(watch.pid, signal.SIGKILL)  # by it the keepers were begotten
        late = stack.enter_context(labs.observing(lab, "watch", lab.name))[0]
        out, said = run.communicate(timeout=labs.DEADLINE_S)
        result = json.loads(out)
        assert result["result"] == "reproduced", said
        assert [trial["outcome"] for trial in result["trials"]] == ["reset"] * 6
        assert b"not seen" not in said
        for process in (other_watch, late):
            _, words = ended(process, signal.SIGINT)
            assert words.splitlines()[-1] == "no event lost"
            unseen = [line for line in words.splitlines() if line.startswith("not seen")]
            assert unseen == [] if lab.privilege == "--root" else all("only the host's root" in line for line in unseen)
        _, words = ended(capture, signal.SIGINT)
        assert words.endswith(" captured, 0 dropped\n")
    assert left_by_observers(lab) == before
    labs.until(lambda: not keepers(lab), "the end of the keepers")
    assert lab.drift() == []
    assert len(tshark(tmp_path / "f.pcapng", "frame.number")) > 100


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_last_one_leaves_nothing_however_it_ends(lab: Lab, number: signal.Signals) -> None:
    before = left_by_observers(lab)
    with labs.observing(lab, "watch", lab.name) as (first, _), labs.observing(lab, "watch", lab.name) as (last, _):
        while_observed = left_by_observers(lab)
        ended(first, number)
        assert left_by_observers(lab) == while_observed != before
        ended(last, number)
    labs.until(lambda: not keepers(lab), "the end of the keepers")
    assert left_by_observers(lab) == before


def test_what_a_killed_keeper_had_changed_goes_with_who_observes(lab: Lab) -> None:
    before = left_by_observers(lab)
    with labs.observing(lab, "watch", lab.name) as (watch, _):
        for pid in keepers(lab):
            labs.kill(pid, signal.SIGKILL)
        with labs.observing(lab, "watch", lab.name) as (late, _):
            _, words = ended(watch, signal.SIGINT)
            assert "conntrack's reasons on client-node, which could not be read to the end" in words
            _, words = ended(late, signal.SIGINT)
            assert "to the end" not in words
    labs.until(lambda: not keepers(lab), "the end of the keepers")
    assert left_by_observers(lab) == before


ASKS = """
import json, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as keeper:
    keeper.connect("\\0netlab-keeper")
    keeper.send(sys.argv[1].encode())
    print(json.loads(keeper.recv(65536))[:2])
"""


@pytest.mark.parametrize(
    "wish",
    [
        "",
        "[",
        "5",
        '["marks", {"ports": ["80 }; flush ruleset"], "conntrack": true}, {}]',
        '["events", {"families": [2]}, {}]',
        '["events", [], {}]',
        '["nothing", {}, {}]',
        '[["reasons"], {}, {}]',
        '["events", {}, {"../kernel/core_pattern": ["core", "core"]}]',
        '["events", {}, {"net/netfilter/nf_conntrack_events": [1, 2]}]',
        '["events", {}, 7]',
    ],
)
def test_a_program_of_the_lab_gets_nothing_else_of_the_keeper(lab: Lab, wish: str) -> None:
    with labs.observing(lab, "watch", lab.name) as (watch, _):
        while_observed = left_by_observers(lab)
        script = ("sh", "-c", 'python3 -c "$1" "$2" 2>&1 | tail -1', "sh", ASKS, wish)
        refused = ("['system', 22]", "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)")
        assert lab.exec("client-node", *script).strip() in refused
        assert left_by_observers(lab) == while_observed
        _, words = ended(watch, signal.SIGINT)
        assert "to the end" not in words


def test_an_observer_that_is_stopped_holds_nobody_up(lab: Lab) -> None:
    with labs.observing(lab, "watch", lab.name) as (first, _):
        first.send_signal(signal.SIGSTOP)
        done = lab.netlab("run", "-l", lab.name, "--trials", "1", "--format", "json")
        assert json.loads(done.stdout)["result"] == "reproduced", done.stderr


GETS = """
import socket
with socket.create_connection(("web", 80)) as client:
    client.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print(client.makefile().read())
"""
WAITS_AND_OVERRUNS = """
import socket, struct, time
listener = socket.create_server(("10.0.1.2", 80), reuse_port=True)
print("listening", flush=True)
peer, _ = listener.accept()
peer.sendall(b"x" * 5000)
print("sent", flush=True)
input()
try:
    while True:  # the first burst is enough, unless an ACK comes in between
        peer.setsockopt(6, 19, 1)
        snd_wl1, _, _, *own = struct.unpack("=5I", peer.getsockopt(6, 29, 20))
        peer.setsockopt(6, 29, struct.pack("=5I", snd_wl1, 1 << 20, 1 << 20, *own))
        peer.setsockopt(6, 19, -1)
        peer.sendall(b"y" * 50000)
        time.sleep(0.2)
except OSError as error:
    print(error, flush=True)
"""
READS = """
import socket
with socket.create_connection(("web", 80)) as client:
    while client.recv(4096):
        pass
"""


def test_an_entry_in_the_table_is_no_connection_to_explain(lab: Lab) -> None:
    assert "It works." in lab.exec("client", "python3", "-c", GETS)
    done = lab.netlab("explain", lab.name, "--for", "0.5")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[1:] == [
        "netlab: there is no connection to explain",
        "  hint: no TCP connection was seen while the lab was observed",
    ]


def test_a_connection_from_before_is_told_by_what_is_seen_of_it(lab: Lab) -> None:
    skips.skip_unless_capability("tcp-repair")
    with ExitStack() as stack:

        def begun(netns: str, program: str) -> subprocess.Popen[str]:
            process = stack.enter_context(
                subprocess.Popen(
                    lab.netlab.argv("exec", "-l", lab.name, netns, "--", "python3", "-c", program),
                    env=lab.netlab.environment(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        server = begun("server", WAITS_AND_OVERRUNS)
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        begun("client", READS)
        assert server.stdout.readline() == "sent\n"
        explain = stack.enter_context(labs.observing(lab, "explain", lab.name, "--for", "60"))[0]
        said, _ = server.communicate("\n", timeout=labs.DEADLINE_S)
        assert "Connection reset by peer" in said
        told, _ = explain.communicate(timeout=labs.DEADLINE_S)
    text = told.decode()
    assert text.startswith("RESET: 10.0.0.2:"), text
    assert "the connection's beginning: sequence numbers are those on the wire" in text
    assert "SEQ is over upper bound" in " ".join(text.split())
    assert "NAT on client-node skips it: its source stays 10.0.1.2" in " ".join(text.split())
    assert "SYN" not in text
