"""A session of tests that is killed leaves no lab, no process and no directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import host
import labs
import pytest
from places import ROOT

pytestmark = pytest.mark.kernel

KILLED = """
import json, os, signal, subprocess
from pathlib import Path

import labs

def test_killed(netlab, session_rundir, lab_name, tmp_path):
    lab = labs.make(netlab, lab_name, tmp_path, {privilege!r})
    lab.up()
    sleeper = subprocess.Popen(["sleep", "1000"])
    within = subprocess.Popen(netlab.argv("exec", "client", "--", "sleep", "1000"), env=netlab.environment())
    pids = [*lab.processes(), sleeper.pid, within.pid]
    new = Path({told!r} + ".new")
    new.write_text(json.dumps([str(session_rundir), lab.name, pids]))
    new.rename({told!r})
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_session_leaves_nothing(tmp_path: Path, privilege: str, number: signal.Signals) -> None:
    told = tmp_path / "told"
    file = tmp_path / "test_killed.py"
    file.write_text(KILLED.format(privilege=privilege, told=str(told)))
    paths = f"{ROOT / 'tests'}:{ROOT / 'tests/support'}"
    options = ["-p", "conftest", "-p", "no:cacheprovider", "-c", os.devnull]
    command = [sys.executable, "-m", "pytest", *options, str(file)]
    with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}) as session:
        labs.until(told.exists, "the lab")
        directory, name, pids = json.loads(told.read_text())
        session.send_signal(number)
    labs.until(lambda: not any(map(labs.running, pids)), "the end of the session's processes")
    labs.until(lambda: not Path(directory).exists(), "the end of the session's directory")
    assert list(host.NAMES.glob(f"{name}-*")) == []
