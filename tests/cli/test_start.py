"""How a command starts: one forked by the tests' server is to its caller what one with a Python of its own is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command import Netlab
from places import ROOT, TOPOLOGIES

LABS = str(TOPOLOGIES / "kube-proxy-reset.yaml")
COMMANDS = {
    "data": ["plan", LABS],
    "help": ["--help"],
    "messages": ["lint", LABS],
    "wrong usage": ["plan", "--nope"],
    "an error": ["plan", "nowhere.yaml"],
    "nothing there": ["status"],
    "a skip": ["exec", "nowhere", "--", "true"],
    "json": ["schema"],
    "its input": ["lint", "-"],
}
"""Commands that build nothing."""


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_forked_command_is_as_one_that_was_started(netlab: Netlab, tmp_path: Path, arguments: list[str]) -> None:
    text = "namespaces: {é: [" if arguments[-1] == "-" else None
    forked = netlab(*arguments, cwd=tmp_path, stdin=text)
    started = netlab.start(*arguments, cwd=tmp_path, stdin=text)
    assert forked.returncode == started.returncode
    assert (forked.stdout, forked.stderr) == (started.stdout, started.stderr)


def test_a_forked_command_that_takes_too_long_is_ended(netlab: Netlab) -> None:
    large = f"namespaces: {{{', '.join(f'n{number}: {{}}' for number in range(20_000))}}}"
    with pytest.raises(subprocess.TimeoutExpired):
        netlab("lint", "-", stdin=large, timeout_s=0.1)
    assert netlab("--help").returncode == 0


def test_on_another_system_than_linux_it_says_so() -> None:
    program = "import sys; sys.platform = 'darwin'; from netlab.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "netlab: a lab is made of Linux namespaces; this is not Linux\n  hint: use a virtual machine with Linux\n"
    )


@pytest.mark.parametrize(("command", "where"), [("lint", "netlab.topology.read_text"), ("up", "netlab.cli.up.build")])
def test_a_broken_pipe_that_is_not_stdouts_is_told(command: str, where: str) -> None:
    """As of a process of netlab's own that something has killed."""
    module, name = where.rsplit(".", 1)
    program = f"""if True:
        import importlib, sys
        from netlab.__main__ import main
        def broken(*_words):
            raise BrokenPipeError(32, "Broken pipe")
        importlib.import_module({module!r}).{name} = broken
        sys.argv = ["netlab", {command!r}, "f.yaml"]
        main()
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("netlab: ") and "Broken pipe" in done.stderr


def test_a_python_package_that_is_missing_is_named() -> None:
    program = "import sys; sys.modules['typer'] = None; sys.argv[:] = ['netlab', 'doctor']; "
    done = subprocess.run(
        [sys.executable, "-c", f"{program}from netlab.__main__ import main; main()"], capture_output=True, text=True
    )
    hint = ROOT / "scripts/setup"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"netlab: the Python package typer is missing\n  hint: {hint}\n"
