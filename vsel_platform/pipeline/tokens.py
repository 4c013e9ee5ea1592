"""Budgets in training tokens."""

from collections.abc import Callable

from vsel_platform.errors import SelectionError
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import dataset_shards, samples_of, turns_of
from vsel_platform.selection.result import SelectionResult


def token_counts(ctx: Context, dataset: str) -> dict[str, int]:
    """Text tokens of every distinct row under the project's tokenizer, image tokens left out, by sample id."""
    from vsel_platform.models.tokens import load_tokenizer

    tokenizer = load_tokenizer(ctx.project.vlm)
    table = samples_of(ctx, dataset_shards(ctx, dataset), None, ["sample_id", "conversation"])
    counts: dict[str, int] = {}
    for batch in table.to_batches(1024):
        texts = ["\n".join(text for _, text in turns_of(c)) for c in batch["conversation"].to_pylist()]
        lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
        counts.update(zip(batch["sample_id"].to_pylist(), lengths, strict=True))
    return counts


def largest_within_tokens(
    ctx: Context, dataset: str, select: Callable[[int], SelectionResult], limit: int, n_rows: int
) -> SelectionResult:
    """The selection of the largest number of rows whose tokens stay within `limit` (bisection).

    Raises SelectionError if not even one row fits.
    """
    counts = token_counts(ctx, dataset)
    low, high, best = 1, n_rows, None
    while low <= high:
        middle = (low + high) // 2
        result = select(middle)
        if sum(counts[row.sample_id] for row in result.rows) <= limit:
            best, low = result, middle + 1
        else:
            high = middle - 1
    if best is None:
        raise SelectionError(f"budget of {limit} tokens: the first row alone is longer; give more")
    return best
