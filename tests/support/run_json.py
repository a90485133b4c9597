"""What `run --format json` prints, as far as the tests of more than one room know it."""

from __future__ import annotations

LOAD = ("connections", "outcomes", "late_segments", "segments_logged", "cpu_percent", "unlimited", "not_completed")
"""The members of a trial's `load`, in order."""
