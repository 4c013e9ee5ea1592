"""The plan of signals: which model runs how deep on how many tokens."""

import pytest

from vsel_platform.errors import NotMaterializedError
from vsel_platform.pipeline.row_costs import row_costs, to_dict, to_text

RECIPES = {
    f"recipes.{method}": {"dataset": "shapes", "method": method, "budget": {"rows": 10}}
    for method in ("scalselect", "visnec", "coincide")
}


def by_signal(found):
    return {cost.signal: cost for cost in found}


def test_each_signal_runs_only_what_it_needs(finished):
    ctx = finished.context(RECIPES)
    row, costs = row_costs(ctx, ["presel", "scalselect", "visnec", "coincide"])
    found = by_signal(costs)
    assert list(found) == ["base_losses", "vision_representations", "hidden_states", "losses"]
    assert all("in the pass of base_losses" in found[name].conditions for name in list(found)[1:3])
    found |= by_signal(row_costs(ctx, ["scalselect", "coincide"])[1])
    assert {name: (c.layers, c.all_layers) for name, c in found.items()} == {
        "vision_representations": (1, 2),
        "hidden_states": (1, 2),
        "base_losses": (2, 2),
        "losses": (2, 2),
    }
    assert found["vision_representations"].logits == found["hidden_states"].logits == 0
    assert found["base_losses"].logits == pytest.approx(1.5 * found["losses"].logits, abs=1)
    assert found["base_losses"].tokens > found["losses"].tokens > found["vision_representations"].tokens
    assert found["base_losses"].flops > found["losses"].flops > found["vision_representations"].flops > 0
    assert row.images == pytest.approx(90 / 96)
    assert (row.height, row.width) == (32, 32)


def test_only_what_the_recipes_need_is_told(finished):
    ctx = finished.context(RECIPES)
    assert [cost.signal for cost in row_costs(ctx, ["scalselect"])[1]] == ["vision_representations"]
    row, costs = row_costs(ctx, ["random"])
    assert costs == []
    assert "no recipe needs a signal" in to_text(row, costs)


def test_deeper_states_cost_more(finished):
    one = by_signal(row_costs(finished.context(RECIPES), ["coincide"])[1])["hidden_states"]
    both = finished.context(RECIPES | {"signals.hidden_layers": [1, 2]})
    two = by_signal(row_costs(both, ["coincide"])[1])["hidden_states"]
    assert (two.layers, two.bytes_stored) == (2, 2 * one.bytes_stored)
    assert two.flops > one.flops


def test_the_text_and_the_plain_values_hold_every_signal(finished):
    found = row_costs(finished.context(RECIPES), ["visnec"])
    text = to_text(*found)
    assert "base_losses" in text
    assert "2 of 2" in text
    assert to_dict(*found)["costs"][0]["signal"] == "base_losses"


def test_a_dataset_has_to_be_read_first(fresh):
    with pytest.raises(NotMaterializedError):
        row_costs(fresh.context(), ["presel"])
