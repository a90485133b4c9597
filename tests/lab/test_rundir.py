"""Where labs are written down, who may have made that directory, and which labs there are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from netlab.errors import LabError, UsageError
from netlab.lab.directory import LabDirectory
from netlab.lab.rundir import choose, labs, run_directory


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
