"""Fuzz targets: a bundle, as a zip with its bytes damaged."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fuzzing import Target, damaged
from places import DATA

from netlab.analysis.findings import analyse
from netlab.analysis.telling import tell
from netlab.report import bundle, explanation, text
from netlab.report import json as as_json

BUNDLES = tuple(path.read_bytes() for path in sorted((DATA / "bundles").glob("*.zip")))


def _bundle(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "b.zip"
        file.write_bytes(data)
        read = bundle.read(file)
    text.render(read.result)
    as_json.render(read.result)
    explanation.render(tell(analyse(read.recording)))


TARGETS = (Target("bundle", _bundle, damaged(BUNDLES)),)
