"""An HTML page taken apart, for tests of what is on it."""

from __future__ import annotations

from html.parser import HTMLParser

from netlab.report.markup import VOID


class Document(HTMLParser):
    """A page's elements in order, as (path of tag names, attributes, own text)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[tuple[str, ...], dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), attrs
        path = (*(self.elements[index][0][-1] for index in self._open), name)
        self.elements.append((path, dict(attrs), []))
        if name not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, name: str) -> None:
        assert self.elements[self._open.pop()][0][-1] == name

    def handle_data(self, data: str) -> None:
        for index in self._open:
            self.elements[index][2].append(data)

    def all(self, name: str) -> list[tuple[dict[str, str | None], str]]:
        """Attributes and text of every element of that name."""
        return [(attrs, "".join(text)) for path, attrs, text in self.elements if path[-1] == name]

    def section(self, heading: str) -> str:
        """All text of the section with that h2."""
        return next(text for attrs, text in self.all("section") if attrs.get("aria-labelledby") == heading)
