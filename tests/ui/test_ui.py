"""The Dagster UI in a real browser: lineage, one materialization of `selected_subset`, its plot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dagster_services import daemon, environment, graphql, runs, wait_for, webserver
from small_project import write_small_project

pytestmark = [pytest.mark.ui, pytest.mark.timeout(420)]
ROOT = Path(__file__).parents[2]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
GROUPS = {
    "samples": "dataset_manifest",
    "signals": "attention_maps",
    "selection": "selected_subset",
    "training": "finetuned_checkpoint",
}
DONE = ("SUCCESS", "FAILURE", "CANCELED")

PLOTS = """query { assetOrError(assetKey: {path: ["selected_subset"]}) { ... on Asset {
  assetMaterializations(limit: 1) { partition runId metadataEntries { label __typename
    ... on MarkdownMetadataEntry { mdStr } } } } } }"""


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """Project with everything before the selection in place, web server and daemon on it."""
    directory = tmp_path_factory.mktemp("ui")
    file = write_small_project(directory, tmp_path_factory.mktemp("models"))
    env = environment(file, directory / "home")
    subprocess.run(
        [sys.executable, "-m", "automation.run", "presel"], cwd=ROOT, env=env, check=True, capture_output=True
    )
    with webserver(env, directory / "web.log") as url, daemon(env, directory / "daemon.log"):
        yield url, directory


@pytest.fixture
def page(services, tmp_path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path / "browser"),
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            args=FLAGS,
            viewport={"width": 1900, "height": 1000},
        )
        page = context.new_page()
        page.set_default_timeout(60_000)
        yield page
        context.close()


def test_lineage_is_shown(services, page):
    url, directory = services
    page.set_viewport_size({"width": 2200, "height": 1400})
    for group, asset in reversed(GROUPS.items()):
        # Only what is inside the window is drawn, and a group that opens moves those behind it: the last is first.
        page.goto(f"{url}/asset-groups")
        # A group stands in the side bar and, last, as a node of the graph once that is laid out.
        node = page.locator(f":text-is('{group}'):visible")
        wait_for(lambda node=node: node.count() >= 2, 30, lambda: "the graph is not drawn")
        page.wait_for_timeout(1000)
        node.last.click()
        page.get_by_text(asset, exact=True).first.wait_for()
    page.set_viewport_size({"width": 1900, "height": 1000})
    page.goto(f"{url}/assets/selected_subset?view=lineage&lineageScope=upstream&lineageDepth=6")
    for asset in ("raw_annotations", "image_embeddings", "presel_scores"):
        page.get_by_text(asset, exact=True).first.wait_for()
    page.wait_for_timeout(2000)
    keep(page, directory / "lineage.png")


def test_one_partition_is_materialized_and_shows_its_plot(services, page):
    url, directory = services
    before = {run["runId"] for run in runs(url)}
    page.goto(f"{url}/assets/selected_subset")
    page.locator("button:has-text('Materialize')").first.click()
    dialog = page.get_by_role("dialog")
    # `presel` is there already, so the one that is missing is `random`.
    dialog.get_by_role("button", name="Missing", exact=True).click()
    dialog.get_by_text("1 partition", exact=True).wait_for()
    dialog.locator("button:has-text('Launch')").click()
    run = wait_for(
        lambda: next((r for r in runs(url) if r["runId"] not in before and r["status"] in DONE), None),
        180,
        lambda: f"no finished run: {runs(url)[:3]} {(directory / 'daemon.log').read_text()[-3000:]}",
    )
    assert run["status"] == "SUCCESS"
    last = graphql(url, PLOTS)["assetOrError"]["assetMaterializations"][0]
    assert last["partition"] == "random"
    assert [entry for entry in last["metadataEntries"] if "data:image/png;base64" in entry.get("mdStr", "")]
    page.goto(f"{url}/assets/selected_subset?view=partitions&partition=random")
    page.get_by_text("budgets").first.wait_for()
    page.wait_for_timeout(2000)
    keep(page, directory / "selected.png")


def keep(page, path: Path) -> None:
    """Screenshots go where `VSEL_SCREENSHOTS` says, for the README."""
    page.screenshot(path=str(path))
    if target := os.environ.get("VSEL_SCREENSHOTS"):
        Path(target).mkdir(parents=True, exist_ok=True)
        (Path(target) / path.name).write_bytes(path.read_bytes())
