"""Kernels by request, among what a package archive lists."""

from __future__ import annotations

import pytest

from netlab.errors import UsageError
from netlab.kernels.choice import Package, choose, image_release, packages, series


def stanza(name: str, version: str, size: int = 50_000_000, depends: str = "kmod") -> str:
    """A package as `apt-cache dumpavail` lists it."""
    return (
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nDepends: {depends}\n"
        f"Size: {size}\nDescription: a kernel\n"
    )


SPLIT = "linux-base, linux-binary-7.3.4+deb13-amd64 (= 7.3.4-1), linux-modules-7.3.4+deb13-amd64 (= 7.3.4-1)"
LISTED = "\n".join(
    [
        stanza("bash", "5.2"),
        stanza("linux-image-7.3.4+deb13-amd64", "7.3.4-1", 2000, SPLIT),
        stanza("linux-binary-7.3.4+deb13-amd64", "7.3.4-1", 14_000_000),
        stanza("linux-modules-7.3.4+deb13-amd64", "7.3.4-1", 100_000_000),
        stanza("linux-image-7.0.2+deb13-amd64", "7.0.2-1", 2000, SPLIT.replace("7.3.4", "7.0.2")),
        stanza("linux-image-6.1.0-57-amd64", "6.1.192-3"),
        stanza("linux-image-6.1.0-9-amd64", "6.1.27-1"),
        stanza("linux-image-6.12.94+deb13-amd64", "6.12.94-1"),
        stanza("linux-image-5.10.0-46-amd64", "5.10.262-1"),
        stanza("linux-image-6.1-amd64", "6.1.192-3", 1000),
        stanza("linux-image-amd64", "6.12.94-1", 1000),
        stanza("linux-image-6.1.0-57-cloud-amd64", "6.1.192-3"),
        stanza("linux-image-6.12.94+deb13-rt-amd64", "6.12.94-1"),
        stanza("linux-image-6.1.0-57-amd64-dbg", "6.1.192-3"),
        stanza("linux-image-6.1.0-57-amd64-unsigned", "6.1.192-3"),
    ]
)
FOUND = packages(LISTED, "amd64")


def test_kernels_for_any_machine_are_found_oldest_first() -> None:
    """None that only names another, or of which the archive has but a part."""
    assert [package.release for package in FOUND] == [
        "5.10.0-46-amd64",
        "6.1.0-9-amd64",
        "6.1.0-57-amd64",
        "6.12.94+deb13-amd64",
        "7.3.4+deb13-amd64",
    ]
    assert series(FOUND) == ["5.10", "6.1", "6.12", "7.3"]


def test_a_kernel_in_parts_is_as_large_as_they_are() -> None:
    release = "7.3.4+deb13-amd64"
    names = (f"linux-binary-{release}", f"linux-modules-{release}")
    assert FOUND[-1] == Package(release, "7.3.4-1", 114_000_000, names)


@pytest.mark.parametrize(
    ("request_", "release"),
    [
        ("latest", "7.3.4+deb13-amd64"),
        ("6.1", "6.1.0-57-amd64"),
        ("6", "6.12.94+deb13-amd64"),
        ("6.1.27", "6.1.0-9-amd64"),
        ("6.1.0-9-amd64", "6.1.0-9-amd64"),
        ("5.10", "5.10.0-46-amd64"),
    ],
)
def test_the_newest_is_meant(request_: str, release: str) -> None:
    assert choose(request_, FOUND).release == release


@pytest.mark.parametrize("request_", ["6.2", "5.1", "6.1.0-9", "6.1.2"])
def test_what_there_is_not_is_told_with_what_there_is(request_: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose(request_, FOUND)
    assert str(caught.value) == (
        f"Debian has no package of a kernel {request_}\n  hint: there are: 5.10, 6.1, 6.12, 7.3"
    )


@pytest.mark.parametrize("request_", ["newest", "", "6.x", "../6.1", "6.1 ", "-1"])
def test_what_is_no_version_is_told(request_: str) -> None:
    with pytest.raises(UsageError, match="no kernel is called"):
        choose(request_, FOUND)


def bzimage(version: bytes) -> bytes:
    """The part of an image that says what it is."""
    header = bytearray(0x400)
    header[0x202:0x206] = b"HdrS"
    header[0x20E:0x210] = (0x100).to_bytes(2, "little")
    return bytes(header[:0x300]) + version


@pytest.mark.parametrize(
    ("image", "release"),
    [
        (bzimage(b"6.1.0-57-amd64 (debian-kernel) #1 SMP\0rest"), "6.1.0-57-amd64"),
        (b"\x7fELF" + bytes(100) + b"Linux version 7.1.0-rc3+ (me@here) #4", "7.1.0-rc3+"),
        (b"#!/bin/sh\n", None),
        (b"", None),
        (bzimage(b""), None),
        (b"Linux version ", None),
    ],
)
def test_an_image_says_its_release(image: bytes, release: str | None) -> None:
    assert image_release(image) == release
