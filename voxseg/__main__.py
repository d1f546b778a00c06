"""``python -m voxseg``: the same program as ``voxseg``."""

import importlib

if __name__ == "__main__":
    # By name: the library must not import its command line, and this file is the one door to it.
    importlib.import_module("voxseg.cli.main").main()
