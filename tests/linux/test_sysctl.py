"""A sysctl's key names its file as sysctl(8) has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from netlab.linux import sysctl


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/5.rp_filter", "/proc/sys/net/ipv4/conf/eth0.5/rp_filter"),
    ],
)
def test_the_file_of_a_sysctl(key: str, path: str) -> None:
    assert sysctl.path(key) == Path(path)


def test_a_value_is_read_with_its_blanks_folded() -> None:
    assert sysctl.read("net.ipv4.ip_local_port_range").count(" ") == 1


def test_a_sysctl_that_is_not_there_is_a_file_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        sysctl.read("net.ipv4.no_such_thing")
