"""What a user is told to do about what is missing: command lines, in the form that this machine understands."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path


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


def install_python(package: str) -> str:
    """What gives this Python a package that netlab needs, by its name on the package index."""
    import sys
    from importlib.metadata import PackageNotFoundError, requires
    from importlib.util import find_spec

    setup = Path(__file__).parents[1] / "scripts/setup"
    wanted, marker = package, ""
    with suppress(PackageNotFoundError):
        known = filter(lambda one: one.lower().startswith(package), requires("netns-lab") or [])
        wanted, _, marker = next(known, package).partition(";")
    if setup.exists():
        return f"{setup} dev" if "extra" in marker else str(setup)
    pip = (
        [sys.executable, "-m", "pip", "install"] if find_spec("pip") else ["uv", "pip", "install", "-p", sys.executable]
    )
    return shlex.join([*pip, wanted])


_NEEDED = {
    "/proc/self": "mount -t proc proc /proc",
    "/dev/null": "mknod -m 666 /dev/null c 1 3",
}


def missing() -> tuple[str, str] | None:
    """A file that every command needs and that isn't there, and the command that makes it; None where all are."""
    for place, command in _NEEDED.items():
        if not os.path.exists(place):  # noqa: PTH110
            return f"there is no {place}", as_root(command)
    return None


_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21}  # include/uapi/linux/capability.h


def lacking(proc: Path = Path("/proc")) -> tuple[str, str] | None:
    """Which capabilities that its labs need root hasn't, as in a container, and what to do; None where it has all."""
    if os.geteuid() != 0:
        return None
    with suppress(OSError):
        status = dict(line.split(":", 1) for line in (proc / "self/status").read_text().splitlines())
        has = int(status["CapEff"], 16)
        if names := [name for name, number in _CAPABILITIES.items() if not has >> number & 1]:
            return f"root has no {', '.join(names)} here", "leave the container, or start it with --privileged"
    return None


def limits(code: int | None) -> str | None:
    """What to do where an errno says that a limit of the shell's is reached; None for any other."""
    import errno
    import resource

    match code:
        case errno.EMFILE:
            return f"`ulimit -n` is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}: raise it"
        case errno.EAGAIN if (most := resource.getrlimit(resource.RLIMIT_NPROC)[0]) != resource.RLIM_INFINITY:
            return f"`ulimit -u` is {most}: raise it, or end some of this user's processes"
    return None


# Sysctls: what each is where it forbids, and where it doesn't.
_FOR_USERS = {
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),  # Ubuntu 23.10 and newer
    "kernel.unprivileged_userns_clone": ("0", "1"),  # a patch of Debian's and Ubuntu's kernels
    "user.max_user_namespaces": ("0", "15000"),
}
_FOR_ALL = {f"user.max_{kind}_namespaces": ("0", "15000") for kind in ("mnt", "net", "pid")}


def userns(proc: Path = Path("/proc")) -> str | None:
    """What to do where this user can't make a user namespace; None where nothing is known to restrict them."""
    with suppress(OSError):
        if not any(line.split()[4] == "/" for line in (proc / "self/mountinfo").read_text().splitlines()):
            return "the kernel allows no user namespace in a chroot: leave the chroot, or run netlab as root"
    for told in _restrictions(_FOR_USERS, proc):
        return told.replace(": ", ": run netlab as root, or ", 1)
    return namespaces(proc)


def namespaces(proc: Path = Path("/proc")) -> str | None:
    """What to do where nobody can make namespaces; None where nothing is known to restrict them."""
    return next(_restrictions(_FOR_ALL, proc), None)


def _restrictions(sysctls: Mapping[str, tuple[str, str]], proc: Path) -> Iterator[str]:
    for sysctl, (forbidding, allowing) in sysctls.items():
        with suppress(OSError):
            if (proc / "sys").joinpath(*sysctl.split(".")).read_text().strip() == forbidding:
                yield f"{sysctl} is {forbidding}: `{as_root(f'sysctl {sysctl}={allowing}')}`"
