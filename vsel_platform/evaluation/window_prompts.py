"""Prompts about the images of a window of rows, answered in batches: by the likeliest tokens, or by drawn ones."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsel_platform.errors import DataError
from vsel_platform.models.generation import GROUP_TOKENS, prompt_groups
from vsel_platform.models.packing import packed_length
from vsel_platform.models.sampling import Sampling
from vsel_platform.models.vlm import ConversationRow, RenderedRow, ShownImage, VisionLanguageModel
from vsel_platform.selection.stable_hash import stable_uniform
from vsel_platform.signals.windows import Row, RowWindow, by_unit

Turns = Sequence[tuple[str, str]]
Render = Callable[[Turns, int, Sequence[ShownImage]], RenderedRow]


class WindowPrompt(NamedTuple):
    """A prompt about the images of row `row` of a window. uniform: float64 [most tokens] in [0, 1), what its tokens
    are drawn with."""

    row: int
    prompt: RenderedRow
    uniform: NDArray[np.float64] | None = None


class Generated(NamedTuple):
    """Text that a model gave, and its tokens, the end token included."""

    text: str
    n_tokens: int


def rendered(window: RowWindow[Row], i: int, render: Render, turns: Turns) -> RenderedRow | None:
    """The prompt that `render` makes of turns about the images of row `i`; None, and the row fails, if the model's
    template cannot write them."""
    row: ConversationRow = window.rows[i]
    try:
        return render(turns, len(row.images), window.shown(i))
    except DataError as error:
        window.fail(i, "unusable_question", str(error))
        return None


def chances(seed: int, purpose: str, sample_id: str, number: int, n_tokens: int) -> NDArray[np.float64]:
    """Numbers float64 [n_tokens] in [0, 1) that draw number `number` about a row is made with.

    They depend on nothing else, so neither do draws on the rows beside it.
    """
    return stable_uniform(seed, [f"{sample_id}\n{number}\n{step}" for step in range(n_tokens)], purpose)


def generate_texts(
    model: VisionLanguageModel,
    window: RowWindow[Row],
    prompts: Sequence[WindowPrompt],
    *,
    max_tokens: int,
    sampling: Sampling | None = None,
) -> list[Generated]:
    """What the model says after each prompt, at most `max_tokens` tokens: greedily, or drawn as `sampling` says.

    Prompts about the same images share their tokens' pass. The images have to be loaded. Raises OutOfMemoryError if
    one prompt does not fit into memory.
    """
    groups = prompt_groups(
        [window.rows[own.row].images for own in prompts],
        [own.prompt for own in prompts],
        [model.image_places(own.prompt) for own in prompts],
    )
    # Every branch of a group sees the tokens of all: they are not to be many more than those of the prompts.
    most = max(1, GROUP_TOKENS // max_tokens)
    units = [group[start : start + most] for group in groups for start in range(0, len(group), most)]
    lengths = [packed_length([prompts[i].prompt for i in unit]) + len(unit) * max_tokens for unit in units]

    def ask(part: Sequence[int]) -> list[tuple[int, Generated]]:
        shown = [window.features_of(prompts[i].row) for i in part]
        own = [prompts[i].prompt for i in part]
        if sampling is None:
            tokens = model.answer(own, shown, max_tokens=max_tokens)
        else:
            uniform = np.stack([_chances_of(prompts[i], max_tokens) for i in part])
            tokens = model.sample(own, shown, sampling=sampling, uniform=uniform)
        return [(i, Generated(model.text_of(said), len(said))) for i, said in zip(part, tokens, strict=True)]

    def run(part: Sequence[int]) -> list[tuple[int, Generated]]:
        return by_unit([units[number] for number in part], ask)

    found: dict[int, Generated] = {}
    for _, said in window.run(range(len(units)), lengths, run, row_of=lambda number: prompts[units[number][0]].row):
        found |= dict(said)
    return [found[i] for i in range(len(prompts))]


def _chances_of(prompt: WindowPrompt, max_tokens: int) -> NDArray[np.float64]:
    if prompt.uniform is None or len(prompt.uniform) != max_tokens:
        raise ValueError(f"a prompt to be drawn from needs {max_tokens} numbers, one for each token")
    return prompt.uniform
