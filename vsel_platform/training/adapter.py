"""What is trained of a model: LoRA layers and projector; and the adapter as a directory."""

import hashlib
import math
import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from vsel_platform.config_training import LoraSettings
from vsel_platform.errors import ModelError
from vsel_platform.models.decoder_forward import ModelParts
from vsel_platform.models.lora_adapter import ADAPTER_WEIGHTS, AdapterExtras, add_prototypes, write_extras
from vsel_platform.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from vsel_platform.training.history import History

LOSSES_FILE = "losses.json"
QUESTIONS_FILE = "asked_questions.jsonl"
PROTOTYPES = "prototypes"
"""Key of the losses file under which it says how prototypes were used."""
DIGITS = 6


def add_lora(model: Any, parts: ModelParts, settings: LoraSettings, *, base_name: str, token: int | None = None) -> Any:
    """Put LoRA layers into language model and vision tower as the settings say, and unfreeze the projector if it is
    trained. Prototypes, if any, become part of the projector. `token`: whose input embedding learns besides.

    `model` is changed in place; returns the peft model around it. The projector is trained in float32 whatever the
    model's dtype: small steps would vanish in bfloat16. Raises ModelError if nothing matches.
    """
    import peft
    import torch
    from peft.utils.constants import DUMMY_TARGET_MODULES

    train_projector = settings.projector_learning_rate > 0
    if settings.prototypes.prototypes and (len(parts.projectors) > 1 or not train_projector):
        raise ModelError("lora.prototypes: needs a model with one projector, and projector_learning_rate above 0")
    add_prototypes(model, parts.projectors[0], settings.prototypes)
    if train_projector:
        for path in parts.projectors:
            _widen(model.get_submodule(path), model.dtype)
    language = [] if settings.projector_only else language_targets(model, parts, settings.targets)
    vision = vision_targets(model, parts, settings.vision.targets) if settings.vision.rank else []
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        # One expression instead of a list: peft keeps lists as sets, whose order differs from run to run.
        target_modules=_any_of([*language, *vision]) if language or vision else DUMMY_TARGET_MODULES,
        rank_pattern={_any_of(vision): settings.vision.rank} if vision else {},
        alpha_pattern={_any_of(vision): settings.vision.alpha} if vision else {},
        modules_to_save=list(parts.projectors) if train_projector else None,
        trainable_token_indices=None if token is None else [token],
    )
    with quiet_transformers():
        peft_model = peft.get_peft_model(model, config)
    if settings.vision.dropout is not None:
        for path in vision:  # peft has one dropout for all layers
            model.get_submodule(path).lora_dropout["default"] = torch.nn.Dropout(settings.vision.dropout)
    # peft would name the directory that the weights came from, a place in a cache for a hub model.
    peft_model.peft_config["default"].base_model_name_or_path = base_name
    return peft_model


def _widen(module: Any, dtype: Any) -> None:
    """Make a module's weights float32; what goes in may have any dtype, what comes out has `dtype`."""
    module.float()
    module.register_forward_pre_hook(_floats)
    module.register_forward_hook(partial(_narrowed, dtype))


def _floats(module: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(argument.float() for argument in arguments)


def _narrowed(dtype: Any, module: Any, arguments: Any, output: Any) -> Any:
    return output.to(dtype)


def language_targets(model: Any, parts: ModelParts, targets: str | None) -> list[str]:
    """Paths of the language model's linear layers that get LoRA: all, or those that `targets` matches as a whole."""
    layers = linear_layers(model, parts.language)
    found = _matching(layers, parts.language, targets)
    if not found:
        raise _nothing_matches("lora.targets", "language model", layers, parts.language, targets)
    return found


def vision_targets(model: Any, parts: ModelParts, targets: str | None) -> list[str]:
    """Paths of the tower's linear layers that get LoRA.

    Without an expression: all in its layers, up to the last one that features pass through; deeper ones get no
    gradient (SQ-LLaVA adapts them in vain). Raises ModelError if there are none.
    """
    inside = [
        p for p in linear_layers(model, parts.tower) if not p.startswith(tuple(f"{q}." for q in parts.projectors))
    ]
    if targets is not None:
        found = _matching(inside, parts.tower, targets)
    else:
        numbered = {path: re.search(r"\.(?:layers|blocks|layer|block)\.(\d+)\.", path) for path in inside}
        found = [path for path, number in numbered.items() if number and int(number[1]) < parts.tower_layers]
    if not found:
        raise _nothing_matches("lora.vision.targets", "vision tower", inside, parts.tower, targets)
    return found


def _nothing_matches(key: str, part: str, layers: list[str], root: str, targets: str | None) -> ModelError:
    if not layers:
        return ModelError(f"{key}: the {part} of this model has no linear layers (torch.nn.Linear) that LoRA can adapt")
    paths = ", ".join(path.removeprefix(root + ".") for path in (layers[0], layers[-1]))
    wanted = "gives no features" if targets is None else f"is matched as a whole by {targets!r}"
    return ModelError(f"{key}: no linear layer of the {part} {wanted}; their paths are such as {paths}")


def linear_layers(model: Any, root: str) -> list[str]:
    """Whole paths of the linear layers below a module, in the model's order."""
    import torch

    named = model.get_submodule(root).named_modules()
    return [f"{root}.{name}" for name, module in named if isinstance(module, torch.nn.Linear)]


def _matching(paths: list[str], root: str, targets: str | None) -> list[str]:
    if targets is None:
        return paths
    expression = re.compile(targets)
    return [path for path in paths if expression.fullmatch(path.removeprefix(root + "."))]


def _any_of(paths: list[str]) -> str:
    """One expression for some layers, shortened where only the layer's number differs."""
    forms = {re.sub(r"\\\.\d+\\\.", r"\\.@\\.", re.escape(path)): None for path in paths}
    groups = {form: sorted({int(n) for n in _numbers(paths, form)}) for form in forms}
    return "|".join(
        f"(?:{form.replace('@', '(?:' + '|'.join(map(str, numbers)) + ')') if numbers else form})"
        for form, numbers in groups.items()
    )


def _numbers(paths: list[str], form: str) -> list[str]:
    if form.count("@") != 1:
        return []
    expression = re.compile(form.replace("@", r"(\d+)"))
    return [found[1] for path in paths if (found := expression.fullmatch(path))]


def parameter_groups(model: Any, parts: ModelParts, settings: LoraSettings) -> list[dict[str, Any]]:
    """Optimiser groups of the trainable parameters, each with its own peak learning rate: LoRA of the language model,
    of the vision tower, and the projector. Biases and the weights of norms do not decay (as in LLaVA's trainer)."""
    rates = {
        "projector": settings.projector_learning_rate,
        "vision": settings.vision.learning_rate,
        "language": settings.learning_rate,
    }
    groups: dict[tuple[str, bool], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            path = name.replace(".modules_to_save.default", "")
            of = (
                "projector"
                if any(p in path for p in parts.projectors)
                else "vision"
                if parts.tower in path
                else "language"
            )
            decays = parameter.ndim > 1
            groups.setdefault((of, decays), []).append(parameter)
    return [
        {"params": groups[of, decays], "lr": rates[of], "weight_decay": settings.weight_decay if decays else 0.0}
        for of in ("language", "vision", "projector")
        for decays in (True, False)
        if (of, decays) in groups
    ]


def save_adapter(
    model: Any,
    directory: Path,
    card: str,
    history: "History",
    settings: LoraSettings,
    *,
    questions: Sequence[tuple[int, str, int]] = (),
    state: Any = None,
) -> str:
    """Write the adapter to `directory` (whole or not at all, replacing an older one); sha256 of the weights file.

    `questions`: (epoch, row, turn) of every turn that was learned as a question. `state`: gathered weights of a model
    that lies on several devices. Six digits of the history are kept.
    """
    temporary = directory.with_name(directory.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    # peft would otherwise ask the hub for the base model's configuration.
    model.save_pretrained(str(temporary), safe_serialization=True, save_embedding_layers=False, state_dict=state)
    config_file = temporary / "adapter_config.json"
    config = orjson.loads(config_file.read_bytes())
    config_file.write_bytes(orjson.dumps(config, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2))
    extras = AdapterExtras(prototypes=settings.prototypes, dedicated_token=settings.self_questioning.dedicated_token)
    write_extras(temporary, extras)
    (temporary / "README.md").write_text(card, "utf-8")
    (temporary / LOSSES_FILE).write_bytes(orjson.dumps(losses_of(history)))
    if questions:
        (temporary / QUESTIONS_FILE).write_bytes(b"".join(orjson.dumps(asked) + b"\n" for asked in sorted(questions)))
    digest = hashlib.sha256((temporary / ADAPTER_WEIGHTS).read_bytes()).hexdigest()
    shutil.rmtree(directory, ignore_errors=True)
    temporary.rename(directory)
    return digest


def losses_of(history: "History") -> dict[str, list[Any]]:
    """Losses and learning rate of every step, and how prototypes were used, as they lie beside the adapter; times are
    left out, because the same training gives the same files."""
    names = ("loss", "answer_loss", "question_loss", "learning_rate", "rows", "tokens")
    found: dict[str, list[Any]] = {name: [_rounded(value) for value in getattr(history, name)] for name in names}
    usage = [{name: _rounded(value) for name, value in own.items()} for own in history.prototypes]
    return found | ({PROTOTYPES: usage} if usage else {})


def _rounded(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")
