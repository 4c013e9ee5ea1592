"""The project file: one YAML, one model, unknown keys refused; `vsel config show` prints every value."""

import os
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from vsel_platform.config_base import CheckpointSettings, Name, Settings
from vsel_platform.config_errors import problems
from vsel_platform.config_evaluation import BASE, BenchmarkSettings, EvaluationSettings, RecipeTraining
from vsel_platform.config_training import LoraSettings, TrainingSettings
from vsel_platform.errors import ConfigError


class TaskSettings(Settings):
    """Where a row's task comes from: exactly one of a column, task files, or a rule on a text field."""

    column: str | None = Field(None, description="Top-level key of the row that holds the task name.")
    files: dict[str, str] | None = Field(
        None, description="Task name -> JSON file with the rows of the task (matched by `id_key`)."
    )
    id_key: str = Field("unique_idx", description="Key by which rows of the task files are matched.")
    rule: str | None = Field(
        None, description="Regular expression on the image path; its first group is the task name."
    )
    default: str = Field("default", description="Task of rows that none of the above names.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("column", "files", "rule") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of column, files, rule; got {', '.join(given)}")
        return self


class ImageSettings(Settings):
    """Which images are accepted and how far they are opened while a dataset is ingested."""

    check: Literal["full", "header", "none"] = Field(
        "header",
        description="full: decode every pixel; header: open and read the size; none: do not open "
        "(identity is then the path, not the content).",
    )
    max_pixels: int = Field(50_000_000, gt=0, description="Largest width x height [pixels].")
    max_bytes: int = Field(50_000_000, gt=0, description="Largest file [bytes].")
    formats: tuple[str, ...] = Field(
        ("PNG", "JPEG", "WEBP", "GIF", "BMP"), description="Accepted container formats (Pillow names)."
    )


class DatasetSettings(Settings):
    """One source of image-instruction rows."""

    format: Literal["llava", "sharegpt", "vision_flan", "huggingface"] = Field(
        "llava", description="How rows are written in the source."
    )
    source: str = Field(description="File, directory or glob; any fsspec path.")
    image_root: str = Field("", description="Root that relative image paths start at; nothing outside it is read.")
    task: TaskSettings = TaskSettings()
    images: ImageSettings = ImageSettings()
    max_quarantine_rate: float = Field(0.05, ge=0, le=1, description="Share of bad rows above which the ingest fails.")
    shard_rows: int = Field(10_000, gt=0, description="Rows of new content in one shard.")


def _check_joint(encoder: str, feature: str) -> None:
    if feature == "joint" and encoder != "huggingface":
        raise ValueError(f"feature joint is of CLIP and SigLIP checkpoints (name: huggingface); {encoder} has none")


class EncoderSettings(CheckpointSettings):
    """An image encoder: registered name, and for hub models the model, its revision and the feature."""

    name: str = Field("huggingface", description="Registered encoder: huggingface, efficientnet_lite0.")
    model: str = Field("facebook/dinov2-base", description="Hub id or directory (huggingface only).")
    feature: Literal["own", "joint"] = Field(
        "own",
        description="Vector of an image: that of its architecture, or the one in the joint space of image and text of "
        "CLIP, SigLIP and SigLIP2 (huggingface only).",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Precision that the encoder runs in."
    )
    batch_size: int = Field(0, ge=0, description="Images per batch; 0 chooses it and halves it when memory is short.")
    decode_workers: int = Field(2, ge=0, description="Threads that decode images ahead of the model.")

    @model_validator(mode="after")
    def _joint_of_huggingface(self) -> Self:
        _check_joint(self.name, self.feature)
        return self


class TextEncoderSettings(CheckpointSettings):
    """A text encoder: registered name, and for hub models the model, its revision and the feature."""

    name: str = Field("huggingface", description="Registered encoder: huggingface, minilm.")
    model: str = Field("bert-base-uncased", description="Hub id or directory (huggingface only).")
    feature: Literal["cls", "mean", "joint"] = Field(
        "cls",
        description="Vector of a text: its CLS token, the mean over its tokens, or the one in the joint space of image "
        "and text of CLIP, SigLIP and SigLIP2 (huggingface only).",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Precision that the encoder runs in."
    )
    batch_tokens: int = Field(
        8192, gt=0, description="Tokens per batch, padding included; halved when memory is short."
    )

    @model_validator(mode="after")
    def _joint_of_huggingface(self) -> Self:
        _check_joint(self.name, self.feature)
        return self


class VlmSettings(CheckpointSettings):
    """A vision-language model and its prompt."""

    model: str = Field(
        "llava-hf/llava-1.5-7b-hf", description="Hub id, directory, `embedded:demo` or `embedded:demo_second`."
    )
    adapter: str | None = Field(
        None,
        description="Directory of a LoRA adapter (`vsel checkpoint` writes one) that is merged into the model before "
        "anything else: a pre-trained projector, prototypes.",
    )
    template: str | None = Field(
        None,
        description="Conversation template: `vicuna_v1` (default), `vicuna_v1_sq` (SQ-LLaVA), `llava_plain` (captions "
        "without a question, for pre-training) or `plain` (no roles) for LLaVA-1.5; all other families have "
        "their own, `chat`.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="Precision of the model.")
    max_tokens: int = Field(2048, gt=0, description="Longest row [tokens]; longer ones are cut and counted.")
    batch_tokens: int = Field(
        8192, gt=0, description="Tokens per batch, padding included; halved when memory is short."
    )

    @property
    def adapter_place(self) -> str | None:
        """Absolute path of `adapter`, if there is one."""
        return self._beside(self.adapter) if self.adapter else None


class SignalSettings(Settings):
    """How signals of rows are computed."""

    attention_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="ScalSelect averages the image tokens that get this share of the instruction's attention.",
    )
    answer_tokens: int = Field(
        16, gt=1, description="Longest answer that attention maps are made of [tokens] (Free2DS releases with 100)."
    )
    hidden_layers: tuple[int, ...] = Field(
        (), description="Decoder layers (from 1) whose pooled states are kept for methods; none: the middle one."
    )
    attention_grid: int = Field(
        0, ge=0, description="Attention maps are resampled to this many rows and columns; 0: the model's own grid."
    )

    @field_validator("hidden_layers")
    @classmethod
    def _count_from_one(cls, layers: tuple[int, ...]) -> tuple[int, ...]:
        if any(layer < 1 for layer in layers):
            raise ValueError("decoder layers are counted from 1")
        return layers


class ReferenceSettings(Settings):
    """The reference subset and the model trained on it (PreSel, step 1)."""

    fraction: float = Field(0.05, gt=0, le=1, description="Share of the images of every task.")
    seed: int = Field(12345, description="Seed of the draw.")
    refresh_growth: float = Field(
        0.25,
        ge=0,
        description="The reference model is trained anew when the reference subset has grown or changed by "
        "more than this share since then; until then the stored model scores new reference rows.",
    )
    lora: LoraSettings = LoraSettings()


class Budget(Settings):
    """How much to select: exactly one of rows, percent, tokens, gpu_hours."""

    rows: int | None = Field(None, gt=0, description="Rows.")
    percent: float | None = Field(None, gt=0, le=100, description="Percent of the distinct rows.")
    tokens: int | None = Field(None, gt=0, description="Answer and question tokens of the selected rows.")
    gpu_hours: float | None = Field(
        None, gt=0, description="Hours of fine-tuning, at the rate of the last one in this store under this model."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.rows, self.percent, self.tokens, self.gpu_hours)) != 1:
            raise ValueError("give exactly one of rows, percent, tokens, gpu_hours")
        return self


class RecipeSettings(Settings):
    """One selection: a method on a dataset under a budget."""

    dataset: Name = Field(description="Dataset to select from.")
    method: str = Field("presel", description="Method; `vsel methods` lists all. compose: the parts named below.")
    mode: Literal["default", "released"] = Field(
        "default", description="default: corrected; released: as the paper's code behaves."
    )
    budget: Budget = Budget(percent=15)
    seed: int = Field(12345, description="Seed of everything drawn.")
    rounds: int = Field(3, ge=1, description="The budget is reached in this many rounds.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the method: docs/methods.md.")
    score: str | None = Field(None, description="Replaces the method's score; `vsel methods` lists all.")
    quota: str | None = Field(None, description="Replaces the method's quota: in which groups rows compete.")
    diversity: str | None = Field(None, description="Replaces the method's rule that picks inside a group.")
    text_policy: Literal["proportional", "none", "all"] = Field(
        "proportional",
        description="Text-only rows where the score needs an image: their share of the budget, none, or all.",
    )
    train: bool = Field(True, description="Fine-tune on this selection in the `train` stage.")
    training: RecipeTraining = RecipeTraining()


class ComputeSettings(Settings):
    """Where jobs that load a model run."""

    backend: Literal["in_process", "subprocess"] = Field(
        "subprocess", description="in_process: in the step's process; subprocess: in a process of its own."
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 ...")
    threads: int = Field(0, ge=0, description="CPU threads of the worker; 0 = all cores.")
    processes: int = Field(
        1,
        ge=1,
        description="Processes that share the rows of a job that runs a model over them; on GPUs one for each device.",
    )


class AutomationSettings(Settings):
    """When things run by themselves."""

    nightly_cron: str = Field("0 2 * * *", description="When the nightly schedule runs (cron, UTC).")
    source_interval_s: int = Field(30, ge=5, description="How often source files are looked at [s].")
    reconcile_interval_s: int = Field(30, ge=5, description="How often stale selections are looked for [s].")
    max_attempts: int = Field(3, ge=1, description="A failing target is not asked for again after this many failures.")


class Project(Settings):
    """The project file."""

    name: Name = Field(description="Name of the project.")
    store: str = Field(".vsel/store", description="Directory or s3://bucket/prefix; relative to the project file.")
    datasets: dict[Name, DatasetSettings]
    image_encoder: EncoderSettings = Field(default_factory=EncoderSettings)
    text_encoder: TextEncoderSettings = Field(default_factory=TextEncoderSettings)
    vlm: VlmSettings = Field(default_factory=VlmSettings)
    second_vlm: VlmSettings | None = Field(
        None, description="Another model that methods compare with `vlm` (Free2DS); none: such methods cannot run."
    )
    signals: SignalSettings = SignalSettings()
    reference: ReferenceSettings = ReferenceSettings()
    recipes: dict[Name, RecipeSettings] = Field(default_factory=dict)
    training: TrainingSettings = TrainingSettings()
    benchmarks: dict[Name, BenchmarkSettings] = Field(default_factory=dict)
    evaluation: EvaluationSettings = EvaluationSettings()
    methods: dict[Name, str] = Field(
        default_factory=dict, description="Methods of the project's own: name -> Python file with a METHOD."
    )
    compute: ComputeSettings = ComputeSettings()
    automation: AutomationSettings = AutomationSettings()
    base_dir: str = Field(".", description="Directory that relative paths start at; set by the loader.")

    @field_validator("datasets")
    @classmethod
    def _some(cls, value: dict[str, DatasetSettings]) -> dict[str, DatasetSettings]:
        if not value:
            raise ValueError("declare at least one dataset")
        return value

    @model_validator(mode="after")
    def _recipes_name_datasets(self) -> Self:
        for name, recipe in self.recipes.items():
            if recipe.dataset not in self.datasets:
                known = ", ".join(self.datasets)
                raise ValueError(f"recipe {name!r} names the unknown dataset {recipe.dataset!r} (known: {known})")
        return self

    @model_validator(mode="after")
    def _models_beside_the_project_file(self) -> Self:
        for model in (self.image_encoder, self.text_encoder, self.vlm, self.second_vlm):
            if model is not None:
                model.relative_to(self.base_dir)
        return self

    @model_validator(mode="after")
    def _trainings_name_recipes(self) -> Self:
        if BASE in self.recipes:
            raise ValueError(f"a recipe cannot be called {BASE!r}: it stands for the untrained model")
        for name, recipe in self.recipes.items():
            own = recipe.training
            named = [("continue_from", own.continue_from), ("champion.recipe", own.champion and own.champion.recipe)]
            for key, other in named:
                if other is not None and (other not in self.recipes or not self.recipes[other].train or other == name):
                    raise ValueError(f"recipe {name!r}: training.{key} {other!r} is no other recipe that is trained")
            if own.champion is not None and own.champion.benchmark not in self.benchmarks:
                raise ValueError(f"recipe {name!r}: training.champion.benchmark {own.champion.benchmark!r} is unknown")
            if len(self.ancestors(name)) > len(self.recipes):
                raise ValueError(f"recipe {name!r} continues from itself")
        return self

    def ancestors(self, recipe: str) -> list[str]:
        """Recipes whose checkpoints the training of a recipe goes on from, the first one first."""
        found: list[str] = []
        parent = self.recipes[recipe].training.continue_from
        while parent in self.recipes and len(found) <= len(self.recipes):
            found.insert(0, parent)
            parent = self.recipes[parent].training.continue_from
        return found

    def benchmark(self, name: str) -> BenchmarkSettings:
        """Settings of a benchmark; ConfigError with the known names if there is none."""
        if name not in self.benchmarks:
            known = ", ".join(self.benchmarks) or "none"
            raise ConfigError(f"unknown benchmark {name!r}; the project file has: {known}")
        return self.benchmarks[name]

    def resolve(self, path: str) -> str:
        """`path` made absolute against the project file's directory; URLs stay as they are."""
        if not path or "://" in path or Path(path).is_absolute():
            return path
        return str(Path(self.base_dir) / path)

    @property
    def store_root(self) -> str:
        """Absolute path or URL of the store."""
        return self.resolve(self.store)

    def dataset(self, name: str) -> DatasetSettings:
        """Settings of a dataset; ConfigError with the known names if there is none."""
        if name not in self.datasets:
            raise ConfigError(f"unknown dataset {name!r}; the project file has: {', '.join(self.datasets)}")
        return self.datasets[name]

    def recipe(self, name: str) -> RecipeSettings:
        """Settings of a recipe; ConfigError with the known names if there is none."""
        if name not in self.recipes:
            known = ", ".join(self.recipes) or "none"
            raise ConfigError(f"unknown recipe {name!r}; the project file has: {known}")
        return self.recipes[name]


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that stands twice: the first value would be gone without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    "while reading a mapping", node.start_mark, f"{key.value!r} stands in it twice", key.start_mark
                )
            if isinstance(key.value, str):
                seen.add(key.value)
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


def parse_project(text: str, *, base_dir: str, origin: str = "project file") -> Project:
    """Parse the YAML text of a project file.

    Environment variables in `${NAME}` form are not expanded: a project file means the same everywhere.
    Raises ConfigError that names the key, the value and the allowed ones.
    """
    try:
        data = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{origin}: expected a mapping with `name` and `datasets`, got {type(data).__name__}")
    if "base_dir" in data:
        raise ConfigError(f"{origin}: base_dir: set by the loader, remove it")
    try:
        return Project.model_validate({**data, "base_dir": base_dir})
    except ValidationError as error:
        lines = problems(error, Project)
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise ConfigError("\n  ".join([f"{origin}: {count}", *lines])) from error


def load_project(path: str | os.PathLike[str]) -> Project:
    """Read a project file. Raises ConfigError if it is missing or wrong."""
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"no project file at {file}; `vsel init` writes one, --project names another")
    return parse_project(file.read_text("utf-8"), base_dir=str(file.resolve().parent), origin=str(file))
