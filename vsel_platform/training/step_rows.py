"""The rows of every optimiser step: planned before, rendered and with their images when their turn comes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vsel_platform.config_training import LoraSettings
from vsel_platform.errors import DataError
from vsel_platform.models.images import ContentFailure, ImageProvider
from vsel_platform.models.llava import LlavaAdapter
from vsel_platform.models.vlm import ConversationRow, RenderedRow, ShownImage
from vsel_platform.ranks import Share
from vsel_platform.training.examples import Example, nothing_to_learn, usable_rows
from vsel_platform.training.schedule import StepPlan, step_plan
from vsel_platform.training.self_questioning import drawn_questions, target_weights, with_questions_asked
from vsel_platform.training.step_images import LoadedImages, StepImages
from vsel_platform.training.trainer import StepRows
from vsel_platform.training.unusable import UNREADABLE, UnusableLimit

if TYPE_CHECKING:
    from vsel_platform.models.family_adapter import FamilyAdapter


class StepLoader:
    """Plans all steps and loads one after the other, the images of the next one ahead.

    A row fails if an image of it is broken, or nothing is left to learn once the images' tokens are there.
    """

    def __init__(
        self,
        model: "LlavaAdapter | FamilyAdapter",
        rows: Sequence[ConversationRow],
        settings: LoraSettings,
        images: ImageProvider,
        share: Share,
        *,
        keep_bytes: int,
    ) -> None:
        self._model, self._settings, self._share = model, settings, share
        usable = usable_rows(rows, self._length, settings.max_unusable)
        self.rows = usable.rows
        self.plan: StepPlan = step_plan(
            usable.lengths, [bool(row.images) for row in usable.rows], settings, world=share.world
        )
        self.limit = UnusableLimit(usable.left_out, len(rows), len(self.plan.rows), settings.max_unusable)
        self.steps = [own[share.rank] for own in self.plan.steps]
        self._images = StepImages(model, images, trained=model.tower_gradients, keep_bytes=keep_bytes)

    def load(self, number: int) -> StepRows:
        """This process's rows of a step."""
        own = [(self.rows[row], epoch) for row, epoch in self.steps[number]]
        images = self._images.load([image for row, _ in own for image in row.images])
        for row, _ in self.steps[number + 1] if number + 1 < len(self.steps) else ():
            self._images.ahead(self.rows[row].images)
        found = [self._example(row, epoch, images) for row, epoch in own]
        examples = [example for example in found if isinstance(example, Example)]
        failed = tuple(failure for failure in found if isinstance(failure, ContentFailure))
        weight = self._settings.self_questioning.question_weight
        weights = [target_weights(example.rendered, weight) for example in examples]
        units = normalise(weights, self._settings.mean_rows)
        return StepRows(examples, weights, units, [e.rendered.asked_targets for e in examples], images, failed)

    def _example(self, row: ConversationRow, epoch: int, images: LoadedImages) -> Example | ContentFailure:
        broken = next((images.failed[image] for image in row.images if image in images.failed), None)
        if broken is not None:
            return ContentFailure(row.sample_id, broken.reason, f"image {broken.content_id}: {broken.detail}")
        try:
            rendered = self._render(row, epoch, self._shown(row, images))
        except DataError as error:
            return ContentFailure(row.sample_id, UNREADABLE, str(error))
        if not rendered.n_targets:
            return nothing_to_learn(row)
        return Example(row.sample_id, rendered, tuple(row.images))

    def _shown(self, row: ConversationRow, images: LoadedImages) -> list[ShownImage]:
        own = [images.shown[image] for image in row.images]
        counts = self._model.row_tokens([image.n_tokens for image in own])
        return [replace(image, n_tokens=count) for image, count in zip(own, counts, strict=True)]

    def _render(self, row: ConversationRow, epoch: int, shown: Sequence[ShownImage]) -> RenderedRow:
        turns = with_questions_asked(row.turns, self.asked(row, epoch))
        return self._model.render(turns, len(row.images), "full", shown)

    def asked(self, row: ConversationRow, epoch: int) -> tuple[int, ...]:
        """Numbers of the turns of a row that the model learns to ask in an epoch."""
        settings = self._settings.self_questioning
        if not settings.ratio:
            return ()
        return drawn_questions(
            row.turns,
            len(row.images),
            ratio=settings.ratio,
            seed=settings.seed,
            epoch=epoch,
            sample_id=row.sample_id,
        )

    def _length(self, row: ConversationRow) -> tuple[int, int]:
        """(tokens, targets) of a row. Models whose images differ in tokens are rendered when the images are there;
        until then characters stand for tokens."""
        if isinstance(self._model, LlavaAdapter):
            rendered = self._model.render(row.turns, len(row.images))
            return len(rendered), rendered.n_targets
        answers = sum(len(text) for role, text in row.turns if role == "assistant")
        return sum(len(text) for _, text in row.turns), answers

    def planned(self) -> Iterator[tuple[ConversationRow, int]]:
        """Every (row, epoch) that the plan names, of all processes."""
        for step in self.plan.steps:
            for own in step:
                for row, epoch in own:
                    yield self.rows[row], epoch

    def close(self) -> None:
        """Forget what is still being loaded."""
        self._images.close()


def normalise(weights: list[NDArray[np.float32]], mean_rows: int) -> float:
    """What the sum of weighted losses is divided by. With `mean_rows`, the weights of each group of so many rows are
    changed in place so that they add up to 1."""
    if not mean_rows:
        return float(sum(own.sum(dtype=np.float64) for own in weights))
    groups = [weights[start : start + mean_rows] for start in range(0, len(weights), mean_rows)]
    for group in groups:
        total = sum(own.sum(dtype=np.float64) for own in group)
        for own in group:
            np.divide(own, total, out=own)
    return float(len(groups))
