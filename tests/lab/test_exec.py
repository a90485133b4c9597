"""`netlab exec` and `netlab shell`: exit code, streams, signals and terminal are the program's own."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import labs
import pytest
import skips
from terminals import terminal

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("command", "exit_code", "complaint"),
    [
        ("true", 0, ""),
        ("exit 7", 7, ""),
        ("exit 255", 255, ""),
        ("kill -TERM $$", -signal.SIGTERM, ""),
        ("kill -KILL $$", -signal.SIGKILL, ""),
        ("kill -HUP $$", -signal.SIGHUP, ""),
    ],
)
def test_exit_code(lab: labs.Lab, command: str, exit_code: int, complaint: str) -> None:
    done = lab.netlab("exec", "client", "--", "sh", "-c", command)
    assert (done.returncode, done.stdout, done.stderr) == (exit_code, "", complaint)


def test_exit_code_as_a_shell_has_it(lab: labs.Lab, tmp_path: Path) -> None:
    directory, text = tmp_path / "directory", tmp_path / "text"
    directory.mkdir()
    text.touch(mode=0o600)
    netlab = " ".join(lab.netlab.argv())
    environment = lab.netlab.environment({"PATH": "/usr/bin:/bin"})  # of directories that everybody may search
    cases = {
        "sh -c 'kill -TERM $$'": (143, ""),
        "sh -c 'kill -KILL $$'": (137, ""),
        "no-such-program": (127, "netlab: no-such-program: command not found\n"),
        "/no/such/program": (127, "netlab: /no/such/program: command not found\n"),
        str(directory): (126, f"netlab: {directory}: Permission denied\n"),
        str(text): (126, f"netlab: {text}: Permission denied\n"),
    }
    for program, (code, complaint) in cases.items():
        script = f"{netlab} exec client -- {program}; code=$?; echo $code"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment, check=True)
        shell_says = re.sub(r"^(Killed|Terminated)\n", "", done.stderr)
        assert (program, done.stdout, shell_says) == (program, f"{code}\n", complaint)


def test_without_two_dashes(lab: labs.Lab) -> None:
    done = lab.netlab("exec", "client", "sh", "-c", "echo $0 $1", "--", "-v")
    assert (done.returncode, done.stdout, done.stderr) == (0, "-- -v\n", "")


def test_streams_byte_for_byte(lab: labs.Lab) -> None:
    sent = hashlib.shake_256(b"every byte").digest(1 << 20)
    command = ["sh", "-c", "exec tee /dev/stderr"]
    done = subprocess.run(
        lab.netlab.argv("exec", "client", "--", *command),
        input=sent,
        capture_output=True,
        env=lab.netlab.environment(),
        timeout=labs.DEADLINE_S,
    )
    assert done.returncode == 0
    assert done.stdout == sent
    assert done.stderr == sent


def test_reader_that_stops_early(lab: labs.Lab) -> None:
    netlab = " ".join(lab.netlab.argv())
    script = f"{netlab} exec client -- seq 1000000 | head -n 1; {netlab} exec client -- sh -c 'trap' </dev/null"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=lab.netlab.environment())
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_directory_and_environment_are_kept(lab: labs.Lab, tmp_path: Path) -> None:
    here = tmp_path / "a directory"
    here.mkdir()
    done = lab.netlab(
        "exec", "client", "--", "sh", "-c", 'pwd; echo "$MINE"; umask', env={"MINE": "kept  as it is"}, cwd=here
    )
    umask = os.umask(0o022)
    os.umask(umask)
    assert done.stdout == f"{here}\nkept  as it is\n{umask:04o}\n"


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("/usr/local/bin:/usr/bin:/bin", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
        ("/usr/sbin:/usr/bin:/sbin:/bin", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ],
)
def test_who_enters_a_lab_has_roots_programs(lab: labs.Lab, path: str, inside: str) -> None:
    done = lab.netlab("exec", "client", "--", "sh", "-c", "echo $PATH", env={"PATH": path})
    assert (done.stdout, done.stderr) == (f"{inside}\n", "")


def test_nothing_of_netlab_is_left_open(lab: labs.Lab) -> None:
    assert lab.exec("client", "sh", "-c", "ls /proc/self/fd | wc -l").strip() == "4"  # 0, 1, 2, and ls's own
    signals = ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]
    without = subprocess.run(signals, stdout=subprocess.PIPE, text=True, check=True)
    assert lab.exec("client", *signals) == without.stdout


def test_names_resolve(lab: labs.Lab) -> None:
    assert lab.exec("client", "getent", "hosts", "server").split() == ["10.255.0.2", "server"]


def test_unknown_names(lab: labs.Lab) -> None:
    done = lab.netlab("exec", "clint", "--", "true")
    expected = f"netlab: the lab {lab.name} has no namespace clint\n  hint: it has: client, server\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)
    done = lab.netlab("exec", "--lab", "nowhere", "client", "--", "true")
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        f"netlab: no lab is called nowhere\n  hint: the labs here are: {lab.name}\n",
    )
    done = lab.netlab("exec", "client")
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        "netlab: there is no command to run\n  hint: `netlab exec client -- COMMAND…`, or `netlab shell client`\n",
    )


TRAP = 'trap "echo {name}; exit 3" {name}; echo ready; while :; do sleep 0.01; done'


@pytest.mark.parametrize("name", ["TERM", "HUP", "USR1", "USR2"])
def test_signals_reach_the_program(lab: labs.Lab, name: str) -> None:
    command = lab.netlab.argv("exec", "client", "--", "sh", "-c", TRAP.format(name=name))
    with subprocess.Popen(command, env=lab.netlab.environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.Signals[f"SIG{name}"])
        assert process.stdout.readline() == f"{name}\n"
        assert process.wait(labs.DEADLINE_S) == 3


def test_a_signal_ends_both(lab: labs.Lab) -> None:
    command = lab.netlab.argv("exec", "client", "--", "sh", "-c", "echo $PPID; exec sleep 1000")
    with subprocess.Popen(command, env=lab.netlab.environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        labs.until(lambda: len(lab.processes()) == 2, "the holder and the program alone")
        process.terminate()
        assert process.wait(labs.DEADLINE_S) == -signal.SIGTERM
    labs.until(lambda: len(lab.processes()) == 1, "the holder alone")


# --- on a terminal ---------------------------------------------------------------------------------------------------


def test_a_terminal(lab: labs.Lab) -> None:
    program = "import os, sys; print(*map(os.isatty, (0, 1, 2)), *os.get_terminal_size()); input(); " + (
        "print(*os.get_terminal_size())"
    )
    with terminal(lab, *lab.netlab.argv("exec", "client", "--", sys.executable, "-c", program)) as screen:
        screen.resize(33, 77)
        screen.expect("True True True (77 33|80 24|0 0)")
        screen.resize(20, 100)
        screen.type("\n")
        screen.expect("100 20")
        assert screen.wait() == 0


def test_ctrl_c_is_the_programs(lab: labs.Lab) -> None:
    script = 'trap "echo caught" INT; echo ready; read line; echo "line: $line"; exit 5'
    with terminal(lab, *lab.netlab.argv("exec", "client", "--", "bash", "-c", script)) as screen:
        screen.expect("ready")
        screen.type("\x03")
        screen.expect("caught")
        screen.type("hello\n")
        screen.expect("line: ")
        assert screen.wait() == 5
        assert "Traceback" not in screen.seen


def test_ctrl_c_ends_an_ordinary_program(lab: labs.Lab) -> None:
    with terminal(lab, *lab.netlab.argv("exec", "client", "--", "sh", "-c", "echo ready; exec sleep 1000")) as screen:
        screen.expect("ready")
        screen.type("\x03")
        assert screen.wait() == -signal.SIGINT
        assert screen.seen.replace("^C", "").strip() == ""


def test_job_control_in_a_shell(lab: labs.Lab) -> None:
    skips.skip_unless_program("bash")
    # A script of sh, whose own jobs are not under control, gets its terminal back from the shell.
    script = f"{' '.join(lab.netlab.argv('shell', 'client'))}; echo code $?; read line; echo back: $line"
    with terminal(lab, "sh", "-c", script) as screen:
        screen.type("set -m; echo in $NETLAB_LAB_NETNS\n")
        screen.expect(r"in client\r\n")
        screen.type("sleep 1000\n")
        labs.until(lambda: screen.foreground() == "sleep", "the sleep in the shell")
        screen.type("\x1a")
        screen.expect("Stopped")
        screen.type("jobs\n")
        screen.expect(r"Stopped\s+sleep 1000")
        screen.type("fg\n")
        screen.expect("sleep 1000")
        labs.until(lambda: screen.foreground() == "sleep", "the sleep in the foreground again")
        screen.type("\x03")
        screen.type("echo after $?\n")
        screen.expect(r"after 130\r\n")
        screen.type("exit 6\n")
        screen.expect("code 6")
        screen.type("hello\n")
        screen.expect("back: hello")
        assert screen.wait() == 0
        assert "job control" not in screen.seen


def test_stopped_and_continued(lab: labs.Lab) -> None:
    skips.skip_unless_program("bash")
    command = " ".join(lab.netlab.argv("exec", "client", "--", "sh", "-c"))
    with terminal(lab, "bash", "--norc", "-i") as screen:
        screen.type(f"{command} 'echo re''ady; read line; echo got $line'\n")
        screen.expect(r"ready\r\n")
        screen.type("\x1a")
        screen.expect(r"Stopped .*netlab exec.*\n")
        screen.type("fg\n")
        screen.expect("netlab exec")
        screen.type("hello\n")
        screen.expect("got hello")
        screen.type("exit 0\n")
        assert screen.wait() == 0


TIDY = """
import os, signal

def tidy(number, frame):
    os.write(1, b"tidying\\n")
    os.write(1, os.read(0, 80).strip() + b" is tidied\\n")
    os.kill(os.getpid(), signal.SIGSTOP)

signal.signal(signal.SIGTSTP, tidy)
os.write(1, b"ready\\n")
os.write(1, b"got " + os.read(0, 80))
"""


def test_the_terminal_is_the_programs_until_it_has_stopped(lab: labs.Lab, tmp_path: Path) -> None:
    skips.skip_unless_program("bash")
    program = tmp_path / "tidy.py"
    program.write_text(TIDY)
    with terminal(lab, "bash", "--norc", "-i") as screen:
        screen.type(f"{' '.join(lab.netlab.argv('exec', 'client', '--', sys.executable, program))}\n")
        screen.expect(r"ready\r\n")
        screen.type("\x1a")
        screen.expect(r"tidying\r\n")
        screen.type("everything\n")
        screen.expect("everything is tidied")
        screen.expect(r"Stopped .*netlab exec.*\n")
        screen.type("fg\n")
        screen.expect("netlab exec")
        screen.type("hello\n")
        screen.expect("got hello")
        screen.type("exit 0\n")
        assert screen.wait() == 0
