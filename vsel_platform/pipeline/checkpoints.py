"""A recipe's checkpoint as files outside of the store."""

import shutil
import tempfile
from pathlib import Path

from vsel_platform.errors import ConfigError
from vsel_platform.pipeline.artifacts import fetched
from vsel_platform.pipeline.context import Context

CARD = "README.md"
MERGED = "# Model with a LoRA adapter merged into its weights\n\nWhat follows is about the adapter."


def write_checkpoint(ctx: Context, recipe: str, directory: Path, *, merged: bool = False) -> int:
    """Write the adapter of a recipe, or the whole model with the adapter merged into it, to a new directory; bytes.

    The directory appears when it is complete. Raises NotMaterializedError if the recipe is not trained, ConfigError if
    there is something in the directory, ModelError if the model cannot be merged (`models.merged`).
    """
    if not ctx.project.recipe(recipe).train:
        raise ConfigError(f"recipe {recipe!r} is not trained (recipes.{recipe}.train: false)")
    pointer = ctx.store.require("finetuned_checkpoint", {"recipe": recipe})
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory} is there already; name a new directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as name:
        built = Path(name) / "checkpoint"
        built.mkdir()
        with fetched(ctx, pointer) as adapter:
            if merged:
                from vsel_platform.models.merged import save_merged

                save_merged(ctx.project.vlm, str(adapter), built)
                card = (adapter / CARD).read_text("utf-8")
                (built / CARD).write_text(card.replace("# LoRA adapter", MERGED, 1), "utf-8")
            else:
                _copy(adapter, built)
        built.replace(directory)
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def _copy(source: Path, target: Path) -> None:
    """Copy what is in a directory, but not its mode: that of a temporary one is for its owner alone."""
    for path in sorted(source.iterdir()):
        if path.is_dir():
            (target / path.name).mkdir()
            _copy(path, target / path.name)
        else:
            shutil.copyfile(path, target / path.name)
