"""What belongs to a lab is written down whole or not at all, in a directory of this user, by one command at a time."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from states import BARE, FULL, lab_directory

from netlab.errors import LabError
from netlab.lab import locks, mark
from netlab.lab.directory import LabDirectory
from netlab.lab.state import Asked, LabState
from netlab.linux.files import write_own


@pytest.fixture
def directory(tmp_path: Path) -> LabDirectory:
    """A lab's directory, made and empty."""
    return lab_directory(tmp_path / "run", "lab")


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
    there = sorted(path.name for path in directory.path.iterdir())
    assert there == [".netlab", "hosts", "logs", "state.json", "topology.yaml"]


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_what_is_written_is_this_users_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        directory = LabDirectory(tmp_path / "above/run", "lab")
        with directory.locked(create=True):
            directory.create(FULL, "name: lab\n", "127.0.0.1 localhost\n")
            directory.begin(FULL, Asked(None), "name: lab\n")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "above").rglob("*")}
    modes["above"] = stat.S_IMODE((tmp_path / "above").stat().st_mode)
    assert modes == {
        **dict.fromkeys(("above", "run", "lab", "logs"), 0o700),
        **dict.fromkeys((".netlab", "state.json", "topology.yaml", "next-0.yaml"), 0o600),
        "hosts": 0o644,  # any user in the lab reads it as /etc/hosts
    }


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

    def killed(path: Path, data: bytes) -> None:
        path.write_bytes(data[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr("netlab.linux.files.write_own", killed)
    with pytest.raises(KeyboardInterrupt):
        directory.write(BARE)
    assert directory.read() == FULL


def test_a_link_in_the_place_of_a_file_is_not_followed(directory: LabDirectory, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("a user's own")
    draft = directory.path / "state.new"
    draft.symlink_to(mine)
    with pytest.raises(OSError, match="symbolic link") as caught:
        directory.write(FULL)
    assert caught.value.filename == str(draft)
    directory.clear()
    assert mine.read_text() == "a user's own"


def test_no_state_is_none(directory: LabDirectory, tmp_path: Path) -> None:
    assert directory.read() is None
    assert LabDirectory(tmp_path / "nowhere", "lab").read() is None


def test_a_state_that_cannot_be_understood_is_an_error_that_names_the_file(directory: LabDirectory) -> None:
    file = directory.path / "state.json"
    write_own(file, b"[]")
    with pytest.raises(LabError) as raised:
        directory.read()
    assert str(raised.value) == (
        f"{file} can't be understood: it is a list, not an object\n"
        "  hint: it was changed, or another version of netlab wrote it; `netlab down lab` removes the lab"
    )


def test_clearing_removes_what_was_written_and_nothing_else(directory: LabDirectory) -> None:
    directory.create(FULL, "name: lab\n", "")
    directory.log("server", "web").write_text("hello\n")
    (directory.path / "state.new").write_text("torn")
    directory.names.mkdir()
    mine = directory.path / "mine.new"
    mine.write_text("a user's own")
    directory.clear()
    assert sorted(directory.path.iterdir()) == [directory.path / ".netlab", mine]
    directory.clear()


def test_what_a_killed_command_was_about_to_write_goes_with_the_next(directory: LabDirectory) -> None:
    directory.create(FULL, "name: lab\n", "")
    drafts = {directory.path / f"{name}.new" for name in ("state", "rest", "spec", "mine")}
    for draft in drafts:
        draft.write_text("torn")
    with directory.locked():
        assert drafts & {*directory.path.iterdir()} == {directory.path / "mine.new"}
    assert directory.read() == FULL


# --- the lock --------------------------------------------------------------------------------------------------------


def test_a_lock_makes_the_directory_and_leaves_nothing_behind(tmp_path: Path) -> None:
    directory = LabDirectory(tmp_path / "run", "lab")
    with directory.locked() as there:
        assert not there
    with directory.locked(create=True) as there:
        assert there
        assert directory.path.is_dir()
    assert not directory.path.exists()


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
    assert str(raised.value) == "another netlab command is working on the lab lab\n  hint: wait for it, or end it"
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
    real = locks.lock
    calls: list[str] = []

    def slow(fd: int) -> bool:
        calls.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        if len(calls) == 1:  # as if another command had taken the lab down between the opening and the lock
            mark.unmake(directory.path)
        return real(fd)

    monkeypatch.setattr(locks, "lock", slow)
    with directory.locked(create=True) as there:
        assert there
        assert directory.path.is_dir()
    of_the_lab = [path for path in calls if path != str(directory.root)]
    assert len(of_the_lab) == 2  # the second is that of the directory it made


def test_a_killed_command_keeps_no_lock(directory: LabDirectory) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from netlab.lab.directory import LabDirectory\n"
        "with LabDirectory(pathlib.Path(sys.argv[1]), 'lab').locked():\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(directory.root)])
    assert killed.returncode == -9
    with directory.locked(timeout_s=0.1) as there:
        assert there
