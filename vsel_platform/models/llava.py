"""LLaVA through transformers: `LlavaForConditionalGeneration`, optionally with a LoRA adapter."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from vsel_platform.config import VlmSettings
from vsel_platform.errors import ModelError
from vsel_platform.identity import fingerprint
from vsel_platform.models.dedicated_token import VIRTUAL_USER, add_dedicated_token
from vsel_platform.models.devices import resolve_device, torch_dtype
from vsel_platform.models.families import FAMILIES
from vsel_platform.models.llava_forward import LlavaForward
from vsel_platform.models.lora_adapter import merge_adapter
from vsel_platform.models.quiet import quiet_transformers
from vsel_platform.models.rendering import Renderer
from vsel_platform.models.safety import resolve_checkpoint, state_hash, weights_hash
from vsel_platform.models.speaking import Speaking
from vsel_platform.models.templates import Template, load_template
from vsel_platform.models.vlm import Condition, RenderedRow, ShownImage

if TYPE_CHECKING:
    pass

EMBEDDED = "embedded:"
DEFAULT_TEMPLATE = "vicuna_v1"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


class LlavaAdapter(Speaking, LlavaForward):
    """A LLaVA model with its prompt (`models.vlm.VisionLanguageModel`); `weights` identifies weights and adapter."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        template: Template,
        *,
        name: str,
        weights: str,
        device: str,
        max_tokens: int,
    ) -> None:
        require_usable(tokenizer)
        _require_full_attention(model, max_tokens)
        super().__init__(
            model,
            image_processor,
            name=name,
            fingerprint=_fingerprint(weights, model, tokenizer, image_processor, template, max_tokens),
            device=device,
            image_token_id=int(model.config.image_token_id),
        )
        self._tokenizer = tokenizer
        self._end_token = int(tokenizer.eos_token_id)
        if VIRTUAL_USER in tokenizer.get_vocab():
            template = template.with_asker(VIRTUAL_USER)
        self._renderer = Renderer(
            tokenizer,
            template,
            image_token_id=int(model.config.image_token_id),
            image_tokens=self.image_tokens,
            max_tokens=max_tokens,
        )

    def use_dedicated_token(self) -> int:
        """Id of the virtual user's own token, which is added if it is not there (`models.dedicated_token`)."""
        if VIRTUAL_USER not in self._tokenizer.get_vocab():
            add_dedicated_token(self.model, self._tokenizer)
            self._renderer = self._renderer.with_asker(VIRTUAL_USER)
        return int(self._tokenizer.convert_tokens_to_ids(VIRTUAL_USER))

    def render(
        self,
        turns: Sequence[tuple[str, str]],
        n_images: int,
        condition: Condition = "full",
        shown: Sequence[ShownImage] = (),
    ) -> RenderedRow:
        """Tokens and targets of a conversation (see `models.rendering.Renderer.render`)."""
        return self._renderer.render(turns, n_images, condition)

    def render_prompt(
        self, turns: Sequence[tuple[str, str]], n_images: int, shown: Sequence[ShownImage] = ()
    ) -> RenderedRow:
        """Tokens of turns up to where the assistant's next answer begins."""
        return self._renderer.render_prompt(turns, n_images)

    def render_question_prompt(
        self, turns: Sequence[tuple[str, str]], n_images: int, shown: Sequence[ShownImage] = ()
    ) -> RenderedRow:
        """Tokens of turns up to where the virtual user's next question begins."""
        return self._renderer.render_question_prompt(turns, n_images)


def load_llava(settings: VlmSettings, device: str, adapter_dir: str | None = None) -> LlavaAdapter:
    """The LLaVA-1.5 model that the settings name, on `device` (`auto` chooses), with a LoRA adapter merged into it.

    Without `adapter_dir` that is the one of the settings; an adapter that was trained on top of that one holds it.
    `settings.model` is a hub id, a directory, or `embedded:demo`. Raises
    UnsafeCheckpointError for weights that are not safetensors, ModelError if the checkpoint is no LLaVA in the
    transformers format, ConfigError for an unknown template or device.
    """
    device = resolve_device(device)
    template = load_template(settings.template or DEFAULT_TEMPLATE)
    model, tokenizer, image_processor, weights = _load_base(settings, device)
    adapter = adapter_dir or settings.adapter_place
    if adapter is not None:
        model, own = merge_adapter(model, tokenizer, "model.multi_modal_projector", Path(adapter))
        weights = fingerprint(base=weights, adapter=own)
    return LlavaAdapter(
        model.to(device=device, dtype=torch_dtype(settings.dtype)),
        tokenizer,
        image_processor,
        template,
        name=settings.model,
        weights=weights,
        device=device,
        max_tokens=settings.max_tokens,
    )


def _load_base(settings: VlmSettings, device: str) -> tuple[Any, Any, Any, str]:
    """Model, tokenizer, image processor, hash of the weights."""
    if settings.model.startswith(EMBEDDED):
        from vsel_platform.demo.vlm import embedded_directory, load_base

        model, processor = load_base(device, embedded_directory(settings.model))
        return model, processor.tokenizer, processor.image_processor, state_hash(model)
    import transformers

    directory = resolve_checkpoint(settings.place, settings.revision)
    with quiet_transformers():
        try:
            config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)
            if config.model_type != "llava":
                raise ModelError(
                    f"vlm.model: {settings.model!r} is a {config.model_type!r} model; known are llava (such as "
                    f"llava-hf/llava-1.5-7b-hf) and {', '.join(FAMILIES)}"
                )
            model, loading = transformers.LlavaForConditionalGeneration.from_pretrained(
                directory,
                dtype=torch_dtype(settings.dtype),
                use_safetensors=True,
                output_loading_info=True,
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
    return model, tokenizer, image_processor, weights_hash(directory)


def require_usable(tokenizer: Any) -> None:
    """Raises ModelError for a tokenizer without character offsets or without an end token."""
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{type(tokenizer).__name__} knows no character offsets, from which targets are made; "
            "the checkpoint needs a tokenizer.json (save it once with a fast tokenizer)"
        )
    if tokenizer.eos_token is None:
        raise ModelError("the tokenizer has no end token; set eos_token in its tokenizer_config.json")


def _require_full_attention(model: Any, max_tokens: int) -> None:
    """Rows are packed with their own attention masks, which know no sliding window."""
    window = getattr(model.config.text_config, "sliding_window", None)
    if window is not None and window < max_tokens:
        raise ModelError(
            f"vlm.max_tokens: {max_tokens} is longer than the model's sliding attention window; use at most {window}"
        )


def _fingerprint(
    weights: str, model: Any, tokenizer: Any, image_processor: Any, template: Template, max_tokens: int
) -> str:
    return fingerprint(
        model="llava",
        weights=weights,
        layers=model.config.vision_feature_layer,
        select=model.config.vision_feature_select_strategy,
        tokenizer=tokenizer_hash(tokenizer),
        image_processor=image_processor.to_dict(),
        template=repr(template),
        dtype=str(model.dtype),
        max_tokens=max_tokens,
    )


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash of what a fast tokenizer does to a text; padding and truncation are only its state after the last call."""
    content = orjson.loads(tokenizer.backend_tokenizer.to_str())
    for state in ("padding", "truncation"):
        content.pop(state, None)
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
