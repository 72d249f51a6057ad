"""README.md tells the truth: its numbers are stored results, its links lead somewhere."""

import re
from pathlib import Path

import pandas as pd
import pytest

from helpers import experiments, pretrained

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_links_lead_somewhere(target):
    assert target.startswith("http") or (ROOT / target).exists()


@pytest.mark.parametrize("target", re.findall(r"^make (\w[\w-]*)", README, re.M))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


MOBILENET = {method: method for method in ("scratch", "frozen", "fine-tuned")}
VGG16 = {
    "1 · frozen": "frozen",
    "2 · fine-tuned": "fine-tuned",
    "3 · scratch": "scratch",
    "scratch with BatchNorm": "scratch, BatchNorm",
}


@pytest.mark.parametrize("name, rows", [("critters", MOBILENET), ("vgg16", VGG16)])
def test_the_results_tables_are_the_stored_ones(name, rows):
    table = pd.read_csv(experiments.RESULTS / f"{name}.csv")
    table = table[table["labels"] == table["labels"].iloc[0]]
    summary = experiments.summary(table)
    assert sorted(summary.index) == sorted(rows.values())
    for title, method in rows.items():
        line = next(line for line in README.splitlines() if line.startswith(f"| {title} |"))
        mean, interval = summary.loc[method, ["mean", "interval"]]
        assert f"| {mean:.3f} ± {interval:.3f} |" in line
        runs = table[table["method"] == method]
        numbers, seconds = runs["trainable_parameters"].iloc[0], runs["seconds"].mean()
        assert f"| {numbers:,} | {seconds:.0f} |" in line
    assert table.groupby("method")["seed"].nunique().min() >= 3


def test_the_run_with_plenty_of_pictures_is_the_stored_one():
    table = pd.read_csv(experiments.RESULTS / "vgg16.csv")
    (row,) = table[table["labels"] > 1000].itertuples()
    assert f"{row.test_accuracy:.3f} with {row.labels:,}" in " ".join(README.split())


@pytest.mark.parametrize("name, network", [("critters", "mobilenet_v2"), ("vgg16", "vgg16")])
def test_the_chosen_recipe_won_on_validation(name, network):
    recipes = pd.read_csv(experiments.RESULTS / f"recipes_{network}.csv")
    best = recipes.loc[recipes["validation_accuracy"].idxmax()]
    used = pd.read_csv(experiments.RESULTS / f"{name}.csv").query("method == 'fine-tuned'")
    assert set(used["unfreeze_from"]) == {best["unfreeze_from"]}
    assert set(used["learning_rate"]) == {best["learning_rate"]}
    assert set(recipes["seed"]).isdisjoint(used["seed"]), "chosen on pictures of their own"


@pytest.mark.parametrize("network", ["mobilenet_v2", "vgg16"])
def test_what_is_said_of_the_shipped_networks(network):
    record = pretrained.record(network)
    assert f"{record['pictures']['train']:,}" in README
    line = next(line for line in README.splitlines() if line.startswith(f"| `{network}`"))
    assert f"| {record['seconds'] / 60:.0f} | {record['source_accuracy']:.3f} |" in line
