"""Other kernels: `kernel list`, `kernel fetch`, `kernel run`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from netlab.cli.group import Group
from netlab.cli.messages import Progress
from netlab.cli.options import PROGRAM_FOLLOWS, DataFormat, FormatOption, ProgramArgument, program_words, whole
from netlab.errors import UsageError
from netlab.layout import aligned
from netlab.terminal import list_columns, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from netlab.kernels.packages import Kernel

app = typer.Typer(
    name="kernel",
    cls=Group,
    help="List and fetch other kernels, and run a command under one.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

KernelArgument = Annotated[
    str,
    typer.Argument(metavar="KERNEL", help="A version (6.1, 6.12.94, latest), or an image's file: ./bzImage."),
]
ModulesOption = Annotated[
    Path | None,
    typer.Option("--modules", metavar="DIR", help="Modules of an image: as `make modules_install` leaves them."),
]
MEMORY_MB = 2048


@app.command("list")
def kernel_list(output: FormatOption = DataFormat.text) -> None:
    """List the kernels that Debian packages: the newest of each version, and those that were fetched.

    `--format json` has all of them.
    """
    from netlab.kernels import packages
    from netlab.kernels.choice import choose, series

    directory = packages.cache()
    progress = Progress()
    try:
        there = packages.available(directory, progress.show)
    finally:
        progress.end()
    fetched = set(packages.fetched(directory))
    newest = {choose(version, there) for version in series(there)}
    rows = [each for each in there if each in newest or each.release in fetched]
    if output is DataFormat.json:
        import json

        kernels = [{**each._asdict(), "fetched": each.release in fetched} for each in there]
        write(f"{json.dumps(kernels, indent=2)}\n")
        return
    heading = ("RELEASE", "PACKAGE", "SIZE", "")
    cells = [
        (each.release, each.version, f"{each.size_bytes / 1e6:.0f} MB", "fetched" if each.release in fetched else "")
        for each in rows
    ]
    write(aligned([heading, *cells], list_columns()))


@app.command("fetch")
def kernel_fetch(kernel: KernelArgument) -> None:
    """Fetch a kernel of Debian's, verified by its signature, and say where it is; nothing is installed."""
    write(f"{_have(kernel, None).image}\n")


@app.command("run", context_settings=PROGRAM_FOLLOWS)
def kernel_run(
    kernel: KernelArgument,
    command: ProgramArgument = None,
    modules: ModulesOption = None,
    memory: Annotated[
        int, typer.Option("--memory", metavar="MB", parser=whole(256), help=f"Memory of the machine ({MEMORY_MB}).")
    ] = MEMORY_MB,
) -> None:
    """Run a command under another kernel, in a virtual machine.

    For instance `netlab kernel run 6.1 -- netlab doctor`. It sees the files of this machine, and is root there. What it
    writes below the current directory is kept; all else is gone with the machine.
    """
    argv = program_words(command, f"`netlab kernel run {kernel} -- COMMAND…`")
    sys.exit(run_under(kernel, modules, argv, memory))


def run_under(kernel: str, modules: Path | None, command: "Sequence[str]", memory_mb: int = MEMORY_MB) -> int:
    """Run it under that kernel; its exit code."""
    from netlab.kernels import machine, packages

    chosen = _have(kernel, modules)
    progress = Progress()
    try:
        return machine.run(chosen, list(command), _environment(), packages.cache(), memory_mb, progress)
    finally:
        progress.end()


def run_this_under(kernel: str, *files: Path | None) -> int:
    """Run this very command under another kernel; its exit code. files are those that it is to write."""
    here = Path.cwd()
    for file in files:
        if file is not None and not file.resolve().is_relative_to(here):
            raise UsageError(f"{file} would be gone with the virtual machine", f"name a file below {here}")
    words = [*sys.argv[1:]]
    at = next(number for number, word in enumerate(words) if word.partition("=")[0] == "--kernel")
    del words[at : at + (1 if "=" in words[at] else 2)]
    return run_under(kernel, None, [sys.executable, "-m", "netlab", *words])


def _have(kernel: str, modules: Path | None) -> "Kernel":
    """The kernel that is meant, fetched where it isn't here yet."""
    from netlab.kernels import packages
    from netlab.kernels.choice import choose

    if "/" in kernel:
        return packages.from_file(Path(kernel), modules)
    if modules is not None:
        raise UsageError("--modules is about an image's file", "a version's modules are in its package")
    directory = packages.cache()
    progress = Progress()
    try:
        if kernel in packages.fetched(directory):
            return packages.kernel(directory / kernel)
        return packages.fetch(directory, choose(kernel, packages.available(directory, progress.show)), progress.show)
    finally:
        progress.end()


_PASSED_ON = ("COLUMNS", "LANG", "NO_COLOR", "TZ")


def _environment() -> dict[str, str]:
    """What the command's environment is in the machine, whose labs are root's, in a directory of root's."""
    from netlab.lab.rundir import RUNDIR_VARIABLE

    passed = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or (name.startswith(("LC_", "NETLAB_LAB_")) and name != RUNDIR_VARIABLE)
    }
    # netlab is there even where the machine's own PATH doesn't have it.
    path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"HOME": "/root", "TERM": "dumb", **passed, "PATH": path}
