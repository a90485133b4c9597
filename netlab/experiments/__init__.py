"""Experiments: each file one trigger, with its claim, its stimulus and what must be seen."""
