from voxseg.errors import EXIT_CODES, DataError, ExitCode, UsageError, VoxsegError


def test_every_exit_code_is_explained_once():
    assert [int(code) for code in EXIT_CODES] == [0, 1, 2, 3, 4, 130]
    assert list(EXIT_CODES) == list(ExitCode)
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)


def test_errors_have_their_codes():
    assert [error.exit_code for error in (VoxsegError, UsageError, DataError)] == [1, 2, 3]
