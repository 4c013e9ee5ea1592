"""The exception tree. Every message says what happened, where, and what to do next."""


class VselError(Exception):
    """Base of all errors that a user can act on; the CLI prints these without a traceback."""

    exit_code = 1


class RunError(VselError):
    """A run of a deployment failed; the exit code is that of the error which ended it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ConfigError(VselError):
    """The project file or an option is wrong."""

    exit_code = 2


class DataError(VselError):
    """Source data cannot be used as it is."""

    exit_code = 3


class QuarantineLimitError(DataError):
    """More rows than the project file allows were quarantined."""


class StorageError(VselError):
    """The store cannot be read or written."""

    exit_code = 4


class ConflictError(StorageError):
    """Another writer replaced the pointer between read and write."""


class NotMaterializedError(StorageError):
    """A table partition that an operation needs has not been published yet."""


class ModelError(VselError):
    """A model cannot be loaded or run."""

    exit_code = 5


class UnsafeCheckpointError(ModelError):
    """A checkpoint could execute code when loaded (pickle) and is refused."""


class OutOfMemoryError(ModelError):
    """One row does not fit into device memory even alone."""


class SelectionError(VselError):
    """A selection cannot be made or does not match its manifest."""

    exit_code = 6


class VerificationError(SelectionError):
    """A file or a store does not match a manifest."""


class EvaluationError(VselError):
    """An evaluation cannot be made, compared or exported."""

    exit_code = 9


class QueryError(VselError):
    """A SQL statement was refused or failed."""

    exit_code = 7


class MissingPackageError(VselError):
    """An optional package is needed; the message names the command that installs it."""

    exit_code = 8
