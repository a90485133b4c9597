"""`examples`: the topologies and experiments that come with netlab."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from netlab import escapes, shipped, terminal
from netlab.cli.options import DataFormat, FormatOption
from netlab.errors import LabError
from netlab.style import Piece, Style

if TYPE_CHECKING:
    from collections.abc import Mapping

app = typer.Typer()


class _Example(NamedTuple):
    """A file's name, its one sentence, and for an experiment the name of its topology."""

    name: str
    sentence: str
    topology: str
    file: Path


@app.command()
def examples(
    output: FormatOption = DataFormat.text,
) -> None:
    """List the topologies and experiments that come with netlab.

    Each is known by its name from any directory: `netlab up cluster`, `netlab run window-overrun`.
    """
    directory = shipped.directory()
    if directory is None:
        raise LabError("this netlab was installed without its examples", "they are in `topologies/` of its repository")
    topologies, experiments = list(_read(shipped.topologies())), list(_read(shipped.experiments()))
    if output is DataFormat.json:
        terminal.write(
            escapes.as_json(
                {
                    "directory": str(directory),
                    "topologies": [
                        {"name": each.name, "description": each.sentence, "file": str(each.file)} for each in topologies
                    ],
                    "experiments": [
                        {
                            "name": each.name,
                            "claim": each.sentence,
                            "topology": each.topology,
                            "file": str(each.file),
                        }
                        for each in experiments
                    ],
                }
            )
        )
        return
    terminal.show(_pieces(topologies, experiments, terminal.columns()))
    terminal.say("`netlab up TOPOLOGY` and `netlab run EXPERIMENT` take these names anywhere.")
    terminal.say(f"The files are in {directory}.")


def _read(files: "Mapping[str, Path]") -> Iterator[_Example]:
    """What each file says of itself, without more of it being understood; TopologyError where it isn't YAML."""
    from netlab.yamlspec.compose import composed

    for name, path in files.items():
        top = {key.value: value.value for key, value in composed(path.read_text("utf-8"), str(path)).root.value}
        yield _Example(name, top.get("claim", top.get("description", "")), Path(top.get("topology", "")).stem, path)


def _pieces(topologies: list[_Example], experiments: list[_Example], width: int) -> Iterator[Piece]:
    names = max(len(each.name) for each in (*topologies, *experiments))
    yield Piece("TOPOLOGIES\n")
    for each in topologies:
        yield from _entry(each, names, width)
    for lab in sorted({each.topology for each in experiments}):
        yield Piece(f"\nEXPERIMENTS in {lab}\n")
        for each in experiments:
            if each.topology == lab:
                yield from _entry(each, names, width)


def _entry(example: _Example, names: int, width: int) -> Iterator[Piece]:
    from netlab.report.wrapping import wrap

    indent = names + 4
    first, *more = wrap(example.sentence, max(width - indent, 20)) or [""]
    yield Piece(f"  {example.name:{names}}", Style.STRONG)
    yield Piece(f"  {first}\n")
    yield from (Piece(f"{'':{indent}}{line}\n") for line in more)
