"""What else stands where labs are written down is never entered, listed, changed or removed; and what is written down
of one lab, however damaged, is no trouble for another."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Netlab
from labs import TWO, Lab, until
from states import lab_directory

from netlab.lab.holder import start_ticks

pytestmark = [pytest.mark.kernel, pytest.mark.identity]


def tree(root: Path) -> dict[str, str | None]:
    """All below a directory: a file's text, a link's target, None for a directory."""
    return {
        str(path.relative_to(root)): (
            str(path.readlink()) if path.is_symlink() else None if path.is_dir() else path.read_text()
        )
        for path in sorted(root.rglob("*"))
    }


@pytest.fixture
def lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> Iterator[Lab]:
    """A lab to build; what a test leaves in the run directory goes with it."""
    file = tmp_path / "topology.yaml"
    file.write_text(TWO)
    yield Lab(netlab, lab_name, file, privilege)
    netlab("down", "--all")
    shutil.rmtree(netlab.rundir, ignore_errors=True)


@pytest.fixture
def project(lab: Lab, tmp_path: Path) -> Path:
    """The run directory, in which a user has a directory `project` that looks like a lab's, and a link to one."""
    rundir = lab.netlab.rundir
    project = rundir / "project"
    (project / "logs").mkdir(parents=True)
    for name in ("topology.yaml", "hosts", "state.json", "state.new", "next-0.yaml", "logs/a.b.log"):
        (project / name).write_text(f"a user's {name}\n")
    shutil.copytree(project, tmp_path / "elsewhere")
    (rundir / "link").symlink_to(tmp_path / "elsewhere")
    (rundir / "empty").mkdir()
    return rundir


def test_a_users_directory_there_is_never_touched(lab: Lab, project: Path, tmp_path: Path) -> None:
    rundir = project
    before, linked = tree(rundir), tree(tmp_path / "elsewhere")
    lab.up()
    shown = json.loads(lab.netlab("status", "--format", "json").stdout)
    assert [row["lab"] for row in shown["labs"]] == [lab.name]
    for name in ("project", "link", "empty"):
        done = lab.netlab("up", lab.file, "--name", name, lab.privilege)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"netlab: {rundir / name} isn't a lab's\n  hint: move it away, or give the lab another --name\n"
        )
        assert lab.netlab("down", name).stderr == f"no lab is called {name}: nothing to do\n"
    done = lab.netlab("down", "--all")
    assert (done.returncode, done.stderr) == (0, f"lab {lab.name} is down\n")
    assert (tree(rundir), tree(tmp_path / "elsewhere")) == (before, linked)


def test_a_users_file_in_a_labs_directory_stays_and_the_directory_is_then_his(lab: Lab) -> None:
    lab.up()
    directory = lab.netlab.rundir / lab.name
    (directory / "notes.txt").write_text("mine\n")
    done = lab.netlab("down", lab.name)
    assert done.stderr == f"netlab: {directory} isn't empty; netlab left it\nlab {lab.name} is down\n"
    assert tree(directory) == {"notes.txt": "mine\n"}
    assert lab.try_up().stderr.startswith(f"netlab: {directory} isn't a lab's\n")


DAMAGE = {
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "nested": "[" * 100_000,
    "a huge number": '{"lab": ' + "9" * 5000 + "}",
    "no number": '{"lab": NaN}',
    "a surrogate": '{"lab": "\\ud800"}',
    "another's": None,
    "wrong types": '{"lab": 3}',
    "unknown": '{"colour": "red"}',
    "no UTF-8": "\udcff",
}


@pytest.mark.parametrize("damage", [*DAMAGE, "a fifo", "a directory", "a link", "others can write"])
def test_a_damaged_state_hides_no_other_lab_and_its_own_can_be_removed(lab: Lab, damage: str, tmp_path: Path) -> None:
    rundir = lab.netlab.rundir
    broken = lab_directory(rundir, "broken")
    state = broken.path / "state.json"
    lab.up()
    theirs = (rundir / lab.name / "state.json").read_text()
    if damage == "a fifo":
        os.mkfifo(state)
    elif damage == "a directory":
        state.mkdir()
    elif damage == "a link":
        state.symlink_to(rundir / lab.name / "state.json")
    else:
        text = DAMAGE.get(damage)
        state.write_bytes((theirs if text is None else text).encode(errors="surrogateescape"))
        state.chmod(0o666 if damage == "others can write" else 0o600)
    shown = lab.netlab("status")
    assert (shown.returncode, [line.split()[:2] for line in shown.stdout.splitlines()[1:3]]) == (
        0,
        sorted([["broken", "damaged"], [lab.name, "up"]]),
    )
    assert f"{state} can't be understood: " in shown.stdout
    for command in (["status", "broken"], ["exec", "-l", "broken", "client", "--", "true"], ["fix", "apply", "x"]):
        done = lab.netlab(*command)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
    assert lab.netlab("fix", "list").returncode == 0
    assert lab.netlab("exec", "-l", lab.name, "client", "--", "true").returncode == 0
    done = lab.netlab("down", "--all")
    assert done.returncode == 0
    assert f"lab {lab.name} is down\n" in done.stderr
    if damage == "a directory":  # which isn't netlab's
        assert f"netlab: {broken.path} isn't empty; netlab left it\n" in done.stderr
    else:
        assert not broken.path.exists()


def test_a_labs_unreadable_topology_is_no_trouble_for_another(lab: Lab, tmp_path: Path) -> None:
    broken = lab_directory(lab.netlab.rundir, "broken")
    for file in (broken.rest, broken.path / "topology.yaml", broken.path / "state.json"):
        file.write_bytes(b"\xff")
    named = tmp_path / f"{lab.name}.yaml"
    named.write_text(TWO)
    done = lab.netlab("up", named, lab.privilege)  # of the name that the file gives it: all labs here are looked at
    assert done.returncode == 0, done.stderr


def test_the_holder_of_a_lab_whose_state_is_damaged_is_found_and_ends(lab: Lab) -> None:
    lab.up()
    holder = json.loads(lab.netlab("status", lab.name, "--format", "json").stdout)["holder"]
    names = [f"{lab.name}-{name}" for name in ("client", "server")]
    state = lab.netlab.rundir / lab.name / "state.json"
    state.write_bytes(b"{")
    done = lab.netlab("down", lab.name)
    assert done.returncode == 0
    assert start_ticks(holder) is None
    if lab.privilege == "--root":
        assert (
            f"netlab: what may be its names stays: {', '.join(names)}; `ip netns del NAME` removes one" in done.stderr
        )
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=True)
    assert not state.parent.exists()


def _of_an_earlier_lab(state: dict[str, Any]) -> None:
    state["holder"]["start_ticks"] -= 1


def _of_a_killed_up(state: dict[str, Any]) -> None:
    state.update(holder=None, complete=False)


def _of_an_earlier_boot(state: dict[str, Any]) -> None:
    state["boot_id"] = "earlier"


@pytest.mark.parametrize("damage", [_of_an_earlier_lab, _of_a_killed_up, _of_an_earlier_boot])
@pytest.mark.parametrize("command", ["down", "up"])
def test_the_holder_of_a_lab_whose_state_names_another_or_none_ends(
    lab: Lab, damage: Callable[[dict[str, Any]], None], command: str
) -> None:
    lab.up()
    holder, file = lab.status()["holder"], lab.directory() / "state.json"
    names = [f"{lab.name}-{name}" for name in ("client", "server")] if lab.privilege == "--root" else []
    state = json.loads(file.read_text())
    damage(state)
    file.write_text(json.dumps(state))
    if command == "down":
        lab.down()
    else:
        lab.try_up()
    assert start_ticks(holder) is None
    if damage is _of_an_earlier_boot:  # whose names' numbers say nothing now
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=True)
    assert lab.netlab("down", lab.name).returncode == 0


def test_a_holder_that_is_left_of_a_lab_built_again_ends_with_it(lab: Lab) -> None:
    """Its state lost, then a new one written: two processes hold the lab."""
    lab.up()
    holders = [lab.status()["holder"]]
    kept = lab.directory().with_name("kept")
    lab.directory().rename(kept)
    if lab.privilege == "--root":
        for name in ("client", "server"):
            subprocess.run(["ip", "netns", "del", f"{lab.name}-{name}"], check=True)
    lab.up()
    holders.append(lab.status()["holder"])
    (lab.directory() / "state.json").write_bytes(b"{")
    lab.netlab("down", lab.name)
    if lab.privilege == "--root":
        for name in ("client", "server"):
            subprocess.run(["ip", "netns", "del", f"{lab.name}-{name}"], check=True)
    assert [start_ticks(holder) for holder in holders] == [None, None]


def test_the_holder_of_a_lab_whose_directory_is_gone_ends(lab: Lab) -> None:
    lab.up()
    holder, directory = lab.status()["holder"], lab.directory()
    shutil.rmtree(directory)
    done = lab.netlab("down", lab.name)
    if lab.privilege == "--root":
        for name in ("client", "server"):
            subprocess.run(["ip", "netns", "del", f"{lab.name}-{name}"], check=True)
    assert done.returncode == 0
    assert done.stderr.startswith(f"netlab: {directory} is gone; netlab ended its lab's processes\n")
    assert "nothing to do" not in done.stderr
    assert start_ticks(holder) is None


@pytest.mark.parametrize(
    "command",
    [("exec", "client", "--", "ip", "link", "delete", "theirs"), ("watch",), ("capture", "-w", "x"), ("explain",)],
    ids=lambda command: command[0],
)
def test_no_command_works_in_a_namespace_that_took_a_names_place(
    lab: Lab, tmp_path: Path, as_root: None, command: tuple[str, ...]
) -> None:
    if lab.privilege != "--root":
        pytest.skip("nobody else names a namespace in a rootless lab")
    lab.up()
    name = f"{lab.name}-client"
    for arguments in (("del", name), ("add", name), ("exec", name, "ip", "link", "add", "theirs", "type", "veth")):
        subprocess.run(["ip", "netns", *arguments], check=True)
    try:
        done = lab.netlab(*command, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"netlab: what stands as {name} isn't the lab's network namespace client\n" in done.stderr
        subprocess.run(["ip", "-n", name, "link", "show", "theirs"], check=True, stdout=subprocess.DEVNULL)
        lab.down()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def namespace_of(process: subprocess.Popen[str]) -> int:
    """The inode of its network namespace, once that isn't the test's own."""
    own, theirs = (Path(f"/proc/{pid}/ns/net") for pid in ("self", process.pid))
    until(lambda: theirs.stat().st_ino != own.stat().st_ino, "a network namespace of its own")
    return theirs.stat().st_ino


@pytest.mark.parametrize("command", ["down", "up"])
def test_who_got_the_inode_of_a_labs_namespace_that_is_gone_is_spared(lab: Lab, as_root: None, command: str) -> None:
    """The kernel gives the lowest inode that is free: that of a namespace whose name somebody has taken away."""
    lab.up()
    name, holder = f"{lab.name}-client", lab.status()["holder"]
    inside = ["nsenter", "-m", "-p", "-t", str(holder), "umount", "/run/netns/client"]
    subprocess.run(["ip", "netns", "del", name] if lab.privilege == "--root" else inside, check=True)
    with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, text=True) as foreign:
        file = lab.directory() / "state.json"
        state = json.loads(file.read_text())
        state["namespaces"] = [
            [one, namespace_of(foreign) if one == "client" else ino] for one, ino in state["namespaces"]
        ]
        file.write_text(json.dumps(state))
        if command == "up":
            lab.file.write_text("namespaces: {server: {}}\n")
            lab.netlab("up", lab.file, "--name", lab.name, lab.privilege)
        else:
            lab.down()
        assert foreign.poll() is None
        foreign.communicate("")
    assert foreign.returncode == 0


def test_the_holder_of_a_lab_whose_directory_has_lost_its_mark_ends(lab: Lab) -> None:
    lab.up()
    holder, directory = lab.status()["holder"], lab.directory()
    (directory / ".netlab").unlink()
    (lab.netlab.rundir / "link").symlink_to(directory)
    assert lab.netlab("down", "link").stderr == "no lab is called link: nothing to do\n"
    assert start_ticks(holder) is not None
    before = tree(directory)
    done = lab.netlab("down", lab.name)
    if lab.privilege == "--root":
        for name in ("client", "server"):
            subprocess.run(["ip", "netns", "del", f"{lab.name}-{name}"], check=True)
    assert done.returncode == 0
    assert f"netlab: {directory} has lost netlab's mark; netlab ended its processes and left it\n" in done.stderr
    assert start_ticks(holder) is None
    assert tree(directory) == before


def test_a_lab_of_the_same_name_in_another_run_directory_is_another(
    netlab: Netlab, lab_name: str, tmp_path: Path, rootless: None
) -> None:
    elsewhere = {"NETLAB_LAB_RUNDIR": str(tmp_path / "elsewhere")}
    file = tmp_path / "topology.yaml"
    file.write_text(TWO)
    lab = Lab(netlab, lab_name, file, "--rootless")
    # First, so that its holder has the smaller number and is looked at before.
    assert netlab("up", file, "--name", lab_name, "--rootless", env=elsewhere).returncode == 0
    try:
        lab.up()
        holder = lab.status()["holder"]
        (netlab.rundir / lab_name / "state.json").write_bytes(b"{")
        assert netlab("down", lab_name).returncode == 0
        assert start_ticks(holder) is None
        other = netlab("status", lab_name, env=elsewhere)
        assert other.stdout.endswith("no drift: the kernel has what the topology says\n"), other.stdout + other.stderr
    finally:
        netlab("down", lab_name, env=elsewhere)


def test_a_command_for_a_lab_that_is_up_never_builds_one(lab: Lab) -> None:
    """The holder dead, `fix apply` as root once built root's lab where a rootless one had stood."""
    lab.write(TWO + "fixes: {both: {summary: no SACK, set: {namespaces.client: {sysctls: {net.ipv4.tcp_sack: 0}}}}}\n")
    lab.up()
    holder = json.loads(lab.netlab("status", lab.name, "--format", "json").stdout)["holder"]
    os.kill(holder, 9)
    whole = (
        f"netlab: the lab {lab.name} is incomplete: it, or the command that built it, was killed\n"
        f"  hint: `netlab down {lab.name}` removes what is left, `netlab up` builds it again\n"
    )
    for command in (["fix", "apply", "both"], ["fix", "revert"], ["exec", "client", "--", "true"]):
        done = lab.netlab(*command)
        assert (done.returncode, done.stderr) == (1, whole), command
    assert "dead" in lab.netlab("status").stdout
