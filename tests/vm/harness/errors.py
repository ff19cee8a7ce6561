"""What the harness raises.

HarnessError
+-- UnavailableError      a tool, a right or a package source is missing: tests are skipped
+-- BuildError            a build step failed
+-- MachineStoppedError   the machine is not running (any more)
+-- CommandFailedError    a command in the guest ended with another status than 0
"""

from __future__ import annotations


class HarnessError(Exception):
    """Anything that the harness reports."""


class UnavailableError(HarnessError):
    """This host cannot run the machines; the text says what is missing and how to get it."""


class BuildError(HarnessError):
    """A step of the image build failed; the text ends with the last lines of its output."""


class MachineStoppedError(HarnessError):
    """The machine stopped, never became ready, or was not started; the text has its console."""


class CommandFailedError(HarnessError):
    """A command in the guest ended with another status than 0; the text has its output."""
