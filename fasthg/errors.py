"""What can go wrong for a user, and the exit code that each kind ends with.

Every message names the thing, the value and the way out, in one line.
"""


class FasthgError(Exception):
    """Bad usage or bad input; the command line prints the message and exits with `exit_code`."""

    exit_code = 2


class ParityError(FasthgError):
    """An artefact or a path does not answer like the reference; nothing is left behind."""

    exit_code = 3


class BackendUnavailable(FasthgError):
    """A backend cannot run here; the message says why and how to get it."""

    exit_code = 4


class ItemsLeftOut(FasthgError):
    """A run has left out what could not be read, and kept everything else."""

    exit_code = 5
