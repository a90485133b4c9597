"""The run directory: where a user's labs are written down, and which labs there are."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from netlab.errors import LabError, UsageError
from netlab.lab import locks, mark
from netlab.linux.files import private

RUNDIR_VARIABLE = "NETLAB_LAB_RUNDIR"
"""Environment variable that puts the labs' directory elsewhere; a test suite keeps its labs apart with it."""


@cache
def _uid() -> int:
    """Of whoever began this command: once it has entered a rootless lab's user namespace, it is root there."""
    return os.geteuid()


def run_directory() -> Path:
    """Where this user's labs are written down: a directory that a reboot empties.

    NETLAB_LAB_RUNDIR, or /run/netns-lab for root, $XDG_RUNTIME_DIR/netns-lab, or one in /tmp.
    """
    if given := os.environ.get(RUNDIR_VARIABLE):
        return Path(os.path.abspath(given))  # noqa: PTH100 (resolves ..)
    if _uid() == 0:
        return Path("/run/netns-lab")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # A relative one is ignored, says the XDG Base Directory Specification; su keeps that of another user's session.
    if runtime and Path(runtime).is_absolute() and os.access(runtime, os.W_OK | os.X_OK):
        return Path(runtime) / "netns-lab"
    return Path("/tmp") / f"netns-lab-{_uid()}"  # noqa: S108 (mode 0700, refused if not ours)


@contextmanager
def made(root: Path) -> Iterator[None]:
    """The labs' directory is there, made where it wasn't, and no other command takes it away meanwhile.

    LabError where others could write to it, or put another in its place.
    """
    while True:
        check(root)
        try:
            with private():
                root.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise LabError(f"{root.parent} is not a directory", f"set {RUNDIR_VARIABLE} to another place") from None
        except FileNotFoundError:  # in /proc, say
            raise LabError(f"{root.parent} can't be made", f"set {RUNDIR_VARIABLE} to another place") from None
        with suppress(FileExistsError, FileNotFoundError):
            os.close(mark.make(root))
        check(root)
        with locks.held(root) as there:
            if there:
                yield
                return


def check(root: Path) -> None:
    """LabError where someone else could write down labs for this user to enter or to end: where the labs' directory
    belongs to another or others can write to it, and where they could put another in its place."""
    elsewhere = f"set {RUNDIR_VARIABLE} to a directory of yours"
    for place in _way(root.absolute().parent):
        found = place.lstat()
        if found.st_uid not in (0, os.geteuid(), _unmapped()):
            raise LabError(f"{root} is not safe: {place} belongs to another user", elsewhere)
        if not stat.S_ISLNK(found.st_mode) and _others_write(found) and not found.st_mode & stat.S_ISVTX:
            raise LabError(f"{root} is not safe: others can write to {place}", f"chmod go-w {place}, or {elsewhere}")
    try:
        found = root.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise LabError(f"{root} is a symbolic link", f"remove it, or {elsewhere}")
    if not stat.S_ISDIR(found.st_mode):
        raise LabError(f"{root} is not a directory", f"remove it, or {elsewhere}")
    if found.st_uid != os.geteuid():
        raise LabError(f"{root} belongs to another user", elsewhere)
    if _others_write(found):
        raise LabError(f"others can write to {root}", f"chmod go-w {root}, or {elsewhere}")


def _way(path: Path) -> Iterator[Path]:
    """The directories and links that a path leads through, from the top, as far as they are there."""
    rest, here, links = list(reversed(path.parts)), Path("/"), 0
    while rest:
        here = Path(os.path.normpath(here / rest.pop()))
        if not os.path.lexists(here):
            return
        yield here
        if here.is_symlink():
            links += 1
            if links > _MOST_LINKS:
                raise LabError(f"{path} leads through too many symbolic links")
            rest += reversed(here.readlink().parts)
            here = here.parent


_MOST_LINKS = 40  # as the kernel's MAXSYMLINKS (include/linux/namei.h)


def _others_write(found: os.stat_result) -> bool:
    """Whether others may write there. A group that is the user's alone, as distributions make one, isn't others."""
    if found.st_mode & stat.S_IWOTH:
        return True
    if not found.st_mode & stat.S_IWGRP:
        return False
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(found.st_gid)
    except KeyError:
        return True
    own = group.gr_gid == user.pw_gid and group.gr_name == user.pw_name and not {*group.gr_mem} - {user.pw_name}
    return not own


def _unmapped() -> int:
    """The owner that files of users outside show in a user namespace; root's own number outside of one."""
    if Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]:
        return 0
    return int(Path("/proc/sys/kernel/overflowuid").read_text())


def remove_if_empty(root: Path) -> None:
    """Remove what killed commands have left of labs' directories; and, where netlab made it, the labs' directory with
    the last lab in it."""
    with suppress(OSError, LabError), locks.held(root) as there:
        if there:
            mark.sweep(root)
            mark.unmake(root)


def sweep(root: Path) -> None:
    """`remove_if_empty`; beside it goes what a command has left that was killed as it made or removed the directory."""
    remove_if_empty(root)
    with suppress(OSError):
        mark.sweep(root.parent)


def labs(root: Path) -> list[str]:
    """The names of the labs that are written down here, sorted. LabError where others can write there."""
    check(root)
    try:
        return sorted(entry.name for entry in root.iterdir() if mark.is_marked(entry))
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
        raise UsageError(f"several labs are up: {', '.join(there)}", "name the one you mean: -l LAB")
    return there[0]
