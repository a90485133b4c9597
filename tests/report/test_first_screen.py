"""The first screen of a report: the outcome in a sentence, the packets that decided it, what to do."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pictures
import pytest
import story
from chromium import Browser
from html_files import Document

from netlab.analysis.findings import analyse
from netlab.analysis.result import Advice, Load, Outcome, Result
from netlab.kubeproxy.fixes import FIXES
from netlab.kubeproxy.remedies import REMEDIES
from netlab.model import UserFix
from netlab.record.events import ACK, RST
from netlab.report import html
from netlab.report.html import advice
from netlab.report.html.drawn import draw
from netlab.report.html.summary import tone
from netlab.report.post_svg import figure
from netlab.report.sentence import sentence
from netlab.topology import load

ADVICE = Advice(
    outcomes=(
        ("drop-invalid", Outcome.COMPLETED),
        ("be-liberal", Outcome.COMPLETED),
        ("nftables-mode", Outcome.RESET),
        ("notrack", Outcome.COMPLETED),
    ),
    kernels="all",
    see=(("The post", "https://kubernetes.io/blog/"), ("a trap", "javascript:alert(1)")),
)
PARTLY: dict[str, Any] = {"bytes_received": 2304, "ended": False}


def page(events: list[Any], fixes: tuple[str, ...] = (), advice: Advice = ADVICE, **changes: Any) -> str:
    """The page of a hand-made run of the flagship's experiment, which is reset without a fix."""
    partly = PARTLY if events == pictures.reset() else {}
    result, recording = pictures.run(events, fixes=fixes, **partly)
    expected = Outcome.COMPLETED if fixes else Outcome.RESET
    result = replace(result, expected=expected, plain=Outcome.RESET, advice=advice, **changes)
    return html.render(result, analyse(recording))


def judged(outcomes: list[Outcome], **changes: Any) -> Result:
    """A Result of trials that ended so."""
    result, _ = pictures.run(pictures.reset(), **PARTLY)
    trials = tuple(replace(result.trials[0], outcome=outcome) for outcome in outcomes)
    return replace(result, trials=trials, **changes)


R, C, S, U = Outcome.RESET, Outcome.COMPLETED, Outcome.STALLED, Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (judged([R, R], expected=R, plain=R), "The connection is reset in 2 of 2 trials."),
        (judged([C, C], expected=C, plain=C), "The connection survives in 2 of 2 trials."),
        (judged([C], expected=R, plain=R), "The connection survives in the one trial, against the claim."),
        (
            judged([C, C, R], expected=C, plain=C),
            "The connection survives in 2 of 3 trials, 1 reset, against the claim.",
        ),
        (
            judged([C, C], expected=C, plain=R, fixes=("be-liberal",)),
            "With be-liberal the connection survives in 2 of 2 trials.",
        ),
        (
            judged([R], expected=R, plain=R, fixes=("nftables-mode",)),
            "With nftables-mode the connection is still reset in the one trial.",
        ),
        (
            judged([R], plain=R, fixes=("nftables-mode",)),
            "With nftables-mode the connection is still reset in the one trial.",
        ),
        (
            judged([S], expected=S, plain=R, fixes=("drop-invalid",)),
            "With drop-invalid the connection stalls in the one trial.",
        ),
        (judged([R, U], expected=R, plain=R), "Nothing is proved: 1 of 2 trials can't be judged."),
        (judged([], expected=R, plain=R), "No trial was run."),
    ],
)
def test_every_outcome_has_its_sentence(result: Result, said: str) -> None:
    assert sentence(result) == said


REFUTED = "a RST that is INVALID; saw none"


def refuted(outcomes: list[Outcome], **changes: Any) -> Result:
    """A Result of trials that ended so, in each of which the kernel did otherwise."""
    result = judged(outcomes, **changes)
    trials = tuple(replace(trial, refuted=REFUTED, missing=("a RST that is INVALID",)) for trial in result.trials)
    return replace(result, trials=trials)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (
            refuted([U, U], expected=C, plain=C),
            "The kernel does otherwise than the document expects in 2 of 2 trials.",
        ),
        (
            refuted([U], expected=C, plain=R, fixes=("be-liberal",)),
            "With be-liberal the kernel does otherwise than the document expects in the one trial.",
        ),
        (
            judged([C, U, U], expected=R, plain=R),
            "The connection survives in 1 of 3 trials, 2 inconclusive, against the claim.",
        ),
    ],
)
def test_a_claim_is_refuted_by_something_that_was_seen(result: Result, said: str) -> None:
    assert sentence(result) == said


def test_a_page_of_a_refuted_claim_says_what_was_seen_not_to_be_so() -> None:
    result, recording = pictures.run(pictures.accepted())
    trial = replace(result.trials[0], outcome=U, refuted=REFUTED, missing=("a RST that is INVALID",))
    said = Document(html.render(replace(result, trials=(trial,), expected=C, plain=C), analyse(recording)))
    assert next(text for attrs, text in said.all("p") if attrs.get("class") == "meaning") == (
        "The document expects this, and it was not so:"
    )
    assert [text for attrs, text in said.all("ul") if attrs.get("class") == "missing"] == [
        f"{REFUTED} (in 1 of 1 trials)"
    ]
    assert any(text.endswith("bytes: refuted") for _, text in said.all("text"))
    assert any(text.startswith("1 refuted in") for _, text in said.all("dd"))
    assert not any("inconclusive" in text for kind in ("text", "li") for _, text in said.all(kind))


@pytest.mark.parametrize(
    ("result", "prevents"),
    [
        (refuted([U, U], expected=C, plain=R, fixes=("be-liberal",)), None),
        (refuted([C, U], expected=C, plain=R, fixes=("be-liberal",)), None),
        (refuted([R, U], expected=C, plain=R, fixes=("be-liberal",)), False),
        (judged([C, C], expected=C, plain=R, fixes=("be-liberal",)), True),
    ],
)
def test_a_fix_fails_only_where_the_connection_was_seen_to_end(result: Result, prevents: bool | None) -> None:
    assert result.prevents is prevents


def test_a_stall_has_not_the_colour_of_what_survives() -> None:
    kinds = [tone(judged([outcome], expected=outcome, plain=R, fixes=("drop-invalid",))) for outcome in (R, S, C, U)]
    assert kinds == ["reproduced", "harmed", "not-reproduced", "inconclusive"]


def test_a_load_is_told_by_its_connections() -> None:
    result = judged([R], expected=R, plain=R)
    other = result.trials[0]
    for completed, others, said in (
        (999, (other,), "1 of 1,000 connections are reset."),
        (1000, (), "None of 1,000 connections is reset."),
    ):
        load = Load(completed, others, None, 0, 0)
        assert sentence(replace(result, trials=(replace(other, load=load),))) == said


def test_what_to_do_names_what_helps_and_how_it_is_set() -> None:
    document = Document(page(pictures.reset()))
    said = next(text for attrs, text in document.all("div") if attrs.get("class") == "advice")
    for words in (
        "sysctl -w net.netfilter.nf_conntrack_tcp_be_liberal=1",
        "iptables -I FORWARD -m conntrack --ctstate INVALID -j DROP",
        "always in v1.15 to v1.28, in iptables mode (kubernetes#74840)",
        "Costs: Conntrack no longer keeps forged or late segments out",
        "Helps too: notrack",
        "Doesn't help: nftables-mode (reset).",
        "Kernels: all. This one is 6.18.44.",
    ):
        assert words in said
    links = {text: attrs["href"] for attrs, text in document.all("a")}
    assert links["The post"] == "https://kubernetes.io/blog/"
    assert "a trap" not in links
    assert "a trap" in said


def test_where_the_document_names_no_fix_the_page_says_which_to_try() -> None:
    document = Document(page(pictures.reset(), advice=Advice()))
    said = next(text for attrs, text in document.all("div") if attrs.get("class") == "advice")
    assert said.endswith("names no fix; to try those against INVALID, add--compare drop-invalid,be-liberal")


def test_beside_others_what_was_seen_to_help_is_advised() -> None:
    plain = replace(judged([R, R], expected=R, plain=R), advice=Advice(outcomes=(("drop-invalid", C),)))
    others = [
        judged([R, R], plain=R, fixes=("drop-invalid",)),
        judged([C, C], plain=R, fixes=("be-liberal",)),
        judged([C, R], plain=R, fixes=("nftables-mode",)),
        judged([U, U], plain=R, fixes=("notrack",)),
        judged([C, C], plain=R, fixes=("be-liberal", "notrack")),
    ]
    assert advice.tried(plain, others).advice.outcomes == (("drop-invalid", C), ("be-liberal", C), ("nftables-mode", R))


def test_what_helps_without_a_fix_comes_first() -> None:
    document = Document(page(pictures.reset(), advice=replace(ADVICE, remedy="A longer timeout.")))
    said = next(text for attrs, text in document.all("div") if attrs.get("class") == "advice")
    assert said.startswith("What to doWithout a fix: A longer timeout.drop-invalid")


def test_where_the_claim_did_not_hold_no_fix_is_advised() -> None:
    document = Document(page(pictures.accepted(), advice=replace(ADVICE, remedy="Pray.")))
    said = next(text for attrs, text in document.all("div") if attrs.get("class") == "advice")
    assert said.startswith("What to doThe document's claim did not hold here, so none of its fixes is advised.Kernels")
    assert "Pray." not in said


def test_a_fix_of_the_topologys_own_says_what_it_costs_and_how_it_is_set() -> None:
    own = UserFix(
        "no-sack", "no selective acknowledgements", "Each loss costs a timeout.", "sysctl -w net.ipv4.tcp_sack=0"
    )
    result, _ = pictures.run(pictures.reset(), **PARTLY)
    advised = replace(ADVICE, outcomes=(("no-sack", C),))
    run = replace(result, expected=R, plain=R, advice=advised)
    said = advice.render(run, load(pictures.TOPOLOGY, "-")._replace(fixes=(own,)))
    words = next(text for attrs, text in Document(said).all("div") if attrs.get("class") == "advice")
    assert "no-sackno selective acknowledgementssysctl -w net.ipv4.tcp_sack=0Costs: Each loss costs a timeout." in words


def test_the_fix_of_the_run_comes_first() -> None:
    document = Document(page(pictures.accepted(), ("be-liberal",)))
    said = next(text for attrs, text in document.all("div") if attrs.get("class") == "advice")
    assert said.startswith("What to dobe-liberal as in this run")


def test_where_it_does_no_harm_there_is_nothing_to_do() -> None:
    result, recording = pictures.run(pictures.accepted())
    result = replace(result, expected=C, plain=C, advice=replace(ADVICE, remedy="Pray."))
    document = Document(html.render(result, analyse(recording)))
    said = next(text for attrs, text in document.all("div") if attrs.get("class") == "advice")
    assert "Nothing: on this kernel it does no harm, with a fix or without one." in said
    assert "Pray." not in said


@pytest.mark.parametrize("events", [pictures.reset(), pictures.accepted(), pictures.dropped()])
def test_no_page_of_a_fix_keeps_the_claim_as_what_happened(events: list[Any]) -> None:
    fixes = () if events == pictures.reset() else ("drop-invalid",)
    names = [text for _, text in Document(page(events, fixes, explanation="It dies.")).all("dt")]
    assert ("Claim" in names) is not bool(fixes)
    assert ("Claim without a fix" in names) is bool(fixes)
    assert ("Why without a fix" in names) is bool(fixes)


def test_the_figure_has_the_five_packets_with_their_addresses() -> None:
    result, _ = pictures.run(pictures.reset(), **PARTLY)
    drawn = figure(result.trials[0])
    assert drawn is not None
    texts = [text for attrs, text in Document(drawn).all("text") if attrs.get("class") in ("ends", "number")]
    assert texts == [
        *("1", "10.0.0.2:40000 → 192.168.0.2:80"),
        *("2", "10.0.0.2:40000 → 10.0.1.2:8080"),
        *("3", "10.0.1.2:8080 → 10.0.0.2:40000"),
        *("4", "10.0.1.2:8080 → 10.0.0.2:40000"),
        *("5", "10.0.0.2:40000 → 10.0.1.2:8080"),
    ]
    words = {text for attrs, text in Document(drawn).all("text") if (attrs.get("class") or "").startswith("pill-text")}
    assert words == {"NAT", "INVALID"}


def test_the_figure_says_what_made_a_rst_that_answers_no_untranslated_reply() -> None:
    seq, ack, _ = story.REPLY
    events = [*pictures.opening(), *pictures.to_client(60, RST | ACK, seq, ack), story.error(90, "client")]
    result, recording = pictures.run(events, **PARTLY)
    drawn = draw(result, analyse(recording))
    assert drawn is not None
    texts = " ".join(text for _, text in Document(drawn.figure() or "").all("text"))
    assert "server aborts the connection itself" in texts
    assert "no such connection" not in texts


def test_what_is_dropped_is_drawn_so() -> None:
    result, _ = pictures.run(pictures.dropped(), fixes=("drop-invalid",))
    drawn = figure(result.trials[0])
    assert drawn is not None
    assert "INVALID · DROP" in [text for _, text in Document(drawn).all("text")]


def test_every_fix_has_its_costs() -> None:
    assert list(REMEDIES) == list(FIXES)


# --- in a browser ----------------------------------------------------------------------------------------------------

OVER_EACH_OTHER = """[...document.querySelectorAll("svg.post")].flatMap(svg => {
  const texts = [...svg.querySelectorAll("text")];
  const boxes = texts.map(text => text.getBBox());
  return texts.filter((text, i) => boxes.some((other, j) => j > i && other.x < boxes[i].x + boxes[i].width
    && other.x + other.width > boxes[i].x && other.y + 3 < boxes[i].y + boxes[i].height
    && other.y + other.height > boxes[i].y + 3)).map(text => text.textContent);
})"""
"""The texts of the figure that stand on another one."""


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_outcome_figure_and_advice_are_on_the_first_screen(
    browser: Browser, tmp_path: Path, width: int, height: int
) -> None:
    file = tmp_path / "page.html"
    file.write_text(page(pictures.reset()), encoding="utf-8")
    browser.open(file, width, height=height)
    seen = 'document.querySelector("{}").getBoundingClientRect().bottom <= innerHeight'
    for what in ("h1", "svg.post", "#advice", ".fixes pre"):
        assert browser.value(seen.format(what)), what


@pytest.mark.parametrize(("width", "name"), [*product([390, 768, 1280, 1920], ["reset", "dropped", "accepted"])])
def test_no_words_of_the_figure_are_in_the_way(browser: Browser, tmp_path: Path, width: int, name: str) -> None:
    events = {"reset": pictures.reset(), "dropped": pictures.dropped(), "accepted": pictures.accepted()}[name]
    file = tmp_path / "page.html"
    file.write_text(page(events, () if name == "reset" else ("drop-invalid",)), encoding="utf-8")
    browser.open(file, width)
    assert browser.value(OVER_EACH_OTHER) == []
    assert browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
