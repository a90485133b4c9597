"""The scripts that a guest runs."""

from __future__ import annotations

import subprocess
from pathlib import PurePath

from netlab.kernels.guest import MODULES, Job, inside, script

JOB = Job(
    ["netlab", "run", "it's here.yaml"],
    PurePath("/home/me/my labs"),
    {"LANG": "C.UTF-8", "ODD": "a 'b' $c"},
    PurePath("/cache/run-1"),
    PurePath("/cache/6.1/lib/modules/6.1.0-57-amd64"),
    PurePath("/venv/bin/python"),
    "SLOWER",
)


def test_what_runs_in_the_guest() -> None:
    assert (
        inside(JOB)
        == f"""\
cd /cache/run-1
echo 4 >/proc/sys/kernel/printk
(while :; do cat /proc/uptime >alive; sleep 1; done) &
ip link set lo up
modprobe -aq {" ".join(MODULES.split())} || true
export LANG=C.UTF-8
export ODD='a '"'"'b'"'"' $c'
export SLOWER=$(/venv/bin/python -S -c 'from time import perf_counter as t; a = t(); sum(range(10**6)); print(max(1, \
round((t() - a) * 1e3 / 10)))')
cd '/home/me/my labs'
netlab run 'it'"'"'s here.yaml' >/cache/run-1/stdout 2>/cache/run-1/stderr </dev/null
status=$?
if cd '/run/netlab/home/me/my labs' 2>/dev/null; then
  find . -name __pycache__ -prune -o \\( -type f -o -type l -o -type d -empty \\) -print0 |
    tar -c --null --no-recursion -T - -f /cache/run-1/files.tar
fi
cd /cache/run-1
echo $status >status.part
sync
mv status.part status
"""
    )


def test_a_shell_can_read_them() -> None:
    for text in (script(JOB), inside(JOB), script(JOB._replace(modules=None))):
        done = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_modules_are_where_the_guest_looks_for_them() -> None:
    assert (
        'mkdir -p "$new"/lib/modules/6.1.0-57-amd64\n'
        'mount --bind /cache/6.1/lib/modules/6.1.0-57-amd64 "$new"/lib/modules/6.1.0-57-amd64\n'
    ) in script(JOB)
    assert "/lib/modules" not in script(JOB._replace(modules=None)).replace("kernel/fs/overlayfs", "")
