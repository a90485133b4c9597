"""stdout and stderr: one file writes to them, and what it writes is escaped, on any stream and in any locale."""

from __future__ import annotations

import ast
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hostile import HOSTILE, forbidden
from places import ROOT
from terminals import terminal_of

PACKAGE = ROOT / "netlab"

ALLOWED = {
    "terminal.py": "it is the one",
    "linux/nft.py": "in a child whose stdout is a pipe to netlab, since libnftables writes there",
}
"""Files that may write to a standard stream, and why."""

WRITERS = {"print", "echo", "secho", "print_exc", "print_exception", "print_stack", "breakpoint", "input"}
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}


def writes(source: str) -> Iterator[str]:
    """What in a source writes to a standard stream, or gets hold of one to do so."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in WRITERS:
                yield f"{node.lineno}: {name}()"
            case ast.Attribute(value=ast.Name(id="sys"), attr=name) if name in STREAMS:
                yield f"{node.lineno}: sys.{name}"
            case ast.ImportFrom(module="sys", names=names) if {alias.name for alias in names} & STREAMS:
                yield f"{node.lineno}: from sys import"
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="os"), attr="write" | "writev" | "sendfile" | "fdopen" as name),
                args=[ast.Constant(value=1 | 2), *_],
            ):
                yield f"{node.lineno}: os.{name}()"
            case ast.Call(func=ast.Name(id="open"), args=[ast.Constant(value=1 | 2 | "/dev/tty" | "/dev/stdout"), *_]):
                yield f"{node.lineno}: open()"
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="logging"))
                | ast.Attribute(value=ast.Name(id="warnings"), attr="warn" | "warn_explicit")
            ):
                yield f"{node.lineno}: {ast.unparse(node.func)}()"


@pytest.mark.parametrize(
    "source",
    [
        "print(1)",
        "typer.echo(1)",
        "import sys\nsys.stdout.write('')",
        "sys.stderr.flush()",
        "from sys import stdout",
        "os.write(2, b'')",
        "os.fdopen(1, 'w')",
        "open('/dev/tty', 'w')",
        "traceback.print_exc()",
        "logging.warning('')",
        "warnings.warn('')",
    ],
)
def test_each_way_to_write_is_seen(source: str) -> None:
    assert len([*writes(source)]) == 1


def test_one_file_writes_to_the_terminal() -> None:
    found = {path.relative_to(PACKAGE).as_posix(): [*writes(path.read_text())] for path in PACKAGE.rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines and name not in ALLOWED} == {}
    assert [name for name in ALLOWED if not found[name]] == []


SAYING = f"""
import sys, warnings
from netlab import terminal
terminal.open_streams()
TEXT = {HOSTILE!r}
terminal.write(f"{{TEXT}}\\n")
terminal.flush()
terminal.say(f"{{TEXT}}\\nlab forged is up")
terminal.complain(f"{{TEXT}}\\nlab forged is up")
print(TEXT)
print(TEXT, file=sys.stderr)
sys.stderr.writelines([TEXT, "\\n"])
warnings.warn(TEXT)
import typer
typer.echo(TEXT)
typer.secho(TEXT, fg="red")
raise ValueError(TEXT)
"""


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
        {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"},
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"PYTHONUNBUFFERED": "1"},
    ],
    ids=str,
)
def test_whoever_writes_is_escaped_in_any_locale(env: dict[str, str]) -> None:
    argv = [sys.executable, "-c", SAYING]
    done = subprocess.run(argv, capture_output=True, env={**os.environ, **env}, cwd=ROOT, timeout=60)
    encoding = "latin-1" if "latin-1" in env.values() else "utf-8"
    stdout, stderr = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert forbidden(stdout) == forbidden(stderr) == []
    assert stdout.count("]52;c;") == 4
    assert stderr.count("]52;c;") == 6
    assert stderr.count("\\nlab forged is up\n") == 2 and "\nlab forged" not in stderr


def test_on_a_terminal_too() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", SAYING], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT)
    os.close(theirs)
    told = b""
    with suppress(OSError):  # EIO: the last one has closed the terminal
        while data := os.read(ours, 4096):
            told += data
    process.wait(60)
    os.close(ours)
    text = told.decode().replace("\r\n", "\n")
    assert text.count("]52;c;") == 10
    assert forbidden(text) == []


@pytest.mark.parametrize("line", ["", "a" * 200, HOSTILE, "x\ny\tz"])
def test_a_line_that_is_shown_alone_stays_one(line: str) -> None:
    ours, theirs = pty.openpty()
    source = f"from netlab import terminal; terminal.open_streams(); terminal.show_line({line!r})"
    subprocess.run([sys.executable, "-c", source], stderr=theirs, cwd=ROOT, timeout=60, check=True)
    os.close(theirs)
    told = b""
    with suppress(OSError):
        while data := os.read(ours, 4096):
            told += data
    os.close(ours)
    text = told.decode()
    assert text.startswith("\r\033[K")
    assert len(text) < 4 + 80
    assert forbidden(text.removeprefix("\r\033[K")) == [] and "\n" not in text


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_a_stream_that_is_closed_takes_no_file(closed: str, tmp_path: Path) -> None:
    source = (
        "from netlab import terminal; terminal.open_streams()\n"
        f"file = open({str(tmp_path / 'f')!r}, 'w')\n"
        "terminal.write('data'); terminal.flush(); terminal.say('message'); terminal.complain('more')\n"
        "assert file.fileno() > 2\n"
    )
    argv = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", source]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0
    assert done.stdout == ("" if "1>&-" in closed else "data")
    assert done.stderr == ("" if "2>&-" in closed else "message\nmore\n")
    assert (tmp_path / "f").read_text() == ""


@pytest.mark.parametrize("function", ["write", "say"])
def test_a_stream_that_does_not_block_is_written_to_whole(function: str) -> None:
    text = "x" * 1_000_000
    source = (
        "from netlab import terminal; terminal.open_streams()\n"
        f"terminal.{function}('x' * {len(text)}); terminal.flush()"
    )
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen([sys.executable, "-c", source], stdout=writing, stderr=writing, cwd=ROOT) as process:
        os.close(writing)
        with os.fdopen(reading) as told:
            assert told.read().rstrip() == text
    assert process.returncode == 0


SHOWING = f"""
from netlab import terminal
from netlab.style import Piece, Style
terminal.open_streams()
terminal.show([Piece("bad", Style.BAD), Piece(" plain\\n"), Piece({HOSTILE!r}, Style.GOOD), Piece("\\n")])
terminal.say_error("wrong")
print(terminal.columns())
"""


def shown(env: dict[str, str], columns: int = 90) -> str:
    """What it writes on a terminal of so many columns."""
    clean = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "TERM")}
    return terminal_of([sys.executable, "-c", SHOWING], {**clean, "PYTHONPATH": str(ROOT), **env}, columns)


def test_a_terminal_gets_colours_and_what_is_shown_is_escaped() -> None:
    told = shown({"TERM": "xterm"})
    assert told.startswith("\033[1;31mbad\033[0m plain\n\033[32m")
    assert told.endswith("\033[0m\n\033[1;31mnetlab:\033[0m wrong\n90\n")
    assert forbidden(re.sub(r"\033\[(0|1;31|32)m", "", told)) == []


@pytest.mark.parametrize("env", [{"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb"}, {}], ids=str)
def test_nothing_is_coloured_where_that_is_not_wanted(env: dict[str, str]) -> None:
    told = shown(env)
    assert told.startswith("bad plain\n") and "\033" not in told


def test_an_empty_no_color_says_nothing() -> None:
    assert "\033[1;31m" in shown({"TERM": "xterm", "NO_COLOR": ""})


@pytest.mark.parametrize(("columns", "env"), [(60, {}), (200, {}), (0, {"x": ""}), (120, {"COLUMNS": "70"})], ids=str)
def test_how_wide_data_is(columns: int, env: dict[str, str]) -> None:
    assert shown(env, columns).splitlines()[-1] == str(int(env.get("COLUMNS", 0)) or columns or 80)


def test_into_a_pipe_nothing_is_coloured_and_all_is_80_wide() -> None:
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "70", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SHOWING], capture_output=True, text=True, env=env, timeout=60)
    assert "\033" not in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "80"
