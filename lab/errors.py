"""The lab's errors, as a tree. Every message says what was attempted and what to change.

LabError
├── MissingPrerequisiteError   the machine lacks something the lab cannot install itself
├── BuildError                 a component did not build; the log is named
├── CommandError               a command ended with a status other than 0; its stderr is in the message
├── NotReadyError              something did not become ready within its deadline
└── LabBusyError               another `up` or `down` of the same lab is running
"""

from __future__ import annotations


class LabError(Exception):
    """Base of all errors the command line prints without a traceback."""


class MissingPrerequisiteError(LabError):
    """The machine lacks something the lab cannot install itself."""


class BuildError(LabError):
    """A component did not build."""


class CommandError(LabError):
    """A command ended with a status other than 0."""


class NotReadyError(LabError):
    """Something did not become ready within its deadline."""


class LabBusyError(LabError):
    """Another `up` or `down` of the same lab holds its lock."""
