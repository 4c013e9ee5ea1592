"""What a selection costs from nothing: its signals over the whole dataset, at the rates of this store's last runs."""

from collections.abc import Callable

from vsel_platform.methods.api import Need
from vsel_platform.methods.presets import OWN_PIPELINE
from vsel_platform.methods.registry import composition, needs_of
from vsel_platform.pipeline import attention, hidden_states, method_scores, representations, text_embeddings
from vsel_platform.pipeline.context import Context
from vsel_platform.pipeline.models import embedding_fingerprint, vlm_fingerprint
from vsel_platform.pipeline.timing import known_seconds

_MODEL_OF: dict[Need, Callable[[Context], str]] = {
    "base_losses": lambda ctx: vlm_fingerprint(ctx.project.vlm),
    "image_embeddings": lambda ctx: embedding_fingerprint(ctx.project.image_encoder),
    "text_embeddings": text_embeddings.STAGE.fingerprint,
    "attention_maps": attention.rate_model,
    "vision_representations": representations.STAGE.fingerprint,
    "hidden_states": hidden_states.STAGE.fingerprint,
}

TAPPED: tuple[Need, ...] = ("vision_representations", "hidden_states")


def selection_seconds(ctx: Context, recipe: str) -> float | None:
    """Seconds of the signals, the score and the selection of a recipe, each row once; None if no rate is known.

    Vectors that lay on the way of the pass for losses have no rate of their own: they cost what that pass costs.
    """
    settings = ctx.project.recipe(recipe)
    rows = ctx.store.require("manifest", {"dataset": settings.dataset}).rows
    selected = ctx.store.require("selected_subset", {"recipe": recipe}).rows
    units: list[tuple[str, str, int]] = [("selected_subset", "", selected)]
    needs = needs_of(ctx.project, settings)
    for need in needs:
        if need in _MODEL_OF:
            units.append((need, _MODEL_OF[need](ctx), rows))
    if settings.method == "presel":
        passes = round(rows * ctx.project.reference.fraction * ctx.project.reference.lora.epochs)
        model = vlm_fingerprint(ctx.project.vlm)
        reference_rows = round(rows * ctx.project.reference.fraction)
        units += [
            ("reference_model", model, passes),
            ("losses", model, 2 * reference_rows),
            ("presel_scores", "", rows),
        ]
    elif settings.method not in OWN_PIPELINE:
        score = composition(ctx.project, settings).score
        units.append((method_scores.stage_name(score.name), "", rows))
    known = [seconds for unit in units if (seconds := known_seconds(ctx, *unit)) is not None]
    tapped = [need for need in needs if need in TAPPED and known_seconds(ctx, need, _MODEL_OF[need](ctx), rows) is None]
    if tapped and "base_losses" not in needs:
        known += [
            s for s in [known_seconds(ctx, "base_losses", vlm_fingerprint(ctx.project.vlm), rows)] if s is not None
        ]
    return sum(known) if known else None
