"""Errors that a user can cause and cure: one sentence each, and an exit code.

The message says what is wrong, in which file, and what to do. The command line prints it without a
traceback and exits with ``exit_code``.
"""


class VoxsegError(Exception):
    """Something failed for a reason that the user can be told in one sentence."""

    exit_code = 1


class UsageError(VoxsegError):
    """An option, recipe, key or combination of them cannot work."""

    exit_code = 2


class DataError(VoxsegError):
    """A file or folder does not hold what it must."""

    exit_code = 3
