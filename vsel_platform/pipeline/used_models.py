"""Which models of the project file some recipes use, and whether their weights are there."""

from collections.abc import Sequence

from vsel_platform.config import EncoderSettings, Project, TextEncoderSettings, VlmSettings
from vsel_platform.methods.api import Need
from vsel_platform.methods.registry import needs_of
from vsel_platform.models.availability import Availability, availability

# Signal -> keys of the project file whose models make it.
_MODELS: dict[Need, tuple[str, ...]] = {
    "image_embeddings": ("image_encoder",),
    "text_embeddings": ("text_encoder",),
    "base_losses": ("vlm",),
    "vision_representations": ("vlm",),
    "hidden_states": ("vlm",),
    "representation_moments": ("vlm",),
    "attention_maps": ("vlm", "second_vlm"),
}


def used_models(project: Project, recipes: Sequence[str], *, train: bool = False) -> list[Availability]:
    """Models that bringing the recipes up to date may load, each once. Raises ConfigError for an unknown recipe."""
    keys: set[str] = set()
    for name in recipes:
        recipe = project.recipe(name)
        keys.update(key for need in needs_of(project, recipe) for key in _MODELS[need])
        if recipe.method == "presel" or (train and recipe.train):
            keys.add("vlm")
    settings: dict[str, EncoderSettings | TextEncoderSettings | VlmSettings | None] = {
        "image_encoder": project.image_encoder,
        "text_encoder": project.text_encoder,
        "vlm": project.vlm,
        "second_vlm": project.second_vlm,
    }
    return [availability(key, found) for key, found in settings.items() if key in keys and found is not None]
