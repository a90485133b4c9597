"""The topologies and experiments that come with netlab, by name, wherever it is installed.

A wheel has them inside the package; in a checkout they are `topologies/`, beside it. No other file knows where.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_PACKAGE = Path(__file__).parent
_PLACES = (_PACKAGE / "topologies", _PACKAGE.parent / "topologies")
_EXPERIMENTS = "experiments"


def directory() -> Path | None:
    """Where they are; None where this netlab was installed without them."""
    return next((place for place in _PLACES if (place / _EXPERIMENTS).is_dir()), None)


def topologies() -> dict[str, Path]:
    """The file of each topology, by its name, in the order of the names."""
    return dict(_named(""))


def experiments() -> dict[str, Path]:
    """The file of each experiment, by its name, in the order of the names."""
    return dict(_named(_EXPERIMENTS))


def find(name: str) -> Path | None:
    """The file of the topology of this name, else of the experiment; None where neither is."""
    return (experiments() | topologies()).get(name)


def has(path: str) -> bool:
    """Whether a file is one of netlab's own."""
    root = directory()
    return root is not None and Path(path).resolve().is_relative_to(root.resolve())


def _named(below: str) -> Iterator[tuple[str, Path]]:
    root = directory()
    if root is not None:
        yield from ((path.stem, path) for path in sorted((root / below).glob("*.yaml"), key=_stem))


def _stem(path: Path) -> str:
    return path.stem
