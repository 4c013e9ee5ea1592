"""Vision-language models of other families than LLaVA behind the protocol, in their own chat templates."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vsel_platform.errors import DataError, ModelError
from vsel_platform.models.chat_template import ChatTemplate
from vsel_platform.models.dedicated_token import VIRTUAL_USER, add_dedicated_token
from vsel_platform.models.families import Family
from vsel_platform.models.family_forward import FamilyForward
from vsel_platform.models.rendering import changed, rendered_row, require_images, tokens_of
from vsel_platform.models.speaking import Speaking
from vsel_platform.models.templates import RenderedText
from vsel_platform.models.vlm import Condition, RenderedRow, ShownImage

if TYPE_CHECKING:
    pass

CHAT = "chat"
"""Name of the checkpoint's own template in the settings."""


class FamilyAdapter(Speaking, FamilyForward):
    """A model with its chat template (`models.vlm.VisionLanguageModel`)."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        family: Family,
        *,
        name: str,
        fingerprint: str,
        device: str,
        max_tokens: int,
    ) -> None:
        image_token = getattr(tokenizer, "image_token", None) or family.image_token
        super().__init__(
            model,
            image_processor,
            family,
            name=name,
            fingerprint=fingerprint,
            device=device,
            image_token_id=int(tokenizer.convert_tokens_to_ids(image_token)),
        )
        if self._image_token_id != model.config.image_token_id:
            raise ModelError(f"the tokenizer's {image_token!r} is not the image token of the model's configuration")
        self._tokenizer = tokenizer
        self._image_token = image_token
        self._template = chat_template(tokenizer, image_token)
        self._max_tokens = max_tokens
        self._end_token = self._end_of_answers()

    def use_dedicated_token(self) -> int:
        """Id of the virtual user's own token, which is added if it is not there (`models.dedicated_token`)."""
        if VIRTUAL_USER not in self._tokenizer.get_vocab():
            add_dedicated_token(self.model, self._tokenizer)
            self._template = chat_template(self._tokenizer, self._image_token)
        return int(self._tokenizer.convert_tokens_to_ids(VIRTUAL_USER))

    def render(
        self,
        turns: Sequence[tuple[str, str]],
        n_images: int,
        condition: Condition = "full",
        shown: Sequence[ShownImage] = (),
    ) -> RenderedRow:
        """Tokens and targets of a conversation.

        A target is every token of an answer, or of a virtual user's question, and the special token behind it. Raises
        DataError if the number of image tags is not `n_images` or the template cannot write the turns, ModelError if
        `shown` does not describe the images.
        """
        require_images(turns, n_images)
        images = [] if condition == "no_image" else self._all(shown, n_images)
        return self._tokens(self._template.render(changed(turns, condition), self._texts(images)), images)

    def render_prompt(
        self, turns: Sequence[tuple[str, str]], n_images: int, shown: Sequence[ShownImage] = ()
    ) -> RenderedRow:
        """Tokens of turns up to where the assistant's next answer begins. Raises as `render` does."""
        require_images(turns, n_images)
        images = self._all(shown, n_images)
        return self._tokens(self._template.render(turns, self._texts(images), prompt=True), images)

    def render_question_prompt(
        self, turns: Sequence[tuple[str, str]], n_images: int, shown: Sequence[ShownImage] = ()
    ) -> RenderedRow:
        """Tokens of turns up to where the virtual user's next question begins. Raises as `render` does."""
        require_images(turns, n_images)
        images = self._all(shown, n_images)
        return self._tokens(self._template.question_prompt(turns, self._texts(images)), images)

    def _all(self, shown: Sequence[ShownImage], n_images: int) -> list[ShownImage]:
        if len(shown) != n_images:
            raise ModelError(f"{len(shown)} of {n_images} images are described; rows are rendered after their images")
        return list(shown)

    def _texts(self, shown: Sequence[ShownImage]) -> list[str]:
        return [self.family.prompt(self._image_token, image) for image in shown]

    def _tokens(self, rendered: RenderedText, shown: Sequence[ShownImage]) -> RenderedRow:
        ids, marks = tokens_of(self._tokenizer, rendered)
        is_image = ids == self._image_token_id
        wanted = sum(image.n_tokens for image in shown)
        if int(is_image.sum()) != wanted:
            raise DataError(f"the row has {int(is_image.sum())} image tokens where its images have {wanted}")
        positions = self.positions(ids, [image.layout for image in shown])
        return rendered_row(ids, is_image, marks, self._max_tokens, positions)

    def _end_of_answers(self) -> int:
        """The token that ends an answer in this template, or else the tokenizer's end token."""
        row = self.render([("user", "a"), ("assistant", "b")], 0)
        answer = row.input_ids[row.answer_index >= 0]
        if not len(answer):
            raise ModelError(
                f"vlm.max_tokens: {self._max_tokens} is too short: the shortest conversation in the model's chat "
                f"template has {len(row) + row.n_cut} tokens"
            )
        last = int(answer[-1])
        if last in self._tokenizer.all_special_ids:
            return last
        if self._tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no end token; set eos_token in its tokenizer_config.json")
        return int(self._tokenizer.eos_token_id)


def chat_template(tokenizer: Any, image_token: str) -> ChatTemplate:
    """The chat template of a tokenizer, with the virtual user's token if it has one. Raises ModelError if there is
    none."""
    if not tokenizer.chat_template:
        raise ModelError("the checkpoint has no chat template (chat_template.jinja, or in tokenizer_config.json)")

    def apply(messages: list[dict[str, Any]], prompt: bool) -> str:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))

    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    special = sorted({*tokenizer.all_special_tokens, *added})
    asker = VIRTUAL_USER if VIRTUAL_USER in tokenizer.get_vocab() else None
    return ChatTemplate(apply, image_token, special, end=tokenizer.eos_token or "", asker=asker)
