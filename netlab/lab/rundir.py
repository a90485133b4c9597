"""The run directory: where a user's labs are written down, and which labs there are."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from netlab.errors import LabError, UsageError

RUNDIR_VARIABLE = "NETLAB_LAB_RUNDIR"
"""Environment variable that puts the labs' directory elsewhere; a test suite keeps its labs apart with it."""


def run_directory() -> Path:
    """Where this user's labs are written down: a directory that a reboot empties.

    NETLAB_LAB_RUNDIR, or /run/netns-lab for root, $XDG_RUNTIME_DIR/netns-lab, or one in /tmp.
    """
    if given := os.environ.get(RUNDIR_VARIABLE):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/run/netns-lab")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK | os.X_OK):  # su keeps the variable of another user's session
        return Path(runtime) / "netns-lab"
    return Path("/tmp") / f"netns-lab-{os.geteuid()}"  # noqa: S108 (mode 0700, refused if not ours)


def make_root(root: Path) -> None:
    """Make the labs' directory; LabError where another user may have made it."""
    _check_root(root)
    root.mkdir(mode=0o700 if os.geteuid() else 0o755, parents=True, exist_ok=True)
    _check_root(root)


def _check_root(root: Path) -> None:
    """Refuse a directory in which someone else could have written down labs for this user to enter or to end."""
    try:
        found = root.lstat()
    except FileNotFoundError:
        return
    elsewhere = f"set {RUNDIR_VARIABLE} to a directory of yours"
    if stat.S_ISLNK(found.st_mode):
        raise LabError(f"{root} is a symbolic link", f"remove it, or {elsewhere}")
    if not stat.S_ISDIR(found.st_mode):
        raise LabError(f"{root} is no directory", f"remove it, or {elsewhere}")
    if found.st_uid != os.geteuid():
        raise LabError(f"{root} belongs to another user", elsewhere)


def remove_if_empty(root: Path) -> None:
    """Remove the labs' directory with the last lab in it, or after a command that was killed before the first."""
    with suppress(OSError):
        root.rmdir()


def labs(root: Path) -> list[str]:
    """The names of the labs that are written down here, sorted. LabError where the directory isn't this user's."""
    _check_root(root)
    try:
        return sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    except FileNotFoundError:
        return []


def choose(root: Path, lab: str | None) -> str:
    """The lab that a command means: the one named, or the only one there is. UsageError says what there is."""
    there = labs(root)
    if lab is not None:
        if lab not in there:
            known = f"the labs here are: {', '.join(there)}" if there else "no lab is up: `netlab up` builds one"
            raise UsageError(f"no lab is called {lab}", known)
        return lab
    if not there:
        raise UsageError("no lab is up", "`netlab up topology.yaml` builds one")
    if len(there) > 1:
        raise UsageError(f"several labs are up: {', '.join(there)}", "name the one you mean")
    return there[0]
