"""Run the whole program in this process, through Typer's runner."""

import json
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from voxseg.cli.main import app
from voxseg.errors import VoxsegError


@dataclass(frozen=True)
class Outcome:
    """What a user would see."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture(scope="session")
def voxseg():
    """Call the program; an error that a user can cure becomes its code and its sentence."""

    def call(*words):
        result = CliRunner().invoke(app, [str(w) for w in words], env={"COLUMNS": "200"})
        if isinstance(result.exception, VoxsegError):
            return Outcome(result.exception.exit_code, result.stdout, str(result.exception))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call
