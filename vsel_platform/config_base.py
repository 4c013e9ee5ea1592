"""What all settings have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Settings(BaseModel):
    """Base of all settings: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
