"""Experiments as documents: the reference page, and one written from it."""

from __future__ import annotations

from pathlib import Path

import vocabulary

from netlab.experiments import catalogue

TOPOLOGIES = Path(__file__).parent.parent / "topologies"


def test_the_page_has_the_whole_vocabulary() -> None:
    page = vocabulary.PAGE.read_text()
    assert vocabulary.put(page) == page, "run `python tests/vocabulary.py`"


def test_every_shipped_experiment_is_sound() -> None:
    files = sorted((TOPOLOGIES / "experiments").glob("*.yaml"))
    assert files
    for file in files:
        (play,) = catalogue.plays(file.read_text(), str(file))
        assert play.experiment.name == file.stem
