"""A lab's life: spec and plan as values, and what makes, reads, keeps and ends them in the kernel."""
