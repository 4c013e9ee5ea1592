from collections import Counter

import pytest
import yaml

from vsel_platform.config import load_project, parse_project
from vsel_platform.demo import evidence
from vsel_platform.demo.evidence import METHODS, Plan, chunks, recipes, write_evidence_project
from vsel_platform.errors import ConfigError
from vsel_platform.methods.registry import method_names
from vsel_platform.pipeline.leaderboard import label_of

SMALL = Plan(methods=("presel", "ccs"), budgets=(5.0, 2.5), seeds=2, random_seeds=5)


def project_of(plan):
    text = recipes(plan).format(dataset="emoji", seed=1)
    return parse_project(f"name: t\ndatasets: {{emoji: {{source: rows.json}}}}\n{text}", base_dir=".")


def test_every_method_budget_and_seed_is_a_recipe():
    project = project_of(SMALL)
    assert len(project.recipes) == SMALL.n_runs == 2 * (2 * 2 + 5) + 1
    counts = Counter((r.method, r.budget.percent) for r in project.recipes.values())
    assert counts == {
        **{("random", budget): 5 for budget in SMALL.budgets},
        **{(method, budget): 2 for method in SMALL.methods for budget in SMALL.budgets},
        ("random", 100): 1,
    }
    assert all(r.train and r.seed == r.training.seed for r in project.recipes.values())


def test_labels_tell_methods_random_and_full_data_apart():
    project = project_of(SMALL)
    labels = {label_of(recipe) for recipe in project.recipes.values()}
    assert labels == {"presel", "ccs", "random", "full"}


def test_chunks_hold_every_recipe_once_and_begin_with_what_others_are_compared_with():
    parts = chunks(SMALL)
    assert sorted(name for part in parts for name in part) == sorted(project_of(SMALL).recipes)
    assert {project_of(SMALL).recipes[name].method for name in parts[0]} == {"random"}
    assert len(parts) == 1 + SMALL.seeds


def test_all_methods_of_the_table_exist():
    project = project_of(Plan())
    assert set(METHODS) <= set(method_names(project))


@pytest.mark.parametrize(
    "wrong", [{"methods": ()}, {"budgets": (0.0,)}, {"budgets": (100.0,)}, {"seeds": 0}, {"random_seeds": 1}]
)
def test_a_plan_that_compares_nothing_is_refused(wrong):
    with pytest.raises(ConfigError, match="evidence"):
        Plan(**wrong)


def test_the_project_is_the_demo_s_with_other_recipes(tmp_path, monkeypatch):
    written = {}
    monkeypatch.setattr(evidence, "write_project", written.setdefault)
    write_evidence_project(tmp_path, SMALL)
    assert len(yaml.safe_load(written[tmp_path].format(dataset="emoji", seed=1))["recipes"]) == SMALL.n_runs


def test_a_larger_model_brings_its_own_template_and_the_default_training(tmp_path, monkeypatch):
    def write(directory, text):
        file = directory / "vsel.yaml"
        own = "vlm: {model: embedded:demo, template: plain}\nreference: {fraction: 0.1, lora: {rank: 2}}\n"
        training = "training: {lora: {rank: 2}}\n"
        rows = "name: t\ndatasets: {emoji: {source: rows.json}}\n"
        file.write_text(rows + own + training + text.format(dataset="emoji", seed=1))
        return file

    monkeypatch.setattr(evidence, "write_project", write)
    project = load_project(write_evidence_project(tmp_path, SMALL, "org/larger"))
    assert (project.vlm.model, project.vlm.template, project.vlm.dtype) == ("org/larger", None, "bfloat16")
    assert project.training.lora.rank == project.reference.lora.rank == 128
    assert project.reference.fraction == 0.1
    assert len(project.recipes) == SMALL.n_runs
