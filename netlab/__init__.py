"""netlab: Linux network labs from YAML, in which the kernel itself misbehaves and shows why."""
