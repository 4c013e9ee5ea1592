"""Settings of benchmarks, of how answers are given, and of the checks around them."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vsel_platform.config_base import Name, Settings

Format = Literal[
    "rows",
    "jsonl",
    "seed_bench",
    "mmbench",
    "mme",
    "gqa",
    "vqav2",
    "scienceqa",
    "pope",
    "textvqa",
    "vizwiz",
    "aokvqa",
    "qbench",
    "captioning",
]
BASE = "base"
"""Stands for the untrained model where a recipe would name the trained one."""


class AskingSettings(Settings):
    """Self-questioning at inference (SQ-LLaVA): the model asks and answers itself before it answers. 0: off."""

    questions: int = Field(0, ge=0, description="Questions that the model asks itself before the real one; 0: none.")
    temperature: float = Field(1.2, gt=0, description="Of the questions.")
    top_k: int = Field(300, gt=0, description="Tokens that a question is drawn from.")
    top_p: float = Field(0.95, gt=0, le=1, description="Share of probability that a question is drawn from.")
    question_tokens: int = Field(64, gt=0, description="Longest question [tokens].")
    answer_tokens: int = Field(64, gt=0, description="Longest answer to an own question, and description [tokens].")
    describe: bool = Field(True, description="Describe the image first, as SQ-LLaVA does.")
    seed: int = Field(12345, description="Seed of the questions.")


class BenchmarkSettings(Settings):
    """A benchmark in its published files, or one of your own."""

    format: Format = Field(description="Kind of benchmark; rows: LLaVA JSON, jsonl: your own questions.")
    questions: str = Field(description="File (or directory, as docs/evaluation.md says) with the questions.")
    annotations: str | None = Field(
        None, description="File (or directory) with the right answers, where it is another one."
    )
    image_root: str = Field(
        "", description="Root that relative image paths start at; empty: the directory in which the questions lie."
    )
    compat: Literal["llava", "official", "robust"] = Field(
        "official", description="How answers are read: as LLaVA's scripts, the benchmark's own or evaluation kits do."
    )
    rows: int = Field(
        0,
        ge=0,
        description="Ask about this many questions: whole images (stable choice) until there are as many; 0 = all.",
    )
    max_new_tokens: int = Field(0, ge=0, description="Longest answer [tokens]; 0: what the format says.")
    losses: bool = Field(True, description="Loss of the right answer besides, where there is exactly one.")
    self_questioning: AskingSettings = AskingSettings()
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the format, as its module says.")


class LeakageSettings(Settings):
    """Which overlap of training rows and benchmarks is looked for, and how much of it stops a training."""

    words: int = Field(13, ge=5, description="Texts overlap if they share this many words in a row.")
    near_duplicate: float = Field(
        0.98, gt=0, le=1, description="Images overlap from this cosine of their embeddings on."
    )
    max_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of a benchmark's questions that may be concerned before training is refused.",
    )


class EvaluationSettings(Settings):
    """Intervals, and what the leaderboard compares."""

    resamples: int = Field(2000, ge=100, description="Resamples of a bootstrap.")
    seed: int = Field(0, description="Seed of the resampling.")
    leakage: LeakageSettings = LeakageSettings()


class ChampionSettings(Settings):
    """The recipe that a new selection has to hold its own against."""

    recipe: Name = Field(description="The champion.")
    benchmark: Name = Field(description="Where they are compared.")
    margin: float = Field(0.0, ge=0, description="How much worse counts as not worse [percent points, or the unit].")
    max_loss: float = Field(
        5.0, ge=0, description="A loss that has to be ruled out before anything is promoted [the same unit]."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.margin > self.max_loss:
            raise ValueError("margin cannot be above max_loss")
        return self


class RecipeTraining(Settings):
    """What a recipe's training has of its own."""

    continue_from: Name | None = Field(
        None, description="Go on from the checkpoint of this recipe instead of the base model."
    )
    seed: int | None = Field(None, description="Seed instead of training.lora.seed.")
    champion: ChampionSettings | None = Field(None, description="Promote only what is not worse than this.")

    @model_validator(mode="after")
    def _not_itself(self) -> Self:
        if self.champion is not None and self.champion.recipe == BASE:
            raise ValueError("the champion is a recipe; every evaluation is compared with the base model anyhow")
        return self
