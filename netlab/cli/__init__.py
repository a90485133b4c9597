"""The command line: the only place that says something or exits, and that joins the pure rooms with the others.

Here a command begins, and errors and signals become messages and exit codes. Data goes to stdout, messages to stderr.
Start-up time counts: a command imports what it needs when it needs it. That is also why annotations are not postponed
in the files of this package: typer would compile each of them again.
"""

import errno
import os
import sys

from netlab import advice, terminal
from netlab.cli import up
from netlab.errors import NetlabError, TopologyError, told
from netlab.escapes import Lines
from netlab.linux import interrupts
from netlab.terminal import say, say_error


def main() -> None:
    """Run the command line; it may end in SystemExit. Every error that netlab raises on purpose becomes a message."""
    try:
        try:
            _run(sys.argv[1:])
        finally:
            terminal.flush()
    except NetlabError as error:
        (say if isinstance(error, TopologyError) else say_error)(Lines(error))
        sys.exit(error.exit_code)
    except interrupts.Interrupted:
        say("netlab: interrupted")
        sys.exit(130)
    except OSError as error:
        say_error(Lines(NetlabError(told(error), _hint(error))))
        sys.exit(1)
    except ModuleNotFoundError as error:
        if (package := _PACKAGES.get(str(error.name).partition(".")[0])) is None:
            raise
        say_error(Lines(NetlabError(f"the Python package {package} is missing", advice.install_python(package))))
        sys.exit(1)
    except MemoryError:
        say_error("out of memory")
        sys.exit(1)


_PACKAGES = {"pyroute2": "pyroute2", "typer": "typer", "yaml": "pyyaml"}
"""What netlab needs, by the name that is imported."""


def _hint(error: OSError) -> str | None:
    """What is known to be in the way of any command, with what to do; None where nothing is."""
    if (missing := advice.missing()) is not None:
        return ": ".join(missing)
    if (reached := advice.limits(error.errno)) is not None:
        return reached
    if error.errno == errno.ENOSPC:
        return advice.namespaces()
    if error.errno == errno.EPERM and (lacking := advice.lacking()) is not None:
        return ": ".join(lacking)
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:
        return "the current directory has been removed: cd to another"
    return None


def _run(words: list[str]) -> None:
    """Run the command that the words call. To import typer takes as long as building a small lab: see `up.py`."""
    if words[:1] == ["up"] and (options := up.plain(words[1:])) is not None:
        up.build(options)
        return
    if words[:1] == ["status"]:
        from netlab.cli import status

        if (asked := status.plain(words[1:])) is not None:
            status.show(asked)
            return
    from netlab.cli import app

    app.run(words)
