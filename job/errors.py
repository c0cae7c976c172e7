"""Every error a user can meet, and the exit code that belongs to it.

AaeError                      1   something outside went wrong; try again
├── UsageError                2   the command asks for what cannot be; nothing was written
│   ├── SettingsError         2   mistakes in the settings, all of them at once
│   └── TakenOverError        2   another process writes this run
├── StorageError          1   the disk gave no answer at a start; another start may get one
├── HangError                 1   a step never ends; the process ends itself
├── GraphError                1   the GPU takes no recorded steps; the process starts anew without
├── CheckpointError           1   one checkpoint cannot be used; the one before it may
└── HopelessError             3   a restart will not help

Each message says what happened, with which value, where, and what to do next.
"""

EXIT_FINISHED = 0
EXIT_RESUMABLE = 75
EXIT_INTERRUPTED = 130


class AaeError(Exception):
    """The base of all errors that are told to the user in one message instead of a traceback."""

    exit_code = 1


class UsageError(AaeError):
    """The command asks for what cannot be."""

    exit_code = 2


class SettingsError(UsageError):
    """One or more mistakes in the settings, found before anything was written."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__("\n".join([f"{count} in the settings; nothing was written", *(f"  {m}" for m in mistakes)]))


class TakenOverError(UsageError):
    """Another process is the writer of this run."""


class CheckpointError(AaeError):
    """One checkpoint is damaged, hostile or of another format."""


class HangError(AaeError):
    """A step that never ends; `where` is the stack of the loop's thread."""

    def __init__(self, message: str, where: str) -> None:
        self.where = where
        super().__init__(message)


class GraphError(AaeError):
    """A CUDA graph that could not be recorded: what is left half open of it ends with the process."""


class StorageError(AaeError):
    """What a start needs could not be read or written for a minute."""


class HopelessError(AaeError):
    """The run cannot go on and a restart will not help; `reason` is one word for programs."""

    exit_code = 3

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)
