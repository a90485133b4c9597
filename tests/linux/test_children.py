"""A forked child never comes back into its parent's code, whatever happens in it, and ends with its parent."""

from __future__ import annotations

import ast
import gc
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

import pytest
from places import ROOT

from netlab.linux import children, interrupts

CODE_OF_AN_ERROR = 1
_FORKS = {
    ("os", "fork"),
    ("os", "forkpty"),
    ("pty", "fork"),
    ("os", "posix_spawn"),
    ("os", "posix_spawnp"),
    ("os", "_exit"),
}
_LIBRARIES = {"multiprocessing", "concurrent.futures", "pty"}


@contextmanager
def cleaning_up(log: Path) -> Iterator[None]:
    """As a lab that is taken down: who leaves the block writes down who it is."""
    try:
        yield
    finally:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")


def raising(error: BaseException) -> Callable[[], int]:
    """What a child does that ends with this."""

    def body() -> int:
        raise error

    return body


def into_a_pipe_without_a_reader() -> None:
    readable, writable = os.pipe()
    os.close(readable)
    os.write(writable, b"nobody hears it")


def into_its_own_signal() -> None:
    interrupts.stop_on_signals()
    signal.raise_signal(signal.SIGTERM)


def too_deep() -> None:
    too_deep()


ENDS = [
    (lambda: None, 0),
    (lambda: 7, 7),
    (raising(ValueError("a fault")), CODE_OF_AN_ERROR),
    (raising(SystemExit(3)), 3),
    (raising(SystemExit("in words")), CODE_OF_AN_ERROR),
    (raising(KeyboardInterrupt()), CODE_OF_AN_ERROR),
    (raising(GeneratorExit()), CODE_OF_AN_ERROR),
    (raising(MemoryError()), CODE_OF_AN_ERROR),
    (raising(interrupts.Interrupted()), children.INTERRUPTED),
    (into_its_own_signal, children.INTERRUPTED),
    (into_a_pipe_without_a_reader, CODE_OF_AN_ERROR),
    (too_deep, CODE_OF_AN_ERROR),
]


@pytest.mark.parametrize("held_back", [False, True])
@pytest.mark.parametrize(("body", "code"), ENDS)
def test_a_child_never_leaves_its_function(
    body: Callable[[], int | None], code: int, held_back: bool, tmp_path: Path
) -> None:
    if held_back and body is into_its_own_signal:
        pytest.skip("the signal waits until the child has ended")
    log = tmp_path / "log"
    with cleaning_up(log):
        pid = children.fork(body, held_back=held_back)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    assert log.read_text() == f"{os.getpid()}\n"


def test_a_child_tells_its_failure_in_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    os.waitpid(children.fork(raising(ValueError("two\nlines"))), 0)
    assert capfd.readouterr().err == "netlab: a process of its own failed: ValueError('two\\nlines')\n"


def test_who_was_to_be_told_is_gone_and_nothing_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    os.waitpid(children.fork(into_a_pipe_without_a_reader), 0)
    assert capfd.readouterr().err == ""


def test_a_child_runs_no_finalizer_of_its_parents_garbage(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def cycle() -> None:
        block = cleaning_up(log)
        block.__enter__()
        holder: list[object] = [block]
        holder.append(holder)

    gc.collect()
    gc.disable()
    try:
        cycle()
        os.waitpid(children.fork(lambda: gc.collect() and None), 0)
        assert not log.exists()
    finally:
        gc.enable()
        gc.collect()


def test_signals_that_hit_a_child_at_any_moment_end_it_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def body() -> None:
        interrupts.stop_on_signals()
        raise ValueError("at the same moment")

    with cleaning_up(log):
        for _ in range(200):
            pid = children.fork(body)
            with suppress(ProcessLookupError):
                for _ in range(20):
                    os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
    assert log.read_text() == f"{os.getpid()}\n"


def gone(pidfd: int) -> bool:
    """Whether the process ends within ten seconds."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(10_000))


@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_child_ends_with_its_parent(dies: str) -> None:
    told, tell = os.pipe()

    def wait() -> NoReturn:
        while True:
            signal.pause()

    def parent() -> None:
        pid = children.fork(wait)
        os.write(tell, f"{pid}\n".encode())
        if dies == "after":
            wait()

    middle = children.fork(parent)
    grandchild = int(os.read(told, 100))
    with suppress(ProcessLookupError):  # it may have ended already
        pidfd = os.pidfd_open(grandchild)
        os.kill(middle, signal.SIGKILL)
        os.waitpid(middle, 0)
        assert gone(pidfd)
        os.close(pidfd)
    with suppress(ChildProcessError):
        os.waitpid(middle, 0)
    os.close(told)
    os.close(tell)


def test_a_child_born_after_its_parents_end_ends_at_once() -> None:
    first = children.fork(lambda: None)
    ended = os.pidfd_open(first)
    os.waitpid(first, 0)
    late = children.fork(lambda: children.end_with(signal.SIGKILL, ended))
    assert os.waitstatus_to_exitcode(os.waitpid(late, 0)[1]) == CODE_OF_AN_ERROR
    os.close(ended)


def test_a_child_that_is_to_live_on_does() -> None:
    told, tell = os.pipe()
    go, went = os.pipe()

    def child() -> None:
        os.read(go, 1)
        os.write(tell, b"alive")

    os.waitpid(children.fork(lambda: children.fork(child, ends_by=None) and None), 0)
    os.write(went, b"\n")  # its parent has ended by now
    assert os.read(told, 100) == b"alive"
    for fd in (told, tell, go, went):
        os.close(fd)


LARGE = b"x" * (1 << 20)
"""More than a pipe holds."""


def saying(words: bytes, code: int | None = None) -> Callable[[BinaryIO], int | None]:
    def body(told: BinaryIO) -> int | None:
        told.write(words)
        return code

    return body


@pytest.mark.parametrize("within_s", [None, 60.0])
def test_an_answer_is_all_that_a_child_says_and_how_it_ends(within_s: float | None) -> None:
    def killed(told: BinaryIO) -> None:
        told.write(b"begun")
        told.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    answers = [children.ask(body, within_s=within_s) for body in (saying(LARGE, 3), saying(b""), killed)]
    ends = [(answer.said, children.ending(answer.status)) for answer in answers]
    assert ends == [(LARGE, "exit code 3"), (b"", "exit code 0"), (b"begun", "signal 9")]


ASKED = """
import os, signal, sys, time
from netlab.linux import children, interrupts

parent = os.getpid()

def silent(told):
    while True:  # one that comes just before the parent reads is heard only with the next
        if sys.argv[1] == "interrupted":
            os.kill(parent, signal.SIGTERM)
        time.sleep(0.01)

signal.signal(signal.SIGTERM, signal.SIG_DFL)
interrupts.stop_on_signals()
try:
    children.ask(silent, within_s=0.01 if sys.argv[1] == "late" else None)
except (TimeoutError, interrupts.Interrupted) as error:
    print(type(error).__name__)
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("gone")
"""


@pytest.mark.parametrize(("how", "raised"), [("late", "TimeoutError"), ("interrupted", "Interrupted")])
def test_a_child_that_says_nothing_is_gone(how: str, raised: str) -> None:
    # In a process without threads: a signal to another thread isn't held back.
    done = subprocess.run([sys.executable, "-c", ASKED, how], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{raised}\ngone\n", "")


def test_an_answer_needs_no_end_of_what_a_child_leaves() -> None:
    def leaving(told: BinaryIO) -> None:
        told.write(str(children.fork(lambda: time.sleep(1000), ends_by=None)).encode())

    said, _ = children.ask(leaving)
    os.kill(int(said), signal.SIGKILL)


def stopping_itself(told: BinaryIO) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)
    told.write(b"went on")


def test_a_child_that_is_stopped_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_LOOK_S", 0.01)
    monkeypatch.setattr(children, "_stops_left", [5])
    assert children.ask(stopping_itself) == (b"went on", 0)


def test_a_child_that_is_stopped_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(told: BinaryIO) -> None:
        while True:
            stopping_itself(told)

    monkeypatch.setattr(children, "_LOOK_S", 0.01)
    monkeypatch.setattr(children, "_stops_left", [5])
    with pytest.raises(OSError, match="something stops it again and again"):
        children.ask(never)


def test_a_child_that_ends_as_it_is_looked_at_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.waitid

    def late(kind: int, pid: int, options: int) -> os.waitid_result | None:
        real(kind, pid, os.WEXITED | os.WNOWAIT)
        return real(kind, pid, options)

    def slow(told: BinaryIO) -> None:
        time.sleep(0.1)
        told.write(b"all")

    monkeypatch.setattr(children, "_LOOK_S", 0.01)
    monkeypatch.setattr(os, "waitid", late)
    assert children.ask(slow) == (b"all", 0)


def _calls(tree: ast.AST) -> Iterator[str]:
    """What in a module forks, or leaves a process, in its own way."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in _FORKS:
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in _LIBRARIES)
        elif isinstance(node, ast.ImportFrom):
            if node.module in _LIBRARIES:
                yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names if (node.module, name.name) in _FORKS)
        elif isinstance(node, ast.keyword) and node.arg == "preexec_fn":
            yield "preexec_fn"


def test_nothing_else_forks() -> None:
    found = set()
    for path in sorted((ROOT / "netlab").rglob("*.py")):
        found |= {(str(path.relative_to(ROOT / "netlab")), call) for call in _calls(ast.parse(path.read_text()))}
    assert found == {
        ("__main__.py", "os._exit"),
        ("linux/children.py", "os._exit"),
        ("linux/children.py", "os.fork"),
    }
