"""The scripts around netlab: what they install, what they say where they may not, and that they do it once."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import skips
from places import ROOT

NOBODY = 65534

# What scripts/setup itself runs; a PATH with no more than these has no apt-get, no sudo, and none of what tests need.
TOOLS = (
    "bash",
    "cat",
    "dirname",
    "env",
    "flock",
    "id",
    "ln",
    "mkdir",
    "readlink",
    "rm",
    "sha256sum",
    "sort",
    "stat",
    "uname",
)

# A build backend that installs an empty package and needs nothing from a package index.
BACKEND = """
import zipfile

def build_editable(directory, config_settings=None, metadata_directory=None):
    name = "bare-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{directory}/{name}", "w") as wheel:
        wheel.writestr("bare-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: bare\\nVersion: 1\\n")
        wheel.writestr("bare-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("bare-1.dist-info/RECORD", "")
    return name
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "bare"
version = "1"
"""


@pytest.fixture
def clone() -> Iterator[Path]:
    """A directory that every user can read: scripts/setup, a project that needs nothing, and tools/ for PATH."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        root.chmod(0o755)
        (root / "scripts").mkdir()
        shutil.copy(ROOT / "scripts/setup", root / "scripts/setup")
        (root / "pyproject.toml").write_text(PYPROJECT)
        (root / "backend.py").write_text(BACKEND)
        (root / "tools").mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None, tool
            (root / "tools" / tool).symlink_to(found)
        yield root


def setup(clone: Path, level: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run scripts/setup of the clone with only its tools on PATH."""
    env = {"PATH": str(clone / "tools"), "HOME": str(clone), "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1"}
    return subprocess.run(
        [clone / "scripts/setup", level], env=env, capture_output=True, text=True, user=user, timeout=120
    )


def fake(clone: Path, name: str, script: str) -> None:
    """Put a program on the clone's PATH."""
    path = clone / "tools" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def missing_here() -> list[str]:
    """The Debian packages that setup must miss: what they hold is in /usr/bin, which is not on the clone's PATH."""
    programs = {"curl": "curl", "iperf3": "iperf3", "nc": "netcat-openbsd", "strace": "strace", "ps": "procps"}
    aside = "/usr/sbin:/sbin"
    return [package for program, package in programs.items() if shutil.which(program, path=aside) is None]


def test_setup_once_and_again(clone: Path) -> None:
    first = setup(clone, "run")
    assert first.returncode == 0, first.stderr
    assert first.stderr.splitlines()[-1] == "setup: installing Python packages into .venv"
    binding = next(clone.glob(".venv/lib/python3*/site-packages/nftables"))
    assert binding.readlink() == Path("/usr/lib/python3/dist-packages/nftables")
    stamp = clone / ".venv/netlab-setup-run"
    before = stamp.stat().st_mtime_ns

    again = setup(clone, "run")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert stamp.stat().st_mtime_ns == before

    (clone / "pyproject.toml").write_text(PYPROJECT.replace('"1"', '"1" # changed'))
    changed = setup(clone, "run")
    assert (changed.returncode, changed.stderr) == (0, "setup: installing Python packages into .venv\n")


def test_setup_without_apt(clone: Path) -> None:
    done = setup(clone, "dev")
    assert done.returncode == 1
    assert done.stderr.startswith("setup: there is no apt-get here; install what these Debian packages hold: ")
    assert set(missing_here()) <= set(done.stderr.split())


def test_setup_by_a_user_who_may_not_install(clone: Path) -> None:
    fake(clone, "apt-get", "exit 1")
    fake(clone, "sudo", "exit 1")
    done = setup(clone, "dev", user=NOBODY if os.geteuid() == 0 else None)
    assert done.returncode == 1
    first, command, last = done.stderr.splitlines()
    assert first == "setup: Debian packages are missing, and this user may not install them. Run:"
    assert command.startswith("  sudo apt-get install --no-install-recommends ")
    assert set(missing_here()) <= set(command.split())
    assert last == "and start again."
    assert not (clone / ".venv").exists()


def test_setup_installs_what_is_missing_without_asking(clone: Path) -> None:
    """Root calls apt-get, others sudo: both are stand-ins here that write down what they are asked for."""
    log = clone / "log"
    fake(clone, "apt-get", f'echo "$DEBIAN_FRONTEND $*" >>{log}; case "$*" in *update) exit 100;; esac; exit 1')
    fake(clone, "sudo", 'shift; exec "$@"')
    fake(clone, "true", "exit 0")
    done = setup(clone, "dev")
    assert done.returncode == 1
    update, install = log.read_text().splitlines()
    assert update == "noninteractive -q -o DPkg::Lock::Timeout=300 update"
    assert install.startswith("noninteractive -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends ")
    assert set(missing_here()) <= set(install.split())
    said = done.stderr.splitlines()
    assert said[1] == "setup: apt-get update failed; trying with the package lists that are here"
    assert said[2].startswith("setup: apt-get failed; try by hand: sudo apt-get install --no-install-recommends ")


def test_setup_of_an_unknown_level(clone: Path) -> None:
    done = setup(clone, "everything")
    assert (done.returncode, done.stderr) == (1, "setup: usage: scripts/setup [run|dev]\n")


def test_vagrantfile_is_ruby() -> None:
    skips.skip_unless_program("ruby")
    done = subprocess.run(["ruby", "-c", ROOT / "Vagrantfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "Syntax OK\n")


@pytest.mark.kernel
def test_demo() -> None:
    if os.geteuid() != 0:
        skips.skip_unless_userns()
    done = subprocess.run([ROOT / "scripts/demo"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-3:] == [
        "no fix               REPRODUCED 20/20",
        "drop-invalid         NOT REPRODUCED 0/20",
        "be-liberal           NOT REPRODUCED 0/20",
    ]


@pytest.mark.kernel
def test_bench() -> None:
    skips.skip_unless_root()
    for program in ("ip", "nft"):
        skips.skip_unless_program(program)
    done = subprocess.run([ROOT / "scripts/bench", "flagship", "--rounds", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heading, *rows = done.stdout.splitlines()
    assert heading.split() == ["lab", "built", "by", "up,", "ms", "down,", "ms", "ratio", "paired"]
    assert [row.split()[1] for row in rows if "background" not in row][:3] == ["netlab", "naive", "batch"]


def test_what_is_installed_has_every_package() -> None:
    packages = sorted(".".join(file.parent.relative_to(ROOT).parts) for file in ROOT.glob("netlab/**/__init__.py"))
    folders = sorted(".".join(file.parent.relative_to(ROOT).parts) for file in ROOT.glob("netlab/**/*.py"))
    assert sorted(set(folders)) == packages
