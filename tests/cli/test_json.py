"""`--format json` of `up`, `down` and `lint`: one object on stdout, and nothing that only says the same on stderr."""

from __future__ import annotations

import json
from pathlib import Path

import labs
import pytest
from command import Netlab
from states import lab_directory

SHELL = "namespaces: {a: {programs: [{name: it, command: sleep 1 && true}]}}\n"


def test_lint_of_what_is_sound(netlab: Netlab, tmp_path: Path) -> None:
    (tmp_path / "topology.yaml").write_text(SHELL)
    done = netlab("lint", "--format", "json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "file": "topology.yaml",
        "sound": True,
        "lab": "topology",
        "experiments": [],
        "unchecked": None,
        "problems": [],
        "warnings": [
            {
                "file": "topology.yaml",
                "line": 1,
                "column": 49,
                "path": "namespaces.a.programs[0].command",
                "message": "no shell runs the command: '&&' is only text in it",
                "hint": 'write [sh, -c, "sleep 1 && true"]',
            }
        ],
    }


def test_lint_of_an_experiment(netlab: Netlab) -> None:
    told = json.loads(netlab("lint", "window-overrun", "--format", "json").stdout)
    assert (told["sound"], told["lab"], told["experiments"]) == (True, None, ["window-overrun"])


def test_lint_of_what_is_not(netlab: Netlab, tmp_path: Path) -> None:
    (tmp_path / "topology.yaml").write_text("namespaces: {a: {rol: pod}}\nlinks: [{ends: [a, b]}]\n")
    done = netlab("lint", "--format", "json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["sound"]) == (2, "", False)
    assert [(each["file"], each["line"], each["path"], each["hint"]) for each in told["problems"]] == [
        ("topology.yaml", 1, "namespaces.a.rol", "did you mean 'role'?"),
        ("topology.yaml", 2, "links[0].ends[1]", "known: a"),
    ]


def test_the_problems_of_a_file_that_is_named_have_its_name(netlab: Netlab, tmp_path: Path) -> None:
    (tmp_path / "topology.yaml").write_text("namespaces: {a: {}}\nexperiments: [bad.yaml]\n")
    (tmp_path / "bad.yaml").write_text("claim: x\nsteps: [dance]\n")
    told = json.loads(netlab("lint", "--format", "json", cwd=tmp_path).stdout)
    assert told["file"] == "topology.yaml"
    assert {each["file"] for each in told["problems"]} == {"bad.yaml"}


@pytest.mark.parametrize("words", [[], ["--all"], ["nobody"]], ids=" ".join)
def test_down_of_nothing(netlab: Netlab, words: list[str]) -> None:
    done = netlab("down", *words, "--format", "json")
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, {"down": []}, "")


def test_down_of_all(netlab: Netlab) -> None:
    for name in ("one", "two"):
        lab_directory(netlab.rundir, name)
    done = netlab("down", "--all", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"down": [{"lab": "one", "left": []}, {"lab": "two", "left": []}]}


@pytest.mark.kernel
def test_the_life_of_a_lab(netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path) -> None:
    lab = labs.make(netlab, lab_name, tmp_path, privilege)
    words = ("up", lab.file, "--name", lab_name, privilege, "--format", "json")

    def up() -> dict[str, object]:
        done = netlab(*words)
        assert (done.returncode, done.stderr) == (0, "")
        told: dict[str, object] = json.loads(done.stdout)
        assert (told["lab"], told["fixes"]) == (lab_name, [])
        return told

    dry = json.loads(netlab(*words, "--dry-run").stdout)
    built = up()
    assert built["did"] == "built" and built["warnings"] == []
    assert isinstance(built["steps"], list) and len(built["steps"]) == len(dry["steps"])
    assert built["steps"][:2] == ["client: network namespace", "server: network namespace"]
    assert up() | {"warnings": []} == {"lab": lab_name, "did": "nothing", "steps": [], "fixes": [], "warnings": []}
    lab.write(labs.TWO.replace("client: {}", "client: {sysctls: {net.ipv4.tcp_sack: 0}}"))
    changed = up()
    assert (changed["did"], changed["steps"]) == ("changed", ["client: sysctl net.ipv4.tcp_sack = 0"])
    done = netlab("down", lab_name, "--format", "json")
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (
        0,
        {"down": [{"lab": lab_name, "left": []}]},
        "",
    )
