"""What is wrong with settings, in words: of an unknown key the known ones, and the nearest of them."""

from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

# Set by the loader, not by people.
_OWN_KEYS = ("base_dir",)
_NAME = "is no name: letters, digits, - and _, with a letter or digit first, 63 characters at most"


def problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line for every problem of validating `model`: the key with its path, and what is wrong with it."""
    lines = []
    for found in error.errors():
        path = [str(part) for part in found["loc"] if part != "[key]"]
        text = _words(found["type"], found["loc"], found["msg"], model)
        lines.append(f"{'.'.join(path)}: {text}" if path else text)
    return lines


def _words(kind: str, place: tuple[int | str, ...], message: str, model: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        return _unknown_key(str(place[-1]), _model_at(model, place[:-1]))
    if kind == "missing":
        return "is missing"
    if kind == "string_pattern_mismatch" and place[-1] == "[key]":
        return _NAME
    return message.removeprefix("Value error, ")


def _unknown_key(key: str, model: type[BaseModel] | None) -> str:
    known = [name for name in model.model_fields if name not in _OWN_KEYS] if model else []
    near = get_close_matches(key, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown key{hint} (known: {', '.join(known) or 'none'})"


def _model_at(model: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The settings class at a path of keys; None if the path leaves the classes."""
    annotation: Any = model
    for part in place:
        inner = _find_model(annotation)
        if get_origin(annotation) in (dict, list, tuple):
            annotation = get_args(annotation)[-1]
        elif inner is not None and part in inner.model_fields:
            annotation = inner.model_fields[str(part)].annotation
        else:
            return None
    return _find_model(annotation)


def _find_model(annotation: Any) -> type[BaseModel] | None:
    """The settings class of an annotation such as `VlmSettings | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_find_model(part) for part in get_args(annotation))
    return next((part for part in found if part is not None), None)
