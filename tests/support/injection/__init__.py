"""Injects faults into netlab's commands, in a sandbox of its own, and judges what is left: see `scripts/faults`."""
