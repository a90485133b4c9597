"""A lab that stands, or what is left of one: entered and taken down from its state alone.

`exec` and `down` need no more than this: nothing here knows what a topology is.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from netlab.errors import LabError
from netlab.lab.directory import LabDirectory
from netlab.lab.holder import HOST_NAMES, alive, kill, unshare_host_names
from netlab.lab.netns import Namespaces, end_strays, enter, release_name, strays
from netlab.lab.rundir import labs
from netlab.lab.state import LabState
from netlab.linux.syscalls import umount


def boot_id() -> str:
    """The kernel's random name of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_standing(state: LabState) -> bool:
    """Whether the lab is whole: built to its end, in this boot, its holder alive."""
    return state.complete and state.holder is not None and state.boot_id == boot_id() and alive(state.holder)


def open_lab(state: LabState) -> Namespaces:
    """Enter a lab that stands; LabError where it doesn't."""
    if not is_standing(state):
        raise LabError(
            f"the lab {state.lab} isn't whole: it was killed, or its building was",
            f"`netlab down {state.lab}` removes what is left, `netlab up` builds it again",
        )
    assert state.holder is not None
    return enter(state.holder, HOST_NAMES, state.prefix, rootless=state.rootless)


def down(directory: LabDirectory) -> list[str]:
    """Remove a lab, from its state alone; an absent lab is success. Returns what was left alone, in sentences."""
    with directory.locked() as there:
        left = remove(directory, directory.read()) if there else []
        if there and any(directory.path.iterdir()):
            left.append(f"{directory.path} isn't empty, and stays")
            there = False
    if there and directory.path.is_dir() and not any(directory.path.iterdir()):
        left.append(f"{directory.path} can't be removed, and stays")
    return left


def remove(directory: LabDirectory, state: LabState | None) -> list[str]:
    """Remove all that the state names. Repeating it, or beginning it after a kill at any point, is safe."""
    left: list[str] = []
    if state is not None and state.boot_id == boot_id():
        place = directory.names if state.rootless else HOST_NAMES
        names = [(place / (state.prefix + name), inode) for name, inode in state.namespaces]
        held = state.holder is not None and alive(state.holder)
        # Only a namespace that something of ours still keeps is surely the one with that inode: numbers are reused.
        pinned = {inode for path, inode in names if held or _stands(path, inode)}
        doomed = strays(pinned)
        if state.holder is not None and not kill(state.holder):
            left.append(f"the lab's holder, process {state.holder.pid}, has not ended yet")
        end_strays(doomed)
        if not state.rootless:
            left += [f"{path} isn't this lab's, and stays" for path, inode in names if not release_name(path, inode)]
        else:
            with suppress(OSError):  # mounted only where this very process has begun to build the lab
                umount(str(directory.names))
    unshare_host_names(directory.root, in_use=lambda: any(lab != directory.lab for lab in labs(directory.root)))
    directory.clear()
    return left


def _stands(path: Path, inode: int) -> bool:
    try:
        return path.stat().st_ino == inode and path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False
