"""Files are written whole or not at all, and an error names them."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from netlab.linux.files import write_whole


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"before")
    link.symlink_to(real)
    write_whole(link, b"after")
    assert (link.is_symlink(), real.read_bytes()) == (True, b"after")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_what_is_no_ordinary_file_is_written_to() -> None:
    write_whole(Path("/dev/null"), b"gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_full_disk_is_an_error_that_names_the_file() -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_whole(Path("/dev/full"), b"too much")
    assert caught.value.filename == "/dev/full"
