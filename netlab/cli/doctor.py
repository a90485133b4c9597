"""This machine: `doctor`."""

import sys
from typing import Annotated

import typer

from netlab.cli.options import DataFormat
from netlab.terminal import write

app = typer.Typer()


@app.command()
def doctor(
    output: Annotated[DataFormat, typer.Option("--format", help="text or json.")] = DataFormat.text,
) -> None:
    """Check what this kernel and this user can do.

    For what they can't, it says what to do.
    """
    from netlab.capabilities import doctor as checkup

    found = checkup.checks()
    write(checkup.render_json(found) if output is DataFormat.json else checkup.render(found))
    sys.exit(checkup.exit_code(found))
