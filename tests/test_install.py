"""What netlab's wheel and source archive hold, that an installed wheel needs no checkout, and docs/install.md.

No package index is asked here: what netlab needs, and what builds it, comes from the tests' own environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import labs
import pytest
import skips
from command import Netlab
from markdown import blocks
from packaging.requirements import Requirement
from places import DOCS, ROOT, TOPOLOGIES


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """netlab's wheel."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


def build_wheel(source: Path, directory: Path) -> Path:
    """The wheel of a source tree, made in that directory."""
    pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", directory, source)
    (made,) = directory.glob("*.whl")
    return made


def pip(*arguments: str | Path) -> None:
    """Run the pip of the tests' environment without any index."""
    argv = [sys.executable, "-m", "pip", "--no-input", "--isolated", *arguments, "--no-index", "--quiet"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def contents(wheel: Path) -> dict[str, bytes]:
    """The files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def package(directory: Path, name: str) -> dict[str, bytes]:
    """The files of a directory that are part of netlab, under the name that they have in the wheel."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {f"{name}/{path.relative_to(directory)}": path.read_bytes() for path in files}


def test_the_wheel_holds_the_package_what_comes_with_it_and_the_man_page(wheel: Path) -> None:
    held = contents(wheel)
    info = wheel.name.removesuffix("-py3-none-any.whl")
    man = held.pop(f"{info}.data/data/share/man/man1/netlab.1")
    assert man == (DOCS / "netlab.1").read_bytes()
    assert held.pop(f"{info}.dist-info/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert b"netlab = netlab.__main__:main" in held.pop(f"{info}.dist-info/entry_points.txt")
    assert [held.pop(f"{info}.dist-info/{name}") for name in ("METADATA", "WHEEL", "RECORD")]
    assert held == package(ROOT / "netlab", "netlab") | package(TOPOLOGIES, "netlab/topologies")


def test_the_source_archive_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (made,) = tmp_path.glob("*.tar.gz")
    subprocess.run(["tar", "-xf", made, "-C", tmp_path], check=True)
    source = tmp_path / made.name.removesuffix(".tar.gz")
    assert (source / "scripts/test").stat().st_mode & 0o111
    assert (source / "tests/test_install.py").read_bytes() == Path(__file__).read_bytes()
    again = build_wheel(source, tmp_path)
    assert (again.name, contents(again)) == (wheel.name, contents(wheel))


class Installed(Netlab):
    """The command of an environment that has netlab's wheel."""

    def argv(self, *arguments: str | Path) -> list[str]:
        return [str(environment(self.rundir) / "bin/netlab"), *map(str, arguments)]


def environment(directory: Path) -> Path:
    """Where the environment of `installed` lies."""
    return directory.with_name(f"{directory.name}-installed")


@pytest.fixture
def installed(netlab: Netlab, wheel: Path) -> Iterator[Installed]:
    """netlab in an environment as pip, pipx and uv make one, with what it needs, and nothing of that in a checkout."""
    made = environment(netlab.rundir)
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    subprocess.run([base, "-m", "venv", "--without-pip", made], check=True)
    pip("--python", made / "bin/python", "install", "--no-deps", wheel)
    (packages,) = made.glob("lib/python3*/site-packages")
    for name in needed("netns-lab", set()):
        copy_package(name, packages)
    yield Installed(netlab.rundir, forked=False)
    shutil.rmtree(made)


def needed(name: str, seen: set[str]) -> set[str]:
    """What a package needs here, and what that needs."""
    for requirement in map(Requirement, distribution(name).requires or []):
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name not in seen:
            seen.add(requirement.name)
            needed(requirement.name, seen)
    return seen


def copy_package(name: str, packages: Path) -> None:
    """Put a package of the tests' environment there; without its commands."""
    for file in distribution(name).files or []:
        if ".." not in file.parts and file.suffix != ".pyc":
            (packages / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), packages / file)


LIFE = """
set -e
netlab examples
netlab lint kube-proxy-reset
netlab lint window-overrun
netlab up kube-proxy-reset --name $LAB $PRIVILEGE
netlab run $LAB --trials 1
netlab down $LAB
"""

HIDE = 'mount -t tmpfs none "$0"; exec "$@"'


@pytest.mark.kernel
def test_the_installed_wheel_knows_builds_and_runs_the_flagship(
    installed: Installed, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    (program,) = installed.argv()
    hide: list[str | Path] = []
    if os.geteuid() == 0:  # and the checkout is not there meanwhile
        skips.skip_unless_program("unshare")
        hide = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", HIDE, ROOT]
    variables = {"LAB": lab_name, "PRIVILEGE": privilege, "PATH": f"{Path(program).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*hide, "sh", "-c", LIFE],
        env=installed.environment(variables),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (topologies,) = Path(program).parent.parent.glob("lib/python3*/site-packages/netlab/topologies")
    said = labs.WARNING.sub("", done.stderr).splitlines()
    assert f"The files are in {topologies}." in said
    assert f"{topologies}/kube-proxy-reset.yaml: lab kube-proxy-reset is sound, with 15 experiments" in said
    assert f"{topologies}/experiments/window-overrun.yaml: the experiment window-overrun is sound" in said
    assert said[-1] == f"lab {lab_name} is down"
    assert re.search(r"^REPRODUCED 1/1$", done.stdout, re.MULTILINE)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of wheels for pip and uv, in the place of an index: packages of the tests' environment, repacked."""
    directory = tmp_path_factory.mktemp("index")
    for name in needed("netns-lab", set()) | needed("hatchling", {"hatchling"}) | {"editables"}:
        with suppress(PackageNotFoundError):
            repack(name, directory)
    return directory


def repack(name: str, directory: Path) -> None:
    """Make a wheel of an installed package."""
    package = distribution(name)
    tag = re.findall(r"^Tag: (.*)$", package.read_text("WHEEL") or "", re.MULTILINE)[-1]
    with zipfile.ZipFile(directory / f"{name.replace('-', '_')}-{package.version}-{tag}.whl", "w") as wheel:
        for file in package.files or []:
            if ".." not in file.parts and file.suffix != ".pyc" and file.name != "INSTALLER":
                wheel.write(str(file.locate()), str(file))


PAGE = (DOCS / "install.md").read_text()


@pytest.mark.parametrize("way", ["pip", "pipx", "uv"])
def test_what_the_page_says_installs_netlab(netlab: Netlab, index: Path, tmp_path: Path, way: str) -> None:
    if way != "pip":
        skips.skip_unless_program(way)
    (tmp_path / "netlab").symlink_to(ROOT)
    begin, *_, doctor = [block.text for block in blocks(PAGE.split("## A clone")[0])]
    assert (begin, doctor) == ("git clone URL netlab\n", "netlab doctor\n")
    (block,) = blocks(PAGE.split(f"## {way}\n")[1].split("\n## ")[0])
    script = "\n".join(line for line in block.text.splitlines() if not line.startswith("sudo apt-get install "))
    done = subprocess.run(
        ["bash", "-ec", f"{script}\ncd /\nnetlab examples\n{doctor}"],
        env=netlab.environment(environment_of(index, tmp_path)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode in (0, 77), done.stderr + done.stdout  # doctor's, which other tests hold
    assert "\nok    libnftables binding " in done.stdout
    assert re.search(rf"^The files are in {tmp_path}/.*/netlab/topologies\.$", done.stderr, re.MULTILINE)


def environment_of(index: Path, home: Path) -> dict[str, str]:
    """The variables by which pip, pipx and uv find those wheels alone, and put everything into a home of the test's."""
    system = "/usr/share/python-wheels"  # Debian's of pip itself, which pipx renews
    return {
        "HOME": str(home),
        "PATH": f"{home}/.local/bin:{os.environ['PATH']}",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": f"{index} {system}",
        "UV_NO_CONFIG": "1",
        "UV_OFFLINE": "1",
        "UV_FIND_LINKS": str(index),
        "UV_PYTHON": sys.executable,
    }
