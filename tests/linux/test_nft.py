"""libnftables: what it refuses, and what is said where it isn't there."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest
import skips
from places import ROOT
from private_lab import PrivateLab

from netlab import advice
from netlab.errors import told
from netlab.linux import interrupts, libnftables, nft
from netlab.model import Netns, Role, Topology


@pytest.mark.parametrize("module", [ModuleType("nftables"), None], ids=["a module of that name", "no module"])
def test_without_the_library_nft_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType | None
) -> None:
    def missing(name: str) -> NoReturn:
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")

    monkeypatch.setitem(sys.modules, "nftables", module)
    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr(advice, "install", "apt-get install {}".format)
    with pytest.raises(OSError) as raised:
        nft.run("list ruleset")
    assert raised.value.errno == errno.ENOPKG
    assert told(raised.value) == (
        "nft: libnftables.so.1: cannot open shared object file: No such file or directory: apt-get install libnftables1"
    )


RULES = """
table inet t { comment "\u00e4 of 1\u00b0"; }
table inet t {
  set s { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }; }
  chain c { type filter hook input priority 0; ip saddr @s counter packets 7 bytes 9 drop; }
}
"""


@pytest.mark.kernel
@pytest.mark.usefixtures("own_netns")
def test_the_library_alone_answers_as_netfilters_own_module_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers() -> Iterator[object]:
        yield nft.run(f"flush ruleset\n{RULES}")
        yield nft.run("list ruleset")
        yield re.sub(r"(?<=handle )\d+", "N", nft.ruleset_with_handles())
        yield nft.list_tables([("inet", "t"), ("ip", "none")])
        yield nft.complaint("table inet t {\n  chain c { ip saddr 300.0.0.1 }\n}\n")
        with pytest.raises(OSError) as raised:
            nft.run("delete table inet none")
        yield str(raised.value)

    assert libnftables.binding().__module__ == "nftables.nftables"
    through_module = list(answers())
    assert "counter packets 7 bytes 9" in str(through_module[1])
    monkeypatch.setitem(sys.modules, "nftables", None)
    assert libnftables.binding() is libnftables.Library
    assert list(answers()) == through_module


def test_debians_module_is_found_by_a_python_that_does_not_look_there() -> None:
    """What pipx and uv make: an environment that sees nothing of the system's packages."""
    if not Path("/usr/lib/python3/dist-packages/nftables").is_dir():
        pytest.skip("needs Debian's python3-nftables")
    program = (
        "import sys; sys.path[:] = [path for path in sys.path if not path.endswith('-packages')] + [sys.argv[1]]\n"
        "from netlab.linux import libnftables; before = [*sys.path]\n"
        "print(sys.modules[libnftables.binding().__module__].__file__, sys.path == before)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", program, ROOT], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("/usr/lib/python3/dist-packages/nftables/nftables.py True\n", "")


def end_with(call: Callable[[], object]) -> ModuleType:
    """A binding whose library prints something and makes this call, whatever it is asked."""

    class Nftables:
        def cmd(self, _commands: str) -> None:
            os.write(1, b"a rule\n")
            os.write(2, b"mnl.c:63: Unable to initialize Netlink socket: Too many open files\n")
            call()

    module = ModuleType("nftables")
    module.__dict__["Nftables"] = Nftables
    return module


def refusing(complaint: str) -> ModuleType:
    """A binding whose library refuses whatever it is asked, with these words."""

    class Nftables:
        def cmd(self, _commands: bytes) -> tuple[int, bytes, bytes]:
            return -1, b"", complaint.encode()

        def set_handle_output(self, _wanted: bool) -> None:
            pass

        set_stateless_output = set_handle_output

    module = ModuleType("nftables")
    module.__dict__["Nftables"] = Nftables
    return module


def test_a_table_that_cannot_be_listed_is_not_one_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nftables", refusing("Error: No such file or directory; did you mean table x?\n"))
    assert nft.list_with_handles([("ip", "filter")]) == nft.list_tables([("ip", "filter")]) == ""
    monkeypatch.setitem(sys.modules, "nftables", refusing("netlink: Error: No buffer space available\n"))
    for listed in (nft.list_with_handles, nft.list_tables):
        with pytest.raises(OSError, match="No buffer space available"):
            listed([("ip", "filter")])


ENDS: dict[str, tuple[Callable[[], object], str]] = {
    "exit(3)": (lambda: ctypes.CDLL(None).exit(3), "exit code 3"),
    "exit(0)": (lambda: ctypes.CDLL(None).exit(0), "exit code 0"),
    "abort": (os.abort, "signal 6"),
    "a crash": (lambda: ctypes.string_at(0), "signal 11"),
    "killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), "signal 9"),
}


@pytest.mark.parametrize(("call", "how"), ENDS.values(), ids=ENDS)
def test_the_librarys_end_is_an_error_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], call: Callable[[], object], how: str
) -> None:
    monkeypatch.setitem(sys.modules, "nftables", end_with(call))
    with pytest.raises(OSError) as raised:
        nft.run("list ruleset")
    assert (raised.value.errno, raised.value.filename) == (errno.EIO, "nft")
    last = "a rule\nmnl.c:63: Unable to initialize Netlink socket: Too many open files"
    assert raised.value.strerror == f"libnftables ended ({how}): {last}"
    assert capfd.readouterr() == ("", "")


def test_what_interrupts_the_waiting_ends_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        for _ in range(1000):  # one that comes before the parent sleeps doesn't wake it
            os.kill(os.getppid(), signal.SIGTERM)
            time.sleep(0.01)

    def raise_interrupted(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise interrupts.Interrupted

    def is_interrupted() -> bool:
        signal.signal(signal.SIGTERM, raise_interrupted)
        with pytest.raises(interrupts.Interrupted):
            nft.run("list ruleset")
        return not Path(f"/proc/self/task/{os.getpid()}/children").read_text()

    monkeypatch.setitem(sys.modules, "nftables", end_with(interrupt))
    # In a process without other threads: these would take a signal that is held back from the one that forks.
    process = os.fork()
    if process == 0:
        code = 1
        try:
            code = int(not is_interrupted())
        finally:
            os._exit(code)
    assert os.waitpid(process, 0)[1] == 0


def test_where_no_child_can_be_made_it_is_an_error_of_nfts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    open_before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(OSError) as raised:
        nft.run("list ruleset")
    assert told(raised.value) == "nft: Resource temporarily unavailable"
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


@pytest.mark.kernel
def test_a_text_that_libnftables_cannot_bear_and_no_room_for_a_socket() -> None:
    skips.skip_unless_root()
    with PrivateLab(Topology("tiny", (Netns("here", Role.HOST),))) as lab, lab.inside("here"):
        with pytest.raises(OSError, match=r"^\[Errno 5\] libnftables ended \(signal (6|11)\)"):
            nft.run("table ip t { chain c { " + "jump { " * 40_000 + "} " * 40_000 + "}}")
        nft.run("add table ip t")
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = os.dup(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 4, before[1]))  # two for the pipe, one for the fork
        try:
            assert nft.run("list tables") == "table ip t\n"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            os.close(taken)


@pytest.mark.kernel
def test_what_nft_refuses_is_an_error_in_its_own_words() -> None:
    skips.skip_unless_root()
    with PrivateLab(Topology("tiny", (Netns("here", Role.HOST),))) as lab, lab.inside("here"):
        with pytest.raises(OSError) as raised:
            nft.run("add rule ip nothing here accept\n")
        assert (raised.value.errno, raised.value.filename) == (errno.EINVAL, "nft")
        assert raised.value.strerror == (
            "Error: Could not process rule: No such file or directory\n"
            "add rule ip nothing here accept\n            ^^^^^^^"
        )
        nft.run("table ip t { set seen { type ipv4_addr; size 16; flags dynamic; elements = { 10.0.0.1 }; }; }")
        assert "handle" in nft.ruleset_with_handles()
        assert nft.list_tables([("ip", "t"), ("ip6", "none")]) == (
            "table ip t {\n\tset seen {\n\t\ttype ipv4_addr\n\t\tsize 16\n\t\tflags dynamic\n\t}\n}\n"
        )
