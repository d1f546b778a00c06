"""``python -m voxseg``: the same program as ``voxseg``, in a checkout that is not installed too."""

import importlib
import importlib.util
import sys
from pathlib import Path


def _find_command_line() -> None:
    """Name the folder ``cli`` beside this package as an installation does, where there is none."""
    name = "voxseg.cli"
    folder = Path(__file__).parents[1] / "cli"
    if importlib.util.find_spec(name) is not None or not folder.is_dir():
        return
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    _find_command_line()
    # By name: the library must not import its command line, and this file is the one door to it.
    importlib.import_module("voxseg.cli.main").main()
