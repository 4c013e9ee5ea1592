"""`vsel`: the command line. Each command calls one function of the engine."""

from vsel_platform.cli.app import main

__all__ = ["main"]
