import json
import shutil

import pytest
from PIL import Image
from small_project import draw, row, text_row

from vsel_platform.errors import DataError, NotMaterializedError
from vsel_platform.pipeline import leakage
from vsel_platform.pipeline.leakage import IMAGE_SIGNAL, PAGE, is_current, run
from vsel_platform.pipeline.models import embedding_fingerprint
from vsel_platform.pipeline.training import run_checkpoint

RANDOM = {"recipe": "random"}
LONG = "name every thing that stands on the old wooden table beside the open window please"


@pytest.fixture
def place(finished, tmp_path):
    """Files of a benchmark, with the project's pictures."""
    place = tmp_path / "benchmark"
    shutil.copytree(finished.pictures / "images", place / "images")
    for index in (900, 901):
        draw(place / "images" / row(index)["image"], index)
    return place


def changes(place, rows, **limits):
    """Settings of a project whose benchmark is made of `rows`."""
    (place / "questions.json").write_text(json.dumps(rows))
    own = {"format": "rows", "questions": str(place / "questions.json"), "image_root": str(place / "images")}
    return {"benchmarks": {"own": own}} | {f"evaluation.leakage.{name}": limit for name, limit in limits.items()}


def findings(ctx):
    table = ctx.store.read(ctx.store.pointer("leakage", RANDOM))
    return {(found["question_id"], found["kind"]): found for found in table.to_pylist()}


def pages(ctx):
    files = ctx.store.require(PAGE, RANDOM).files
    return {file.path.rsplit("/", 1)[-1]: ctx.store.files.read(file.path).decode() for file in files}


def chosen(project):
    """Indices of the rows with pictures that the random recipe selected."""
    table = project.context().store.read_partition("selected_subset", RANDOM)
    return [position for position in table["position"].to_pylist() if position < 90]


def test_a_benchmark_of_training_rows_stops_the_training_and_says_what_to_do(copied, place):
    setting = changes(place, [row(i) for i in range(90)])
    with pytest.raises(NotMaterializedError) as caught:
        copied.drive(["random"], setting, train=True)
    n = len(chosen(copied))
    for part in ("leakage", "no_leakage", f"own {n} questions ({n / 90:.2%})", "evaluation.leakage.max_share"):
        assert part in str(caught.value)
    ctx = copied.context(setting)
    found = findings(ctx)
    assert {name for name, kind in found if kind == "image"} == {f"row-{i}#1" for i in chosen(copied)}
    first = min(chosen(copied), key=lambda i: f"row-{i}#1")
    asked, answer = (turn["value"].replace("<image>", "").strip() for turn in row(first)["conversations"][:2])
    for name, text in pages(ctx).items():
        assert asked in text and answer in text, name
    assert f"id row-{first}, position {first}, " in pages(ctx)["own.html"]
    assert {found[name]["benchmark"] for name in found} == {"own"}
    with pytest.raises(NotMaterializedError, match="no_leakage"):
        run_checkpoint(ctx, "random")
    assert is_current(ctx, "random"), "the same search would find the same"
    # The checkpoint is older than the benchmark; what it answers would say nothing.
    with pytest.raises(NotMaterializedError, match="no_leakage"):
        copied.drive(["random"], setting, train=True)
    assert ctx.store.pointer("evaluation", {"recipe": "random", "benchmark": "own"}) is None


def test_a_share_that_is_allowed_lets_the_training_pass(copied, place):
    rows = [row(i) for i in range(90)]
    with pytest.raises(NotMaterializedError):
        copied.drive(["random"], changes(place, rows), train=True)
    n = len(chosen(copied))
    few = changes(place, rows, max_share=(n - 1) / 90)
    with pytest.raises(NotMaterializedError):
        copied.drive(["random"], few, train=True)
    ran = [result.stage for result in copied.drive(["random"], changes(place, rows, max_share=n / 90), train=True)]
    # The checkpoint of the finished project is of this selection still.
    assert ran == ["leakage", "base_evaluation", "evaluation", "leaderboard"]


def test_rows_that_were_not_selected_are_no_leak(copied, place):
    others = [row(i) for i in range(90) if i not in chosen(copied)]
    ctx = copied.context(changes(place, others))
    result = run(ctx, "random")
    assert (result.rows, ctx.store.require("leakage", RANDOM).quality) == (0, "ok")
    assert result.metadata["own: questions concerned"] == f"0 of {len(others)}"
    assert result.computed == ctx.store.require("selected_subset", RANDOM).rows


def test_long_texts_in_common_are_found_where_no_image_is(fresh, place):
    conversation = [{"from": "human", "value": LONG}, {"from": "gpt", "value": "A cup."}]
    texts = [text_row(i) for i in range(30)]
    fresh.write([*texts, {"id": "long", "task": "text", "conversations": conversation}])
    everything = {"recipes.random.budget": {"percent": 100}, "recipes.random.text_policy": "all"}
    fresh.drive(["random"], everything)
    asked = [
        {"id": "q", "conversations": [{"from": "human", "value": f"Please {LONG}!"}, {"from": "gpt", "value": "x"}]}
    ]
    ctx = fresh.context(everything | changes(place, asked))
    run(ctx, "random")
    assert list(findings(ctx)) == [("q#1", "ngram")]
    longer = fresh.context(everything | changes(place, asked, words=len(LONG.split()) + 1))
    assert not is_current(longer, "random")
    run(longer, "random")
    assert findings(longer) == {}


def test_an_image_of_several_rows_is_found_in_one_place(fresh, place):
    same = [row(i) | {"image": row(0)["image"]} for i in range(6)]
    fresh.write([*same, *(row(i) for i in range(6, 40))])
    everything = {"recipes.random.budget": {"percent": 100}}
    fresh.drive(["random"], everything)
    ctx = fresh.context(everything | changes(place, [row(0), row(6)]))
    run(ctx, "random")
    stored = ctx.store.pointer("leakage", RANDOM)
    assert "key_is_unique" not in stored.quality
    images = [name for name, kind in findings(ctx) if kind == "image"]
    assert sorted(images) == ["row-0#1", "row-6#1"]


def test_nearly_equal_images_are_found_by_their_embeddings_which_are_computed_once(copied, place, monkeypatch):
    """The same pixels in another file are another image to a hash."""
    index = chosen(copied)[0]
    Image.open(place / "images" / row(index)["image"]).save(place / "images" / "copy.bmp")
    asked = [row(900) | {"image": "copy.bmp"}]
    ctx = copied.context(changes(place, asked, near_duplicate=0.999))
    name = embedding_fingerprint(ctx.project.image_encoder)
    before = ctx.vectors.check(IMAGE_SIGNAL, name).rows
    assert run(ctx, "random").metadata["near images compared"]
    found = findings(ctx)["row-900#1", "near_image"]
    assert found["value"] > 0.999
    stored = [table for p in ctx.store.pointers("images") for table in ctx.store.read(p).to_pylist()]
    assert found["found_in"] in {image["image_id"] for image in stored}
    assert ctx.vectors.check(IMAGE_SIGNAL, name).rows == before + 1

    def nothing(*_):
        raise AssertionError("an encoder was loaded")

    monkeypatch.setattr("vsel_platform.models.encoders.load_image_encoder", nothing)
    other = copied.context(changes(place, asked, near_duplicate=0.9995))
    assert run(other, "random").metadata["near images compared"]


def test_a_dataset_without_embeddings_is_searched_without_them_and_says_so(fresh, place):
    fresh.drive(["random"])
    ctx = fresh.context(changes(place, [row(900)]))
    assert run(ctx, "random").metadata["near images compared"] is False


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_images_that_cannot_be_decoded_or_read_are_left_out_of_the_search_and_counted(copied, place, content):
    image = place / "images" / "broken.png"
    if content is not None:
        image.write_bytes(content)
    asked = [row(900) | {"image": "broken.png"}, row(901) | {"image": row(chosen(copied)[0])["image"]}]
    ctx = copied.context(changes(place, asked))
    result = run(ctx, "random")
    assert ("row-901#1", "image") in findings(ctx)
    assert not any(name == "row-900#1" for name, _ in findings(ctx))
    assert result.metadata["own: images not read"] == ("1 of 2" if content is None else "0 of 2")
    page = pages(ctx)["own.html"]
    assert ("1 of 2 images could not be read" in page) == (content is None)


def test_a_search_without_any_image_is_refused_and_made_when_they_are_there(copied, place):
    setting = changes(place, [row(i) for i in range(3)])
    wrong = copied.context(setting | {"benchmarks.own.image_root": str(place / "typo")})
    with pytest.raises(DataError, match=r"benchmarks\.own\.image_root: none of 3 images can be read.*No such file"):
        run(wrong, "random")
    ctx = copied.context(setting)
    run(ctx, "random")
    assert is_current(ctx, "random")
    assert not is_current(wrong, "random")


def test_a_benchmark_without_pictures_is_searched_by_its_texts(copied, place):
    ctx = copied.context(changes(place, [text_row(i) for i in range(900, 903)]))
    assert run(ctx, "random").rows == 0


def test_the_page_has_a_part_for_every_benchmark(copied, place):
    setting = changes(place, [row(i) for i in range(90)])
    setting["benchmarks"] |= {"second": setting["benchmarks"]["own"]}
    ctx = copied.context(setting)
    run(ctx, "random")
    assert set(pages(ctx)) == {"own.html", "own.md", "second.html", "second.md"}
    assert {found["benchmark"] for found in ctx.store.read(ctx.store.pointer("leakage", RANDOM)).to_pylist()} == {
        "own",
        "second",
    }


def test_the_search_is_made_again_when_selection_benchmark_or_limits_change(copied, place):
    ctx = copied.context(changes(place, [row(900)]))
    run(ctx, "random")
    assert is_current(ctx, "random")
    assert not is_current(copied.context(changes(place, [row(900)], max_share=0.5)), "random")
    assert not is_current(copied.context(changes(place, [row(901)])), "random")
    changes(place, [row(900)])
    copied.drive(["random"], {"recipes.random.seed": 4})
    assert not is_current(ctx, "random")
    assert leakage.inputs(ctx, "random").references
