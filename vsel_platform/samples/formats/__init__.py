"""Formats of source rows. A new one is a module with `read` and a line in `_FORMATS`:

    def read(row: Mapping[str, Any]) -> Conversation:
        '''Turns and images of a row. Raises RefusedRow.'''
        return Conversation(read_turns(row, "dialog", "speaker", "text", {"q": "user", "a": "assistant"}),
                            read_images(row))

`read` gets one JSON object (or one row of a Parquet file as a dict, embedded images as `EmbeddedImage`) and
gives `(role, text)` turns with the roles system, user, assistant, and image references in order. What it cannot
read it refuses with `RefusedRow(reason, detail)`. Everything else (files, streams, identity, checks of order,
tags and images, writing back) is the same for all formats.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vsel_platform.errors import ConfigError
from vsel_platform.samples.containers import Container, json_array, parquet
from vsel_platform.samples.formats import huggingface, llava, sharegpt, vision_flan
from vsel_platform.samples.sample import Conversation


@dataclass(frozen=True, slots=True)
class Format:
    """A format: its reader, and the container that rows are written in when the source names no other."""

    name: str
    read: Callable[[Mapping[str, Any]], Conversation]
    container: Container


_FORMATS = {
    item.name: item
    for item in (
        Format("llava", llava.read, json_array()),
        Format("sharegpt", sharegpt.read, json_array(indent=2, ensure_ascii=False)),
        Format("vision_flan", vision_flan.read, json_array(indent=4)),
        Format("huggingface", huggingface.read, parquet()),
    )
}


def reader(name: str) -> Format:
    """The format called `name`. Raises ConfigError with the known names."""
    if name not in _FORMATS:
        raise ConfigError(f"unknown format {name!r}; known: {', '.join(_FORMATS)}")
    return _FORMATS[name]
