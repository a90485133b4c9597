"""netlab: Linux network labs from YAML, in which the kernel itself misbehaves and shows why."""

__version__ = "0.1.0"
