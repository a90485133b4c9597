"""What `netlab run --kernel` runs in the machine, and what is said of one that crashed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from netlab.cli import kernel
from netlab.errors import UsageError
from netlab.kernels import machine


@pytest.mark.parametrize(
    ("words", "inside"),
    [
        (["run", "a.yaml", "--kernel", "6.1", "--trials", "2"], ["run", "a.yaml", "--trials", "2"]),
        (["run", "--kernel=6.1", "a.yaml", "--html", "a.html"], ["run", "a.yaml", "--html", "a.html"]),
        (["run", "a.yaml", "--kernel", "./bzImage"], ["run", "a.yaml"]),
    ],
)
def test_the_same_command_runs_there(words: list[str], inside: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def run_under(*given: object) -> int:
        asked.append(given)
        return 3

    monkeypatch.setattr(sys, "argv", ["netlab", *words])
    monkeypatch.setattr(kernel, "run_under", run_under)
    assert kernel.run_this_under("6.1", None, Path("a.html")) == 3
    assert asked == [("6.1", None, [sys.executable, "-m", "netlab", *inside])]


def test_what_would_be_lost_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        kernel.run_this_under("6.1", None, Path("../it.zip"))
    assert str(caught.value) == (
        f"../it.zip would be gone with the virtual machine\n  hint: name a file below {tmp_path}"
    )


CONSOLE = """\
[    0.000000] Linux version 6.1.0
[    9.100000] sysrq: Trigger a crash
[    9.200000] Kernel panic - not syncing: sysrq triggered crash
[    9.210000] CPU: 1 PID: 210 Comm: sh Not tainted 6.1.0
[    9.220000] Call Trace:
[    9.230000]  <TASK>
[    9.240000]  dump_stack_lvl+0x44/0x5c
[    9.250000]  panic+0x118/0x2ed
[    9.260000]  ? printk+0x58/0x6f
[    9.270000]  sysrq_handle_crash+0x16/0x20
[    9.280000]  write_sysrq_trigger+0x24/0x40
[    9.290000] RIP: 0033:0x7fb74663b350
"""


def test_a_crash_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "console").write_text(CONSOLE)
    said = str(machine._crash(tmp_path, "the machine ended before the command had"))
    first, *shown = said.split("\n")
    assert first == (
        "the machine ended before the command had (Kernel panic - not syncing: sysrq triggered crash in "
        "sysrq_handle_crash); its console:"
    )
    assert [line.strip() for line in shown] == [line.strip() for line in CONSOLE.splitlines()[2:]]


def test_of_a_machine_that_hangs_the_last_lines_are_told(tmp_path: Path) -> None:
    (tmp_path / "console").write_text("".join(f"line {number}\r\n\n" for number in range(40)))
    said = str(machine._crash(tmp_path, "the machine hangs: nothing for 120 s"))
    assert said == "the machine hangs: nothing for 120 s; its console:" + "".join(
        f"\n    line {number}" for number in range(25, 40)
    )


def test_one_without_enough_memory_is_to_have_more(tmp_path: Path) -> None:
    (tmp_path / "console").write_text("[ 5.0] Out of memory: Killed process 99 (python) total-vm:1kB\n")
    said = str(machine._crash(tmp_path, "the machine hangs: nothing for 120 s"))
    assert said.split("\n")[0] == (
        "the machine hangs: nothing for 120 s (Out of memory: Killed process 99 (python) total-vm:1kB); its console:"
    )
    assert said.endswith("\n  hint: give it more: --memory MB")
