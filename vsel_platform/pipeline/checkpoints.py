"""A recipe's checkpoint as files outside of the store."""

import shutil
import tempfile
from pathlib import Path

from vsel_platform.errors import ConfigError
from vsel_platform.pipeline.artifacts import fetched
from vsel_platform.pipeline.context import Context


def write_checkpoint(ctx: Context, recipe: str, directory: Path, *, merged: bool = False) -> int:
    """Write the adapter of a recipe, or the whole model with the adapter merged into it, to a new directory; bytes.

    The directory appears when it is complete. Raises NotMaterializedError if the recipe is not trained, ConfigError if
    there is something in the directory, ModelError if the model cannot be merged (`models.merged`).
    """
    ctx.project.recipe(recipe)
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
            else:
                shutil.copytree(adapter, built, dirs_exist_ok=True)
        built.replace(directory)
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
