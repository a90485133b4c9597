"""`netlab matrix` on the real kernel: cells in labs of their own, stopped and gone on with, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import host
import labs
import pytest
from command import Netlab
from flagship import FLAGSHIP
from terminals import terminal

pytestmark = pytest.mark.kernel

LAB = FLAGSHIP.read_text().partition("\nexperiments:")[0]

HARMLESS = """
claim: A connection that nothing disturbs is sound.
client: client
service: web
payload_bytes: 10000
steps: [connect, finish]
expect: {plain: completed, drop-invalid: completed}
"""


def document(directory: Path, name: str, text: str = HARMLESS) -> str:
    """An experiment's file beside the topology; its line under `experiments`."""
    (directory / f"{name}.yaml").write_text(text)
    return f"  - {name}.yaml\n"


def topology(directory: Path, *documents: str) -> Path:
    """The flagship's lab, with these experiments."""
    file = directory / "topology.yaml"
    file.write_text(f"{LAB}\nexperiments:\n{''.join(documents)}")
    return file


def slow(directory: Path) -> str:
    """A harmless experiment that makes a file `begun`, and lasts until there is a file `go`."""
    lasting = f"touch {directory}/begun; until test -e {directory}/go; do sleep 0.1; done"
    step = f"- program: {{in: client, command: [sh, -c, '{lasting}']"
    steps = f"steps:\n  - connect\n  {step}, timeout_s: 100}}\n  - finish\n"
    return document(directory, "slow", HARMLESS.replace("steps: [connect, finish]\n", steps))


def cells(printed: str) -> dict[str, tuple[str, Any]]:
    """Each cell's standing and what became of it, by "experiment fix"."""
    return {
        f"{cell['experiment']} {cell['fix']}": (
            cell["standing"],
            cell["skipped"] or cell["failed"] or [trial["outcome"] for trial in cell["trials"]],
        )
        for cell in json.loads(printed)["cells"]
    }


def test_causes_and_fixes(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    before = host.snapshot(netlab.rundir)
    file = topology(
        tmp_path, document(tmp_path, "harmless"), f"  - {FLAGSHIP.parent}/experiments/window-overrun.yaml\n"
    )
    html = tmp_path / "matrix.html"
    options = ["--name", lab_name, privilege, "--fix", "drop-invalid", "--format", "json", "--html", str(html)]
    done = netlab("matrix", file, *options)
    assert done.returncode == 0, done.stderr
    assert cells(done.stdout) == {
        "harmless plain": ("as-expected", ["completed"]),
        "harmless drop-invalid": ("as-expected", ["completed"]),
        "window-overrun plain": ("as-expected", ["reset"]),
        "window-overrun drop-invalid": ("as-expected", ["completed"]),
    }
    made = json.loads(done.stdout)
    assert made["rootless"] is (privilege == "--rootless")
    assert made["cells"][0]["invalid"] == 0
    assert made["cells"][2]["invalid"] > 1
    assert done.stderr == f"wrote {html}\n"
    assert "4 of 4 cells as expected" in html.read_text(encoding="utf-8")
    assert host.changes(before, netlab.rundir) == ""
    assert not netlab.rundir.exists()


def test_a_wrong_expectation_and_one_that_is_missing(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    wrong = HARMLESS.replace("plain: completed", "plain: reset")
    file = topology(tmp_path, document(tmp_path, "wrong", wrong))
    done = netlab("matrix", file, "--name", lab_name, "--fix", "be-liberal")
    assert done.returncode == 1
    assert re.search(r"\nwrong +completed ! +completed \*\n", done.stdout)
    assert "\nunexpected: wrong, plain: completed; expected: reset\n" in done.stdout
    assert done.stdout.endswith(
        "2 cells: 0 as expected, 1 unexpected, 1 with nothing expected, 0 inconclusive, 0\nskipped\n"
    )


def test_what_cannot_be_played_is_skipped_with_its_reason(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    fix = "fixes:\n  udp: {summary: another protocol, set: {services.web.protocol: UDP}}\n"
    file = tmp_path / "topology.yaml"
    file.write_text(f"{LAB}\n{fix}\nexperiments:\n{document(tmp_path, 'harmless')}")
    done = netlab("matrix", file, "--name", lab_name, "--fix", "udp")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nskipped: harmless, udp: service 'web' has no TCP port\n" in done.stdout
    assert done.stdout.endswith("2 cells: 1 as expected, 0 unexpected, 0 inconclusive, 1 skipped\n")


def test_what_is_inconclusive_says_what_is_missing(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    waits = HARMLESS.replace("finish]", "{observe: {packet: {in: client, flags: [RST]}}, within_s: 0.1}, finish]")
    file = topology(tmp_path, document(tmp_path, "waits", waits))
    done = netlab("matrix", file, "--name", lab_name, "--fix", "plain")
    assert done.returncode == 3, done.stdout + done.stderr
    assert re.search(r"\ninconclusive: waits, plain: missing: .*RST", done.stdout)


def interrupted(netlab: Netlab, lab_name: str, file: Path, privilege: str, number: int) -> tuple[int, str]:
    """The exit code and the last words of a matrix that gets a signal while its second experiment is being run."""
    argv = netlab.argv("matrix", file, "--name", lab_name, "--fix", "plain", privilege, "--jobs", "1")
    with subprocess.Popen(
        argv, env=netlab.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as matrix:
        labs.until((file.parent / "begun").exists, "the second experiment")
        os.kill(matrix.pid, number)
        _, stderr = matrix.communicate(timeout=labs.DEADLINE_S)
        return matrix.returncode, stderr


def test_interrupted_and_resumed(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    before = host.snapshot(netlab.rundir)
    file = topology(tmp_path, document(tmp_path, "harmless"), slow(tmp_path))
    stopped = interrupted(netlab, lab_name, file, privilege, signal.SIGINT)
    assert stopped == (130, "netlab: interrupted; 1 cell of 2 is kept: --resume runs the others\n")
    left = [line for line in host.snapshot(netlab.rundir) if line not in before]
    assert left == [f"file {netlab.rundir}/.netlab", f"file {netlab.rundir}/{lab_name}.matrix"]
    options = ["--name", lab_name, "--fix", "plain", privilege, "--resume"]
    refused = netlab("matrix", file, *options, "--trials", "2")
    assert refused.returncode == 2
    assert (
        f"the interrupted matrix of the lab {lab_name} can't be resumed: not the same number of trials"
        in refused.stderr
    )
    for looks in (["status"], ["down", "--all"]):
        done = netlab(*looks)
        assert "no lab is up" in done.stdout + done.stderr, looks
    checks = {check["name"]: check for check in json.loads(netlab("doctor", "--format", "json").stdout)["checks"]}
    assert checks["leftovers"]["detail"] == "none; labs that are up: 0"
    journal = (netlab.rundir / f"{lab_name}.matrix").read_text().splitlines()
    first = json.loads(journal[1])["trials"][0]["started_ns"]
    (tmp_path / "go").touch()
    done = netlab("matrix", file, *options, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert cells(done.stdout) == {
        "harmless plain": ("as-expected", ["completed"]),
        "slow plain": ("as-expected", ["completed"]),
    }
    started = json.loads(done.stdout)["cells"][0]["trials"][0]["started"]
    assert started.endswith(f".{first % 1_000_000_000:09d}Z")
    assert not netlab.rundir.exists()
    none = netlab("matrix", file, *options)
    assert none.returncode == 2
    assert f"there is no interrupted matrix of the lab {lab_name} to resume" in none.stderr
    assert host.changes(before, netlab.rundir) == ""


def test_killed_it_leaves_no_lab_and_what_is_done(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    before = host.snapshot(netlab.rundir)
    file = topology(tmp_path, document(tmp_path, "harmless"), slow(tmp_path))
    interrupted(netlab, lab_name, file, privilege, signal.SIGKILL)
    (tmp_path / "go").touch()
    # Waits for the lock, which the children of the one that was killed keep until their labs are down.
    done = netlab("matrix", file, "--name", lab_name, "--fix", "plain", privilege, "--resume")
    assert done.returncode == 0, done.stderr
    assert "2 cells: 2 as expected" in done.stdout
    assert host.changes(before, netlab.rundir) == ""
    assert not netlab.rundir.exists()


@pytest.mark.parametrize(
    ("number", "end"),
    [(signal.SIGKILL, "was ended by signal 9"), (signal.SIGTERM, "ended with exit code 130")],
    ids=["SIGKILL", "SIGTERM"],
)
def test_a_player_that_is_ended_costs_its_cell_only(
    netlab: Netlab, lab_name: str, rootless: None, tmp_path: Path, number: int, end: str
) -> None:
    before = host.snapshot(netlab.rundir)
    file = topology(tmp_path, slow(tmp_path), document(tmp_path, "harmless"))
    argv = netlab.argv("matrix", file, "--name", lab_name, "--fix", "plain", "--rootless", "--jobs", "1")
    with subprocess.Popen(argv, env=netlab.environment(), stdout=subprocess.PIPE, text=True) as matrix:
        labs.until((tmp_path / "begun").exists, "the slow experiment")
        (player,) = Path(f"/proc/{matrix.pid}/task/{matrix.pid}/children").read_text().split()
        os.kill(int(player), number)
        stdout, _ = matrix.communicate(timeout=labs.DEADLINE_S)
    assert matrix.returncode == 3
    assert f"inconclusive: slow, plain: its process {end}\n" in stdout
    assert stdout.endswith("2 cells: 1 as expected, 0 unexpected, 1 inconclusive, 0 skipped\n")
    assert host.changes(before, netlab.rundir) == ""


def test_a_terminal_shows_what_is_played(netlab: Netlab, lab_name: str, rootless: None, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, "--rootless")
    file = topology(tmp_path, slow(tmp_path))
    argv = netlab.argv("matrix", file, "--name", lab_name, "--fix", "plain", "--rootless")
    with terminal(lab, *argv) as screen:
        screen.resize(24, 100)
        screen.expect(rf"\r\x1b\[K\[-{{20}}\] {lab_name}: 0/1 cells; running slow with plain")
        screen.type("\x03")
        screen.expect(r"\r\x1b\[Knetlab: interrupted; no cell was finished")
        assert screen.wait() == 130
    assert not netlab.rundir.exists()


def test_two_at_once(netlab: Netlab, lab_name: str, rootless: None, tmp_path: Path) -> None:
    file = topology(tmp_path, slow(tmp_path))
    argv = netlab.argv("matrix", file, "--name", lab_name, "--fix", "plain", "--rootless")
    with subprocess.Popen(argv, env=netlab.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as matrix:
        labs.until((tmp_path / "begun").exists, "the slow experiment")
        other = netlab(*argv[3:])
        assert other.returncode == 1
        assert f"another `netlab matrix` is working on the lab {lab_name}" in other.stderr
        (tmp_path / "go").touch()
        matrix.communicate(timeout=labs.DEADLINE_S)
    assert matrix.returncode == 0


def test_a_lab_is_no_topology(netlab: Netlab, lab_name: str, tmp_path: Path) -> None:
    file = topology(tmp_path, document(tmp_path, "harmless"))
    assert netlab("up", file, "--name", lab_name).returncode == 0
    done = netlab("matrix", lab_name)
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr == (
        f"netlab: {lab_name} is a lab, and a matrix is run in labs of its own\n  hint: `netlab matrix {file}`\n"
    )


def test_who_may_not_is_told_before_any_cell(netlab: Netlab, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("this is root, who may")
    done = netlab("matrix", topology(tmp_path, document(tmp_path, "harmless")), "--root")
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.startswith("netlab: only root can build a lab with --root\n")


QUICK = ("path-flip", "crafted-ahead", "bad-checksum", "half-open", "entry-deleted", "entry-deleted-client-first")
"""Shipped causes whose trials are short, but for path-flip's stall: one of each outcome among them."""


@pytest.mark.long
@pytest.mark.inside
def test_both_modes_of_kube_proxy_give_the_same_outcomes(netlab: Netlab, lab_name: str, rootless: None) -> None:
    chosen = [option for name in QUICK for option in ("--experiment", name)]
    found = []
    for mode in ("iptables", "nftables"):
        options = ("--name", lab_name, "--rootless", "--set", f"kube_proxy.mode={mode}", "--format", "json")
        done = netlab("matrix", FLAGSHIP, *chosen, "--fix", "drop-invalid", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(cells(done.stdout))
    assert found[0] == found[1]
    assert {standing for standing, _ in found[0].values()} == {"as-expected"}
    assert {outcome for _, outcomes in found[0].values() for outcome in outcomes} == {"reset", "completed", "stalled"}
