"""What holds for every kind of link, whatever it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from places import DATA

from netlab.links import KINDS
from netlab.topology import load

LINKS = load((DATA / "everything.yaml").read_text(), "everything.yaml").links
COMPARED = {kind.name: {attribute.name for attribute in kind.compared} for kind in KINDS}


class Asked(Mapping[str, int]):
    """The data of a link that has of everything what suits, and which of it was asked for."""

    def __init__(self, data: Mapping[str, int]) -> None:
        self.data = data
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> int:
        self.names.add(name)
        return self.data.get(name, 0)

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("only what is compared is read from the kernel")

    def __len__(self) -> int:
        raise AssertionError("only what is compared is read from the kernel")


@pytest.mark.parametrize("kind", sorted(COMPARED))
def test_what_a_link_is_asked_for_is_read_from_the_kernel(kind: str) -> None:
    for link in LINKS:
        if link.kind == kind:
            given = {attribute.name: value for attribute, value in link.data() if isinstance(value, int)}
            asked = Asked(given)
            link.fits(asked, None)
            assert asked.names <= COMPARED[kind]
