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
    cost = "seconds" if "seconds" in table else "processor_seconds"  # VGG16's are of older code
    summary = experiments.summary(table)
    assert sorted(summary.index) == sorted(rows.values())
    for title, method in rows.items():
        line = next(line for line in README.splitlines() if line.startswith(f"| {title} |"))
        mean, interval = summary.loc[method, ["mean", "interval"]]
        assert f"| {mean:.3f} ± {interval:.3f} |" in line
        runs = table[table["method"] == method]
        numbers, seconds = runs["trainable_parameters"].iloc[0], runs[cost].mean()
        assert f"| {numbers:,} | {seconds:.0f} |" in line
        if name == "critters":
            assert line.endswith(f"| {runs['peak_memory'].max() / 1000:.1f} |")
    assert table.groupby("method")["seed"].nunique().min() >= (5 if name == "critters" else 3)


def test_the_ends_of_the_label_curves_are_the_stored_ones():
    table = experiments.measured("critters")
    curves = experiments.summary(table, ["method", "labels"])["mean"]
    assert sorted(set(table["labels"])) == list(experiments.LABELS)
    for method in MOBILENET:
        few, many = curves[method, 10], curves[method, 1000]
        assert re.search(rf"{method}( climbs)? from {few:.3f} to {many:.3f}", README)


def test_what_scratch_reaches_with_more_epochs_is_the_stored_one():
    table = experiments.measured("scratch_longer")
    seconds = table.groupby("labels")["processor_seconds"].median()
    for labels, (mean, half) in experiments.summary(table, "labels").iterrows():
        text = f"{mean:.3f} ± {half:.3f} with {labels:,} labels ({seconds[labels]:.0f} processor"
        assert text in " ".join(README.split())
    assert set(table["labels"]) == {400, 1000} and table.groupby("labels").size().min() >= 5
    assert "does as well as the latter with 100 labels, in a thirtieth of the seconds" in README
    hundred = experiments.measured("critters").query("labels == 100 and method == 'fine-tuned'")
    assert abs(hundred["test_accuracy"].mean() - mean) < 0.01
    assert 1 / 33 < hundred["processor_seconds"].median() / seconds[1000] < 1 / 27


def test_the_run_with_plenty_of_pictures_is_the_stored_one():
    table = pd.read_csv(experiments.RESULTS / "vgg16.csv")
    (row,) = table[table["labels"] > 1000].itertuples()
    assert f"{row.test_accuracy:.3f} with {row.labels:,}" in " ".join(README.split())


@pytest.mark.parametrize("name, network", [("critters", "mobilenet_v2"), ("vgg16", "vgg16")])
def test_the_chosen_recipe_won_on_validation(name, network):
    recipes = pd.read_csv(experiments.RESULTS / f"recipes_{network}.csv")
    used = experiments.measured(name)
    for method, candidates in recipes.groupby("method"):
        best = candidates.loc[candidates["validation_accuracy"].idxmax()]
        for option in ("unfreeze_from", "learning_rate", "augment"):
            assert set(used[used["method"] == method][option]) == {best[option]}
    assert set(recipes["seed"]).isdisjoint(used["seed"]), "chosen on pictures of their own"


@pytest.mark.parametrize("network", ["mobilenet_v2", "vgg16"])
def test_what_is_said_of_the_shipped_networks(network):
    record = pretrained.record(network)
    assert f"{record['pictures']['train']:,}" in README
    line = next(line for line in README.splitlines() if line.startswith(f"| `{network}`"))
    assert f"| {record['seconds'] / 60:.0f} | {record['source_accuracy']:.3f} |" in line


def test_the_photos_table_is_the_stored_one():
    for row in pd.read_csv(experiments.RESULTS / "photos.csv").itertuples():
        line = f"| {row.where} | {row.what} | {row.accuracy:.3f} | {row.test_photos} |"
        assert line in README.splitlines()


def test_the_instructors_timings_are_the_stored_ones():
    text = (ROOT / "INSTRUCTOR.md").read_text("utf-8")
    table = pd.read_csv(experiments.RESULTS / "grading.csv")
    assert (table["all_points"] == table["copies"]).all()
    for row in table[table["copies"] == 1].itertuples():
        numbers = f"| {row.processor_seconds_a_copy:.0f} | {row.seconds_a_copy:.0f} |"
        assert re.search(rf"\| {row.set}[^|]* {re.escape(numbers)}", text), row.set
    (many,) = table[table["copies"] == 50].itertuples()
    assert f"{many.seconds_a_copy:.1f} s a copy. Plain" in text
    assert f"took {many.nbgrader_seconds_a_copy:.1f} s a copy" in text
