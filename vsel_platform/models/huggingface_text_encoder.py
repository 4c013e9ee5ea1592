"""Text encoders from Hugging Face checkpoints.

The vector of a text is `cls`: last_hidden_state[:, 0], the first token, not the pooler (BERT as Free2DS uses it,
specification C1.5); `mean`: the mean of last_hidden_state over the tokens of the text; or `joint`: get_text_features of
a whole CLIP, SigLIP or SigLIP2 model, in the space of its images.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vsel_platform.config import TextEncoderSettings
from vsel_platform.errors import ModelError
from vsel_platform.identity import fingerprint
from vsel_platform.models.batching import BatchLimits, run_with_oom_ladder, token_batches, usable_batch_tokens
from vsel_platform.models.devices import DtypeName, torch_dtype
from vsel_platform.models.joint_space import FULL_LENGTH_TEXTS, check_joint
from vsel_platform.models.quiet import quiet_transformers
from vsel_platform.models.safety import resolve_checkpoint, weights_hash

if TYPE_CHECKING:
    import torch

CODE_VERSION = 1
MOST_TOKENS = 512
Tokens = list[int]


@dataclass(frozen=True, slots=True)
class Pooling:
    """How a text becomes a vector: the feature, its longest text [tokens], whether vectors get length 1, and whether
    every text is padded to the longest and the model sees the padding like text."""

    feature: Literal["cls", "mean", "joint"]
    max_tokens: int = MOST_TOKENS
    normalise: bool = False
    full_length: bool = False


class HuggingFaceTextEncoder:
    """A language model and its fast tokenizer."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        pooling: Pooling,
        *,
        name: str,
        fingerprint: str,
        device: str,
        batch_tokens: int,
    ) -> None:
        self.name = name
        self.pooling = pooling
        self.fingerprint = fingerprint
        self.device = device
        self._model = model
        self._tokenizer = tokenizer
        self._padding = int(tokenizer.pad_token_id or 0)
        self._batch_tokens = usable_batch_tokens(batch_tokens, device)
        self._limits = BatchLimits()
        self.dimension = int(self._forward([self._tokens(["a"])[0]]).shape[1])

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors float32 [n, dimension] of texts; NaN for a text without tokens.

        Every distinct text is encoded once, in batches of like length. Texts are cut to `pooling.max_tokens`.
        Raises OutOfMemoryError if one text does not fit into memory alone.
        """
        distinct = sorted(set(texts))
        rows = self._tokens(distinct) if distinct else []
        filled = [i for i, row in enumerate(rows) if row]
        vectors = np.full((len(distinct), self.dimension), np.nan, np.float32)
        key = (self.fingerprint, self.device, "tokens")
        for batch in token_batches([len(rows[i]) for i in filled], lambda: self._limits.limit(key, self._batch_tokens)):
            for part, found in run_with_oom_ladder(
                [filled[i] for i in batch],
                lambda part: self._forward([rows[i] for i in part]),
                key=key,
                limits=self._limits,
                size_of=lambda part: len(part) * max(len(rows[i]) for i in part),
                name_of=lambda i: f"the text {distinct[i][:60]!r}",
            ):
                vectors[list(part)] = found
        place = {text: i for i, text in enumerate(distinct)}
        return vectors[[place[text] for text in texts]]

    def _tokens(self, texts: list[str]) -> list[Tokens]:
        """Token ids of texts, special tokens included."""
        encoded = self._tokenizer(
            texts,
            truncation=True,
            max_length=self.pooling.max_tokens,
            padding="max_length" if self.pooling.full_length else False,
            return_attention_mask=False,
        )
        return list(encoded["input_ids"])

    def _forward(self, rows: list[Tokens]) -> NDArray[np.float32]:
        """Vectors float32 [n, dimension] of one batch."""
        import torch

        lengths = np.array([len(row) for row in rows])
        ids = np.full((len(rows), lengths.max()), self._padding, np.int64)
        mask = np.arange(lengths.max())[None] < lengths[:, None]
        ids[mask] = np.concatenate(rows)
        with torch.inference_mode():
            present = torch.from_numpy(mask).to(self.device)
            vectors = self._pooled(torch.from_numpy(ids).to(self.device), present)
            if self.pooling.normalise:
                vectors = torch.nn.functional.normalize(vectors)
            return np.asarray(vectors.cpu().numpy(), dtype=np.float32)

    def _pooled(self, ids: "torch.Tensor", present: "torch.Tensor") -> "torch.Tensor":
        """Vectors float32 [n, dimension] of token ids [n, tokens] where `present` tells tokens from padding."""
        inputs = {"input_ids": ids, "attention_mask": present.long()}
        if self.pooling.feature == "joint":
            joint: torch.Tensor = self._model.get_text_features(**inputs).pooler_output.float()
            return joint
        states: torch.Tensor = self._model(**inputs).last_hidden_state
        if self.pooling.feature == "cls":
            return states[:, 0].float()
        weights = present[..., None].float()
        return (states.float() * weights).sum(dim=1) / weights.sum(dim=1)


def load(settings: TextEncoderSettings, device: str) -> HuggingFaceTextEncoder:
    """The encoder of `settings.model` (hub id or directory).

    Raises UnsafeCheckpointError for weights that are not safetensors, ModelError for a directory without a model,
    weights that do not fill the model, a model that gives no hidden states of a text, feature `cls` where the
    tokenizer has no such token, or feature `joint` where the checkpoint has one tower.
    """
    directory = resolve_checkpoint(settings.place, settings.revision)
    return load_directory(
        directory,
        Pooling(settings.feature),
        name=f"huggingface:{settings.model}",
        device=device,
        dtype=settings.dtype,
        batch_tokens=settings.batch_tokens,
    )


def load_directory(
    directory: Path, pooling: Pooling, *, name: str, device: str, dtype: DtypeName, batch_tokens: int
) -> HuggingFaceTextEncoder:
    """The encoder of a checkpoint directory; `pooling.max_tokens` is lowered to what the model can take.

    Raises as `load`.
    """
    is_joint = pooling.feature == "joint"
    model, tokenizer = _load_parts(directory, dtype, name, is_joint=is_joint)
    if pooling.feature == "cls" and tokenizer.cls_token_id is None:
        raise ModelError(f"{name}: its tokenizer has no CLS token; use text_encoder.feature: mean")
    config = model.config.text_config if is_joint else model.config
    positions = getattr(config, "max_position_embeddings", None) or pooling.max_tokens
    longest = min(pooling.max_tokens, tokenizer.model_max_length, positions)
    is_full = is_joint and model.config.model_type in FULL_LENGTH_TEXTS
    pooling = Pooling(pooling.feature, longest, pooling.normalise, is_full)
    content = fingerprint(
        encoder="huggingface_text",
        code=CODE_VERSION,
        weights=weights_hash(directory),
        config=hashlib.sha256((directory / "config.json").read_bytes()).hexdigest(),
        tokenizer=_tokenizer_hash(tokenizer, directory),
        pooling=[pooling.feature, pooling.max_tokens, pooling.normalise],
        dtype=dtype,
    )
    try:
        return HuggingFaceTextEncoder(
            model.eval().to(device),
            tokenizer,
            pooling,
            name=name,
            fingerprint=content,
            device=device,
            batch_tokens=batch_tokens,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{name} ({type(model).__name__}) gives no hidden states of a text: {error}; use an encoder such as BERT"
        ) from error


def _tokenizer_hash(tokenizer: Any, directory: Path) -> str:
    if tokenizer.is_fast:
        return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    names = [*tokenizer.vocab_files_names.values(), "tokenizer_config.json"]
    contents = [(directory / name).read_bytes() for name in names if (directory / name).is_file()]
    return fingerprint(files=[hashlib.sha256(content).hexdigest() for content in contents])


def _load_parts(directory: Path, dtype: DtypeName, name: str, *, is_joint: bool) -> tuple[Any, Any]:
    import transformers

    with quiet_transformers():
        try:
            if is_joint:
                config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)
                check_joint(config.model_type, f"text_encoder: {name}")
            tokenizer = transformers.AutoTokenizer.from_pretrained(directory, use_fast=True, trust_remote_code=False)
            model, loading = transformers.AutoModel.from_pretrained(
                directory,
                dtype=torch_dtype(dtype),
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise ModelError(f"{name} cannot be loaded: {error}") from error
    # SigLIP's own tokenizer has no fast kind.
    if not tokenizer.is_fast and not is_joint:
        raise ModelError(f"{name}: {type(tokenizer).__name__} is no fast tokenizer; add tokenizer.json to the model")
    # The pooler is not used and may be missing; other weights would be random.
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ModelError(
            f"{name} lacks the weights {', '.join(missing[:5])} ({len(missing)} in all); "
            "is it a checkpoint of this architecture?"
        )
    return model, tokenizer
