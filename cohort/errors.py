"""Errors that a user can act on: one line, no patient's data, and the exit code the command line ends with."""


class SutureError(Exception):
    """A problem in what the user gave. The message is one line naming file, column or key, count and allowed range."""

    exit_code = 1


class ConfigError(SutureError):
    """A configuration file or value is wrong."""

    exit_code = 2


class InputError(SutureError):
    """A table, episode set or other input is wrong."""

    exit_code = 3


class ArtifactError(SutureError):
    """A stage's directory is missing, unfinished, tampered with, or already there."""

    exit_code = 4


class VersionError(ArtifactError):
    """A stage's directory was written by another version of Suture than the one that reads it."""
