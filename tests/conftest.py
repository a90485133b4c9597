"""What every test may use: the command as a subprocess, a lab name of its own, and a host that stays as it was.

All labs of the tests keep their files below one directory of the session's own, so that no test sees a user's labs.
"""

from __future__ import annotations

import gc
import os
import signal
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import host
import labs
import pytest
import skips
from chromium import Browser
from command import SERVER, Netlab, new_lab_name

from netlab.linux import interrupts
from netlab.linux.syscalls import CLONE_NEWNET, setns, unshare


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long tests first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """Thousands of tests stay to the end: no garbage collection need look at them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def heard_signals() -> None:
    """What this session was started to ignore (as a background job, or by nohup), the commands of its tests are not."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)  # an exec keeps SIG_IGN, and no function


@pytest.fixture(scope="session", autouse=True)
def session_rundir() -> Iterator[Path]:
    """The directory below which all labs of this session keep their files; the host is compared at the end."""
    os.environ[host.MARK] = uuid.uuid4().hex
    # Not pytest's tmp_path: that stays on disk, and its long names would fill a Unix socket's 108 bytes.
    with tempfile.TemporaryDirectory(prefix="netlab-test-") as directory:
        rundir = Path(directory)
        os.environ[host.RUNDIR] = directory
        before = host.snapshot(rundir)
        yield rundir
        SERVER.close()
        diff = host.changes(before, rundir)
        if diff:  # the lab of a script that was killed, say
            Netlab(rundir).start("down", "--all")
    if diff:
        pytest.fail(f"the tests left the host changed:\n{diff}", pytrace=False)


@pytest.fixture
def stopping() -> Iterator[None]:
    """Signals raise Interrupted in this process."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    interrupts.stop_on_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@contextmanager
def _netlab(session_rundir: Path) -> Iterator[Netlab]:
    SERVER.start()  # before the test may look at the host
    # Not made here: netlab makes its directory with the first lab, and removes it with the last.
    run = Netlab(session_rundir / uuid.uuid4().hex[:8])
    yield run
    if run.rundir.exists() or any(session_rundir.glob(".netlab-*")):  # killed as it made or removed the directory
        done = run("down", "--all")
        assert done.returncode == 0, done.stderr


@pytest.fixture
def netlab(session_rundir: Path) -> Iterator[Netlab]:
    """The command; whatever labs the test leaves up are taken down after it."""
    with _netlab(session_rundir) as run:
        yield run


@pytest.fixture(scope="module")
def shared_netlab(session_rundir: Path) -> Iterator[Netlab]:
    """The same for a lab that all tests of a module share: they only look at it, or leave it as it was."""
    with _netlab(session_rundir) as run:
        yield run


@pytest.fixture
def lab_name() -> str:
    """new_lab_name() for one test."""
    return new_lab_name()


@pytest.fixture
def as_root() -> None:
    """Skips the test unless this is root."""
    skips.skip_unless_root()


@pytest.fixture
def own_netns(as_root: None) -> Iterator[None]:
    """This thread is in an empty network namespace meanwhile."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    unshare(CLONE_NEWNET)
    try:
        yield
    finally:
        setns(home, CLONE_NEWNET)
        os.close(home)


@pytest.fixture
def rootless() -> None:
    """Skips the test unless this user can make a user namespace."""
    skips.skip_unless_userns()


@pytest.fixture(scope="module", params=["--root", pytest.param("--rootless", marks=pytest.mark.rootless)])
def privilege(request: pytest.FixtureRequest) -> str:
    """Runs the test twice, with either option of `netlab up`; each where this user can."""
    option = str(request.param)
    if option == "--root":
        skips.skip_unless_root()
    else:
        skips.skip_unless_userns()
    return option


@pytest.fixture(scope="module")
def lab(shared_netlab: Netlab, privilege: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[labs.Lab]:
    """The smallest lab, up, for all tests of a module that makes none of its own."""
    two = labs.make(shared_netlab, new_lab_name(), tmp_path_factory.mktemp("lab"), privilege)
    two.up()
    yield two
    two.down()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium; skips where there is none, or none can be shut off from the network."""
    skips.skip_unless_program("chromium")
    skips.skip_unless_program("unshare")
    skips.skip_unless_userns()
    with Browser() as opened:
        yield opened
