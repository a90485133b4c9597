"""What a fuzzer needs: a target, the bytes it is fed with, and a run of so many of them that says what broke.

`fuzz_targets.py` lists the targets; `scripts/fuzz` runs them for as long as you like, `tests/test_fuzz.py` for about
half a minute. Inputs that once broke something lie in tests/data/fuzz/TARGET, and every test run tries them again.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from places import DATA

from netlab.errors import NetlabError

CORPUS = DATA / "fuzz"

INPUT_S = 20.0
"""How long one input may take: far more than any needs on a busy machine, far less than for ever."""


@dataclass(frozen=True)
class Target:
    """A function that is fed with bytes, and how such bytes are made.

    Of any input it returns, or raises one of what it refuses with: NetlabError, or what its contract names instead.
    """

    name: str
    feed: Callable[[bytes], object]
    inputs: SearchStrategy[bytes]
    refuses: tuple[type[Exception], ...] = (NetlabError,)

    def takes(self, data: bytes) -> bool:
        """Whether the input was taken, and not refused; TimeoutError, and whatever else it raises, is a fault."""
        with _time_limit(INPUT_S):
            try:
                self.feed(data)
            except TimeoutError:
                raise
            except self.refuses:
                return False
        return True

    def corpus(self) -> list[Path]:
        """The inputs that broke it once, or that nearly did."""
        return sorted((CORPUS / self.name).glob("*"))


@dataclass
class Count:
    """How many inputs a target was fed with, and how many of them it took."""

    inputs: int = 0
    taken: int = 0


class FuzzError(Exception):
    """The smallest input found that a target neither takes nor refuses; `__cause__` is what it raised."""

    def __init__(self, target: Target, data: bytes) -> None:
        super().__init__(target, data)
        self.target = target
        self.data = data

    def __str__(self) -> str:
        return f"{self.target.name}: {self.__cause__!r} of {self.data!r:.300}"

    def keep(self, directory: Path = CORPUS) -> Path:
        """Write the input to where later runs find it."""
        path = directory / self.target.name / hashlib.sha256(self.data).hexdigest()[:12]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.data)
        return path


def run(target: Target, examples: int, number: int, count: Count) -> None:
    """Feed a target with so many inputs made from a seed, and count them.

    FuzzError with the smallest input found that breaks the target.
    """
    breaking = b""

    def feed(data: bytes) -> None:
        nonlocal breaking
        count.inputs += 1
        try:
            count.taken += target.takes(data)
        except BaseException:
            breaking = data
            raise

    limits = settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
    )
    try:
        seed(number)(limits(given(target.inputs)(feed)))()
    except Exception as error:
        raise FuzzError(target, breaking) from error


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def over(*_: object) -> None:
        raise TimeoutError(f"it took longer than {seconds:g} s")

    former = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


# --- bytes, from sound ones ------------------------------------------------------------------------------------------

EDGES = (0, 1, 2, 3, 4, 7, 8, 12, 15, 16, 19, 20, 31, 32, 40, 63, 64, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF)
EDGES_32 = (*EDGES, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
"""Numbers that lengths, counts and types are written with where somebody wants to break a reader."""


def damaged(sound: Sequence[bytes], most_edits: int = 6) -> SearchStrategy[bytes]:
    """Sound inputs with some bytes changed, cut out, doubled, or set to a number at an edge; and some never sound."""
    place = st.integers(0, 1 << 20)
    edits = st.one_of(
        st.tuples(st.just(_set), place, st.binary(min_size=1, max_size=8)),
        st.tuples(st.just(_insert), place, st.binary(min_size=1, max_size=16)),
        st.tuples(st.just(_cut), place, st.integers(1, 64)),
        st.tuples(st.just(_end), place, st.none()),
        st.tuples(st.just(_double), place, st.integers(1, 64)),
        st.tuples(st.just(_set), place, st.sampled_from(EDGES_32).flatmap(_packed)),
    )
    changed = st.tuples(st.sampled_from(sound), st.lists(edits, min_size=1, max_size=most_edits)).map(_edited)
    return changed | st.binary(max_size=200)


def _packed(number: int) -> SearchStrategy[bytes]:
    sizes = [size for size in (1, 2, 4) if number < 1 << 8 * size]
    return st.builds(number.to_bytes, st.sampled_from(sizes), st.sampled_from(["little", "big"]))


def _edited(what: tuple[bytes, Sequence[tuple[Callable[[bytes, int, Any], bytes], int, Any]]]) -> bytes:
    data, edits = what
    for edit, place, value in edits:
        data = edit(data, place % (len(data) + 1), value)
    return data


def _set(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def _insert(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at:]


def _cut(data: bytes, at: int, length: int) -> bytes:
    return data[:at] + data[at + length :]


def _end(data: bytes, at: int, _: None) -> bytes:
    return data[:at]


def _double(data: bytes, at: int, length: int) -> bytes:
    return data[: at + length] + data[at:]
