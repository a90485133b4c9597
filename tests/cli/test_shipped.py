"""The topologies and experiments that come with netlab: listed, and known by name from anywhere, wherever it lies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command import Netlab
from places import ROOT, TOPOLOGIES
from terminals import terminal_of

from netlab import shipped


def test_every_file_is_found_by_its_name() -> None:
    assert [*shipped.topologies().values()] == sorted(TOPOLOGIES.glob("*.yaml"), key=lambda path: path.stem)
    assert set(shipped.experiments().values()) == {*TOPOLOGIES.glob("experiments/*.yaml")}
    assert shipped.find("window-overrun") == TOPOLOGIES / "experiments" / "window-overrun.yaml"
    assert shipped.find("states-tour") == TOPOLOGIES / "states-tour.yaml"  # and not the experiment of that name
    assert shipped.find("window") is None


def test_a_name_is_known_in_any_directory(netlab: Netlab, tmp_path: Path) -> None:
    done = netlab("lint", "cluster", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, f"{TOPOLOGIES / 'cluster.yaml'}: lab cluster is sound\n")
    done = netlab("lint", "window-overrun", cwd=tmp_path)
    own = TOPOLOGIES / "experiments" / "window-overrun.yaml"
    assert (done.returncode, done.stderr) == (0, f"{own}: the experiment window-overrun is sound\n")
    assert (
        netlab("plan", "kube-proxy-reset", cwd=tmp_path).stdout
        == netlab("plan", TOPOLOGIES / "kube-proxy-reset.yaml").stdout
    )


def test_a_file_of_that_name_goes_before(netlab: Netlab, tmp_path: Path) -> None:
    (tmp_path / "cluster").write_text("name: mine\nnamespaces: {a: {}}\n")
    assert netlab("lint", "cluster", cwd=tmp_path).stderr == "cluster: lab mine is sound\n"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("kube-proxy-rest", "did you mean 'kube-proxy-reset'?"),
        ("windowoverrun", "did you mean 'window-overrun'?"),
        ("nothing-like-it", "name a file, or one of those that `netlab examples` lists"),
    ],
)
def test_a_name_that_is_none(netlab: Netlab, tmp_path: Path, word: str, hint: str) -> None:
    done = netlab("up", word, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"netlab: {word}: there is no such file\n  hint: {hint}\n")


def test_they_are_listed_with_what_each_says(netlab: Netlab, tmp_path: Path) -> None:
    done = netlab("examples", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith(
        "TOPOLOGIES\n  cluster                     Two nodes, and a service with three endpoints\n"
    )
    assert "\n\nEXPERIMENTS in kube-proxy-reset\n" in done.stdout
    assert (
        "\n  window-overrun              A burst past the client's small window makes NAT\n"
        "                              skip packets, and the connection is reset.\n"
    ) in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stderr == (
        f"`netlab up TOPOLOGY` and `netlab run EXPERIMENT` take these names anywhere.\nThe files are in {TOPOLOGIES}.\n"
    )


def test_they_are_listed_as_json(netlab: Netlab) -> None:
    told = json.loads(netlab("examples", "--format", "json").stdout)
    assert [each["name"] for each in told["topologies"]] == [*shipped.topologies()]
    assert {each["name"]: each["file"] for each in told["experiments"]} == {
        name: str(path) for name, path in shipped.experiments().items()
    }
    assert all(each["description"] for each in told["topologies"])
    assert all(each["claim"] and each["topology"] in shipped.topologies() for each in told["experiments"])


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_the_list_is_as_wide_as_the_terminal(netlab: Netlab, columns: int) -> None:
    screen = terminal_of(netlab.argv("examples"), netlab.environment({"NO_COLOR": "1"}), columns)
    widest = max(map(len, screen.split("`netlab up")[0].splitlines()))
    assert columns - 15 <= widest <= columns or columns == 200


def test_they_are_found_in_an_installed_package(tmp_path: Path) -> None:
    """As a wheel has it: inside the package, and nothing beside it."""
    shutil.copytree(ROOT / "netlab", tmp_path / "netlab", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(TOPOLOGIES, tmp_path / "netlab" / "topologies")
    (tmp_path / "topologies" / "experiments").mkdir(parents=True)  # another package's
    done = _run(tmp_path, "lint", "path-flip")
    file = tmp_path / "netlab" / "topologies" / "experiments" / "path-flip.yaml"
    assert done.stderr == f"{file}: the experiment path-flip is sound\n"


def test_a_package_without_them_says_so(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "netlab", tmp_path / "netlab", ignore=shutil.ignore_patterns("__pycache__"))
    done = _run(tmp_path, "examples")
    assert (done.returncode, done.stderr) == (
        1,
        "netlab: this netlab was installed without its examples\n  hint: they are in `topologies/` of its repository\n",
    )


def _run(package: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """netlab out of this directory, and not of the checkout."""
    source = f"import sys; sys.path.insert(0, {str(package)!r}); from netlab.__main__ import main; main()"
    argv = [sys.executable, "-c", source, *words]
    return subprocess.run(argv, capture_output=True, text=True, env={**os.environ}, cwd=package, timeout=60)
