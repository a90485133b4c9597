"""`netlab status`: typer reads its plain words in the same way, and they need none of it."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import pytest
from command import Netlab
from typer.main import get_command

from netlab.cli.app import app
from netlab.cli.status import Options, plain

WORDS = ("lab", "other", "-", "", "--format", "text", "json", "yaml", "--format=json", "--help", "-h", "--", "--form")


def test_typer_reads_plain_words_in_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    program = get_command(app("status"))
    asked: list[Options] = []
    monkeypatch.setattr("netlab.cli.lifecycle.show", asked.append)
    sentences = [words for length in range(5) for words in product(WORDS, repeat=length)]
    read = [(words, found) for words in sentences if (found := plain(words)) is not None]
    assert len(read) > 30
    for words, found in read:
        asked.clear()
        program.main(["status", *words], "netlab", standalone_mode=False)
        assert asked == [found], words


def test_plain_words_need_no_typer(netlab: Netlab) -> None:
    argv = [sys.executable, "-X", "importtime", "-c", "from netlab.__main__ import main; main()", "status"]
    for words in ([], ["--format", "json"]):
        done = subprocess.run([*argv, *words], capture_output=True, text=True, env=netlab.environment(), timeout=60)
        assert done.returncode == 0
        assert done.stdout == netlab("status", *words).stdout
        assert "netlab.lab.overview" in done.stderr
        assert "typer" not in done.stderr
