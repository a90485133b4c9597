"""What a stimulus raises where it could not be applied."""


class NotApplied(Exception):  # noqa: N818  (it is no error: the kernel or the network did something else)
    """A stimulus that could not be applied; the message is what was missing, as a noun phrase."""
