"""A group of commands whose help lists each with its whole first sentence: typer cuts it where the line ends."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from typer.core import TyperGroup

from netlab.errors import LabError, told

_UNCUT = 1000


class Group(TyperGroup):
    """Commands in the order of the sections, each section under its heading."""

    sections: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Names by heading; empty: all of them, as they come, under Commands."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. A broken pipe would end it in silence: click takes each for one of stdout's, which is
        `terminal.write`'s to notice."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise LabError(f"a process of netlab's ended before it answered: {told(error)}") from error

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in order."""
        names = super().list_commands(ctx)
        order = [name for section in self.sections.values() for name in section]
        return sorted(names, key=order.index) if order else names

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections, their second columns below each other."""
        names = self.list_commands(ctx)
        width = max(map(len, names))
        for heading, section in (self.sections or {"Commands": names}).items():
            rows = [(name.ljust(width), self._summary(ctx, name)) for name in section if name in names]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def _summary(self, ctx: Any, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(_UNCUT) if command is not None else ""
