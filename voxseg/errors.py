"""Errors that a user can cause and cure: one sentence each, and an exit code.

The message says what is wrong, in which file, and what to do. The command line prints it without a
traceback and exits with ``exit_code``.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Every exit code of the program; scripts can rely on them."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DATA = 3
    SOME_FAILED = 4
    INTERRUPTED = 130


EXIT_CODES = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed; of predict: no case was written; of reproduce: figures differ",
    ExitCode.USAGE: "wrong usage: an option, a name or a setting that cannot work",
    ExitCode.DATA: "the data are not fit: a file is missing, damaged or does not fit another",
    ExitCode.SOME_FAILED: "finished, but some cases or folds failed; the others are written",
    ExitCode.INTERRUPTED: "interrupted; what is finished stays, trainings wrote a checkpoint",
}
"""What each means; ``voxseg --help`` prints it."""


class VoxsegError(Exception):
    """Something failed for a reason that the user can be told in one sentence."""

    exit_code: int = ExitCode.FAILED


class UsageError(VoxsegError):
    """An option, recipe, key or combination of them cannot work."""

    exit_code = ExitCode.USAGE


class DataError(VoxsegError):
    """A file or folder does not hold what it must."""

    exit_code = ExitCode.DATA
