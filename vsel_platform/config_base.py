"""What all settings have in common."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Settings(BaseModel):
    """Base of all settings: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CheckpointSettings(Settings):
    """A model by its hub id, or by a directory, which may be relative to the project file."""

    model: str
    revision: str | None = Field(None, description="Hub revision (commit) to pin.")
    _base_dir: str = PrivateAttr("")

    @property
    def place(self) -> str:
        """`model`, as an absolute path if it is a directory beside the project file.

        It names no content: a project that is moved keeps what was computed.
        """
        return self._beside(self.model) if Path(self._beside(self.model)).is_dir() else self.model

    def relative_to(self, base_dir: str) -> None:
        """Directories are relative to `base_dir` from now on."""
        self._base_dir = base_dir

    def _beside(self, path: str) -> str:
        return str(Path(self._base_dir) / path) if self._base_dir else path
