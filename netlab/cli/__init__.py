"""The command line: the only place that prints or exits, and that joins the pure rooms with the others.

Here the commands come together, and errors and signals become messages and exit codes. Data goes to stdout, messages to
stderr. A command imports what it needs when it needs it: start-up time counts. That is also why annotations are not
postponed in the files of this package: typer would compile each of them again.
"""

import os
import signal
import sys

import typer

from netlab.cli import (
    doctor as machine,
)
from netlab.cli import (
    exec as inside,
)
from netlab.cli import (
    fixing,
    observing,
    runs,
)
from netlab.cli import (
    inspect as looks,
)
from netlab.cli import (
    lifecycle as lives,
)
from netlab.cli.messages import say
from netlab.errors import NetlabError, TopologyError, told
from netlab.linux import interrupts

app = typer.Typer(
    name="netlab",
    help="Build Linux network labs from YAML, make the kernel misbehave in them, and see why.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of `netlab --help`.
app.command()(lives.up)
app.command()(lives.down)
app.command()(lives.status)
app.command("exec", context_settings=inside.PROGRAM_FOLLOWS)(inside.execute)
app.command()(inside.shell)
app.command()(looks.plan)
app.command()(looks.lint)
app.command()(looks.schema)
app.command()(looks.rules)
app.command()(runs.run)
app.command()(runs.matrix)
app.command()(runs.report)
app.command()(observing.capture)
app.command()(observing.watch)
app.command()(observing.explain)
app.command()(machine.doctor)
app.add_typer(fixing.app, name="fix")


def main() -> None:
    """Run the command line; it ends in SystemExit. Every error that netlab raises on purpose becomes a message."""
    try:
        try:
            app(prog_name="netlab")
        finally:
            sys.stdout.flush()
    except NetlabError as error:
        say(str(error) if isinstance(error, TopologyError) else f"netlab: {error}")
        sys.exit(error.exit_code)
    except interrupts.Interrupted:
        say("netlab: interrupted")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        say(f"netlab: {told(error)}")
        sys.exit(1)
