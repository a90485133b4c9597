"""An experiment run in its lab: built if it isn't up, and afterwards left as it was found.

`netlab run` and `netlab matrix` both run through here. `lab/` builds and takes down, `experiments/` runs; what the
kernel must have is asked before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from netlab.capabilities.capability import Capability
from netlab.capabilities.probes import deciding
from netlab.errors import LabError, UnsupportedError, told
from netlab.experiments.catalogue import Run
from netlab.experiments.trials import Ran, observe_run
from netlab.lab import lifecycle
from netlab.lab.directory import LabDirectory
from netlab.lab.netns import Namespaces
from netlab.lab.spec import Spec, with_only_fixes
from netlab.lab.standing import down, is_standing, open_own
from netlab.linux import interrupts
from netlab.linux.reserve import Reserve
from netlab.observe.recorder import Source


def there(run: Run, found: Mapping[str, Capability]) -> tuple[str, ...]:
    """What this kernel has of what the experiment asks for; UnsupportedError where it lacks what it needs.

    found are the capabilities that the experiment asks for, and maybe others.
    """
    experiment = run.experiment
    for name in experiment.needs:
        if not found[name].there:
            raise UnsupportedError(f"{experiment.name} needs {name}: {found[name].reason}")
    return tuple(name for name in experiment.capabilities() if found[name].there)


@contextmanager
def standing(directory: LabDirectory, spec: Spec, rootless: bool | None) -> Iterator[Spec]:
    """The lab up, and signals held back; afterwards it is gone where it wasn't up, and else as it was.

    `with standing(...), interrupts.let_through():` has them raise Interrupted.

    A lab that was up keeps its fixes: what is yielded has them too. Raises what `lifecycle.up` raises.
    """
    interrupts.stop_on_signals()
    state = directory.read()
    as_was = lifecycle.as_it_is(directory, state) if state is not None and is_standing(state) else None
    if as_was is not None:
        spec = with_only_fixes(spec, tuple(dict.fromkeys((*as_was.fixes, *spec.fixes))))
    with Reserve() as reserve:
        outcome = lifecycle.up(directory, spec, rootless=rootless)
        with interrupts.held_back():
            interrupts.stop_on_signals()
            try:
                yield outcome.spec
            finally:
                reserve.release()
                with interrupts.undisturbed():
                    if as_was is None:
                        _take_down(directory)
                    elif outcome.steps:
                        before = as_was
                        lifecycle.change(directory, lambda _: before)


def _take_down(directory: LabDirectory) -> None:
    try:
        down(directory)
    except OSError as error:
        hint = f"`netlab down {directory.lab}` removes what is left"
        raise LabError(f"the lab {directory.lab} could not be taken down: {told(error)}", hint) from error


def namespaces(directory: LabDirectory) -> Namespaces:
    """Enter the lab, which is up."""
    state = directory.read()
    assert state is not None
    return open_own(state)


def run(
    inside: Namespaces,
    spec: Spec,
    given: Run,
    capabilities: tuple[str, ...],
    trials: int,
    progress: Callable[[int, int], None] | None = None,
    *,
    keep_frames: bool = False,
    whole: bool = False,
) -> Ran:
    """Run the experiment in its lab: `observe_run`, which says what is raised and what keep_frames and whole are."""
    return observe_run(
        spec.topology,
        given.experiment,
        spec.fixes,
        inside,
        trials,
        progress,
        keep_frames=keep_frames,
        source=Source(spec.text, spec.settings, spec.fixes, given.document, given.own, deciding()),
        capabilities=capabilities,
        whole=whole,
    )
