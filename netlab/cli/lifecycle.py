"""The life of a lab: `up`, `down`, `status`."""

from pathlib import Path
from typing import Annotated

import typer

from netlab.cli.arguments import is_file_name, lab_directory, lab_name, labs_of, one_lab
from netlab.cli.options import (
    DataFormat,
    FixOption,
    FormatOption,
    LabArgument,
    NameOption,
    OtherLabOption,
    RootOption,
    SetOption,
    TopologyArgument,
    complete_lab,
)
from netlab.cli.status import Options as StatusOptions
from netlab.cli.status import show
from netlab.cli.up import Options, build
from netlab.errors import LabError, NetlabError, UsageError, told
from netlab.escapes import as_json
from netlab.terminal import say, write

app = typer.Typer()


@app.command()
def up(
    topology: TopologyArgument = None,
    settings: SetOption = None,
    fix: FixOption = None,
    name: NameOption = None,
    root: RootOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the steps, and do nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print each step.")] = False,
    output: FormatOption = DataFormat.text,
) -> None:
    """Build a lab, or make the one that is up follow its topology."""
    build(Options(topology, tuple(settings or ()), tuple(fix or ()), name, root, dry_run, quiet, verbose, output.value))


@app.command()
def down(
    argument: LabArgument = None,
    lab: OtherLabOption = None,
    all_labs: Annotated[bool, typer.Option("--all", help="Take every lab of this user down.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    output: FormatOption = DataFormat.text,
) -> None:
    """Take a lab down.

    Its YAML isn't needed; a lab that isn't there is success.
    """
    from netlab.lab.rundir import labs, run_directory
    from netlab.lab.standing import down as take_down
    from netlab.lab.standing import sweep

    root, told_as_json = run_directory(), output is DataFormat.json
    ended: list[str] = []
    lab = one_lab(argument, lab)
    if all_labs and lab is not None:
        raise UsageError("--all and a lab's name don't go together")
    there = labs(root)
    if lab is None and there and not all_labs:
        doomed = [lab_name(None)]
    elif lab is not None and lab not in there and is_file_name(lab):
        found = labs_of(lab)
        doomed = [lab_name(lab)] if found or not Path(lab).exists() else []
    else:  # an empty name is a lab's that isn't there, not one left out
        doomed = [name for name in there if all_labs or name == lab]
        if not doomed and lab is not None and lab not in ("", ".", "..") and "/" not in lab:
            ended = take_down(lab_directory(lab))  # its directory may be gone, or have lost its mark
            for what in ended:
                say(f"netlab: {what}")
    failed: list[str] = []
    gone: dict[str, list[str]] = {}
    for name in doomed:
        try:
            left = take_down(lab_directory(name))
        except (NetlabError, OSError) as error:
            if len(doomed) == 1:
                raise
            failed.append(f"  {name}: {told(error) if isinstance(error, OSError) else error}")
            continue
        gone[name] = left
        for what in left:
            say(f"netlab: {what}")
        if not quiet and not told_as_json:
            say(f"lab {name} is down")
    for what in sweep(root):
        say(f"netlab: {what}")
    if told_as_json:
        write(as_json({"down": [{"lab": name, "left": left} for name, left in gone.items()]}))
    if failed:
        raise LabError("\n".join(("these labs could not be taken down:", *failed)))
    if not doomed and not ended and not quiet and not told_as_json:
        what = "no lab is up"
        if lab is not None:
            what = f"no lab built from {lab} is up" if is_file_name(lab) else f"no lab is called {lab or repr(lab)}"
        say(f"{what}: nothing to do")


@app.command()
def status(
    argument: Annotated[
        str | None,
        typer.Argument(
            metavar="[LAB]", help="A lab's name; left out: all labs, each in a line.", autocompletion=complete_lab
        ),
    ] = None,
    lab: OtherLabOption = None,
    output: FormatOption = DataFormat.text,
) -> None:
    """List the labs that are up, or show what is in one.

    One lab: its namespaces, addresses, services and programs, and what differs from its topology.
    """
    show(StatusOptions(one_lab(argument, lab), output.value))
