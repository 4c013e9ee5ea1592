"""The demo's project: a project file, the rows to select from, the held-out rows; pictures stay in the cache."""

import json
import os
import tempfile
from pathlib import Path

import orjson

from vsel_platform.config import Project, load_project
from vsel_platform.demo.dataset import DEFAULT_SEED, DemoDataset, ensure_dataset
from vsel_platform.errors import ConfigError

PROJECT_FILE = "vsel.yaml"
DATASET = "emoji"
HELD_OUT = "held_out"
_POOL = "data/emoji.json"
_EVALUATION = "data/emoji_evaluation.json"

_HEAD = """\
# The demo's project file. `vsel demo` writes it anew each time: copy it before you change it.
name: demo
store: .vsel/store                    # next to this file

datasets:
  {dataset}:
    format: llava
    source: {pool}
    image_root: {image_root}
    task: {{column: task}}
    images: {{check: header}}           # opens every image and reads its size
    max_quarantine_rate: 0.01         # the file holds a few broken rows on purpose
    shard_rows: 2000

image_encoder:
  name: efficientnet_lite0            # ImageNet weights from a package, nothing is downloaded

vlm:
  model: embedded:demo                # a small LLaVA that knows names and captions
  template: plain
  dtype: float32
  max_tokens: 256
  batch_tokens: 4096

second_vlm:                           # Free2DS compares where two models look
  model: embedded:demo_second
  template: plain
  dtype: float32
  max_tokens: 256
  batch_tokens: 4096

text_encoder:
  name: minilm                        # from a package as well

signals:
  answer_tokens: 6                    # of an answer in a word; where a model looks is summed over them

reference:                            # PreSel's first step: 5 % of every task, and a model trained on them
  fraction: 0.05
  seed: {seed}
  lora: {{rank: 16, alpha: 32, dropout: 0.0, learning_rate: 0.005, projector_learning_rate: 0.002, epochs: 8, \
batch_rows: 16, seed: {seed}}}

"""

_RECIPES = """\
recipes:
  presel_15:
    dataset: {dataset}
    method: presel
    budget: {{percent: 15}}
    seed: {seed}
  presel_15_released:                 # as the released code does it, to compare; not trained on
    dataset: {dataset}
    method: presel
    mode: released
    budget: {{percent: 15}}
    seed: {seed}
    train: false
  scalselect_15: {{dataset: {dataset}, method: scalselect, budget: {{percent: 15}}, seed: {seed}, train: false}}
  free2ds_15: {{dataset: {dataset}, method: free2ds, budget: {{percent: 15}}, seed: {seed}, train: false}}
  visnec_15: {{dataset: {dataset}, method: visnec, budget: {{percent: 15}}, seed: {seed}, train: false}}
  magic_15: {{dataset: {dataset}, method: magic, budget: {{percent: 15}}, seed: {seed}, train: false}}
  ccs_15: {{dataset: {dataset}, method: ccs, budget: {{percent: 15}}, seed: {seed}, train: false}}
  semdedup_15: {{dataset: {dataset}, method: semdedup, budget: {{percent: 15}}, seed: {seed}, train: false}}
  coincide_15: {{dataset: {dataset}, method: coincide, budget: {{percent: 15}}, seed: {seed}, train: false}}
  prism_15: {{dataset: {dataset}, method: prism, budget: {{percent: 15}}, seed: {seed}, train: false}}
  d2_15: {{dataset: {dataset}, method: d2, budget: {{percent: 15}}, seed: {seed}, train: false}}
  perplexity_15: {{dataset: {dataset}, method: perplexity, budget: {{percent: 15}}, seed: {seed}, train: false}}
  random_15:
    dataset: {dataset}
    method: random
    budget: {{percent: 15}}
    seed: {seed}

"""

_TAIL = """\
benchmarks:
  {held_out}:                         # drawings that no row shows: is what was learned of use there?
    format: rows
    questions: {evaluation}
    image_root: {image_root}
    max_new_tokens: 32

evaluation:
  leakage:                            # the encoder finds all pictures of number keys alike, up to 0.991
    near_duplicate: 0.995
    max_share: 0.01                   # a few questions have the same list of options as a row

training:
  lora: {{rank: 16, alpha: 32, dropout: 0.0, learning_rate: 0.005, projector_learning_rate: 0.002, epochs: 6, \
batch_rows: 16, seed: {seed}}}

compute:
  backend: in_process                 # `subprocess` gives every job a process of its own
"""


def write_demo_project(directory: Path, *, seed: int = DEFAULT_SEED) -> Path:
    """Write the demo's project into `directory` and return the project file.

    Pictures are rendered into the user's cache if they are not there yet. Rows that were appended before are taken
    back; files that would not change are not touched. Raises MissingPackageError if a package with artwork is missing.
    """
    return write_project(directory, _RECIPES, seed=seed)


def write_project(directory: Path, recipes: str, *, seed: int = DEFAULT_SEED) -> Path:
    """Write a project on the demo's rows with these recipes (YAML with `{{dataset}}` and `{{seed}}`); its file."""
    dataset = ensure_dataset(seed=seed)
    directory = directory.absolute()
    text = (_HEAD + recipes + _TAIL).format(
        dataset=DATASET,
        held_out=HELD_OUT,
        pool=_POOL,
        evaluation=_EVALUATION,
        image_root=json.dumps(str(dataset.images)),
        seed=seed,
    )
    _write_if_changed(directory / _POOL, (dataset.folder / "pool.json").read_bytes())
    _write_if_changed(directory / _EVALUATION, (dataset.folder / "evaluation.json").read_bytes())
    _write_if_changed(directory / PROJECT_FILE, text.encode())
    return directory / PROJECT_FILE


def append_demo_rows(project_file: Path) -> int:
    """Append the demo's later batch to its source file; returns the number of rows, 0 if they are there already.

    Raises ConfigError if the project is not the demo's.
    """
    project = load_project(project_file)
    dataset = _demo_dataset(project, project_file)
    source = Path(project.resolve(project.datasets[DATASET].source))
    rows = orjson.loads(source.read_bytes())
    present = {row.get("id") if isinstance(row, dict) and isinstance(row.get("id"), str) else None for row in rows}
    added = [row for row in dataset.new_rows if row["id"] not in present]
    if added:
        text = json.dumps([*rows, *added], ensure_ascii=False, indent=1) + "\n"
        _write_if_changed(source, text.encode())
    return len(added)


def _demo_dataset(project: Project, project_file: Path) -> DemoDataset:
    if DATASET in project.datasets:
        dataset = DemoDataset(Path(project.datasets[DATASET].image_root).parent)
        if (dataset.folder / "new_rows.json").is_file():
            return dataset
    raise ConfigError(f"{project_file} is not a project of the demo, or its pictures are gone; run `vsel demo` again")


def _write_if_changed(path: Path, data: bytes) -> None:
    """Replace a file in one step, unless it holds `data` already."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
