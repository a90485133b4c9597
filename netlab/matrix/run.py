"""The cells of a table, each run in a lab of its own, several at a time, in forked children.

A child builds its lab, runs, and takes it down, whatever happens; `journal.py` keeps each cell as it is done. Labs are
called after the table's, with this process' number and the cell's.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import netlab
from netlab.analysis.result import Outcome
from netlab.capabilities.probes import probe
from netlab.errors import LabError, NetlabError, UnsupportedError, told
from netlab.experiments import run as runner
from netlab.experiments.catalogue import Run, Settings
from netlab.lab.directory import LabDirectory
from netlab.lab.rundir import run_directory
from netlab.lab.spec import Spec
from netlab.lab.standing import down, sweep
from netlab.linux import interrupts
from netlab.matrix import Cell, Column, Matrix
from netlab.matrix.grid import Grid, Task, fingerprint, grid
from netlab.matrix.journal import Journal
from netlab.matrix.pool import Pool
from netlab.record import codec
from netlab.topology.words import LAB_NAME_MAX


@dataclass(frozen=True, slots=True)
class Manner:
    """How cells are run: how often each, how many at a time, and in which kind of lab."""

    trials: int
    jobs: int
    rootless: bool


_JOBS_A_CPU = 3
"""A trial mostly waits; more at a time were no faster on two CPUs."""

_CELL_BYTES = 128 << 20
"""What a cell needs: some 90 MiB were seen, most of it its observers' rings."""


def default_jobs() -> int:
    """As many cells at a time as this machine bears."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return max(1, min(_JOBS_A_CPU * len(os.sched_getaffinity(0)), available // _CELL_BYTES))


@dataclass(frozen=True, slots=True)
class Stopped:
    """A table that was stopped: so many of its cells that can be run are kept."""

    kept: int
    to_run: int


def run(
    runs: Sequence[Run],
    columns: Sequence[Column],
    name: str,
    settings: Settings,
    manner: Manner,
    stop: socket.socket,
    look: Callable[[int, int, Sequence[Task]], None],
    *,
    resume: bool,
) -> Matrix | Stopped:
    """Run each of these experiments with each of these fixes, until `stop` is readable.

    name is what the labs are called after, settings what was asked by `--set`. look is called again and again with how
    many cells are done, how many there are, and those being run. With resume, the cells that a former one has kept
    are not run again; raises what entering a Journal raises.
    """
    capabilities = probe(dict.fromkeys(asked for each in runs for asked in each.experiment.capabilities()))
    table = grid(runs, columns, capabilities)
    inputs = {**fingerprint(runs, columns, settings), **_circumstances(manner)}
    try:
        with Journal(run_directory(), name, inputs, resume=resume) as journal:
            cells = _run_all(table, name, manner, journal, stop, look)
            if cells is None:
                return Stopped(len(journal.cells), len(table.tasks))
    finally:
        with interrupts.undisturbed():
            sweep(run_directory())  # a cell's lab may have ended while another cell's process was in the way
    return Matrix(
        lab=name,
        kernel=os.uname().release,
        rootless=manner.rootless,
        settings=settings,
        trials=manner.trials,
        capabilities=tuple(capabilities.values()),
        rows=table.rows,
        columns=table.columns,
        cells=cells,
    )


def _circumstances(manner: Manner) -> dict[str, str]:
    """What else must be the same for a table to be resumed, by words."""
    return {
        "number of trials": str(manner.trials),
        "kind of lab": "rootless" if manner.rootless else "root",
        "kernel": os.uname().release,
        "netlab": _sources(),
    }


def _sources() -> str:
    """A digest of netlab's own sources: an edit is another netlab, version or not."""
    digest = hashlib.sha256()
    for path in sorted(Path(netlab.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _run_all(
    table: Grid,
    name: str,
    manner: Manner,
    journal: Journal,
    stop: socket.socket,
    look: Callable[[int, int, Sequence[Task]], None],
) -> tuple[Cell, ...] | None:
    """Run the cells that the journal doesn't have; all cells of the table, or None where it was stopped."""
    done = {(cell.experiment, cell.fix): cell for cell in journal.cells}
    tasks = [task for task in table.tasks if (task.cell.experiment, task.cell.fix) not in done]
    # The longest first, so that none is waited for alone at the end.
    tasks.sort(key=lambda task: task.cell.expected is not Outcome.STALLED)
    lab_names = {task.number: _lab_name(name, task.number) for task in tasks}
    total = len(table.tasks) + len(table.skipped)

    def work(task: Task) -> bytes:
        return json.dumps(codec.to_json(_run_cell(task, lab_names[task.number], manner))).encode()

    def ended(task: Task, answer: bytes, status: int) -> None:
        directory = LabDirectory(run_directory(), lab_names[task.number])
        if not answer or directory.path.exists():  # the child may have left what only its end let go of
            down(directory)
        if not answer and pool.stopping:
            return
        cell = codec.from_json(json.loads(answer), Cell) if answer else replace(task.cell, failed=_end(status))
        done[cell.experiment, cell.fix] = cell
        journal.add(cell)

    gc.collect()
    gc.freeze()  # the children's collections then leave these pages alone, which stay shared
    pool = Pool(manner.jobs, work, ended)
    if not pool.run(tasks, stop, lambda at_work: look(len(done) + len(table.skipped), total, at_work)):
        return None
    journal.complete()
    cells = {**table.skipped, **{task.number: done[task.cell.experiment, task.cell.fix] for task in table.tasks}}
    return tuple(cells[number] for number in sorted(cells))


def _lab_name(name: str, number: int) -> str:
    """A name that no other lab has: not that of another table's cell either, wherever its files are."""
    suffix = f"-{os.getpid()}-{number}"
    return name[: LAB_NAME_MAX - len(suffix)].rstrip("-") + suffix


def _run_cell(task: Task, name: str, manner: Manner) -> Cell:
    """Run one cell, in a child; every error that netlab raises on purpose is in the cell."""
    given = task.run
    file = None if given.file == "-" else str(Path(given.file).resolve())
    spec = Spec(task.topology._replace(name=name), given.text, file, given.settings, task.fixes)
    directory = LabDirectory(run_directory(), name)
    try:
        if directory.path.exists():
            raise LabError(f"a lab {name} is there already")
        with runner.standing(directory, spec, manner.rootless), interrupts.let_through():
            ran = runner.run(runner.namespaces(directory), spec, given, task.capabilities, manner.trials)
        return replace(task.cell, trials=ran.result.trials)
    except UnsupportedError as error:
        return replace(task.cell, skipped=error.message)
    except NetlabError as error:
        return replace(task.cell, failed=error.message)
    except OSError as error:
        return replace(task.cell, failed=told(error))


def _end(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"its process {how}"
