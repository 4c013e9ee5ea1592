"""What a row costs in every signal that recipes need: how deep its model runs, on how many tokens, how many bytes.

Nothing is computed and no weight is loaded: sizes come from the checkpoints' configurations, and the length of a row
from a sample of the dataset's.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vsel_platform.config import VlmSettings
from vsel_platform.errors import ConfigError
from vsel_platform.methods.registry import needs_of
from vsel_platform.models.templates import IMAGE_TAG
from vsel_platform.pipeline.by_products import BY_PRODUCTS
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import dataset_shards, samples_of, turns_of

if TYPE_CHECKING:
    from vsel_platform.models.costs import Decoder, Tower

SAMPLE_ROWS = 512
FLOAT_BYTES = 4
LOSS_BYTES = 40
"""A stored loss: five numbers of eight bytes; names are shared in the column's dictionary."""


@dataclass(frozen=True)
class TypicalRow:
    """Means of a dataset's rows: images, bytes of an image and its pixels, tokens of questions and of answers."""

    images: float
    image_bytes: float
    height: int
    width: int
    question_tokens: float
    answer_tokens: float


@dataclass(frozen=True)
class RowCost:
    """One signal of one model for one row: decoder layers that run of those there are, conditions, tokens through
    the decoder, tokens at which logits are made, operations, bytes read (images) and stored."""

    signal: str
    model: str
    layers: int
    all_layers: int
    conditions: str
    tokens: int
    logits: int
    flops: float
    bytes_read: int
    bytes_stored: int


def row_costs(ctx: Context, recipes: Sequence[str]) -> tuple[TypicalRow, list[RowCost]]:
    """A typical row of the recipes' datasets and its costs, signal by signal.

    Raises NotMaterializedError before the first ingest of a dataset, ModelError if a checkpoint is not there.
    """
    named = [ctx.project.recipe(name) for name in recipes]
    needs = {need for recipe in named for need in needs_of(ctx.project, recipe)}
    signals = [name for name in _COSTS if name in needs or (name == "losses" and any(_has_reference(r) for r in named))]
    row = typical_row(ctx, sorted({recipe.dataset for recipe in named}))
    costs = []
    for signal in signals:
        models = [ctx.project.vlm]
        if signal == "attention_maps" and ctx.project.second_vlm is not None:
            models.append(ctx.project.second_vlm)
        costs += [_cost(ctx, signal, settings, row) for settings in models]
    return row, [_besides(cost) if cost.signal in BY_PRODUCTS and "base_losses" in signals else cost for cost in costs]


def _besides(cost: RowCost) -> RowCost:
    """The cost of what the pass of base_losses gives besides."""
    free = replace(cost, tokens=0, flops=0.0, bytes_read=0)
    return replace(free, conditions=f"{cost.conditions}, in the pass of base_losses")


def _has_reference(recipe: Any) -> bool:
    return bool(recipe.method == "presel")


def typical_row(ctx: Context, datasets: Sequence[str]) -> TypicalRow:
    """Means over a sample of the rows of datasets: those of their first shards, at most SAMPLE_ROWS."""
    from vsel_platform.models.tokens import load_tokenizer

    tokenizer = load_tokenizer(ctx.project.vlm)
    shards = sorted({shard for name in datasets for shard in dataset_shards(ctx, name)})
    rows: list[tuple[str, list[str]]] = []
    pictures: list[tuple[int, int, int]] = []
    for shard in shards:
        table = samples_of(ctx, [shard], None, ["conversation", "image_ids"]).slice(0, SAMPLE_ROWS - len(rows))
        rows += zip(table["conversation"].to_pylist(), table["image_ids"].to_pylist(), strict=True)
        sizes = ctx.store.read_partition("images", {"shard": shard}, ["height", "width", "n_bytes"])
        pictures += zip(*(sizes[name].to_pylist() for name in sizes.column_names), strict=True)
        if len(rows) >= SAMPLE_ROWS:
            break
    turns = [turns_of(conversation) for conversation, _ in rows]

    def mean_tokens(role: str) -> float:
        texts = ["\n".join(text for r, text in row if r == role).replace(IMAGE_TAG, "") for row in turns]
        return float(np.mean([len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]] or [0]))

    height, width, n_bytes = (float(np.mean(column)) for column in zip(*(pictures or [(0, 0, 0)]), strict=True))
    images = float(np.mean([len(images) for _, images in rows] or [0]))
    return TypicalRow(images, n_bytes, round(height), round(width), mean_tokens("user"), mean_tokens("assistant"))


@dataclass(frozen=True)
class _Parts:
    """A row in a model: image tokens, tokens of the question and of the answer; tower and decoder."""

    image: float
    question: float
    answer: float
    decoder: "Decoder"
    tower: "Tower"
    images: float
    ctx: Context

    @property
    def whole(self) -> int:
        """Tokens of the row."""
        return round(self.image + self.question + self.answer)


# What passes through the decoder: (layers, conditions, tokens, targets, operations, bytes stored).
_Passed = tuple[int, str, int, int, float, int]


def _base_losses(p: _Parts) -> _Passed:
    shared, blind = round(p.whole + p.answer), round(p.question + p.answer)
    flops = p.decoder.flops(shared, p.decoder.layers) + p.decoder.flops(blind, p.decoder.layers)
    targets = round(3 * p.answer)
    conditions = "full + no_question (one beginning), no_image"
    return p.decoder.layers, conditions, shared + blind, targets, flops, 3 * LOSS_BYTES


def _losses(p: _Parts) -> _Passed:
    shared, targets = round(p.whole + p.answer), round(2 * p.answer)
    flops = p.decoder.flops(shared, p.decoder.layers)
    return p.decoder.layers, "full + no_question (one beginning)", shared, targets, flops, 2 * LOSS_BYTES


def _representations(p: _Parts) -> _Passed:
    return 1, "full", p.whole, 0, p.decoder.flops(p.whole, 1), p.decoder.width * FLOAT_BYTES


def _hidden(p: _Parts) -> _Passed:
    layers = p.ctx.project.signals.hidden_layers or ((p.decoder.layers + 1) // 2,)
    if max(layers) > p.decoder.layers:
        raise ConfigError(f"signals.hidden_layers: {max(layers)} is asked for, but the model has {p.decoder.layers}")
    size = 2 * len(set(layers)) * p.decoder.width * FLOAT_BYTES
    return max(layers), "full", p.whole, 0, p.decoder.flops(p.whole, max(layers)), size


def _attention(p: _Parts) -> _Passed:
    prompt, steps = round(p.image + p.question), p.ctx.project.signals.answer_tokens
    flops = p.decoder.flops(prompt, p.decoder.layers)
    flops += p.decoder.flops(steps, p.decoder.layers, seen=prompt + steps)
    stored = round(0.3 * p.image) * FLOAT_BYTES + 5 * FLOAT_BYTES
    return p.decoder.layers, f"question, answer of at most {steps} tokens", prompt + steps, steps, flops, stored


_COSTS: dict[str, Callable[[_Parts], _Passed]] = {
    "base_losses": _base_losses,
    "vision_representations": _representations,
    "hidden_states": _hidden,
    "losses": _losses,
    "attention_maps": _attention,
}


def _cost(ctx: Context, signal: str, settings: VlmSettings, row: TypicalRow) -> RowCost:
    from vsel_platform.models.costs import decoder_of, tower_of
    from vsel_platform.models.load import load_config

    config = load_config(settings)
    decoder = decoder_of(config)
    tower = tower_of(config, row.height or 1, row.width or 1)
    parts = _Parts(row.images * tower.tokens, row.question_tokens, row.answer_tokens, decoder, tower, row.images, ctx)
    layers, conditions, tokens, targets, flops, stored = _COSTS[signal](parts)
    return RowCost(
        signal,
        settings.model,
        layers,
        decoder.layers,
        conditions,
        tokens,
        targets,
        flops + decoder.logit_flops(targets) + row.images * tower.flops,
        round(row.images * row.image_bytes),
        stored,
    )


def to_text(row: TypicalRow, costs: Sequence[RowCost]) -> str:
    """The plan for people."""
    head = (
        f"a typical row: {row.images:.2f} images of {row.width} x {row.height} pixels, {row.question_tokens:.0f} "
        f"tokens of questions, {row.answer_tokens:.0f} of answers"
    )
    if not costs:
        return f"{head}\nno recipe needs a signal of a vision-language model"
    lines = [
        head,
        "estimates per row; rows that share an image pass it through the tower once, and share their beginning",
        f"{'signal':24}{'layers':>9}{'tokens':>9}{'logits at':>11}{'GFLOP':>11}{'bytes read':>12}{'stored':>9}  "
        "model: conditions",
    ]
    for cost in costs:
        lines.append(
            f"{cost.signal:24}{f'{cost.layers} of {cost.all_layers}':>9}{cost.tokens:>9,}{cost.logits:>11,}"
            f"{cost.flops / 1e9:>11,.2f}{cost.bytes_read:>12,}{cost.bytes_stored:>9,}  {cost.model}: {cost.conditions}"
        )
    return "\n".join(lines)


def to_dict(row: TypicalRow, costs: Sequence[RowCost]) -> dict[str, Any]:
    """Plain values, for JSON."""
    return {"row": asdict(row), "costs": [asdict(cost) for cost in costs]}
