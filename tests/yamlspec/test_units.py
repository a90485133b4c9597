"""tc's notation of sizes, rates and times becomes the numbers that tc takes it for."""

from __future__ import annotations

import pytest

from netlab.yamlspec import units


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("16kb", 16384),
        ("1600", 1600),
        ("1600b", 1600),
        ("1.5k", 1536),
        ("2M", 2097152),
        ("1gb", 2**30),
        ("8kbit", 1024),
    ],
)
def test_sizes_are_bytes_and_k_is_1024(text: str, number: int) -> None:
    assert units.size_bytes(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("8bit", 1), ("1mbit", 125_000), ("1.6Mbit", 200_000), ("2gbit", 250_000_000), ("1tbit", 125_000_000_000)),
        *(("1kibit", 128), ("1mibit", 131_072), ("7bps", 7), ("125kbps", 125_000), ("1mibps", 1_048_576)),
    ],
)
def test_rates_are_bytes_a_second_and_k_is_1000(text: str, number: int) -> None:
    assert units.rate_bytes_per_s(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("50ms", 50_000), ("50msec", 50_000), ("50msecs", 50_000), ("0.5s", 500_000), ("2sec", 2_000_000)),
        *(("2secs", 2_000_000), ("7us", 7), ("7usec", 7), ("7usecs", 7)),
    ],
)
def test_times_are_microseconds(text: str, number: int) -> None:
    assert units.time_us(text) == number


def test_what_is_no_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="fast"):
        units.rate_bytes_per_s("fast")
