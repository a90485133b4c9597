"""The scripts around netlab: what they install, what they say where they may not, and that they do it once.

No package index is asked here: what the scripts install is made by hand, and lies in a folder of the test's own.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import skips
from packaging.requirements import Requirement
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

# A build backend that installs a package without files, and needs nothing from a package index.
BACKEND = """
import zipfile

def build_editable(directory, config_settings=None, metadata_directory=None):
    name = "bare-1-py3-none-any.whl"
    metadata = ["Metadata-Version: 2.1", "Name: bare", "Version: 1", "Requires-Dist: locked", "Provides-Extra: dev"]
    with zipfile.ZipFile(f"{directory}/{name}", "w") as wheel:
        wheel.writestr("bare-1.dist-info/METADATA", "\\n".join(metadata))
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
        (root / "scripts/requirements").mkdir(parents=True)
        for script in ("setup", "lock"):
            shutil.copy(ROOT / "scripts" / script, root / "scripts" / script)
        digest = wheel(root, "locked", "1", "print('the locked one')")
        wheel(root, "locked", "2", "print('a newer one')")
        for level in ("run", "dev", "docs"):
            (root / f"scripts/requirements/{level}.txt").write_text(f"locked==1 --hash=sha256:{digest}\n")
        (root / "pyproject.toml").write_text(PYPROJECT)
        (root / "backend.py").write_text(BACKEND)
        (root / "tools").mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None, tool
            (root / "tools" / tool).symlink_to(found)
        yield root


def wheel(clone: Path, name: str, version: str, program: str = "") -> str:
    """Make a package that pip finds, with a command of its name that runs the program; the file's SHA-256."""
    path = clone / f"wheels/{name}-{version}-py3-none-any.whl"
    path.parent.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    script = zipfile.ZipInfo(f"{name}-{version}.data/scripts/{name}")
    script.external_attr = (stat.S_IFREG | 0o755) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(script, f"#!python\n{program}\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(clone: Path, *argv: str, path: str = "", user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script of the clone with only its tools on PATH, and with its wheels alone for pip."""
    env = {
        "PATH": str(clone / "tools") + path,
        "HOME": str(clone),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_FIND_LINKS": str(clone / "wheels"),
    }
    return subprocess.run([clone / argv[0], *argv[1:]], env=env, capture_output=True, text=True, user=user, timeout=120)


def setup(clone: Path, level: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run scripts/setup of the clone."""
    return run(clone, "scripts/setup", level, user=user)


def fake(clone: Path, name: str, script: str) -> None:
    """Put a program on the clone's PATH."""
    path = clone / "tools" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def said_by(program: Path) -> str:
    """What a program that succeeds writes to stdout."""
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout


def first_line(path: Path) -> bytes:
    """What a file begins with, up to its first newline."""
    with path.open("rb") as file:
        return file.readline()


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
    assert said_by(clone / ".venv/bin/locked") == "the locked one\n"
    stamp = clone / ".venv/netlab-setup-run"
    before = stamp.stat().st_mtime_ns

    again = setup(clone, "run")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert stamp.stat().st_mtime_ns == before

    (clone / "pyproject.toml").write_text(PYPROJECT.replace('"1"', '"1" # changed'))
    changed = setup(clone, "run")
    assert (changed.returncode, changed.stderr) == (0, "setup: installing Python packages into .venv\n")

    wheel(clone, "forged", "1")
    with (clone / "scripts/requirements/run.txt").open("a") as file:
        file.write(f"forged==1 --hash=sha256:{'0' * 64}\n")
    forged = setup(clone, "run")
    assert forged.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in forged.stderr
    assert not (clone / ".venv/bin/forged").exists()


def test_setup_repairs_a_copied_clone(clone: Path, tmp_path: Path) -> None:
    """Each program in a copy names the original's Python, and so would run on the original's packages."""
    digest = wheel(clone, "builder", "1", "import sys; print(sys.prefix)")
    with (clone / "scripts/requirements/docs.txt").open("a") as file:
        file.write(f"builder==1 --hash=sha256:{digest}\n")
    assert setup(clone, "docs").returncode == 0
    copy = shutil.copytree(clone, tmp_path / "copy", symlinks=True)
    assert said_by(copy / ".venv/bin/builder") == f"{clone}/.venv\n"

    assert setup(copy, "run").returncode == 0
    assert said_by(copy / ".venv/bin/builder") == f"{copy}/.venv\n"
    assert said_by(copy / ".venv/bin/locked") == "the locked one\n"
    asked = ["grep", "-rlIF", f"{clone}/.venv", str(copy / ".venv")]
    assert subprocess.run(asked, capture_output=True, text=True).stdout == ""
    again = setup(copy, "run")
    assert (again.returncode, again.stderr) == (0, "")


def test_setup_newest_is_beside_what_is_locked(clone: Path) -> None:
    for program in re.findall(r"\[[\w-]+\]=([\w-]+)", (clone / "scripts/setup").read_text()):
        if not (clone / "tools" / program).exists():
            fake(clone, program, "exit 0")
    done = setup(clone, "newest")
    assert done.returncode == 0, done.stderr
    assert said_by(clone / ".venv-newest/bin/locked") == "a newer one\n"
    assert not (clone / ".venv").exists()


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
    assert (done.returncode, done.stderr) == (1, "setup: usage: scripts/setup [run|dev|docs|newest]\n")


def lock(clone: Path) -> subprocess.CompletedProcess[str]:
    """Run scripts/lock of the clone, with the uv that its wheels have and the Python of these tests."""
    (clone / ".venv").symlink_to(sys.prefix)
    return run(clone, "scripts/lock", path=":/usr/bin:/bin")


def test_lock_asks_for_what_the_project_and_its_build_need(clone: Path) -> None:
    (clone / "pyproject.toml").write_text(PYPROJECT.replace("requires = []", 'requires = ["builder>=1"]'))
    wheel(clone, "uv", "1", "import sys; print(*sys.argv[1:-1]); print(open(sys.argv[-1]).read(), end='')")
    done = lock(clone)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    options = "pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate"
    heading = "# Made by scripts/lock from pyproject.toml; not to be edited.\n"
    locked = {level: (clone / f"scripts/requirements/{level}.txt").read_text() for level in ("run", "dev", "docs")}
    assert locked["run"] == f"{heading}{options} pyproject.toml\nbuilder>=1\n"
    like_run, like_dev = (
        r"--extra dev --extra docs --constraint /\S+/run.txt",
        r"--extra docs --constraint /\S+/dev.txt",
    )
    for level, like in (("dev", like_run), ("docs", like_dev)):
        assert re.fullmatch(f"{heading}{options} {like} pyproject.toml\nbuilder>=1\n", locked[level])


def test_a_lock_that_can_not_be_renewed_stays_as_it_was(clone: Path) -> None:
    files = [clone / f"scripts/requirements/{level}.txt" for level in ("run", "dev", "docs")]
    before = [file.read_text() for file in files]
    wheel(clone, "uv", "1", "import sys; print('half'); sys.exit('no index' if 'dev' in sys.argv else 0)")
    done = lock(clone)
    assert (done.returncode, done.stderr) == (1, "no index\n")
    assert [file.read_text() for file in files] == before


@pytest.mark.parametrize("level", ["run", "dev", "docs"])
def test_the_lock_holds_what_pyproject_asks_for_each_with_hashes_and_from_nowhere(level: str) -> None:
    _, *entries = re.split(r"\n(?=\S)", (ROOT / f"scripts/requirements/{level}.txt").read_text())
    locked = {}
    for entry in entries:
        pin, *hashes = (line.removesuffix(" \\").strip() for line in entry.strip().splitlines())
        requirement = Requirement(pin)
        (only,) = requirement.specifier
        assert (only.operator, requirement.url) == ("==", None)
        assert hashes, pin
        assert all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", each) for each in hashes), pin
        locked[requirement.name] = only.version

    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = {"run": (), "dev": ("dev", "docs"), "docs": ("docs",)}[level]
    extra = [each for name in extras for each in told["project"]["optional-dependencies"][name]]
    asked = map(Requirement, (*told["build-system"]["requires"], *told["project"]["dependencies"], *extra))
    for requirement in asked:
        assert locked[requirement.name.lower()] in requirement.specifier


def test_vagrantfile_is_ruby() -> None:
    skips.skip_unless_program("ruby")
    done = subprocess.run(["ruby", "-c", ROOT / "Vagrantfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "Syntax OK\n")


@pytest.mark.kernel
@pytest.mark.long
def test_demo() -> None:
    if os.geteuid() != 0:
        skips.skip_unless_userns()
    done = subprocess.run([ROOT / "scripts/demo", "3"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-3:] == [
        "no fix               REPRODUCED 3/3",
        "drop-invalid         PREVENTED 3/3",
        "be-liberal           PREVENTED 3/3",
    ]


@pytest.mark.kernel
def test_soak() -> None:
    if os.geteuid() != 0:
        skips.skip_unless_userns()
    done = subprocess.run([ROOT / "scripts/soak", "--cycles", "2"], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr.splitlines()[1:]) == (0, []), done.stderr
    assert done.stderr.startswith("2 of 2 cycles, ")
    assert re.fullmatch(
        r"2 cycles of up, run and down \(root(less)?\): the host is as it was\n"
        r"the kernel's own memory: [\d,]+ KiB before, [\d,]+ KiB after\n",
        done.stdout,
    )


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


@pytest.mark.kernel
def test_bench_of_what_comes_after_the_first_up() -> None:
    skips.skip_unless_root()
    for program in ("ip", "nft"):
        skips.skip_unless_program(program)
    argv = [str(ROOT / "scripts/bench"), "again", "--rounds", "1", "--size", "20"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heading, *rows = done.stdout.splitlines()
    assert heading.split() == ["lab", "size", "up,", "ms", "up", "again", "status", "small", "edit"]
    names = ["star-100", "endpoints", "services", "one-service", "five-bridges"]
    assert [row.split()[:2] for row in rows] == [[name, "20"] for name in names]
    for row in rows:
        assert re.fullmatch(r"\S+ +20 +\d+\.\d( +\d+\.\d\d){3}  goal <= 0\.3", row), row


def test_what_is_installed_has_every_package() -> None:
    packages = sorted(".".join(file.parent.relative_to(ROOT).parts) for file in ROOT.glob("netlab/**/__init__.py"))
    folders = sorted(".".join(file.parent.relative_to(ROOT).parts) for file in ROOT.glob("netlab/**/*.py"))
    assert sorted(set(folders)) == packages


PYTHON = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file() and b"python" in first_line(path))


def test_every_python_script_is_checked_for_form_and_types() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    scripts = [f"scripts/{path.name}" for path in PYTHON]
    for checked in (tool["mypy"]["files"], tool["ruff"]["extend-include"]):
        assert sorted(file for file in checked if file.startswith("scripts/")) == scripts


@pytest.mark.parametrize("script", PYTHON, ids=lambda path: path.name)
def test_every_python_script_says_how_it_is_used(script: Path) -> None:
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {script.name} ")
