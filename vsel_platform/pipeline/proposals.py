"""Questions that a model proposes about the images of a dataset, as a file of synthetic rows (self-questioning)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from vsel_platform.config import DatasetSettings
from vsel_platform.config_evaluation import AskingSettings
from vsel_platform.errors import ConfigError, DataError
from vsel_platform.evaluation.own_questions import Proposal
from vsel_platform.evaluation.proposed_rows import ProposedRows, SourceOfQuestions
from vsel_platform.evaluation.self_questioning import propose_questions
from vsel_platform.identity import fingerprint
from vsel_platform.pipeline.artifacts import fetched
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.ingest import absolute_settings
from vsel_platform.pipeline.lookup import dataset_shards, distinct_contents, samples_of
from vsel_platform.pipeline.models import vlm_fingerprint
from vsel_platform.pipeline.parts import PartLog
from vsel_platform.pipeline.source_rows import source_rows
from vsel_platform.pipeline.training_rows import ModelRow, image_provider, training_rows
from vsel_platform.samples.containers import json_array
from vsel_platform.samples.formats import reader
from vsel_platform.samples.images import ImageIndex, default_root
from vsel_platform.samples.sample import EmbeddedImage, RefusedRow, Rejected, SourceRow
from vsel_platform.samples.source import source_files
from vsel_platform.samples.validation import validate
from vsel_platform.samples.writing import write_rows
from vsel_platform.selection.stable_hash import stable_uniform
from vsel_platform.signals.windows import WINDOW_ROWS, WindowOptions

if TYPE_CHECKING:
    from vsel_platform.models.vlm import VisionLanguageModel

CODE = "proposals-1"
MARKER = "synthetic"
SUFFIX = "_synthetic"


@dataclass(frozen=True, slots=True)
class ProposalReport:
    """What became of proposed questions.

    asked: rows that the model asked itself about; failed: of them, those that it could not. written: rows of the file.
    dropped: questions that became no row, by reason; refused: rows that the validation of an ingest refused, by reason.
    by: fingerprint of the model. settings: of a dataset with the file as its source.
    """

    asked: int
    failed: int
    written: int
    dropped: dict[str, int]
    refused: dict[str, int]
    by: str
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def propose(
    ctx: Context,
    dataset: str,
    asking: AskingSettings,
    *,
    rows: int,
    to: Path,
    task: str | None = None,
    recipe: str | None = None,
) -> ProposalReport:
    """Write a file of rows with questions that a model asks itself about images of a dataset, and its answers.

    `rows` source rows are chosen by a stable hash of seed and row, of those with images that are not synthetic
    themselves. The model is the project's, or the checkpoint of a recipe. New rows have the task of their source row
    with `_synthetic` behind it, or `task`. Every row that is written passes the validation of an ingest. A killed run
    goes on from its last window. Raises DataError if there is no row with an image, or images are inside of the source
    file; ConfigError if the file would replace a source of the dataset.
    """
    settings = absolute_settings(ctx, dataset)
    if str(to.resolve()) in {str(Path(file).resolve()) for file in source_files(settings.source)}:
        raise ConfigError(f"{to} is a source of dataset {dataset}; name another file")
    chosen = _chosen(ctx, dataset, rows, asking.seed)
    proposals, by, log = _proposed(ctx, chosen, asking, recipe)
    maker = ProposedRows(by, asking.question_tokens, asking.answer_tokens)
    sources = _sources(ctx, dataset, settings, chosen, task)
    made = [row for own in chosen for row in maker.rows(sources[own.sample_id], proposals[own.sample_id])]
    target = _target_settings(settings, to)
    kept, refused = _valid(made, target)
    write_rows(kept, str(to), json_array(indent=1, ensure_ascii=False))
    log.clear()
    failed = sum(proposal.failure is not None for proposal in proposals.values())
    return ProposalReport(
        len(chosen),
        failed,
        len(kept),
        dict(sorted((+maker.dropped).items())),
        dict(sorted(refused.items())),
        by,
        target.model_dump(mode="json", exclude_defaults=True),
    )


def _chosen(ctx: Context, dataset: str, count: int, seed: int) -> list[ModelRow]:
    """Rows to ask about, those of the same images side by side."""
    table = samples_of(ctx, dataset_shards(ctx, dataset), None, ["sample_id", "image_ids", "row_json"])
    columns = (table[name].to_pylist() for name in ("sample_id", "image_ids", "row_json"))
    own = {content.sample_id for content in distinct_contents(ctx, dataset)[1]}
    ids = sorted(
        sample
        for sample, images, row in zip(*columns, strict=True)
        if images and sample in own and not is_synthetic(row)
    )
    if not ids:
        raise DataError(f"dataset {dataset}: there is no row with an image to ask about")
    chance = dict(zip(ids, stable_uniform(seed, ids, CODE), strict=True))
    found = training_rows(ctx, dataset, sorted(ids, key=lambda sample: (chance[sample], sample))[:count])
    return sorted(found, key=lambda row: (row.images, row.sample_id))


def is_synthetic(row_json: str) -> bool:
    """Whether a source row is marked as synthetic."""
    return f'"{MARKER}"' in row_json and MARKER in orjson.loads(row_json)


def _proposed(
    ctx: Context, chosen: Sequence[ModelRow], asking: AskingSettings, recipe: str | None
) -> tuple[dict[str, Proposal], str, PartLog]:
    """Proposals by row, the model's fingerprint, and where finished windows are."""
    with _model(ctx, recipe) as model:
        key = fingerprint(
            vlm=vlm_fingerprint(ctx.project.vlm),
            model=model.fingerprint,
            asking=asking.model_dump(mode="json"),
            rows=[row.sample_id for row in chosen],
            code=CODE,
        )
        log = PartLog(ctx.store.files, f"proposals-{key}")
        stored = log.load()
        found = {
            row["sample_id"]: Proposal.from_dict(row["sample_id"], orjson.loads(row["proposal"]))
            for row in (stored.to_pylist() if stored is not None else [])
        }
        todo = [row for row in chosen if row.sample_id not in found]
        options = WindowOptions(ctx.project.vlm.batch_tokens, WINDOW_ROWS)
        done = 0
        for window in propose_questions(model, todo, image_provider(ctx), asking, options=options):
            found |= {proposal.sample_id: proposal for proposal in window}
            _save(log, [proposal for proposal in window if proposal.failure is None])
            done += len(window)
            ctx.progress("rows asked about", done, len(todo))
        return found, model.fingerprint, log


def _save(log: PartLog, proposals: Sequence[Proposal]) -> None:
    rows = [{"sample_id": own.sample_id, "proposal": orjson.dumps(own.to_dict()).decode()} for own in proposals]
    if rows:
        log.save(pa.Table.from_pylist(rows))


@contextmanager
def _model(ctx: Context, recipe: str | None) -> "Iterator[VisionLanguageModel]":
    from vsel_platform.models.load import load_vlm

    if recipe is None:
        yield load_vlm(ctx.project.vlm, ctx.project.compute.device)
        return
    ctx.project.recipe(recipe)
    with fetched(ctx, ctx.store.require("finetuned_checkpoint", {"recipe": recipe})) as adapter:
        yield load_vlm(ctx.project.vlm, ctx.project.compute.device, adapter_dir=str(adapter))


def _sources(
    ctx: Context, dataset: str, settings: DatasetSettings, chosen: Sequence[ModelRow], task: str | None
) -> dict[str, SourceOfQuestions]:
    """What the new rows take over from the chosen ones, by row."""
    manifest, contents = distinct_contents(ctx, dataset)
    position = {content.sample_id: content.position for content in contents}
    wanted = {position[row.sample_id] for row in chosen}
    whole = dict(source_rows(ctx, dataset, manifest, wanted))
    found = {}
    for row in chosen:
        place = position[row.sample_id]
        images = _image_paths(dataset, place, settings.format, whole[place])
        asked = tuple(text for role, text in row.turns if role == "user")
        found[row.sample_id] = SourceOfQuestions(row.sample_id, task or f"{row.task}{SUFFIX}", images, asked)
    return found


def _image_paths(dataset: str, position: int, format_name: str, row: bytes) -> tuple[str, ...]:
    try:
        images = reader(format_name).read(orjson.loads(row)).images
    except RefusedRow:
        images = [EmbeddedImage("", None, b"")]
    if not all(isinstance(image, str) for image in images):
        raise DataError(
            f"dataset {dataset}, row {position}: its images are inside of the source file, where a row of another file "
            "cannot name them; write them to files first"
        )
    return tuple(str(image) for image in images)


def _target_settings(settings: DatasetSettings, to: Path) -> DatasetSettings:
    """A dataset with the new file as its source: the same images, tasks in a column."""
    return DatasetSettings.model_validate(
        {
            "source": str(to.resolve()),
            "image_root": settings.image_root or default_root(settings.source),
            "task": {"column": "task"},
            "images": settings.images.model_dump(),
        }
    )


def _valid(rows: Sequence[dict[str, Any]], settings: DatasetSettings) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Rows that an ingest would accept, and the reasons for which it would refuse the others."""
    images = ImageIndex(settings.image_root, settings.images)
    kept, refused = [], Counter[str]()
    for position, row in enumerate(rows):
        result = validate(SourceRow(position, row), reader(settings.format), images)
        if isinstance(result, Rejected):
            refused[str(result.reason)] += 1
        else:
            kept.append(row)
    return kept, refused
