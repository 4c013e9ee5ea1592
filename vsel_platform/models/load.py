"""The vision-language model that a project names, whatever its family."""

from pathlib import Path
from typing import Any

from vsel_platform.config import VlmSettings
from vsel_platform.errors import ConfigError, ModelError
from vsel_platform.identity import fingerprint
from vsel_platform.models.devices import resolve_device, torch_dtype
from vsel_platform.models.families import FAMILIES
from vsel_platform.models.family_adapter import CHAT, FamilyAdapter
from vsel_platform.models.llava import EMBEDDED, LlavaAdapter, load_llava, require_usable, tokenizer_hash
from vsel_platform.models.lora_adapter import merge_adapter
from vsel_platform.models.quiet import quiet_transformers
from vsel_platform.models.safety import resolve_checkpoint, weights_hash


def load_vlm(settings: VlmSettings, device: str, adapter_dir: str | None = None) -> LlavaAdapter | FamilyAdapter:
    """The model that the settings name, on `device` (`auto` chooses), with a LoRA adapter merged into it.

    Without `adapter_dir` that is the one of the settings; an adapter that was trained on top of that one holds it.
    `settings.model` is a hub id, a directory, or `embedded:demo`. Raises
    UnsafeCheckpointError for weights that are not safetensors, ModelError if the checkpoint is of no known family,
    ConfigError for an unknown template or device.
    """
    family = "llava" if settings.model.startswith(EMBEDDED) else str(load_config(settings).model_type)
    if family not in FAMILIES:
        return load_llava(settings, device, adapter_dir)
    if settings.template not in (None, CHAT):
        raise ConfigError(f"vlm.template: {settings.template!r}: a {family} model has its own template: {CHAT}")
    return _load_family(settings, family, resolve_device(device), adapter_dir)


def load_config(settings: VlmSettings) -> Any:
    """Configuration of the model that the settings name; no weights are loaded. Raises ModelError if it is not there.

    The embedded models have a tower that is registered with them.
    """
    import transformers

    if settings.model.startswith(EMBEDDED):
        from vsel_platform.demo.tower import register_tower
        from vsel_platform.demo.vlm import embedded_directory

        register_tower()
        return transformers.AutoConfig.from_pretrained(embedded_directory(settings.model), trust_remote_code=False)
    directory = resolve_checkpoint(settings.place, settings.revision)
    try:
        return transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(f"vlm.model: {settings.model!r} cannot be loaded: {error}") from error


def _load_family(settings: VlmSettings, family: str, device: str, adapter_dir: str | None) -> FamilyAdapter:
    import transformers

    directory = resolve_checkpoint(settings.place, settings.revision)
    with quiet_transformers():
        try:
            model, loading = transformers.AutoModelForImageTextToText.from_pretrained(
                directory,
                dtype=torch_dtype(settings.dtype),
                use_safetensors=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
            tokenizer = transformers.AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
            image_processor = transformers.AutoImageProcessor.from_pretrained(
                directory, backend="pil", trust_remote_code=False
            )
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise ModelError(f"vlm.model: {settings.model!r} cannot be loaded: {error}") from error
    if loading["missing_keys"]:
        missing = sorted(loading["missing_keys"])
        raise ModelError(f"vlm.model: {settings.model!r} lacks the weights {', '.join(missing[:5])}")
    require_usable(tokenizer)
    weights = weights_hash(directory)
    adapter = adapter_dir or settings.adapter_place
    if adapter is not None:
        # Several projectors, as in Qwen3-VL, leave no single place in front of them.
        model, own = merge_adapter(model, tokenizer, FAMILIES[family].projectors[0], Path(adapter))
        weights = fingerprint(base=weights, adapter=own)
    return FamilyAdapter(
        model.to(device=device, dtype=torch_dtype(settings.dtype)),
        tokenizer,
        image_processor,
        FAMILIES[family],
        name=settings.model,
        fingerprint=family_fingerprint(weights, model, tokenizer, image_processor, settings.max_tokens),
        device=device,
        max_tokens=settings.max_tokens,
    )


def family_fingerprint(weights: str, model: Any, tokenizer: Any, image_processor: Any, max_tokens: int) -> str:
    """Hash of all that changes a model's results: weights, tokenizer, template, image processor, precision, limit."""
    return fingerprint(
        model=model.config.model_type,
        weights=weights,
        tokenizer=tokenizer_hash(tokenizer),
        template=tokenizer.chat_template,
        image_processor=image_processor.to_dict(),
        dtype=str(model.dtype),
        max_tokens=max_tokens,
    )
