"""From a Recording to what happened and why: one timeline, findings, judging, explaining. Pure."""
