"""Where labs are written down, who may have made that directory, and which labs there are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from states import lab_directory

from netlab.errors import LabError, UsageError
from netlab.lab import rundir
from netlab.lab.directory import LabDirectory
from netlab.lab.rundir import choose, labs, run_directory, sweep


def test_the_run_directory_is_the_variables_or_roots_or_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NETLAB_LAB_RUNDIR", "/somewhere")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert run_directory() == Path("/somewhere")
    monkeypatch.delenv("NETLAB_LAB_RUNDIR")
    monkeypatch.setattr(rundir, "_uid", lambda: 0)
    assert run_directory() == Path("/run/netns-lab")
    monkeypatch.setattr(rundir, "_uid", lambda: 1000)
    assert run_directory() == tmp_path / "netns-lab"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    assert run_directory() == Path("/tmp/netns-lab-1000")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", ".")  # which is another directory for the next command
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
    hint = "remove it, or set NETLAB_LAB_RUNDIR to a directory of yours"
    assert refusal(root) == f"{root} is not a directory\n  hint: {hint}"


def test_a_run_directory_that_nobody_can_make_is_refused() -> None:
    lab = LabDirectory(Path("/proc/nowhere/run"), "lab")
    with pytest.raises(LabError, match=r"^/proc/nowhere can't be made\n"), lab.locked(create=True, timeout_s=0.0):
        pass


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_run_directory_to_which_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    root = tmp_path / "run"
    root.mkdir()
    root.chmod(mode)
    assert refusal(root) == (
        f"others can write to {root}\n  hint: chmod go-w {root}, or set NETLAB_LAB_RUNDIR to a directory of yours"
    )


def test_a_run_directory_whose_place_others_could_take_is_refused(tmp_path: Path) -> None:
    above = tmp_path / "above"
    root = above / "run"
    root.mkdir(parents=True)
    above.chmod(0o777)
    assert refusal(root) == (
        f"{root} is not safe: others can write to {above}\n"
        f"  hint: chmod go-w {above}, or set NETLAB_LAB_RUNDIR to a directory of yours"
    )
    (tmp_path / "link").symlink_to(above)
    assert f"others can write to {above}" in refusal(tmp_path / "link" / "run")
    above.chmod(0o1777)  # as /tmp is: there nobody can take another's place
    assert labs(root) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_run_directory_below_another_users_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "above" / "run"
    root.mkdir(parents=True)
    os.chown(root.parent, 65534, 65534)
    assert refusal(root) == (
        f"{root} is not safe: {root.parent} belongs to another user\n"
        "  hint: set NETLAB_LAB_RUNDIR to a directory of yours"
    )


def test_a_run_directory_goes_with_the_last_lab_where_netlab_made_it(tmp_path: Path) -> None:
    for root in (tmp_path / "made", tmp_path / "mine"):
        if root.name == "mine":
            root.mkdir()
        with LabDirectory(root, "lab").locked(create=True):
            assert root.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_killed_commands_left_of_directories_goes_with_the_next(tmp_path: Path) -> None:
    root = tmp_path / "run"
    lab_directory(root, "lab").path.rename(root / ".netlab-killed")  # killed before its move, or after
    (root / ".netlab-begun").mkdir()  # killed before it was marked
    (root / ".netlab-mine").mkdir()
    (root / ".netlab-mine" / "mine.txt").touch()
    (tmp_path / ".netlab-root").mkdir()
    with LabDirectory(root, "lab").locked(create=True):
        pass
    assert sorted(path.name for path in root.iterdir()) == [".netlab", ".netlab-mine"]
    sweep(root)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# --- which lab -------------------------------------------------------------------------------------------------------


def test_labs_are_the_marked_directories_by_name(tmp_path: Path) -> None:
    assert labs(tmp_path / "nowhere") == []
    for name in ("b", "a"):
        lab_directory(tmp_path, name)
    (tmp_path / "file").touch()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "topology.yaml").touch()
    (tmp_path / "link").symlink_to("a")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere" / "a")
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / ".netlab").mkdir()
    assert labs(tmp_path) == ["a", "b"]
    assert labs(tmp_path / "elsewhere") == []


def test_a_command_means_the_lab_it_names_or_the_only_one(tmp_path: Path) -> None:
    lab_directory(tmp_path, "one")
    assert choose(tmp_path, None) == choose(tmp_path, "one") == "one"
    lab_directory(tmp_path, "two")
    assert choose(tmp_path, "two") == "two"


@pytest.mark.parametrize(
    ("there", "asked", "message"),
    [
        ((), None, "no lab is up\n  hint: `netlab up topology.yaml` builds one"),
        ((), "x", "no lab is called x\n  hint: no lab is up: `netlab up` builds one"),
        (("one", "two"), None, "several labs are up: one, two\n  hint: name the one you mean: -l LAB"),
        (("one", "two"), "x", "no lab is called x\n  hint: the labs here are: one, two"),
    ],
)
def test_else_it_is_told_what_there_is(tmp_path: Path, there: tuple[str, ...], asked: str | None, message: str) -> None:
    for name in there:
        lab_directory(tmp_path, name)
    with pytest.raises(UsageError) as raised:
        choose(tmp_path, asked)
    assert str(raised.value) == message
