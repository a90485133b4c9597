"""`netlab up`: what its plain words mean, and that typer reads these in the same way."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import product

import pytest
from typer.main import get_command

from netlab.cli.app import app
from netlab.cli.up import Options, plain

Typer = Callable[[tuple[str, ...]], Options | None]

WORDS = (
    *("--root", "--rootless", "--quiet", "-q", "--verbose", "-v", "--name", "--set", "--fix"),
    *("lab.yaml", "-", "vars.window=1", "be-liberal", "", "up"),
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
        yield tuple(chance.choices(WORDS[:13], k=chance.randint(3, 7)))


def test_typer_reads_plain_words_in_the_same_way(typer: Typer) -> None:
    read = [(words, found) for words in sentences() if (found := plain(words)) is not None]
    assert len(read) > 200
    assert [(words, typer(words)) for words, _ in read] == read


def test_every_option_but_dry_run_has_plain_words() -> None:
    words = "lab.yaml --set vars.mtu=1 --set vars.window=2 --fix be-liberal --fix syn-first --name mine --root -q -v"
    assert plain(words.split()) == Options(
        topology="lab.yaml",
        settings=("vars.mtu=1", "vars.window=2"),
        fixes=("be-liberal", "syn-first"),
        name="mine",
        root=True,
        quiet=True,
        verbose=True,
    )
    assert plain([]) == Options()
    assert plain(["-", "--rootless", "--quiet", "--verbose"]) == Options("-", root=False, quiet=True, verbose=True)


@pytest.mark.parametrize(
    "words", ["a.yaml b.yaml", "--name", "--set -q", "--dry-run", "--help", "--name=x", "-qv", "--nam x", "--", "--x"]
)
def test_what_is_not_plain_is_left_to_typer(words: str) -> None:
    assert plain(words.split()) is None
