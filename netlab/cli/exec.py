"""Programs inside a lab: `exec`, `shell`."""

import os
import signal
import sys
from typing import NoReturn

import typer

from netlab.cli.arguments import check_netns, find_lab
from netlab.cli.options import PROGRAM_FOLLOWS, LabOption, NetnsArgument, ProgramArgument, program_words

app = typer.Typer()


@app.command("exec", context_settings=PROGRAM_FOLLOWS)
def execute(
    name: NetnsArgument,
    command: ProgramArgument = None,
    lab: LabOption = None,
) -> None:
    """Run a program in a namespace.

    For instance `netlab exec client -- curl http://web/`. It exits as the program does.
    """
    hint = f"`netlab exec {name} -- COMMAND…`, or `netlab shell {name}`"
    _run_inside(name, program_words(command, hint), lab)


@app.command()
def shell(name: NetnsArgument, lab: LabOption = None) -> None:
    """Open a shell in a namespace."""
    _run_inside(name, [os.environ.get("SHELL") or "/bin/sh"], lab)


def _run_inside(name: str, argv: list[str], lab: str | None) -> NoReturn:
    from netlab.lab.exec import run
    from netlab.lab.standing import open_own

    _, state = find_lab(lab)
    namespaces = open_own(state, name)
    check_netns(state, name)
    # debian_chroot is what Debian's and Ubuntu's shells show in their prompt.
    environment = {**os.environ, "debian_chroot": f"{state.lab}/{name}", "NETLAB_LAB_NETNS": name}
    status = run(namespaces, name, argv, environment)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:  # end as the program did, so that the caller's shell sees the same
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code if code >= 0 else 128 - code)
