"""Command lines that a user is told to run, in the form that this machine understands."""

from __future__ import annotations

import os
import shlex


def as_root(command: str) -> str:
    """The command line that runs this one as root; itself for who is root already and has no sudo."""
    import shutil

    if shutil.which("sudo"):
        return f"sudo {command}"
    return command if os.geteuid() == 0 else f"su -c {shlex.quote(command)}"


def install(package: str) -> str:
    """What installs a Debian package here; on a system without apt, that it is to be installed."""
    import shutil

    if shutil.which("apt-get"):
        return as_root(f"apt-get install {package}")
    return f"install what Debian's package {package} holds"
