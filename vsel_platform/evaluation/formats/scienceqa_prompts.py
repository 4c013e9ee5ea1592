"""Questions of ScienceQA as LLaVA's `convert_sqa_to_llava.py` writes them.

Source: LLaVA's scripts `convert_sqa_to_llava.py` and `convert_sqa_to_llava_base_prompt.py`; the evaluation uses CQM-A.
"""

from collections.abc import Mapping
from typing import Any, Literal

from vsel_platform.evaluation.formats.choices import letter_of, options_line

PromptFormat = Literal["CQM-A", "QCM-LEA", "QCM-LEPA"]


def llava_record(problem_id: str, problem: Mapping[str, Any], prompt_format: PromptFormat = "CQM-A") -> dict[str, Any]:
    """Entry `{"id", "image"?, "conversations"}` of LLaVA's question file for one problem of `problems.json`.

    An empty hint reads "N/A"; double blanks become single ones in one pass, as released.
    """
    answer = letter_of(problem["answer"])
    question = _question(problem, prompt_format)
    conversation = [
        {"from": "human", "value": f"{question}\n<image>" if problem.get("image") else question},
        {"from": "gpt", "value": _answer(problem, answer, prompt_format)},
    ]
    image = {"image": f"{problem_id}/{problem['image']}"} if problem.get("image") else {}
    return {"id": problem_id, **image, "conversations": conversation}


def _question(problem: Mapping[str, Any], prompt_format: PromptFormat) -> str:
    context = (problem.get("hint") or "").strip() or "N/A"
    options = options_line(problem["choices"])
    if prompt_format == "CQM-A":
        return _clean(f"Context: {context}\nQuestion: {problem['question']}\nOptions: {options}")
    # The released script drops every "Question: " of these formats, one within the text too.
    text = _clean(f"Question: {problem['question']}\nContext: {context}\nOptions: {options}")
    return text.replace("Question: ", "")


def _answer(problem: Mapping[str, Any], answer: str, prompt_format: PromptFormat) -> str:
    if prompt_format == "CQM-A":
        return f"The answer is {answer}."
    lecture, solution = (str(problem.get(key) or "").replace("\\n", "\n") for key in ("lecture", "solution"))
    if prompt_format == "QCM-LEA":
        return _clean(f"Answer: {lecture} {solution} The answer is {answer}.").replace("Answer: ", "")
    parts = [f"{name}: {text}\n" for name, text in (("LECTURE", lecture), ("SOLUTION", solution)) if text.strip()]
    return _clean(f"{''.join(parts)}###\nANSWER: {answer}.")


def _clean(text: str) -> str:
    return text.replace("  ", " ").strip()
