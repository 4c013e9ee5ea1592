"""Plain answers for a number of generated tokens: the greedy one and drawn ones, of which the majority counts.

Self-questioning spends tokens before it answers; what it is worth shows against plain answering that may spend as
many (self-consistency: Wang et al., arXiv 2203.11171).
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from vsel_platform.evaluation.window_prompts import Generated, WindowPrompt, chances, generate_texts, rendered
from vsel_platform.models.sampling import Sampling
from vsel_platform.models.vlm import RenderedRow, VisionLanguageModel
from vsel_platform.signals.windows import Row, RowWindow

VOTING = Sampling(temperature=0.7, top_k=40)
"""How answers that vote are drawn (arXiv 2203.11171, section 3.1)."""
PURPOSE = "plain answers"


def plain_answers(
    model: VisionLanguageModel,
    window: RowWindow[Row],
    budgets: Mapping[int, int],
    *,
    max_new_tokens: int,
    seed: int,
) -> dict[int, list[Generated]]:
    """Plain answers to the questions of rows, by row: the greedy one, and then as many drawn ones as fit into the
    row's budget [generated tokens].

    Draws come in rounds: as many as the tokens that are left suffice for at the mean length so far, until nothing is
    left or an answer does not fit, which is not counted then. The greedy answer is there whatever the budget.
    """
    prompts: dict[int, RenderedRow] = {}
    for i in budgets:
        prompt = rendered(window, i, model.render_prompt, window.rows[i].turns)
        if prompt is not None:
            prompts[i] = prompt
    greedy = generate_texts(model, window, [WindowPrompt(i, p) for i, p in prompts.items()], max_tokens=max_new_tokens)
    found = {i: [said] for i, said in zip(prompts, greedy, strict=True)}
    drawn = dict.fromkeys(found, 0)
    while wanted := {i: n for i in drawn if (n := affordable(found[i], budgets[i]))}:
        draws = [
            WindowPrompt(i, prompts[i], chances(seed, PURPOSE, window.rows[i].sample_id, number, max_new_tokens))
            for i, count in wanted.items()
            for number in range(drawn[i], drawn[i] + count)
        ]
        said = generate_texts(model, window, draws, max_tokens=max_new_tokens, sampling=VOTING)
        drawn = {i: drawn[i] + count for i, count in wanted.items()}
        for draw, answer in zip(draws, said, strict=True):
            if draw.row not in drawn:
                continue
            if spent(found[draw.row]) + answer.n_tokens <= budgets[draw.row]:
                found[draw.row].append(answer)
            else:
                del drawn[draw.row]
    return found


def affordable(answers: Sequence[Generated], budget: int) -> int:
    """How many more answers of the mean length of `answers` (at least one) fit into a budget [tokens]."""
    used = spent(answers)
    return max(0, budget - used) * len(answers) // used


def spent(answers: Sequence[Generated]) -> int:
    """Tokens of answers."""
    return sum(answer.n_tokens for answer in answers)


def voted(parsed: Sequence[str | None]) -> int:
    """Number of the answer that wins: the first of those that most agree with, given what each was taken for.

    Answers out of which nothing could be read have no vote. The greedy answer is number 0, so it wins a tie that it is
    in, and where nothing could be read at all.
    """
    votes = Counter(own for own in parsed if own is not None)
    if not votes:
        return 0
    most = max(votes.values())
    return next(i for i, own in enumerate(parsed) if own is not None and votes[own] == most)
