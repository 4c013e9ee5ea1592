"""Budgets in training tokens."""

from collections.abc import Callable

from vsel_platform.errors import SelectionError
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.lookup import manifest_shards, samples_of, turns_of
from vsel_platform.selection.result import SelectionResult
from vsel_platform.storage.pointers import Pointer


def token_counts(ctx: Context, manifest: Pointer) -> dict[str, int]:
    """Text tokens of every row under the project's tokenizer, image tokens left out, by sample id.

    Rows are those in the shards of a state of a dataset.
    """
    from vsel_platform.models.templates import IMAGE_TAG
    from vsel_platform.models.tokens import load_tokenizer

    tokenizer = load_tokenizer(ctx.project.vlm)
    table = samples_of(ctx, manifest_shards(ctx, manifest), None, ["sample_id", "conversation"])
    counts: dict[str, int] = {}
    for batch in table.to_batches(1024):
        turns = [turns_of(c) for c in batch["conversation"].to_pylist()]
        texts = ["\n".join(text for _, text in row).replace(IMAGE_TAG, "") for row in turns]
        lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []
        counts.update(zip(batch["sample_id"].to_pylist(), lengths, strict=True))
    return counts


def largest_within_tokens(
    ctx: Context, manifest: Pointer, select: Callable[[int], SelectionResult], limit: int, n_rows: int
) -> SelectionResult:
    """The selection of the largest number of rows whose tokens stay within `limit` (bisection).

    Raises SelectionError if not even one row fits.
    """
    counts = token_counts(ctx, manifest)
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
