"""The site: scripts/site builds it from docs/ alone, with every page, and what opens it asks for nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import labs
import pytest
import yaml
from chromium import Browser
from places import DOCS, ROOT

NAV = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]


def paths(nav: object) -> list[str]:
    """The pages of a navigation, in order."""
    if isinstance(nav, str):
        return [nav]
    children = nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else []
    return [path for child in children for path in paths(child)]


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(paths(NAV)) == sorted(path.name for path in DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in a directory of its own where everything is installed already."""
    root = tmp_path_factory.mktemp("clone")
    (root / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/site", root / "scripts/site")
    (root / "scripts/setup").write_text("#!/bin/sh\n")
    (root / "scripts/setup").chmod(0o755)
    shutil.copy(ROOT / "mkdocs.yml", root)
    shutil.copytree(DOCS, root / "docs")
    (root / ".venv").symlink_to(ROOT / ".venv")
    done = subprocess.run([root / "scripts/site"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return root / "site"


def test_the_site_has_every_page(site: Path) -> None:
    for path in paths(NAV):
        assert (site / path).with_suffix(".html").is_file(), path


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    """But for links that a reader follows."""
    for page in site.glob("*.html"):
        text = page.read_text()
        loaded = re.findall(r"<(?!a\b)[a-z]+\b[^>]*?\b(?:src|href)=\"?((?:https?:)?//[^\"\s>]*)", text)
        assert loaded == [], page.name
        assert "@import" not in text


def test_a_page_shows_its_words(site: Path) -> None:
    text = (site / "start.html").read_text()
    assert "<h1" in text and "An address that nobody has" in text


def test_the_search_works_offline(site: Path, browser: Browser) -> None:
    """Out of files: a browser starts no worker from those."""
    browser.open(site / "index.html", 1280)
    browser.value('document.querySelector("button.md-search__button").click()')
    labs.until(lambda: bool(browser.value(FOCUSED)), "the search")
    browser.call("Input.insertText", text="retransmission")
    labs.until(lambda: re.search(r"[0-9]+ results", browser.value(SHOWN)) is not None, "what was found")
    assert browser.complaints() == []


_SEARCH = "[...document.querySelectorAll('*')].find(each => each.shadowRoot)?.shadowRoot"
FOCUSED = f"{_SEARCH}?.activeElement?.tagName === 'INPUT'"
SHOWN = f"{_SEARCH}?.textContent ?? ''"
