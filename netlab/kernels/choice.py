"""Kernels by request: "5.10", "6.12.94", "latest" among those that Debian packages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from netlab.errors import UsageError

LATEST = "latest"

_REQUEST = re.compile(r"\d+(\.\d+)*([-+][\w.+~-]+)?")
_FIELD = re.compile(r"^(Package|Version|Architecture|Size|Depends): (.*)$", re.MULTILINE)


class Package(NamedTuple):
    """A packaged kernel: uname's release, the package's version, and the names of what holds its image and modules."""

    release: str
    version: str
    size_bytes: int
    names: tuple[str, ...]

    @property
    def order(self) -> tuple[tuple[int, ...], str]:
        """Newer ones are greater."""
        return (*_numbers(self.version),), self.version


def _numbers(text: str) -> tuple[int, ...]:
    upstream = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, upstream[0].split("."))) if upstream else ()


def packages(available: str, flavour: str) -> list[Package]:
    """The kernels in what `apt-cache dumpavail` prints, oldest first.

    flavour is the last part of their releases, as amd64: that of kernels for any machine, which have 9p.
    """
    stanzas = [dict(_FIELD.findall(text)) for text in available.split("\n\n")]
    sizes = {each["Package"]: int(each.get("Size", 0)) for each in stanzas if "Package" in each}
    # "6.1.0-57-amd64" and "6.12.94+deb13-amd64"; "6.1-amd64" is a package that only names another.
    named = re.compile(rf"linux-image-(\d+\.\d+\.\d[\d.]*(?:\+\w[\w.]*)?(?:-\d[\w.]*)?-{re.escape(flavour)})")
    found = []
    for each in stanzas:
        if (match := named.fullmatch(each.get("Package", ""))) and "Version" in each:
            release = match[1]
            # From 6.19 on image and modules are packages of their own, of which an archive may keep only one.
            split = (f"linux-binary-{release}", f"linux-modules-{release}")
            names = split if split[0] in each.get("Depends", "") else (each["Package"],)
            if not all(name in sizes for name in names):
                continue
            found.append(Package(release, each["Version"], sum(sizes[name] for name in names), names))
    return sorted(found, key=lambda package: package.order)


def choose(request: str, among: Sequence[Package]) -> Package:
    """The newest kernel that a request means; UsageError where it means none, with those that there are."""
    if request != LATEST and not _REQUEST.fullmatch(request):
        raise UsageError(
            f"no kernel is called {request!r}", 'say a version, as "6.1" or "6.12.94", "latest", or a file: ./bzImage'
        )
    wanted = _numbers(request)
    meant = [
        package
        for package in among
        if request in (LATEST, package.release) or (_is_version(request) and _begins(package, wanted))
    ]
    if not meant:
        raise UsageError(
            f"Debian has no package of a kernel {request}", f"there are: {', '.join(series(among)) or 'none'}"
        )
    return meant[-1]


def _is_version(request: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)*", request) is not None


def _begins(package: Package, wanted: tuple[int, ...]) -> bool:
    return _numbers(package.version)[: len(wanted)] == wanted


def series(packages: Iterable[Package]) -> list[str]:
    """The versions that the kernels are of, as 6.12, oldest first."""
    return list(dict.fromkeys(".".join(map(str, _numbers(package.version)[:2])) for package in packages))


def image_release(image: bytes) -> str | None:
    """The release of a kernel, from its image: x86's bzImage (Documentation/arch/x86/boot.rst) or one that is not
    compressed; None where this is neither."""
    if image[0x202:0x206] == b"HdrS":
        begin = int.from_bytes(image[0x20E:0x210], "little") + 0x200
        text = image[begin : begin + 200].partition(b"\0")[0].decode(errors="replace")
    else:
        at = image.find(_BANNER)
        text = "" if at < 0 else image[at + len(_BANNER) : at + 200].decode(errors="replace")
    release = text.partition(" ")[0]
    return release if re.fullmatch(r"\d[\w.+~-]+", release) else None


_BANNER = b"Linux version "
