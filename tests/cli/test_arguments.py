"""What the arguments of commands stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlab.cli.arguments import check_place
from netlab.errors import UsageError


@pytest.mark.parametrize("place", [".", "nowhere/f"])
def test_where_nothing_can_be_written(tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_place(tmp_path / place)
    assert str(caught.value) == (
        f"{tmp_path / place} can't be written\n  hint: name a file in a directory that is there"
    )
