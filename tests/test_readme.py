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


def test_the_results_table_is_the_stored_one():
    table = pd.read_csv(experiments.RESULTS / "critters.csv")
    summary = experiments.summary(table)
    assert list(summary.index) == ["scratch", "frozen", "fine-tuned"]
    for method, row in summary.iterrows():
        line = next(line for line in README.splitlines() if line.startswith(f"| {method} |"))
        assert f"| {row['mean']:.3f} ± {row['interval']:.3f} |" in line
        runs = table[table["method"] == method]
        numbers, seconds = runs["trainable_parameters"].iloc[0], runs["seconds"].mean()
        assert f"| {numbers:,} | {seconds:.0f} |" in line
    assert table.groupby("method")["seed"].nunique().min() >= 3


def test_the_chosen_recipe_won_on_validation():
    recipes = pd.read_csv(experiments.RESULTS / "recipes.csv")
    best = recipes.loc[recipes["validation_accuracy"].idxmax()]
    used = pd.read_csv(experiments.RESULTS / "critters.csv").query("method == 'fine-tuned'")
    assert set(used["unfreeze_from"]) == {best["unfreeze_from"]}
    assert set(used["learning_rate"]) == {best["learning_rate"]}
    assert set(recipes["seed"]).isdisjoint(used["seed"]), "chosen on pictures of their own"


def test_what_is_said_of_the_shipped_network():
    record = pretrained.record("mobilenet_v2")
    for number in (f"{record['source_accuracy']:.3f}", f"{record['pictures']['train']:,}"):
        assert number in README
