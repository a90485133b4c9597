"""What belongs to a lab is written down whole or not at all, in a directory of this user, by one command at a time."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from netlab.errors import LabError, UsageError
from netlab.lab import state as states
from netlab.lab.holder import Holder, start_ticks
from netlab.lab.state import Asked, LabDirectory, LabState, StartedProgram, boot_id, choose, labs, run_directory

FULL = LabState(
    lab="lab",
    boot_id="3f2c",
    rootless=True,
    names="/run/netns",
    prefix="lab-",
    file="/tmp/topology.yaml",
    settings=(("vars.window", "4096"), ("ipv6", "true")),
    fixes=("drop-invalid",),
    holder=Holder(77, 1234),
    namespaces=(("client", 4026531840), ("server", 4026531841)),
    programs=(StartedProgram("server", "web", 5, 99),),
    former=(("server", "net.ipv4.tcp_sack", "1"),),
    complete=True,
)
BARE = LabState(lab="lab", boot_id="", rootless=False, names="", prefix="", file=None)


@pytest.fixture
def directory(tmp_path: Path) -> LabDirectory:
    """A lab's directory, made and empty."""
    found = LabDirectory(tmp_path / "run", "lab")
    found.path.mkdir(parents=True)
    return found


@pytest.mark.parametrize("state", [FULL, BARE], ids=["full", "bare"])
def test_what_is_written_is_what_is_read(directory: LabDirectory, state: LabState) -> None:
    directory.write(state)
    assert directory.read() == state


def test_a_new_lab_is_written_down_with_its_topology_and_hosts(directory: LabDirectory) -> None:
    directory.create(FULL, "name: lab\n", "127.0.0.1 localhost\n")
    assert directory.read() == FULL
    assert directory.topology_text() == "name: lab\n"
    assert directory.hosts.read_text() == "127.0.0.1 localhost\n"
    assert directory.log("server", "web") == directory.path / "logs" / "server.web.log"
    assert sorted(path.name for path in directory.path.iterdir()) == ["hosts", "logs", "state.json", "topology.yaml"]


def test_a_change_is_written_down_before_it_is_made_and_struck_out_after(directory: LabDirectory) -> None:
    directory.create(FULL, "name: lab\n", "")
    begun = directory.begin(FULL, Asked("/tmp/other.yaml", fixes=("liberal",)), "name: other\n")
    assert directory.read() == begun
    again = directory.begin(begun, Asked(None), "name: third\n")
    assert directory.read() == again
    assert [directory.topology_text(), directory.next_text(0), directory.next_text(1)] == [
        "name: lab\n",
        "name: other\n",
        "name: third\n",
    ]
    settled = directory.settle(again)
    assert settled == directory.read() == FULL._replace(file=None, settings=(), fixes=())
    assert directory.topology_text() == "name: third\n"
    assert not list(directory.path.glob("next-*"))
    assert directory.abandon(directory.begin(settled, Asked(None), "name: fourth\n")) == settled == directory.read()
    assert directory.topology_text() == "name: third\n"
    assert not list(directory.path.glob("next-*"))


def test_a_change_whose_text_has_taken_its_place_is_made(directory: LabDirectory) -> None:
    directory.create(FULL, "name: lab\n", "")
    directory.begin(FULL, Asked("/tmp/other.yaml", fixes=("liberal",)), "name: other\n")
    (directory.path / "next-0.yaml").replace(directory.path / "topology.yaml")  # killed before state.json follows
    assert directory.read() == FULL._replace(file="/tmp/other.yaml", settings=(), fixes=("liberal",))


def test_a_writer_that_is_killed_leaves_what_was_there(
    directory: LabDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.write(FULL)

    def killed(path: Path, text: str, **_options: str) -> None:
        with path.open("w") as file:
            file.write(text[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        directory.write(BARE)
    assert directory.read() == FULL


def test_a_full_disk_is_an_error_that_names_the_file(directory: LabDirectory) -> None:
    draft = directory.path / "state.new"
    draft.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        directory.write(FULL)
    assert caught.value.filename == str(draft)


def test_no_state_is_none(directory: LabDirectory, tmp_path: Path) -> None:
    assert directory.read() is None
    assert LabDirectory(tmp_path / "nowhere", "lab").read() is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ('{"lab": "lab"}', "'settings'"),
        ("[]", "'list' object is not a mapping"),
        ("null", "'NoneType' object is not a mapping"),
        ("\udcff", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (
            json.dumps({"settings": [], "fixes": [], "holder": None, "namespaces": [], "programs": [], "colour": 1}),
            "LabState.__new__() got an unexpected keyword argument 'colour'",
        ),
    ],
)
def test_a_state_that_cannot_be_understood_is_an_error_that_names_the_file(
    directory: LabDirectory, text: str, problem: str
) -> None:
    file = directory.path / "state.json"
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(LabError) as raised:
        directory.read()
    assert str(raised.value) == (
        f"{file} can't be understood: {problem}\n  hint: was it written by another version of netlab?"
    )


def test_clearing_removes_what_was_written_and_nothing_else(directory: LabDirectory) -> None:
    directory.create(FULL, "name: lab\n", "")
    directory.log("server", "web").write_text("hello\n")
    (directory.path / "state.new").write_text("torn")
    directory.names.mkdir()
    mine = directory.path / "mine.txt"
    mine.write_text("a user's own")
    directory.clear()
    assert list(directory.path.iterdir()) == [mine]
    directory.clear()


def test_standing_is_complete_in_this_boot_with_its_holder_alive() -> None:
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    standing = FULL._replace(boot_id=boot_id(), holder=Holder(os.getpid(), ticks))
    assert standing.standing()
    assert not standing._replace(complete=False).standing()
    assert not standing._replace(boot_id="another").standing()
    assert not standing._replace(holder=None).standing()
    assert not standing._replace(holder=Holder(os.getpid(), ticks - 1)).standing()


# --- where ---------------------------------------------------------------------------------------------------------


def test_the_run_directory_is_the_variables_or_roots_or_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NETLAB_LAB_RUNDIR", "/somewhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert run_directory() == Path("/somewhere")
    monkeypatch.delenv("NETLAB_LAB_RUNDIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert run_directory() == Path("/run/netns-lab")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run_directory() == tmp_path / "netns-lab"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    assert run_directory() == Path("/tmp/netns-lab-1000")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)  # another user's, as `su` leaves it
    assert run_directory() == Path("/tmp/netns-lab-1000")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert run_directory() == Path("/tmp/netns-lab-1000")


def refusal(root: Path) -> str:
    with pytest.raises(LabError) as raised, LabDirectory(root, "lab").locked(create=True):
        pass
    with pytest.raises(LabError) as again:
        labs(root)
    assert str(again.value) == str(raised.value)
    return str(raised.value)


def test_a_run_directory_of_another_users_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "run"
    root.mkdir()
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    assert refusal(root) == (f"{root} belongs to another user\n  hint: set NETLAB_LAB_RUNDIR to a directory of yours")


def test_a_run_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "run"
    root.symlink_to(tmp_path / "elsewhere")
    assert refusal(root) == (
        f"{root} is a symbolic link\n  hint: remove it, or set NETLAB_LAB_RUNDIR to a directory of yours"
    )


def test_a_run_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.write_text("")
    assert (
        refusal(root) == f"{root} is no directory\n  hint: remove it, or set NETLAB_LAB_RUNDIR to a directory of yours"
    )


# --- the lock --------------------------------------------------------------------------------------------------------


def test_a_lock_makes_the_directory_and_leaves_nothing_behind(tmp_path: Path) -> None:
    directory = LabDirectory(tmp_path / "run", "lab")
    with directory.locked() as there:
        assert not there
    with directory.locked(create=True) as there:
        assert there
        assert directory.path.is_dir()
    assert not directory.root.exists()


def test_a_lock_keeps_what_was_written(tmp_path: Path) -> None:
    directory = LabDirectory(tmp_path / "run", "lab")
    with directory.locked(create=True):
        directory.write(FULL)
    with directory.locked() as there:
        assert there
        assert directory.read() == FULL


def test_the_second_command_waits_and_then_gives_up(directory: LabDirectory) -> None:
    fd = os.open(directory.path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        with pytest.raises(LabError) as raised, directory.locked(timeout_s=0.1):
            pass
    finally:
        os.close(fd)
    assert str(raised.value) == "another netlab command is at work on the lab lab\n  hint: wait for it, or end it"
    with directory.locked(timeout_s=0.1) as there:
        assert there


def test_the_second_command_goes_on_when_the_first_is_done(directory: LabDirectory) -> None:
    directory.write(FULL)
    waiting, entered = threading.Event(), threading.Event()

    def second() -> None:
        waiting.set()
        with directory.locked(timeout_s=30):
            entered.set()

    thread = threading.Thread(target=second)
    with directory.locked():
        thread.start()
        assert waiting.wait(30)
        assert not entered.is_set()
    thread.join(30)
    assert entered.is_set()


def test_a_lock_on_a_directory_that_was_removed_meanwhile_counts_for_nothing(
    directory: LabDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = states.lock
    calls: list[int] = []

    def slow(fd: int) -> bool:
        if not calls:  # as if another command had taken the lab down between the opening and the lock
            directory.path.rmdir()
        calls.append(fd)
        return real(fd)

    monkeypatch.setattr(states, "lock", slow)
    with directory.locked(create=True) as there:
        assert there
        assert directory.path.is_dir()
    assert len(calls) == 2


def test_a_killed_command_keeps_no_lock(directory: LabDirectory) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from netlab.lab.state import Asked, LabDirectory\n"
        "with LabDirectory(pathlib.Path(sys.argv[1]), 'lab').locked():\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(directory.root)])
    assert killed.returncode == -9
    with directory.locked(timeout_s=0.1) as there:
        assert there


# --- which lab -------------------------------------------------------------------------------------------------------


def test_labs_are_the_directories_by_name(tmp_path: Path) -> None:
    assert labs(tmp_path / "nowhere") == []
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
    (tmp_path / "a file").touch()
    assert labs(tmp_path) == ["a", "b"]


def test_a_command_means_the_lab_it_names_or_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    assert choose(tmp_path, None) == choose(tmp_path, "one") == "one"
    (tmp_path / "two").mkdir()
    assert choose(tmp_path, "two") == "two"


@pytest.mark.parametrize(
    ("there", "asked", "message"),
    [
        ((), None, "no lab is up\n  hint: `netlab up topology.yaml` builds one"),
        ((), "x", "no lab is called x\n  hint: no lab is up: `netlab up` builds one"),
        (("one", "two"), None, "several labs are up: one, two\n  hint: name the one you mean"),
        (("one", "two"), "x", "no lab is called x\n  hint: the labs here are: one, two"),
    ],
)
def test_else_it_is_told_what_there_is(tmp_path: Path, there: tuple[str, ...], asked: str | None, message: str) -> None:
    for name in there:
        (tmp_path / name).mkdir()
    with pytest.raises(UsageError) as raised:
        choose(tmp_path, asked)
    assert str(raised.value) == message
