"""Where the names of network namespaces stand on the host, as `ip netns` has them: made a shared mount for root's labs,
and taken back with the last of them.

The names themselves are `netns.py`'s.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from netlab.errors import LabError
from netlab.lab import locks
from netlab.linux.files import write_own
from netlab.linux.syscalls import MS_BIND, MS_REC, MS_SHARED, mount, umount

HOST_NAMES = Path("/run/netns")
"""Where iproute2 keeps the names of network namespaces (NETNS_RUN_DIR in its include/namespace.h)."""

_MARKER = ".made-run-netns"
"""A file in the run directory that says what netlab has made of it: "directory" or "mount"."""


def share_host_names(run_directory: Path) -> None:
    """Make /run/netns the shared mount that `ip netns add` makes of it, and remember if it wasn't one."""
    marker = run_directory / _MARKER
    # One lab's first name must not come while another lab, the last one so far, takes the mount away.
    with locks.held(run_directory):
        try:
            mount("none", str(HOST_NAMES), flags=MS_SHARED | MS_REC)
        except FileNotFoundError:
            write_own(marker, b"directory")
            try:
                HOST_NAMES.mkdir(mode=0o755, exist_ok=True)
            except OSError as error:
                raise LabError(
                    f"can't make {HOST_NAMES}: {error.strerror}", "a rootless lab needs none: `netlab up --rootless`"
                ) from error
            _mount_shared(HOST_NAMES)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: a directory, but no mount point
                raise
            write_own(marker, b"mount")
            _mount_shared(HOST_NAMES)


def _mount_shared(directory: Path) -> None:
    mount(str(directory), str(directory), flags=MS_BIND | MS_REC)
    mount("none", str(directory), flags=MS_SHARED | MS_REC)


def unshare_host_names(run_directory: Path, *, in_use: Callable[[], bool]) -> list[str]:
    """Undo `share_host_names`, unless another lab may be using it: in_use tells. What stays, in sentences: it is tried
    again by whoever calls this next.

    Where a name that isn't ours stands there by now, the mount stays, as after `ip netns add`.
    """
    marker = run_directory / _MARKER
    if not marker.exists():
        return []
    with locks.held(run_directory):
        if in_use() or not marker.exists():
            return []
        if HOST_NAMES.is_dir() and not any(HOST_NAMES.iterdir()):
            try:
                _undo(marker.read_text())
            except OSError as error:
                return [f"{HOST_NAMES} stays until the next `netlab down`: {error.strerror}"]
        marker.unlink()
    return []


def _undo(made: str) -> None:
    try:
        umount(str(HOST_NAMES), flags=0)
    except OSError as error:
        if error.errno != errno.EINVAL:  # no mount point
            raise
    if made == "directory":
        HOST_NAMES.rmdir()
