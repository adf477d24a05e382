"""The command line: arguments to use cases, and output. No logic of its own.

`render` and `lint` need no cluster and must start fast, so every command imports what it uses when it runs.
"""

from perfpolicy.cli.program import program

__all__ = ["program"]
