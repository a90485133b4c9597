"""What the arguments stand for: a topology's file, its settings, a lab that is up, one of its namespaces."""

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from netlab.errors import LabError, Problem, UsageError
from netlab.terminal import say

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from netlab.lab.directory import LabDirectory
    from netlab.lab.spec import Spec
    from netlab.lab.state import LabState


def topology_file(topology: str | None) -> str:
    """The file of a topology or an experiment: as named, that of netlab's own of this name, or the topology in this
    directory; UsageError where there is none."""
    if topology is None:
        found = topology_here()
        if found is None:
            raise UsageError("there is no topology.yaml here", f"name a file, - for stdin, or {_OWN}")
        return found
    if topology in ("", "-") or "/" in topology or Path(topology).exists():
        return topology
    from netlab import shipped

    own = shipped.find(topology)
    if own is not None:
        return str(own)
    if Path(topology).suffix:
        return topology  # reading it says that it isn't there
    from netlab.yamlspec.document import nearest

    near = nearest(topology, [*shipped.topologies(), *shipped.experiments()])
    raise UsageError(
        f"{topology}: there is no such file", f"did you mean {near!r}?" if near else f"name a file, or {_OWN}"
    )


_OWN = "one of those that `netlab examples` lists"


def topology_here() -> str | None:
    """The topology's file in this directory, None where there is none."""
    return next((name for name in ("topology.yaml", "topology.yml") if Path(name).exists()), None)


def is_lab(word: str | None) -> bool:
    """Whether an argument that may be a file or a lab is the name of a lab, and of no file."""
    from netlab.lab.rundir import labs, run_directory

    return word is not None and word in labs(run_directory()) and not Path(word).is_file()


def parse_settings(pairs: "Sequence[str] | None") -> tuple[tuple[str, str], ...]:
    """The paths and values of `--set`; UsageError for what is no such pair."""
    settings = []
    for pair in pairs or []:
        path, equals, value = pair.partition("=")
        if not equals or not path:
            raise UsageError(f"--set {pair}: not of the form PATH=VALUE", "for instance --set vars.window=4096")
        settings.append((path, value))
    return tuple(settings)


def read_spec(
    topology: str | None,
    settings: tuple[tuple[str, str], ...],
    fixes: "Sequence[str] | None",
    name: str | None,
) -> "Spec":
    """The lab that a topology's file describes with these settings and fixes; TopologyError, UsageError."""
    from netlab.lab.spec import Spec
    from netlab.topology import load_with_fixes, read_text

    file = topology_file(topology)
    text = read_text(file)
    names = tuple(dict.fromkeys(fixes or []))
    warnings: list[Problem] = []
    made = load_with_fixes(text, file, settings, name, names, warnings.append)
    return Spec(made, text, absolute(file), settings, names, name is not None, tuple(warnings))


def tell_warnings(file: str, warnings: "Iterable[Problem]") -> None:
    """Tell on stderr what is allowed in a topology's file and hardly meant."""
    for warning in warnings:
        say(warning.told(file, "warning: "))


def problems_json(file: str, problems: "Iterable[Problem]") -> list[dict[str, object]]:
    """Problems or warnings of a file, in words that JSON has."""
    return [{"file": file, **problem._asdict()} for problem in problems]


def regular_text(file: str) -> str | None:
    """The text of a regular file; None where there is none, or it doesn't read as text: `read_spec` says so."""
    from netlab.yamlspec.limits import MAX_BYTES

    try:
        found = Path(file).stat()
        regular = stat.S_ISREG(found.st_mode) and found.st_size <= MAX_BYTES
        return Path(file).read_bytes().decode("utf-8-sig") if regular else None
    except (OSError, ValueError):
        return None


def absolute(file: str) -> str | None:
    """The file's whole path; None for stdin."""
    return None if file == "-" else str(Path(file).resolve())


def lab_directory(lab: str) -> "LabDirectory":
    """Where a lab of this name keeps what belongs to it."""
    from netlab.lab.directory import LabDirectory
    from netlab.lab.rundir import run_directory

    return LabDirectory(run_directory(), lab)


def lab_name(lab: str | None) -> str:
    """The lab that a command means: by its name, or by the file of its topology; None for that of the topology in this
    directory, if it is up, else for the only one. UsageError where that is none, or several."""
    from netlab.lab.rundir import choose, labs, run_directory

    there = labs(run_directory())
    if lab is None and len(there) > 1 and (here := topology_here()) is not None:
        found = labs_of(here)
        return found[0] if len(found) == 1 else choose(run_directory(), None)
    if lab is not None and lab not in there and is_file_name(lab):
        found = labs_of(lab)
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"several labs were built from {lab}: {', '.join(found)}", "name the one you mean: -l LAB")
        if not Path(lab).exists():
            raise UsageError(f"{lab}: there is no such file", "name a lab, or the file of its topology")
        raise UsageError(f"no lab built from {lab} is up", f"`netlab up {lab}` builds it")
    return choose(run_directory(), lab)


def is_file_name(word: str) -> bool:
    """Whether a word that may be a lab's name or a file is a file's: no lab's name has a slash or a suffix."""
    return "/" in word or Path(word).suffix != "" or Path(word).is_file()


def labs_of(file: str) -> list[str]:
    """The labs that are up from this topology's file."""
    whole = absolute(file)
    return [state.lab for _, state in find_labs() if state.file == whole]


def one_lab(argument: str | None, option: str | None) -> str | None:
    """The lab that a command is told as its argument or with -l; UsageError where these are two."""
    if None not in (argument, option) and argument != option:
        raise UsageError(f"{argument} and -l {option} are two labs", "name one of them")
    return option if argument is None else argument


def find_lab(lab: str | None) -> "tuple[LabDirectory, LabState]":
    """The directory and state of the lab that a command means, as `lab_name` has it. LabError, UsageError."""
    directory = lab_directory(lab_name(lab))
    state = directory.read()
    if state is None:
        raise LabError(
            f"the lab {directory.lab} was never built", f"`netlab down {directory.lab}` removes what is left"
        )
    return directory, state


def find_labs() -> "list[tuple[LabDirectory, LabState]]":
    """The directories and states of all labs of this user, without those whose state can't be understood."""
    from netlab.lab.directory import DamagedError
    from netlab.lab.rundir import labs, run_directory

    found = []
    for directory in map(lab_directory, labs(run_directory())):
        try:
            state = directory.read()
        except DamagedError:  # `netlab status` tells
            continue
        if state is not None:
            found.append((directory, state))
    return found


def check_netns(state: "LabState", name: str) -> None:
    """UsageError where the lab has no namespace of this name."""
    names = [netns for netns, _ in state.namespaces]
    if name not in names:
        raise UsageError(f"the lab {state.lab} has no namespace {name}", f"it has: {', '.join(names)}")


def check_place(path: Path) -> None:
    """UsageError where a file could not be written: said before the work, not after it."""
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{path} can't be written", "name a file in a directory that is there")
    if not os.access(path if path.exists() and not path.is_file() else path.resolve().parent, os.W_OK):
        raise UsageError(f"{path} can't be written: permission denied")
