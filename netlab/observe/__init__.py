"""Observers: each file one source of events from the kernel."""
