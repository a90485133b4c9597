"""A lab that stands, or what is left of one: entered and taken down from its state alone.

`exec` and `down` need no more than this: nothing here knows what a topology is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from netlab.errors import LabError
from netlab.lab.directory import DamagedError, LabDirectory
from netlab.lab.holder import alive, find, holds, kill
from netlab.lab.host_names import HOST_NAMES, unshare_host_names
from netlab.lab.netns import Namespaces, end_strays, enter, release_name, strays
from netlab.lab.rundir import check, labs
from netlab.lab.rundir import sweep as sweep_directories
from netlab.lab.state import Holder, LabState
from netlab.linux.syscalls import umount


def boot_id() -> str:
    """The kernel's random name of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_standing(state: LabState) -> bool:
    """Whether the lab is whole: built to its end, in this boot, its holder alive."""
    return state.complete and state.holder is not None and state.boot_id == boot_id() and alive(state.holder)


def check_standing(state: LabState) -> None:
    """LabError where the lab doesn't stand."""
    if not is_standing(state):
        raise LabError(
            f"the lab {state.lab} is incomplete: it, or the command that built it, was killed",
            f"`netlab down {state.lab}` removes what is left, `netlab up` builds it again",
        )


def open_lab(state: LabState) -> Namespaces:
    """Enter a lab that stands; LabError where it doesn't."""
    check_standing(state)
    assert state.holder is not None
    return enter(state.holder, HOST_NAMES, state.prefix, rootless=state.rootless)


def open_own(state: LabState, *names: str) -> Namespaces:
    """Enter a lab that stands, to work in these of its namespaces, or in all; LabError where another has the name of
    one of them."""
    namespaces = open_lab(state)
    for name, inode in state.namespaces:
        if names and name not in names:
            continue
        try:
            namespaces.fd(name)
        except LabError:  # it is gone: whoever needs it is told
            continue
        if not namespaces.exists(name, inode):
            raise LabError(
                f"what stands as {state.prefix}{name} isn't the lab's network namespace {name}",
                f"remove it (`ip netns del {state.prefix}{name}`), then `netlab up` makes the lab's again",
            )
    return namespaces


def down(directory: LabDirectory) -> list[str]:
    """Remove a lab, from its state alone; an absent lab is success. Returns what was left alone, in sentences.

    Where the state can't be understood, the holder ends, whom its mounts give away, and the lab's processes with it.
    """
    left: list[str] = []
    with directory.locked() as there:
        if not there:
            return _end_unmarked(directory)
        try:
            left += remove(directory, directory.read())
        except DamagedError as error:
            left += [error.message, *_remove_damaged(directory)]
        if not directory.is_clear():
            left.append(f"{directory.path} isn't empty; netlab left it")
            directory.give_up()
        elif not directory.unmake():
            left.append(f"{directory.path} can't be removed; netlab left it")
    return left


def remove(directory: LabDirectory, state: LabState | None) -> list[str]:
    """Remove all that the state names; what is left, in sentences. Repeating it, or beginning it after a kill at any
    point, is safe."""
    if state is None:
        return [] if directory.is_clear() else _remove_damaged(directory)
    holders, left = _holders(directory, state.holder)
    if state.boot_id == boot_id():
        place = directory.names if state.rootless else HOST_NAMES
        names = [(place / (state.prefix + name), inode) for name, inode in state.namespaces]
        there = Path(f"/proc/{holders[0].pid}/root") if holders and state.rootless else None
        with _pinned([(there / path.relative_to("/") if there else path, inode) for path, inode in names]) as pinned:
            doomed = strays(pinned)
            left += _end(holders)
            end_strays(doomed)
        if not state.rootless:
            left += [
                f"{path} isn't this lab's; netlab left it" for path, inode in names if not release_name(path, inode)
            ]
        else:
            with suppress(OSError):  # mounted only where this very process has begun to build the lab
                umount(str(directory.names))
    else:
        left += _end(holders)
    _clear(directory)
    return left


def _remove_damaged(directory: LabDirectory) -> list[str]:
    left = [*_end(find(directory.hosts)), *_may_be_names(directory.lab)]
    _clear(directory)
    return left


def _end_unmarked(directory: LabDirectory) -> list[str]:
    """End the holder of a lab whose directory is gone, or has lost its mark and therefore stays as it is."""
    check(directory.root)
    if directory.path.is_symlink():
        return []
    holders = find(directory.hosts)
    if not holders:
        return []
    lost = "has lost netlab's mark; netlab ended its processes and left it"
    if not directory.path.is_dir():
        lost = "is gone; netlab ended its lab's processes"
    return [*_end(holders), f"{directory.path} {lost}", *_may_be_names(directory.lab)]


def _may_be_names(lab: str) -> list[str]:
    """What to say of names that may be those of root's lab; nothing where there are none."""
    names = sorted(HOST_NAMES.glob(f"{lab}-*")) if os.geteuid() == 0 else []
    listed = ", ".join(path.name for path in names)
    return [f"what may be its names stays: {listed}; `ip netns del NAME` removes one"] if names else []


def _holders(directory: LabDirectory, named: Holder | None) -> tuple[list[Holder], list[str]]:
    """The process that the state names as the lab's holder, if it is that, else those that hold the lab whatever the
    state says; and what to say of one that isn't the lab's."""
    if named is None or not alive(named):
        return find(directory.hosts), []
    if holds(named.pid, directory.hosts):
        return [named], []
    return find(directory.hosts), [f"process {named.pid} isn't this lab's holder; netlab left it"]


def _end(holders: Sequence[Holder]) -> list[str]:
    """End these processes; what to say of those that didn't end."""
    return [f"the lab's holder, process {one.pid}, has not ended yet" for one in holders if not kill(one)]


def sweep(root: Path) -> list[str]:
    """Remove what killed commands have left beside the labs, and what labs shared; what stays, in sentences."""
    from netlab.linux import cgroups  # which no other command needs

    left = unshare_host_names(root, in_use=lambda: bool(labs(root)))
    sweep_directories(root)
    cgroups.sweep()
    return left


def _clear(directory: LabDirectory) -> None:
    unshare_host_names(directory.root, in_use=lambda: any(lab != directory.lab for lab in labs(directory.root)))
    directory.clear()


@contextmanager
def _pinned(names: Sequence[tuple[Path, int]]) -> Iterator[set[int]]:
    """The inodes of those of these namespaces that stand under their names, kept open meanwhile.

    The number of one that is gone may be another's by now: the kernel gives the lowest that is free.
    """
    nsfs = Path("/proc/self/ns/net").stat().st_dev
    with ExitStack() as stack:
        pinned = set()
        for path, inode in names:
            with suppress(OSError):
                fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                if (os.fstat(fd).st_dev, os.fstat(fd).st_ino) == (nsfs, inode):
                    pinned.add(inode)
        yield pinned
