"""Debian's kernels: listed and fetched by apt, with a configuration of its own, into a cache; nothing is installed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from netlab import advice
from netlab.errors import LabError, UnsupportedError, UsageError
from netlab.kernels.choice import Package, image_release, packages
from netlab.linux.files import write_whole

MIRROR = "http://deb.debian.org"
_RELEASES = ("bullseye", "bookworm", "trixie")
_SUITES = (
    *(("debian", suite) for suite in (*_RELEASES, "bookworm-backports", "trixie-backports", "sid")),
    *(("debian-security", f"{release}-security") for release in _RELEASES),
)
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FRESH_S = 86_400
"""How old the list of kernels may be before it is made again."""


class Kernel(NamedTuple):
    """A kernel that can be booted: its release, its image and the directory of its modules (None: all built in)."""

    release: str
    image: Path
    modules: Path | None


def cache() -> Path:
    """Where kernels are kept: a directory of this user's, made if it isn't there."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(base) / "netlab/kernels"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def flavour() -> str:
    """The last part of the releases of kernels for this machine."""
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def available(directory: Path, said: Callable[[str], None]) -> list[Package]:
    """Debian's kernels, oldest first. UnsupportedError without apt; LabError where the lists can't be fetched."""
    with _locked(directory):
        known = directory / "apt/kernels.json"
        if not known.exists() or time.time() - known.stat().st_mtime > _FRESH_S:
            _configure(directory)
            said("fetching Debian's lists of packages")
            _apt(directory, "apt-get", "-q", "update")
            found = packages(_apt(directory, "apt-cache", "dumpavail"), flavour())
            write_whole(known, json.dumps(found).encode())
        read: list[tuple[str, str, int, list[str]]] = json.loads(known.read_bytes())
    return [Package(release, version, size_bytes, tuple(names)) for release, version, size_bytes, names in read]


def fetch(directory: Path, package: Package, said: Callable[[str], None]) -> Kernel:
    """The kernel of a package, unpacked in the cache; fetched and verified by apt where it isn't there yet."""
    home = directory / package.release
    with _locked(directory):
        if not home.exists():
            said(f"fetching Linux {package.release} ({package.size_bytes / 1e6:.0f} MB)")
            unpacked = directory / f".{package.release}"
            shutil.rmtree(unpacked, ignore_errors=True)
            unpacked.mkdir()
            _apt(
                directory,
                "apt-get",
                "-q",
                "download",
                *(f"{each}={package.version}" for each in package.names),
                at=unpacked,
            )
            said(f"unpacking Linux {package.release}")
            for archive in sorted(unpacked.glob("*.deb")):
                run_to_end(["dpkg-deb", "-x", str(archive), str(unpacked)])
                archive.unlink()
            _arrange(unpacked, package.release)
            unpacked.rename(home)
    return kernel(home)


def fetched(directory: Path) -> list[str]:
    """The releases of the kernels in the cache."""
    return [place.name for place in directory.iterdir() if (place / "image").is_file() and place.name[0] != "."]


def kernel(home: Path) -> Kernel:
    """What stands in a directory of the cache."""
    return Kernel(home.name, home / "image", home / "lib/modules" / home.name)


def from_file(image: Path, modules: Path | None) -> Kernel:
    """A user's own kernel; UsageError where these are no image, or not its modules."""
    try:
        release = image_release(image.read_bytes())
    except OSError as error:
        raise UsageError(f"{image}: {error.strerror}") from error
    if release is None:
        raise UsageError(
            f"{image}: this is no image of a Linux kernel", "say the file arch/x86/boot/bzImage, or vmlinux"
        )
    found = None
    if modules is not None:
        places = (modules / "lib/modules" / release, modules / release, modules)
        found = next((place for place in places if (place / "modules.dep").exists()), None)
        if found is None:
            raise UsageError(
                f"{modules}: there are no modules of {release} here",
                f"make modules_install INSTALL_MOD_PATH={modules}",
            )
    return Kernel(release, image.resolve(), found.resolve() if found is not None else None)


def _arrange(home: Path, release: str) -> None:
    """Have image and modules where `kernel` finds them: newer packages have /usr merged, and both in one place."""
    modules = home / "lib/modules" / release
    if not modules.exists():
        modules.parent.mkdir(parents=True, exist_ok=True)
        (home / "usr/lib/modules" / release).rename(modules)
    image = home / "boot" / f"vmlinuz-{release}"
    (image if image.exists() else modules / "vmlinuz").rename(home / "image")
    shutil.rmtree(home / "usr", ignore_errors=True)
    run_to_end([find("depmod", "kmod"), "-b", str(home), release])


def _configure(directory: Path) -> None:
    """apt's configuration: it reads the machine's for proxies, and nothing else of it."""
    if not _KEYRING.exists():
        raise UnsupportedError(f"there is no {_KEYRING}", advice.install("debian-archive-keyring"))
    apt = directory / "apt"
    for place in ("lists/partial", "archives/partial"):
        (apt / place).mkdir(parents=True, exist_ok=True)
    mirror = os.environ.get("NETLAB_LAB_DEBIAN_MIRROR", MIRROR).rstrip("/")
    sources = "".join(
        f"deb [signed-by={_KEYRING} arch={flavour()}] {mirror}/{place} {suite} main\n" for place, suite in _SUITES
    )
    (apt / "sources.list").write_text(sources)
    (apt / "apt.conf").write_text(
        f'Dir::State "{apt}";\n'
        f'Dir::State::status "/dev/null";\n'
        f'Dir::Cache "{apt}";\n'
        f'Dir::Etc::sourcelist "{apt}/sources.list";\n'
        'Dir::Etc::sourceparts "/dev/null";\n'
        'APT::Sandbox::User "";\n'
        'Acquire::Languages "none";\n'
        'Acquire::Retries "2";\n'
    )


def _apt(directory: Path, program: str, *words: str, at: Path | None = None) -> str:
    environment = {**os.environ, "APT_CONFIG": str(directory / "apt/apt.conf"), "LC_ALL": "C"}
    return run_to_end([find(program, "apt"), *words], environment, at)


def run_to_end(argv: list[str], environment: dict[str, str] | None = None, at: Path | None = None) -> str:
    """What a program prints; LabError with its last words where it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, cwd=at, stdin=subprocess.DEVNULL)
    if done.returncode:
        words = [each for each in f"{done.stdout}\n{done.stderr}".splitlines() if each.strip()]
        raise LabError(f"{argv[0]} failed: {words[-1] if words else f'exit code {done.returncode}'}")
    return done.stdout


def find(program: str, package: str) -> str:
    """The path of a program; UnsupportedError with what installs it where there is none."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    if (found := shutil.which(program, path=path)) is None:
        raise UnsupportedError(f"there is no {program} here, which another kernel needs", advice.install(package))
    return found


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One command at a time changes the cache; another one waits for it."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
