"""How a command is told which lab: by name, with -l, by its topology's file, or by where it is called."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from command import Netlab
from states import BARE, lab_directory

TEXT = """
name: {name}
namespaces: {{{name}-node: {{role: node}}, {name}-pod: {{}}}}
links: [{{ends: [{name}-node, {name}-pod]}}]
services: {{web: {{port: 80, endpoints: [{name}-pod]}}}}
experiments:
  - name: first-of-{name}
    claim: Nothing happens.
    client: {name}-node
    service: web
    expect: {{plain: completed}}
    steps: [connect, send: {{from: client, bytes: 10}}]
"""


class Labs(NamedTuple):
    """Labs that are written down, and never were; each has its topology.yaml in a directory of its name."""

    netlab: Netlab
    root: Path

    def add(self, name: str, file: Path | None = None) -> None:
        """One more, from this file."""
        text = TEXT.format(name=name)
        file = file or self.root / name / "topology.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        namespaces = ((f"{name}-node", 1), (f"{name}-pod", 2))
        state = BARE._replace(lab=name, file=str(file), namespaces=namespaces)
        lab_directory(self.netlab.rundir, name).create(state, text, "")

    def __call__(self, *words: str, at: str = "") -> subprocess.CompletedProcess[str]:
        return self.netlab(*words, cwd=self.root / at)

    def complete(self, words: str, at: str = "") -> list[str]:
        """What bash would offer."""
        env = {"_NETLAB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        return self.netlab(env=env, cwd=self.root / at).stdout.split()


@pytest.fixture
def labs(netlab: Netlab, tmp_path: Path) -> Labs:
    made = Labs(netlab, tmp_path)
    for name in ("one", "two"):
        made.add(name)
    return made


SEVERAL = "netlab: several labs are up: one, two\n  hint: name the one you mean: -l LAB\n"


def which(done: subprocess.CompletedProcess[str]) -> str:
    """The lab that `graph` drew, or what was said."""
    return done.stdout.split("\n")[0] or done.stderr


def test_where_several_are_up_one_is_named(labs: Labs) -> None:
    assert which(labs("graph")) == SEVERAL
    assert which(labs("graph", "-l", "one")) == which(labs("graph", "--lab", "one")) == "one"


def test_the_topology_here_names_its_lab(labs: Labs) -> None:
    done = labs("exec", "nobody", "true", at="two")
    assert "lab two is incomplete" in done.stderr
    assert "lab one is incomplete" in labs("exec", "-l", "one", "nobody", "true", at="two").stderr


def test_the_only_lab_needs_no_name(netlab: Netlab, tmp_path: Path) -> None:
    labs = Labs(netlab, tmp_path)
    labs.add("one")
    (tmp_path / "elsewhere").mkdir()
    assert which(labs("graph", at="elsewhere")) == "one"
    assert "-A KUBE-SERVICES" in labs("rules", "one-node", "--format", "iptables-save", at="elsewhere").stdout


@pytest.mark.parametrize("word", ["two/topology.yaml", "./two/topology.yaml"])
def test_a_file_names_its_lab(labs: Labs, word: str) -> None:
    assert which(labs("graph", "-l", word)) == "two"
    assert "lab two is incomplete" in labs("status", word).stderr


def test_two_labs_of_a_file(labs: Labs) -> None:
    labs.add("three", labs.root / "two" / "topology.yaml")
    wanted = "several labs were built from two/topology.yaml: three, two\n  hint: name the one you mean: -l LAB\n"
    assert labs("status", "two/topology.yaml").stderr == f"netlab: {wanted}"
    assert labs("graph", at="one").stdout.startswith("one\n")


def test_a_file_of_no_lab(labs: Labs) -> None:
    (labs.root / "free.yaml").write_text(TEXT.format(name="free"))
    assert labs("status", "free.yaml").stderr == (
        "netlab: no lab built from free.yaml is up\n  hint: `netlab up free.yaml` builds it\n"
    )
    assert labs("status", "nowhere.yaml").stderr == (
        "netlab: nowhere.yaml: there is no such file\n  hint: name a lab, or the file of its topology\n"
    )


@pytest.mark.parametrize("command", ["status", "down", "watch", "explain"])
def test_an_argument_and_an_option_that_differ(labs: Labs, command: str) -> None:
    done = labs(command, "one", "-l", "two")
    assert (done.returncode, done.stderr) == (2, "netlab: one and -l two are two labs\n  hint: name one of them\n")


@pytest.mark.parametrize("command", ["status", "watch", "explain", "run"])
@pytest.mark.parametrize("way", [["two"], ["-l", "two"], ["two", "-l", "two"], ["two/topology.yaml"]], ids=" ".join)
def test_each_command_takes_it_in_each_way(labs: Labs, command: str, way: list[str]) -> None:
    if (command, way) == ("run", ["two/topology.yaml"]):  # runs it in the lab of that name, which it would build
        return
    assert "the lab two is incomplete" in labs(command, *way).stderr


def test_down_of_a_file_takes_its_lab_down(labs: Labs) -> None:
    done = labs("down", "two/topology.yaml")
    assert (done.returncode, done.stderr) == (0, "lab two is down\n")
    done = labs("down", "two/topology.yaml")
    assert (done.returncode, done.stderr) == (0, "no lab built from two/topology.yaml is up: nothing to do\n")
    done = labs("down", "-l", "one")
    assert (done.returncode, done.stderr) == (0, "lab one is down\n")


def test_down_of_a_file_that_is_not_there(labs: Labs) -> None:
    (labs.root / "two" / "topology.yaml").unlink()
    assert labs("down", "two/topology.yaml").stderr == "lab two is down\n"
    done = labs("down", "two/topology.yaml")
    assert (done.returncode, done.stderr) == (
        2,
        "netlab: two/topology.yaml: there is no such file\n  hint: name a lab, or the file of its topology\n",
    )


def test_a_bundle_that_is_not_there(labs: Labs) -> None:
    done = labs("explain", "nosuch.zip")
    assert (done.returncode, done.stderr) == (
        2,
        "netlab: nosuch.zip: there is no such file\n  hint: name a lab, or what `netlab run --bundle FILE` wrote\n",
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "--trials", "abc"], "'--trials': 'abc' is not a whole number of at least 1."),
        (["run", "--trials", "0"], "'--trials': '0' is not a whole number of at least 1."),
        (["matrix", "-j", "1.5"], "'--jobs' / '-j': '1.5' is not a whole number of at least 1."),
        (["capture", "-s", "999999"], "'--snaplen' / '-s': '999999' is not a whole number from 1 to 262,144."),
        (["watch", "--for", "soon"], "'--for': 'soon' is not a number of seconds."),
        (["explain", "--for", "-1"], "'--for': '-1' is not a number of seconds."),
        (["capture", "--for", "nan"], "'--for': 'nan' is not a number of seconds."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_number_that_is_none(netlab: Netlab, words: list[str], told: str) -> None:
    done = netlab(*words)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"Error: Invalid value for {told}")


@pytest.mark.parametrize(
    ("words", "at", "offered"),
    [
        ("netlab exec ", "one", ["one-node", "one-pod"]),
        ("netlab exec -l two ", "one", ["two-node", "two-pod"]),
        ("netlab exec two", "", []),
        ("netlab shell ", "two", ["two-node", "two-pod"]),
        ("netlab watch --netns ", "two", ["two-node", "two-pod"]),
        ("netlab watch one --netns ", "", ["one-node", "one-pod"]),
        ("netlab capture two-p", "two", ["two-pod"]),
        ("netlab capture two-pod:", "two", ["two-pod:eth0"]),
        ("netlab capture two-pod:e", "two", ["two-pod:eth0"]),
        ("netlab capture two-pod : e", "two", ["eth0"]),
        ("netlab capture two-pod :", "two", ["eth0"]),
        ("netlab up kube", "two", ["kube-proxy-reset"]),
        ("netlab up to", "two", ["topology.yaml"]),
        ("netlab up ./to", "two", []),
        ("netlab run win", "", ["window-overrun"]),
        ("netlab run tw", "", ["two-client-nodes", "two"]),
        ("netlab matrix time-w", "", ["time-wait"]),
        ("netlab fix list o", "", ["one"]),
        ("netlab rules one-node kube", "one", ["kube-proxy-reset"]),
        ("netlab capture -l one one-pod:", "two", ["one-pod:eth0"]),
        ("netlab capture nobody:", "two", []),
        ("netlab run -e ", "one", ["first-of-one"]),
        ("netlab run two/topology.yaml -e f", "", ["first-of-two"]),
        ("netlab run -l two -e ", "one", ["first-of-two"]),
        ("netlab run one -e ", "", ["first-of-one"]),
        ("netlab run kube-proxy-reset -e window", "", ["window-overrun"]),
        ("netlab matrix -e ", "two", ["first-of-two"]),
        ("netlab matrix -e ", "", []),
        ("netlab status ", "", ["one", "two"]),
        ("netlab status -l ", "", ["one", "two"]),
        ("netlab explain t", "", ["two"]),
        ("netlab graph -l o", "", ["one"]),
        ("netlab rules ", "one", ["one-node"]),
        ("netlab rules -l two ", "one", ["two-node"]),
        ("netlab run --compare drop", "", ["drop-invalid", "drop-invalid-where-not-liberal"]),
        ("netlab run --compare be-liberal,notrack,n", "", ["be-liberal,notrack,nftables-mode"]),
    ],
)
def test_completion_knows_the_lab_that_is_meant(labs: Labs, words: str, at: str, offered: list[str]) -> None:
    assert labs.complete(words, at) == offered
