"""`help`: what `--help` of a command shows."""

from typing import Annotated, Any

import typer

from netlab.errors import UsageError
from netlab.terminal import write

app = typer.Typer()


def _complete(context: typer.Context, incomplete: str) -> list[str]:
    """The commands below those that stand there already."""
    try:
        _, group = _find(context, context.params.get("words") or context.args)
    except UsageError:
        return []
    return [name for name in getattr(group, "commands", ()) if name.startswith(incomplete)]


@app.command("help")
def show(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND]…", help="As `fix apply`; left out: netlab itself.", autocompletion=_complete),
    ] = None,
) -> None:
    """Show the help of netlab or of a command."""
    inner, command = _find(context, words or [])
    write(f"{command.get_help(inner)}\n")


def _find(context: typer.Context, words: list[str]) -> tuple[Any, Any]:
    """The command that the words call, in its context; UsageError where they call none."""
    inner: Any = context.find_root()
    command: Any = inner.command
    for word in words:
        below = getattr(command, "commands", {})
        if word not in below:
            from netlab.yamlspec.document import suggest

            raise UsageError(
                f"there is no command {' '.join(words)!r}", suggest(word, list(below)) or "`netlab help` lists them"
            )
        command = below[word]
        inner = type(context)(command, info_name=word, parent=inner)
    return inner, command
