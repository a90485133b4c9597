"""`netlab up`: what its plain words mean, that typer reads these in the same way, and what is imported."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from command import Netlab
from places import ROOT
from typer.main import get_command

from netlab.cli.app import app
from netlab.cli.up import Options, plain

Typer = Callable[[tuple[str, ...]], Options | None]

WORDS = (
    *("--root", "--rootless", "--quiet", "-q", "--verbose", "-v", "--name", "--set", "--fix"),
    *("lab.yaml", "-", "vars.window=1", "be-liberal", "", "up"),
    *("--format", "json", "text"),
    *("--dry-run", "--help", "-h", "--nam", "--name=x", "--set=a=1", "-qv", "-x", "--no-root", "--"),
)
"""What people may write after `netlab up`: all that it knows, and what is not plain or wrong."""


@pytest.fixture
def typer(monkeypatch: pytest.MonkeyPatch) -> Typer:
    """What typer makes of the words after `netlab up`; None where it prints help or an error."""
    program = get_command(app("up"))
    built: list[Options] = []
    monkeypatch.setattr("netlab.cli.lifecycle.build", built.append)

    def read(words: tuple[str, ...]) -> Options | None:
        built.clear()
        try:
            program.main(["up", *words], "netlab", standalone_mode=False)
        except Exception:
            return None
        return built[0] if built else None

    return read


def sentences() -> Iterator[tuple[str, ...]]:
    """All of two words and fewer, and some longer ones."""
    for length in range(3):
        yield from product(WORDS, repeat=length)
    chance = random.Random(8)
    for _ in range(1500):
        yield tuple(chance.choices(WORDS[:16], k=chance.randint(3, 7)))


def test_typer_reads_plain_words_in_the_same_way(typer: Typer) -> None:
    read = [(words, found) for words in sentences() if (found := plain(words)) is not None]
    assert len(read) > 200
    assert [(words, typer(words)) for words, _ in read] == read


def test_every_option_but_dry_run_has_plain_words() -> None:
    words = "lab.yaml --set vars.mtu=1 --set vars.window=2 --fix be-liberal --fix syn-first --name mine --root -q -v"
    words += " --format json"
    assert plain(words.split()) == Options(
        topology="lab.yaml",
        settings=("vars.mtu=1", "vars.window=2"),
        fixes=("be-liberal", "syn-first"),
        name="mine",
        root=True,
        quiet=True,
        verbose=True,
        output="json",
    )
    assert plain([]) == Options()
    assert plain(["-", "--rootless", "--quiet", "--verbose"]) == Options("-", root=False, quiet=True, verbose=True)


@pytest.mark.parametrize(
    "words",
    [
        "a.yaml b.yaml",
        "--name",
        "--set -q",
        "--dry-run",
        "--help",
        "--name=x",
        "--format yaml",
        "-qv",
        "--nam x",
        "--",
        "--x",
    ],
)
def test_what_is_not_plain_is_left_to_typer(words: str) -> None:
    assert plain(words.split()) is None


MODULES = Path(__file__).with_name("up-modules.txt")


@pytest.mark.kernel
def test_up_imports_these_modules_and_no_others(netlab: Netlab, lab_name: str, privilege: str) -> None:
    argv = [sys.executable, str(ROOT / "scripts/up-modules"), privilege, "--name", lab_name]
    done = subprocess.run(argv, capture_output=True, text=True, env=netlab.environment(), timeout=120)
    assert done.returncode == 0, done.stderr
    # The last paragraph is the standard library's: what of itself it imports differs from Python to Python.
    (ours, python), (known, known_python) = (text.rsplit("\nPython ", 1) for text in (done.stdout, MODULES.read_text()))
    how = "where it is to be so: .venv/bin/python scripts/up-modules >tests/cli/up-modules.txt"
    assert ours == known, how
    if sys.version_info[:2] == (3, 11):
        assert python == known_python, how
