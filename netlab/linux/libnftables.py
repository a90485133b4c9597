"""The binding of libnftables: netfilter's own Python module wherever it lies, else as much of it as netlab calls.

Distributions have that module for their own Python (Debian's python3-nftables), so the environments that venv, pipx and
uv make don't see it, although it is plain Python that any of them can load. No package index has it but as three
people's copies, all of nftables 1.0.2 of 2022: none is kept, and code that root runs should come from whom it is
trusted to already. And many a machine has the library, which comes with nft, without the module. For those a class here
calls the same functions (libnftables(3), nftables/libnftables.h).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from typing import Any, Protocol

_OF_DEBIAN = "/usr/lib/python3/dist-packages"
_OUTPUT_STATELESS, _OUTPUT_HANDLE = 1 << 2, 1 << 3


class Context(Protocol):
    """What netlab calls of netfilter's Nftables."""

    def cmd(self, commands: bytes, /) -> tuple[int, bytes, bytes]:
        """Run commands: 0 or an error's code, what they print, what is complained of."""

    def cmd_from_file(self, path: bytes, /) -> tuple[int, bytes, bytes]:
        """The same of a file's commands."""

    def set_handle_output(self, wanted: bool, /) -> Any:
        """Whether listings tell handles."""

    def set_stateless_output(self, wanted: bool, /) -> Any:
        """Whether listings leave out counters."""


def binding() -> Callable[[], Context]:
    """What makes a context. Called, it raises OSError where there is no library."""
    for places in ((), (_OF_DEBIAN,)):
        sys.path += places  # at its end, and for this one module: all others stay what they were
        try:
            from nftables import Nftables
        except ImportError:
            continue
        finally:
            del sys.path[len(sys.path) - len(places) :]
        made: Callable[[], Context] = Nftables
        return made
    return Library


class Library:
    """A context of the library itself."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libnftables.so.1")
        for name in ("nft_ctx_new", "nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(self._library, name).restype = ctypes.c_void_p if name == "nft_ctx_new" else ctypes.c_char_p
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def cmd(self, commands: bytes) -> tuple[int, bytes, bytes]:
        """As Context has it."""
        return self._said(self._library.nft_run_cmd_from_buffer(self._context, commands))

    def cmd_from_file(self, path: bytes) -> tuple[int, bytes, bytes]:
        """As Context has it."""
        return self._said(self._library.nft_run_cmd_from_filename(self._context, path))

    def set_handle_output(self, wanted: bool) -> None:
        """As Context has it."""
        self._set(_OUTPUT_HANDLE, wanted)

    def set_stateless_output(self, wanted: bool) -> None:
        """As Context has it."""
        self._set(_OUTPUT_STATELESS, wanted)

    def _said(self, code: int) -> tuple[int, bytes, bytes]:
        output = self._library.nft_ctx_get_output_buffer(self._context)
        complaint = self._library.nft_ctx_get_error_buffer(self._context)
        return code, output, complaint

    def _set(self, flag: int, wanted: bool) -> None:
        flags = self._library.nft_ctx_output_get_flags(self._context)
        self._library.nft_ctx_output_set_flags(self._context, flags | flag if wanted else flags & ~flag)
