"""Settings of fine-tuning: LoRA, its schedule, and the self-questioning objective."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from vsel_platform.config_base import Settings

Reporter = Literal["tensorboard", "wandb", "mlflow"]


def _expression(value: str | None) -> str | None:
    if value is not None:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
    return value


Expression = Annotated[str | None, AfterValidator(_expression)]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class VisionLoraSettings(Settings):
    """LoRA in the vision tower. Rank 0: the tower stays frozen, and its features are computed once per image."""

    rank: int = Field(0, ge=0, description="Rank of the adapter matrices; 0: no LoRA in the tower.")
    alpha: int = Field(128, gt=0, description="Scale of the adapter: alpha / rank.")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="Dropout in front of the adapter; none: that of the language model."
    )
    learning_rate: float = Field(2e-5, gt=0, description="Peak learning rate of the tower's adapter.")
    targets: Expression = Field(
        None,
        description="Regular expression on the whole path of a layer inside the tower; none: all linear layers that "
        "can get a gradient.",
    )


class SelfQuestioningSettings(Settings):
    """SQ-LLaVA's objective: the model also learns to ask the user's later questions. Ratio 0: off."""

    ratio: float = Field(0.0, ge=0, le=1, description="Probability that a later question of an image row is learned.")
    seed: int = Field(12345, description="Seed of the draw, which depends on epoch, row and turn besides.")
    question_weight: float = Field(1.0, gt=0, description="Weight of a question's tokens against an answer's.")
    dedicated_token: bool = Field(
        False, description="The virtual user has a token of its own, which learns, in place of the words VUSER:."
    )


class PrototypeSettings(Settings):
    """SQ-LLaVA's prototype extractor in front of the projector. 0 prototypes: off."""

    prototypes: int = Field(0, ge=0, description="Number of prototypes (SQ-LLaVA: 256); 0: no extractor.")
    iterations: int = Field(2, ge=1, description="Rounds of assignment.")
    key_norm: Literal["channel", "token"] = Field(
        "channel", description="What keys are normalised over; token is the released code, whose prototypes collapse."
    )
    read_out: Literal["hard", "soft"] = Field("soft", description="A token reads its nearest prototype, or all.")


class LoraSettings(Settings):
    """LoRA fine-tuning. Defaults are those of PreSel's released training script."""

    rank: int = Field(128, gt=0, description="Rank of the adapter matrices.")
    alpha: int = Field(256, gt=0, description="Scale of the adapter: alpha / rank.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout in front of the adapter.")
    targets: Expression = Field(
        None,
        description="Regular expression on the whole path of a layer inside the language model; none: all linear "
        "layers.",
    )
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate of the adapter.")
    projector_learning_rate: float = Field(
        2e-5, ge=0, description="Peak learning rate of the projector; 0 keeps it frozen."
    )
    vision: VisionLoraSettings = VisionLoraSettings()
    projector_only: bool = Field(False, description="Train the projector alone, as LLaVA's pre-training does.")
    epochs: float = Field(1.0, gt=0, description="Passes over the rows.")
    batch_rows: int = Field(64, gt=0, description="Rows per optimiser step, of all processes together.")
    mean_rows: int = Field(
        0,
        ge=0,
        description="0: all answer tokens of a step count the same; n: the mean of every n rows counts the same, as in "
        "LLaVA with n rows per device.",
    )
    order: Literal["random", "length", "modality"] = Field(
        "length",
        description="Rows of a step are drawn freely, are of similar length, or are besides all with or all without "
        "image (LLaVA).",
    )
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="Learning rate after the warm-up.")
    warmup_fraction: float = Field(0.03, ge=0, lt=1, description="Share of the steps with a rising rate.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradients are clipped to this norm; 0: never.")
    gradient_checkpointing: bool = Field(
        False, description="Keep only the inputs of layers and compute the rest again: less memory, more time."
    )
    quantization: Literal["none", "nf4"] = Field(
        "none",
        description="nf4: the frozen language model in 4 bits (QLoRA); needs bitsandbytes, the extra `qlora`.",
    )
    max_unusable: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Training is refused above this share of rows that cannot be learned from: "
        "no token to learn, a broken image, or no conversation.",
    )
    self_questioning: SelfQuestioningSettings = SelfQuestioningSettings()
    prototypes: PrototypeSettings = PrototypeSettings()
    seed: int = Field(12345, description="Seed of the adapter and of the order of rows.")

    @model_validator(mode="after")
    def _something_learns(self) -> Self:
        if self.projector_only and not self.projector_learning_rate:
            raise ValueError("projector_only with projector_learning_rate 0 would train nothing")
        return self


class RuntimeSettings(Settings):
    """How a training runs; none of this changes what it learns."""

    checkpoint_minutes: float = Field(
        5.0, ge=0, description="A killed training resumes from a state at most this old [min]; 0: from its last step."
    )
    report_to: Annotated[tuple[Reporter, ...], BeforeValidator(_as_list)] = Field(
        (), description="Trackers that get losses and rates besides, such as [tensorboard]."
    )
    log_dir: str = Field(
        "logs", description="Directory of what trackers write on this machine; beside the project file."
    )
    deepspeed: str | None = Field(
        None, description="DeepSpeed configuration (JSON file; examples/zero2.json) for `compute.processes` > 1."
    )
    fsdp: str | None = Field(
        None, description="FSDP configuration (JSON file; examples/fsdp.json) for `compute.processes` > 1."
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.deepspeed and self.fsdp:
            raise ValueError("give deepspeed or fsdp, not both")
        return self


class TrainingSettings(Settings):
    """Fine-tuning on a selected subset."""

    lora: LoraSettings = LoraSettings()
    runtime: RuntimeSettings = RuntimeSettings()

    @model_validator(mode="after")
    def _whole_where_quantized(self) -> Self:
        if self.lora.quantization != "none" and (self.runtime.deepspeed or self.runtime.fsdp):
            raise ValueError("lora.quantization: 4-bit weights cannot be shared out by deepspeed or fsdp; choose one")
        return self
