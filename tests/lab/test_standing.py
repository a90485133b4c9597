"""When a lab stands, and which process is taken for its holder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import skips
from labs import until
from states import FULL, lab_directory

from netlab.lab.holder import alive, find, holds, start_ticks
from netlab.lab.standing import boot_id, down, is_standing
from netlab.lab.state import Holder

pytestmark = pytest.mark.kernel


@pytest.fixture
def init() -> Iterator[Holder]:
    """A process that is the first of a PID namespace, as a lab's holder is, and a container's first."""
    skips.skip_unless_userns()
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as middle:
        children = Path(f"/proc/{middle.pid}/task/{middle.pid}/children")
        until(lambda: bool(children.read_text()), "the process in the namespace")
        pid = int(children.read_text())
        until(lambda: Path(f"/proc/{pid}/comm").read_text() == "cat\n", "the program in it")
        ticks = start_ticks(pid)
        assert ticks is not None
        yield Holder(pid, ticks)
        assert middle.stdin is not None
        middle.stdin.close()


def test_standing_is_complete_in_this_boot_with_its_holder_alive(init: Holder) -> None:
    standing = FULL._replace(boot_id=boot_id(), holder=init)
    assert is_standing(standing)
    assert not is_standing(standing._replace(complete=False))
    assert not is_standing(standing._replace(boot_id="another"))
    assert not is_standing(standing._replace(holder=None))
    assert not is_standing(standing._replace(holder=Holder(init.pid, init.start_ticks - 1)))


def test_a_process_of_the_host_is_no_holder() -> None:
    ticks = start_ticks(os.getpid())
    assert ticks is not None
    assert not alive(Holder(os.getpid(), ticks))


def test_what_a_planted_state_names_is_not_ended(init: Holder, tmp_path: Path) -> None:
    directory = lab_directory(tmp_path / "run", "lab")
    planted = FULL._replace(boot_id=boot_id(), holder=init, rootless=os.geteuid() != 0, namespaces=(), programs=())
    directory.create(planted, "name: lab\n", "127.0.0.1 localhost\n")
    assert down(directory) == [f"process {init.pid} isn't this lab's holder; netlab left it"]
    assert alive(init)
    assert not directory.path.exists()


def test_no_other_process_is_found_for_a_lab_whose_state_is_damaged(init: Holder, tmp_path: Path) -> None:
    directory = lab_directory(tmp_path / "run", "lab")
    directory.create(FULL, "name: lab\n", "127.0.0.1 localhost\n")
    assert not holds(init.pid, directory.hosts)
    assert find(directory.hosts) == []
