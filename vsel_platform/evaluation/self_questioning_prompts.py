"""What a model is shown when it asks itself questions about an image before it answers (SQ-LLaVA).

The order of steps is the released one: describe the image, ask, answer each question, answer the real question. The
turns here are rendered by the model's own template, so that every prompt has the tokens seen in training, and the
model's own questions stay the virtual user's. `evaluation.self_questioning_released` has the released prompts.
"""

from collections.abc import Sequence

from vsel_platform.models.templates import ASKER, IMAGE_TAG

DESCRIBE = "Can you describe the image in detail?"
Turns = list[tuple[str, str]]


def describing_turns(n_images: int = 1) -> Turns:
    """Turns in front of the description: show `models.vlm.VisionLanguageModel.render_prompt`."""
    return [("user", f"{IMAGE_TAG}\n" * n_images + DESCRIBE)]


def asking_turns(description: str | None, n_images: int = 1) -> Turns:
    """Turns in front of a question of the model's own: show `render_question_prompt`.

    All questions can be drawn from this one prompt. Without a description the images stand alone in the first turn.
    """
    if description is None:
        return [("user", "\n".join([IMAGE_TAG] * n_images))]
    return [*describing_turns(n_images), ("assistant", description.strip())]


def answering_turns(description: str | None, question: str, n_images: int = 1) -> Turns:
    """Turns in front of the answer to a question of the model's own: show `render_prompt`."""
    return [*asking_turns(description, n_images), (ASKER, question.strip())]


def final_turns(description: str | None, asked: Sequence[tuple[str, str]], question: str, n_images: int = 1) -> Turns:
    """Turns in front of the answer to the real question: show `render_prompt`.

    `asked` are the model's own questions with its answers. The images stand in the first turn, so tags in `question`
    are left out.
    """
    turns = asking_turns(description, n_images)
    for own, answer in asked:
        turns += [(ASKER, own.strip()), ("assistant", answer.strip())]
    return [*turns, ("user", question.replace(IMAGE_TAG, "").strip())]


def distinct_questions(questions: Sequence[str]) -> list[str]:
    """Questions without blank and repeated ones (case, blanks and the last mark aside), in order."""
    found: dict[str, str] = {}
    for question in questions:
        key = " ".join(question.lower().split()).rstrip(" ?.!")
        if key:
            found.setdefault(key, question.strip())
    return list(found.values())
