"""Files that ask for too much, through the commands that only look: each ends soon, in little memory, and says why."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import skips
from measured import measure

LAB = "namespaces: {a: {}}\n"
MOST_BYTES, MOST_CPU_S = 500 << 20, 60
"""What a command may take; the seconds are for a slow and busy machine."""


def mesh(count: int, role: str) -> str:
    names = "".join(f"  n{number}: {{role: {role}}}\n" for number in range(count))
    return f"namespaces:\n{names}links:\n" + "".join(
        f"  - ends: [n{one}, n{other}]\n" for one in range(count) for other in range(one)
    )


def pods(count: int, given: str = "") -> str:
    """Pods on one bridge, their addresses given or left open."""
    names = "".join(f"  p{number}: {{role: pod}}\n" for number in range(count))
    ports = "".join(
        f"      - {{netns: p{number}{given.format(number >> 8, number & 255)}}}\n" for number in range(count)
    )
    addresses = ", addresses: 10.0.0.1/15" if given else ""
    return (
        f"namespaces:\n  n0: {{role: node}}\n{names}bridges:\n  - name: b\n    netns: n0\n"
        f"{addresses.replace(', ', '    ')}{chr(10) * bool(given)}    ports:\n{ports}"
    )


def services(count: int, ports: int, endpoints: int, given: str = "") -> str:
    many = ", ".join(f"{{name: q{number}, port: {number + 1}}}" for number in range(ports))
    to = ", ".join(f"p{number}" for number in range(endpoints))
    return "services:\n" + "".join(
        f"  s{number}: {{ports: [{many}], endpoints: [{to}]{given}}}\n" for number in range(count)
    )


def doubled(steps: int) -> str:
    return "".join(f"  v{number + 1}: '${{v{number}}}${{v{number}}}'\n" for number in range(steps))


REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "empty lists": (lambda: f"[{'[],' * 5_000_000}]", "more than 500,000 keys, values and list items"),
    "a million namespaces": (
        lambda: "namespaces:\n" + "".join(f"  n{number}: {{}}\n" for number in range(1_000_000)),
        "more than 500,000 keys, values and list items",
    ),
    "too many namespaces": (
        lambda: "namespaces:\n" + "".join(f"  n{number}: {{}}\n" for number in range(100_000)),
        "more than 20,000 namespaces",
    ),
    "aliases": (
        lambda: (
            f"{LAB}a0: &a0 [x, x]\n"
            + "".join(f"a{number + 1}: &a{number + 1} [{f'*a{number}, ' * 9}]\n" for number in range(12))
        ),
        "more than 500,000 keys, values and list items",
    ),
    "variables": (
        lambda: f"vars:\n  v0: '{'x' * 1000}'\n{doubled(30)}{LAB}description: '${{v30}}'\n",
        "the variables stand for more than 16,777,216 characters",
    ),
    "unknown keys": (
        lambda: "".join(f"key-number-{number}: 1\n" for number in range(200_000)),
        "these 200 problems are not all",
    ),
    "unknown names": (
        lambda: (
            "namespaces:\n"
            + "".join(f"  name-number-{number}: {{}}\n" for number in range(2_000))
            + f"services: {{s: {{port: 1, endpoints: [{', '.join(f'name-nunber-{n}' for n in range(2_000))}]}}}}\n"
        ),
        "these 200 problems are not all",
    ),
    "fixes": (
        lambda: f"{LAB}fixes:\n" + "".join(f"  f{n}: {{summary: x, set: {{description: y}}}}\n" for n in range(20_000)),
        "fixes: these are 20,000 fixes",
    ),
    "values of a fix": (
        lambda: f"{LAB}fixes: {{f: {{summary: x, set: {{{', '.join(f'vars.v{n}: 1' for n in range(90_000))}}}}}}}\n",
        "expected at most 100, found 90,000",
    ),
    "a full mesh": (lambda: mesh(300, "host"), "more than 40,000 interfaces"),
    "a full mesh of nodes": (lambda: mesh(100, "node"), "more than 150,000 routes"),
    "a ring of nodes": (
        lambda: (
            "namespaces:\n"
            + "".join(f"  n{number}: {{role: node}}\n" for number in range(2000))
            + "links:\n"
            + "".join(f"  - ends: [n{number}, n{(number + 1) % 2000}]\n" for number in range(2000))
        ),
        "more than 150,000 routes",
    ),
    "nodes on one bridge": (
        lambda: pods(15_000).replace("role: pod", "role: node"),
        "more than 150,000 routes",
    ),
    "ports by endpoints": (lambda: pods(200) + services(100, 200, 200), "more than 120,000 rules"),
    "ports by endpoints of two families": (
        lambda: "ipv6: true\n" + pods(200) + services(600, 1, 100),
        "more than 120,000 rules",
    ),
    "ports by endpoints with affinity": (
        lambda: pods(200) + services(600, 1, 100, ", session_affinity: ClientIP"),
        "more than 120,000 rules",
    ),
    "a long key": (lambda: f"? {'k' * 10_000_000}\n: 1\n{LAB}", "the key has 10,000,000 characters"),
    "a long command": (
        lambda: f"namespaces: {{a: {{programs: [{{name: x, command: '{chr(92) * 8_000_000}'}}]}}}}\n",
        "the command has 8,000,000 characters",
    ),
    "blanks": (lambda: f"{LAB}links: ['{' ' * 5_000_000}']\n", "links[0]: expected a mapping"),
    "%TAG": (lambda: "".join(f"%TAG !a{n}! tag:x\n" for n in range(300_000)), "more than 100 lines begin with %"),
}
TAKEN: dict[str, Callable[[], str]] = {
    "5,000 pods": lambda: pods(5000),
    "5,000 pods with addresses": lambda: pods(5000, ", addresses: [10.1.{}.{}/15]"),
    "10,000 services": lambda: pods(100) + services(10_000, 1, 3),
    "as many rules as may be": lambda: pods(200) + services(1170, 1, 100),
    "as many of session affinity": lambda: pods(200) + services(580, 1, 100, ", session_affinity: ClientIP"),
    "a comment": lambda: f"#{'#' * 16_000_000}\n{LAB}",
}


@pytest.fixture
def look(tmp_path: Path) -> Callable[[str, str], tuple[int, str]]:
    """Run a command on a file's text: its exit code and what it says. It is ended where it takes too much."""

    def run(command: str, text: str) -> tuple[int, str]:
        file, said = tmp_path / "lab.yaml", tmp_path / "said"
        file.write_text(text)
        taken = measure([sys.executable, "-m", "netlab", *command.split(), str(file)], said, MOST_CPU_S)
        told = said.read_text(errors="replace").replace(str(file), "lab.yaml")
        assert taken.most_bytes < MOST_BYTES, told[:200]
        assert "Traceback" not in told
        return taken.code, told

    return run


COMMANDS = {"plan": "variables", "rules n0": "ports by endpoints"}
"""What else only looks, and on which of them: all read a file in one way."""


@pytest.mark.parametrize(
    ("command", "name"), [*(("lint", name) for name in REFUSED), *COMMANDS.items()], ids=[*REFUSED, *COMMANDS]
)
def test_a_file_that_asks_for_too_much_is_refused(
    look: Callable[[str, str], tuple[int, str]], command: str, name: str
) -> None:
    make, why = REFUSED[name]
    code, told = look(command, make())
    assert (code, why in told) == (2, True), told[-500:]
    assert told.startswith("lab.yaml:")
    assert len(told) < 200 * 3200


@pytest.mark.parametrize("name", TAKEN)
def test_a_large_file_is_taken(look: Callable[[str, str], tuple[int, str]], name: str) -> None:
    text = TAKEN[name]()
    assert look("lint", text) == (0, "lab.yaml: lab lab is sound\n")
    assert look("plan", text)[0] == 0


@pytest.mark.kernel
def test_a_table_that_doubles_with_each_line_is_refused(look: Callable[[str, str], tuple[int, str]]) -> None:
    skips.skip_unless_root()
    lines = [f"define a{number + 1} = {{ $a{number}, $a{number} }}" for number in range(40)]
    body = "\n".join(
        f"        {line}" for line in ("define a0 = { 1, 2 }", *lines, "chain c { tcp dport $a40 accept; }")
    )
    code, told = look("lint", f"namespaces:\n  a:\n    tables:\n      inet f: |\n{body}\n")
    assert code == 2
    assert "lab.yaml:4:15: namespaces.a.tables.inet f: nft: libnftables ended" in told
