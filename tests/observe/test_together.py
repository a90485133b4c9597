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
            if (entry / "comm").read_text() == "netlab-keeper\n" and str((entry / "ns/net").readlink()) in nodes:
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
