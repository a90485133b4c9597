"""The HTML report of hand-made runs: what it says, how it is built, and how a real browser shows it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from importlib.resources import files
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import pictures
import pytest
from chromium import Browser
from command import Netlab
from html_files import Document
from places import TOPOLOGIES

from netlab.analysis.findings import analyse
from netlab.analysis.result import Result
from netlab.record.events import SYN, Packet, TraceStep
from netlab.record.observers import ObserverId, ObserverKind, Unobserved
from netlab.record.recording import Recording
from netlab.report import graph, html
from netlab.report.graph import BOX_WIDTH, Box, route
from netlab.report.markup import tag, wrap_text
from netlab.topology import read

LOST = ((ObserverId(ObserverKind.PACKETS, "client", "eth0"), 3), (ObserverId(ObserverKind.REASONS, "client-node"), 0))


@cache
def run(name: str) -> tuple[Result, Recording]:
    """The hand-made run of that name."""
    partly: dict[str, Any] = {"bytes_received": 2304, "ended": False}
    match name:
        case "reset":
            return pictures.run(pictures.reset(), **partly)
        case "dropped":
            return pictures.run(pictures.dropped(), fixes=("drop-invalid",))
        case "accepted":
            return pictures.run(pictures.accepted(), fixes=("be-liberal",))
        case "stalled":
            return pictures.run(pictures.stalled(), fixes=("drop-invalid",), **partly)
        case "inconclusive":
            return pictures.run(pictures.reset(), lost=LOST, **partly)
    assert name == "no trials"
    return pictures.run()


RUNS = ("reset", "dropped", "accepted", "stalled", "inconclusive", "no trials")


CHAIN = "Every step from the untranslated packet to the reset socket was seen in the kernel, in order."
UNHARMED = "The experiment's steps took place in every trial, and every byte arrived."
UNJUDGED = "It can't be judged, because this is missing:"


def rendered(result: Result, recording: Recording) -> str:
    return html.render(result, analyse(recording))


def page(name: str) -> Document:
    """The report of that run."""
    return Document(rendered(*run(name)))


@pytest.mark.parametrize(
    ("name", "verdict", "sentence", "meaning"),
    [
        ("reset", "REPRODUCED 1/1", "The connection is reset in the one trial.", CHAIN),
        (
            "dropped",
            "NOT REPRODUCED 0/1 reset",
            "With drop-invalid the connection survives in the one trial.",
            UNHARMED,
        ),
        (
            "accepted",
            "NOT REPRODUCED 0/1 reset",
            "With be-liberal the connection survives in the one trial.",
            UNHARMED,
        ),
        (
            "stalled",
            "INCONCLUSIVE 1/1 undecided",
            "With drop-invalid nothing is proved: the one trial can't be judged.",
            UNJUDGED,
        ),
        (
            "inconclusive",
            "INCONCLUSIVE 1/1 undecided",
            "Nothing is proved: the one trial can't be judged.",
            UNJUDGED,
        ),
        ("no trials", "INCONCLUSIVE 0/0 undecided", "No trial was run.", "No trial was run."),
    ],
)
def test_the_answer_stands_on_top(name: str, verdict: str, sentence: str, meaning: str) -> None:
    document = page(name)
    assert [text for _, text in document.all("h1")] == [sentence]
    of_class = {attrs["class"]: text for attrs, text in document.all("p") if attrs.get("class")}
    assert next(text for kind, text in of_class.items() if kind and kind.startswith("verdict")) == verdict
    assert of_class["meaning"] == meaning
    assert document.all("title")[0][1] == f"{verdict}: window-overrun in kube-proxy-reset"


def test_the_facts_of_the_run() -> None:
    document = page("dropped")
    names, values = document.all("dt"), document.all("dd")
    facts = zip(names, values, strict=True)
    assert [f"{name}: {value}" for (word, name), (_, value) in facts if not word] == [
        "Experiment: window-overrun",
        "Claim without a fix: A burst past the client's small window makes NAT skip packets, and the connection is "
        "reset.",
        "Lab: kube-proxy-reset",
        "About the lab: A connection reset through conntrack's INVALID",
        "Fixes: drop-invalid",
        "Kernel: 6.18.44",
        "Trials: 1 completed in 0.0 s; 10,000 of 10,000 bytes arrived; events lost: 0",
    ]


@pytest.mark.parametrize("name", RUNS[:-1])
def test_every_section_is_there(name: str) -> None:
    assert [text for _, text in page(name).all("h2")] == [
        *(["What to do"] if name == "reset" else []),
        "What happened, step by step",
        "The packets, across the namespaces",
        "The window",
        "The way through the rules",
        "Evidence",
        "The lab",
        "What was not seen",
        "All trials",
        "How to repeat it",
        "Words",
    ]


def test_a_run_without_trials_has_no_pictures_of_packets() -> None:
    document = page("no trials")
    assert [text for _, text in document.all("h2")] == [
        "The lab",
        "What was not seen",
        "All trials",
        "How to repeat it",
        "Words",
    ]
    assert len(document.all("svg")) == 1


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        ("reset", {"NAT": 7, "INVALID": 4}),
        ("dropped", {"NAT": 12, "INVALID · LOST": 1}),
        ("accepted", {"NAT": 12}),
        ("stalled", {"NAT": 7, "INVALID · LOST": 1}),
        ("inconclusive", {"NAT": 7, "INVALID": 4}),
    ],
)
def test_the_ladder_marks_with_words(name: str, marks: dict[str, int]) -> None:
    document = page(name)
    pills = [
        "".join(texts)
        for path, attrs, texts in document.elements
        if path[-2:] == ("a", "text") and (attrs.get("class") or "").startswith("pill-text")
    ]
    assert Counter(pills) == marks


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("reset", "#8 ends 4,767 bytes past what the client allowed; this kernel forgives 3,070: INVALID."),
        ("dropped", "#8 ends 4,767 bytes past what the client allowed; this kernel forgives 3,070: INVALID."),
        (
            "accepted",
            "#8 ends 4,767 bytes past what the client allowed; this kernel forgives 3,070: accepted all the same.",
        ),
    ],
)
def test_the_window_chart_says_what_it_shows(name: str, sentence: str) -> None:
    document = page(name)
    assert sentence in document.section("window")
    (chart,) = [attrs for attrs, _ in document.all("svg") if attrs.get("class") == "chart"]
    assert chart["aria-label"] == f"Window chart. {sentence}"


@pytest.mark.parametrize(("kernel", "capabilities"), [("5.10.0", ()), ("6.18.0", (("forgives-late-segments", False),))])
def test_without_forgiveness_there_is_no_line_for_it(kernel: str, capabilities: tuple[tuple[str, bool], ...]) -> None:
    result, recording = run("reset")
    recording = replace(recording, kernel=kernel, capabilities=capabilities)
    old = Document(rendered(replace(result, kernel=kernel), recording))
    assert "#8 ends 4,767 bytes past what the client allowed: INVALID." in old.section("window")
    assert [attrs for attrs, _ in old.all("path") if attrs.get("class") == "limit"] == []


def test_the_evidence_has_namespace_interface_time_and_packet() -> None:
    document = page("reset")
    cells = [
        (attrs.get("data-name"), text)
        for path, attrs, texts in document.elements
        if path[-1] == "td" and (text := "".join(texts)) is not None
    ]
    start = cells.index(("What it shows", "Conntrack finds it INVALID"))
    assert cells[start : start + 6] == [
        ("What it shows", "Conntrack finds it INVALID"),
        ("Namespace", "client-node"),
        ("Interface", "eth0"),
        ("Time", "+0.063 ms"),
        ("Packet", "#8 SEQ is over upper bound 7307 (over the window of the receiver)"),
        ("In numbers", ""),
    ]


def test_what_was_lost_and_not_observed_is_named() -> None:
    unseen = page("inconclusive").section("unseen")
    assert "the packets on client/eth03" in unseen
    assert "the rules' traces on client-node: this kernel has none" in unseen
    assert "2 observers were open; none lost an event." in page("reset").section("unseen")


def test_how_to_repeat_it() -> None:
    result, recording = run("dropped")
    recording = replace(recording, settings=(("vars.x", "a b"),))
    commands = [text for _, text in Document(rendered(result, recording)).all("code")]
    assert (
        "netlab run kube-proxy-reset.yaml --experiment window-overrun --set 'vars.x=a b' --fix drop-invalid --trials 1"
    ) in commands
    assert recording.topology in commands


def test_how_to_repeat_a_document_of_its_own_as_it_was_changed() -> None:
    result, recording = run("dropped")
    changes = (("experiment.payload_bytes", "7"),)
    recording = replace(recording, experiment="claim: It shows.\n", experiment_settings=changes)
    commands = [text for _, text in Document(rendered(result, recording)).all("code")]
    assert (
        "netlab run window-overrun.yaml --name kube-proxy-reset --set experiment.payload_bytes=7 "
        "--set experiment.topology=topology.yaml --fix drop-invalid --trials 1"
    ) in commands
    assert {recording.topology, recording.experiment} <= {*commands}


def test_the_way_through_the_rules_or_the_rules() -> None:
    rules = page("reset").section("rules")
    assert "The way of the packets through the rules was not recorded." in rules
    assert "chain KUBE-SERVICES" in rules


@pytest.mark.parametrize("name", RUNS)
def test_it_needs_nothing_but_itself(name: str) -> None:
    text = rendered(*run(name))
    document = Document(text)
    ids = [attrs["id"] for _, attrs, _ in document.elements if attrs.get("id")]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    for _, attrs, _ in document.elements:
        assert not {"src", "style", "srcset", "onclick", "onload"} & set(attrs)
        if (href := attrs.get("href")) is not None:
            assert href.startswith("#")
            assert href[1:] in ids, href
        if (label := attrs.get("aria-labelledby")) is not None:
            assert label in ids
    assert "@import" not in text
    assert "url(" not in text


def test_the_policy_names_the_style_and_the_script_by_their_hashes() -> None:
    document = page("reset")
    (policy,) = [attrs["content"] for attrs, _ in document.all("meta") if attrs.get("http-equiv")]
    assert policy is not None
    ((_, style),), ((_, script),) = document.all("style"), document.all("script")
    for kind, source in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_what_others_wrote_stays_text() -> None:
    result, recording = run("reset")
    evil = "<script>alert(1)</script>"
    topology = recording.topology.replace("A connection reset through conntrack's INVALID", f'"{evil}&amp;"')
    recording = replace(recording, topology=topology, unobserved=(Unobserved(None, evil),), settings=())
    result = replace(result, claim=evil, experiment=evil, lab=f"{evil}'\"")
    document = Document(rendered(result, recording))
    assert len(document.all("script")) == 1
    told = [text for _, text in document.all("dd")]
    assert told[:4] == [evil, evil, f"{evil}'\"", f"{evil}&amp;"]
    assert evil in document.section("unseen")
    broken = Document(rendered(result, replace(recording, topology=f"name: {evil}")))
    assert "No picture: " in broken.section("lab")
    assert len(broken.all("script")) == 1


def test_an_attribute_cannot_be_left() -> None:
    assert tag("p", "<&>", title="\"><script>'") == '<p title="&quot;&gt;&lt;script&gt;&#x27;">&lt;&amp;&gt;</p>'


def test_a_word_wider_than_the_line_is_broken() -> None:
    assert wrap_text("a bb cccccccccc", 30, 10) == ["a bb", "ccccc", "ccccc"]
    assert wrap_text("cc-cccccccc", 30, 10) == ["cc-", "ccccc", "ccc"]


@pytest.mark.parametrize("name", RUNS)
def test_it_can_be_read_without_seeing_it(name: str) -> None:
    document = page(name)
    levels = [int(path[-1][1]) for path, _, _ in document.elements if re.fullmatch("h[1-6]", path[-1])]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert [len(document.all(landmark)) for landmark in ("main", "header", "footer")] == [1, 1, 1]
    assert document.all("html")[0][0]["lang"] == "en"
    for path, attrs, _ in document.elements:
        if path[-1] == "svg":
            inside = [
                child for other, _, _ in document.elements if len(other) == len(path) + 1 for child in [other[-1]]
            ]
            assert {"title", "desc"} <= set(inside)
            assert attrs["role"] in ("img", "group")
        if path[-1] == "a" and "svg" in path:
            assert attrs["aria-label"]


# --- the lab's picture ------------------------------------------------------------------------------------------------


def test_no_link_runs_over_a_box_that_is_not_its_end() -> None:
    boxes = {
        (column, row): Box(column, row, 222.0 * column, 200.0 * row, 200.0 - 36.0 - 10.0 * row)
        for column in range(4)
        for row in range(4)
    }
    for number, (a, b) in enumerate(permutations(boxes, 2)):
        corners = route(boxes[a], boxes[b], number)
        over = [place for place, box in boxes.items() if place not in (a, b) and _crosses(corners, box)]
        assert over == [], (a, b, corners)
        if number % 2:
            assert [place for place in (a, b) if _touches(corners, boxes[place])] == [a, b]


def _crosses(corners: list[tuple[float, float]], box: Box) -> bool:
    """Whether a way of level and upright lines touches the box."""
    return any(
        max(x1, x2) >= box.x
        and min(x1, x2) <= box.x + BOX_WIDTH
        and max(y1, y2) >= box.y
        and min(y1, y2) <= box.y + box.height
        for (x1, y1), (x2, y2) in pairwise(corners)
    )


def _touches(corners: list[tuple[float, float]], box: Box) -> bool:
    return any(
        box.x <= x <= box.x + BOX_WIDTH and box.y <= y <= box.y + box.height for x, y in (corners[0], corners[-1])
    )


@pytest.mark.parametrize("name", ["cluster", "dual-stack", "host-router", "kube-proxy-reset", "pod-to-external"])
def test_every_namespace_address_and_service_is_in_the_picture(name: str) -> None:
    _, topology = read(str(TOPOLOGIES / f"{name}.yaml"))
    told = "".join(text for _, text in Document(graph.svg(topology, ())).all("text"))
    for netns in topology.namespaces:
        assert f"{netns.name}  {netns.role}" in told
    for interface in topology.interfaces():
        for address in interface.addresses:
            assert str(address) in told
    nodes = topology.kube_proxy.nodes
    assert told.count("NAT here") == len(nodes) * sum(len(service.ports) for service in topology.services)


# --- colours ---------------------------------------------------------------------------------------------------------

PAIRS = [
    ("ink", "ground", 4.5),
    ("ink", "raised", 4.5),
    ("quiet", "ground", 4.5),
    ("quiet", "raised", 4.5),
    ("good", "ground", 4.5),
    ("good", "raised", 4.5),
    ("bad", "ground", 4.5),
    ("bad", "raised", 4.5),
    ("bad", "good-ground", 4.5),
    ("quiet", "good-ground", 4.5),
    ("warn", "ground", 4.5),
    ("on-mark", "bad", 4.5),
    ("line", "ground", 3.0),
    ("line", "raised", 3.0),
    ("focus", "good-ground", 3.0),
    ("warn", "raised", 3.0),
    ("bad", "bad-ground", 3.0),
]
"""What stands on what, and the least contrast that WCAG 2.2 wants: 1.4.3 for text, 1.4.11 for lines and shapes."""


def _palettes() -> dict[str, dict[str, str]]:
    """The colours of each scheme: in the light, in the dark, on paper."""
    css = files("netlab.report").joinpath("report.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    names = ("light", "dark", "print")
    palettes = dict(
        zip(names, (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", each)) for each in blocks), strict=True)
    )
    return {name: {**palettes["light"], **colours} for name, colours in palettes.items()}


def _luminance(colour: str) -> float:
    """WCAG's relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_contrast_is_enough(scheme: str) -> None:
    palette = _palettes()[scheme]
    weak = []
    for above, below, least in PAIRS:
        bright, dim = sorted((_luminance(palette[above]), _luminance(palette[below])), reverse=True)
        contrast = (bright + 0.05) / (dim + 0.05)
        if contrast < least:
            weak.append(f"{above} on {below}: {contrast:.2f}, needs {least}")
    assert weak == []


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> dict[str, Path]:
    """The reports of all runs as files."""
    paths = {name: tmp_path / f"{name.replace(' ', '-')}.html" for name in RUNS}
    for name, path in paths.items():
        path.write_text(rendered(*run(name)), encoding="utf-8")
    return paths


OUTSIDE = """[...document.querySelectorAll("svg")].flatMap(svg => {
  const box = svg.viewBox.baseVal;
  return [...svg.querySelectorAll("text")].filter(text => {
    const at = text.getBBox();
    return at.x < 0 || at.y < 0 || at.x + at.width > box.width || at.y + at.height > box.height;
  }).map(text => text.textContent);
})"""
"""The texts that stick out of their picture."""

OUT_OF_BOX = """[...document.querySelectorAll(".graph g")].flatMap(group => {
  const box = group.querySelector("rect").getBBox();
  return [...group.querySelectorAll("text")].filter(text => text.getBBox().x + text.getBBox().width > box.x + box.width)
    .map(text => text.textContent);
})"""
"""The texts that stick out of their namespace's box."""


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("name", RUNS)
def test_it_shows(browser: Browser, written: dict[str, Path], name: str, width: int) -> None:
    browser.open(written[name], width)
    assert browser.complaints() == []
    assert browser.requests() == [written[name].as_uri()]
    assert browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    sizes = browser.value('[...document.querySelectorAll("svg")].map(svg => [svg.clientWidth, svg.clientHeight])')
    kinds = browser.value('[...document.querySelectorAll("svg:not(.ladder)")].map(svg => svg.classList[0])')
    assert kinds == (["graph"] if name == "no trials" else ["post", "chart", "graph"])
    assert min(width for width, _ in sizes) > 300
    assert min(height for _, height in sizes) > 100
    assert browser.value(OUTSIDE) == []
    assert browser.value(OUT_OF_BOX) == []
    shown = browser.screenshot()
    blank = written[name].with_name("blank.html")
    blank.write_text("<!doctype html>\n")
    browser.open(blank, width)
    assert len(shown) > 4 * len(browser.screenshot())


def test_wide_pictures_scroll_in_their_own_box(browser: Browser, written: dict[str, Path]) -> None:
    browser.open(written["reset"], 360)
    boxes = browser.value(
        '[...document.querySelectorAll(".figure")].map(box => [box.scrollWidth > box.clientWidth, box.tabIndex])'
    )
    assert boxes
    assert all(box == [True, 0] for box in boxes)


ON_A_LINE = """[...document.querySelectorAll("svg")].flatMap(svg => {
  const lines = [...svg.querySelectorAll(".lifeline, .shaft")].map(line => line.getBBox());
  return [...svg.querySelectorAll("text:not(.pill-text)")].filter(text => {
    const at = text.getBBox();
    return lines.some(line => line.x < at.x + at.width - 1 && line.x + line.width > at.x + 1
      && line.y < at.y + at.height - 1 && line.y + line.height > at.y + 1);
  }).map(text => text.textContent);
})"""
"""The texts that a lifeline or an arrow goes through."""


@pytest.mark.parametrize("width", [390, 768, 1280, 1920])
def test_pictures_are_read_at_every_width(browser: Browser, written: dict[str, Path], width: int) -> None:
    """No text on a line; a cue wherever a picture is wider than the screen, and only there; INVALID in sight."""
    for name in ("reset", "dropped"):
        browser.open(written[name], width)
        browser.value('document.querySelectorAll("section > details").forEach(details => details.open = true)')
        assert browser.value(ON_A_LINE) == []
        scrolled = browser.value(
            '[...document.querySelectorAll(".scrolls")].map(box => [box.querySelector("figure").scrollWidth > '
            'box.querySelector("figure").clientWidth, box.querySelector(".cue").checkVisibility()])'
        )
        assert scrolled
        assert [wider for wider, _ in scrolled] == [cue for _, cue in scrolled]
        assert browser.value(
            '[...document.querySelectorAll(".verdict.reproduced, .ladder .verdict")].length > 0 && '
            '[...document.querySelectorAll(".ladder .verdict")].every(word => '
            'word.getBoundingClientRect().right <= word.closest("figure").getBoundingClientRect().right)'
        )


def test_the_chart_names_its_axes_and_every_mark() -> None:
    words = [text for attrs, text in page("reset").all("text")]
    for said in (
        "The server's sequence numbers, in bytes",
        "Packets in the order they were sent, with their times in ms; a dotted line is a pause of over 1 ms",
        "what the client allowed (td_maxend)",
        "what conntrack forgives past it",
        "accepted",
        "ignored: let pass",
        "INVALID: not translated",
        "how far #8 ends past what the client allowed",
    ):
        assert said in words


def test_the_rule_that_chose_the_endpoint_is_unfolded_and_ends_of_chains_are_left_out() -> None:
    result, recording = run("reset")
    packets = [event for event in recording.events if isinstance(event, Packet) and event.netns == "client-node"]
    syn = next(event for event in packets if event.segment.flags == SYN and event.segment.dport == 80)

    def step(chain: str, rule: str, verdict: str) -> TraceStep:
        return TraceStep(
            syn.time_ns, "client-node", 7, "ip", "nat", chain, rule, verdict, syn.ifname, segment=syn.segment
        )

    steps = (
        step("PREROUTING", "counter jump KUBE-SVC", "jump KUBE-SVC"),
        step("KUBE-SVC", "counter dnat to 10.0.1.2:8080", "continue"),
        step("KUBE-SVC", "", "continue"),
    )
    document = Document(rendered(result, replace(recording, events=(*recording.events, *steps))))
    (shown,) = [text for attrs, text in document.all("details") if "open" in attrs and "dnat to" in text]
    assert shown.endswith("ip nat KUBE-SVCcounter dnat to 10.0.1.2:8080continue")


def test_the_dark_scheme_is_dark(browser: Browser, written: dict[str, Path]) -> None:
    grounds = []
    for dark in (False, True):
        browser.open(written["reset"], 1280, dark=dark)
        grounds.append(browser.value("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(255, 255, 255)", "rgb(21, 24, 28)"]


def test_the_keyboard_reaches_every_packet_and_shows_its_details(browser: Browser, written: dict[str, Path]) -> None:
    browser.open(written["reset"], 1280)
    reached = []
    for _ in range(200):
        browser.press("Tab")
        focused = browser.value('document.activeElement.closest("a.packet")?.getAttribute("href") ?? ""')
        if focused:
            reached.append(focused)
            panel = browser.value('[document.querySelector("#panel").checkVisibility(), panel.innerText.split(" ")[0]]')
            assert panel == [True, focused.replace("#packet-", "#")]
        elif reached and browser.value('document.activeElement.tagName != "FIGURE"'):
            break
    assert reached == [f"#packet-{number}" for number in range(1, 12)]
    browser.value('document.querySelector("a.packet").focus()')
    assert browser.value('document.querySelector("#panel").checkVisibility()')
    browser.press("Escape")
    assert not browser.value('document.querySelector("#panel").checkVisibility()')


def test_without_script_a_packet_leads_to_its_details(browser: Browser, written: dict[str, Path]) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(written["reset"], 1280, fragment="#packet-8")
        assert browser.value('document.querySelector("#packet-8").checkVisibility()')
        assert browser.value('document.querySelector("#packet-8").getBoundingClientRect().top < innerHeight')
        assert not browser.value('document.querySelector("#panel").checkVisibility()')
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_it_prints_on_three_pages_and_no_picture_is_cut(browser: Browser, written: dict[str, Path]) -> None:
    browser.open(written["reset"], 1280, dark=True)
    pages = re.findall(rb"/Type\s*/Page\b", browser.pdf())
    assert len(pages) == 3
    browser.call("Emulation.setEmulatedMedia", media="print")
    page_px = (297 - 2 * 14) / 25.4 * 96
    tallest = browser.value('Math.max(...[...document.querySelectorAll(".figure")].map(box => box.offsetHeight))')
    assert tallest < page_px
    for what in ("h2", "summary", ".scrolls > .cue", "details:not([open])", ".glossary", "#panel"):
        shown = browser.value(
            f'[...document.querySelectorAll("{what}")].filter(each => each.checkVisibility()).map(each => '
            "getComputedStyle(each).breakAfter)"
        )
        assert set(shown) == ({"avoid"} if what in ("h2", "summary") else set()), what
    assert browser.value('getComputedStyle(document.querySelector(".figure")).breakInside') == "avoid"
    assert browser.value("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"


# --- the command -----------------------------------------------------------------------------------------------------

FLAGSHIP = TOPOLOGIES / "kube-proxy-reset.yaml"


@pytest.mark.kernel
def test_run_writes_the_report_and_prints_the_ladder(
    netlab: Netlab, lab_name: str, privilege: str, tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    done = netlab("run", FLAGSHIP, "--name", lab_name, privilege, "--trials", "2", "--ladder", "--html", file)
    assert done.returncode == 0, done.stderr
    assert "REPRODUCED 2/2" in done.stdout
    assert re.search(r"#\d+ .*\|<-+INVALID-+\|<-+\|\n", done.stdout)
    assert f"wrote {file}\n" in done.stderr
    document = Document(file.read_text(encoding="utf-8"))
    assert document.all("h1")[0][1] == "The connection is reset in 2 of 2 trials."
    pills = {text for attrs, text in document.all("text") if (attrs.get("class") or "").startswith("pill-text")}
    assert pills == {"NAT", "INVALID"}
    assert re.search(r"#\d+ ends [\d,]+ bytes past what the client allowed", document.section("window"))


def test_what_cannot_be_written_is_said_before_anything_runs(netlab: Netlab, tmp_path: Path) -> None:
    for arguments in (["--html", tmp_path / "nowhere" / "report.html"], ["--ladder", "--format", "json"]):
        done = netlab("run", FLAGSHIP, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("netlab: ")
