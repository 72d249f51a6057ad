"""The photos track on real photos, ImageNet weights and the hub module, where they are at hand.

`python tests/test_photos.py` measures results/photos.csv again.
"""

import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import NO_NETWORK, TESTBED
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).parents[1]
PLACES = {
    "TFDS_DATA_DIR": str(TESTBED / "tensorflow_datasets"),
    "TFHUB_CACHE_DIR": str(TESTBED / "tfhub_cache"),
}
RECORDED = ROOT / "results" / "photos.csv"
PROBE = "linear probe, 500 labels, three splits"

pytestmark = pytest.mark.skipif(
    not TESTBED.is_dir(), reason=f"no real photos and weights at {TESTBED}"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def run(cache, *command, **variables):
    variables |= {"COURSE_TRACK": "photos", "COURSE_CACHE": str(cache), "TQDM_DISABLE": "1"}
    home = cache / "keras_home"  # Keras writes its settings there
    shutil.copytree(TESTBED / "keras_home", home, dirs_exist_ok=True)
    variables |= NO_NETWORK | {"KERAS_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | PLACES | variables,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def lesson(name, cache, folder):
    """Run a lesson on the photos track; what its cells print, as one text."""
    return printed(next((ROOT / "notebooks").glob(f"{name}_*.ipynb")), cache, folder)


def printed(source, cache, folder, **variables):
    """Run a notebook on the photos track; what its cells print, as one text."""
    command = ["-m", "nbconvert", "--to", "notebook", "--execute", "--output-dir", str(folder)]
    run(cache, *command, str(source), **variables)
    notebook = nbformat.read(folder / source.name, as_version=4)
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")


ACCURACIES = {  # where a lesson prints them
    "00": {"40 labels, frozen": r"^accuracy ([\d.]+)"},
    "02": {
        "hub module, frozen": r"new drawings: frozen ([\d.]+)",
        "hub module, fine-tuned": r"new drawings: .*fine-tuned ([\d.]+)",
    },
    "04": {
        "scratch, as in the article": r"^scratch +[\d.]+ +[\d.]+ +([\d.]+)",
        "scratch, statistics recalibrated": r"^test  before .*after ([\d.]+)",
        "frozen": r"^frozen +[\d.]+ +[\d.]+ +([\d.]+)",
        "partly unfrozen": r"^partly unfrozen +[\d.]+ +[\d.]+ +([\d.]+)",
    },
}


def accuracies(name, said):
    """What a lesson measured, by what it is: `{"frozen": 0.98}`."""
    patterns = ACCURACIES[name].items()
    return {what: float(re.search(pattern, said, re.M)[1]) for what, pattern in patterns}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, expected",
    [
        ("00", "track: photos, pictures of 160 × 160 pixels"),
        ("02", r"saved_model.pb +\d.* MB(.|\n)*from pictures \(None, None, None, 3\) to features"),
        ("04", r"layers\[n:\] has the article's count for n in \[99\]"),
    ],
)
def test_lessons_run_unchanged_and_measure_what_is_recorded(name, expected, cache, tmp_path):
    said = lesson(name, cache, tmp_path)
    assert re.search(expected, said)
    assert said.count("Track: photos.") == 1
    assert "test photos were asked for" in said, "160 photos are fewer than a lesson asks for"
    assert "24 species" not in said and ("labelled photos" in said or name == "02")
    recorded = pd.read_csv(RECORDED).set_index("what")["accuracy"]
    for what, accuracy in accuracies(name, said).items():
        if "recalibrated" not in what:  # which depends most on how a computer rounds
            assert abs(accuracy - recorded[what]) <= 0.1, what  # five of 52 photos


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, skipped", [("01", "words for cats and dogs"), ("05", "at night"), ("08", None)]
)
def test_lessons_run_but_for_what_needs_the_drawn_world(name, skipped, cache, tmp_path):
    said = lesson(name, cache, tmp_path)
    if skipped:
        assert skipped in said and "Skipped on the photos track" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["start_here", "hub_feature_extractor", "comparison", "own_pictures"]
)
def test_solved_exercises_are_right_on_photos(name, cache, tmp_path):
    (source,) = (ROOT / "solutions" / name).glob("*.ipynb")
    said = printed(source, cache, tmp_path)
    assert "✓ Right." in said and "✗" not in said


OWN_VGG16 = """
from helpers import pretrained, tracks

tracks.Photos.weights = lambda track, network: pretrained.weights(network)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "notebooks/03_vgg16",
        "solutions/vgg16/1_classify",
        "solutions/vgg16/2_fine_tune",
    ],
)
def test_vgg16_runs_on_photos_with_the_weights_of_the_course(source, cache, tmp_path):
    """ImageNet's are not here: this shows that the notebooks run, not how well they learn."""
    startup = tmp_path / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "weights.py").write_text(OWN_VGG16)
    said = printed(ROOT / f"{source}.ipynb", cache, tmp_path, IPYTHONDIR=str(tmp_path))
    assert said.count("Track: photos.") == 1


def test_damaged_photos_are_named(cache, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(PLACES["TFDS_DATA_DIR"], data)
    (record,) = data.rglob("*.tfrecord*")
    record.write_bytes(record.read_bytes()[:100_000])
    code = f"import os; os.environ['TFDS_DATA_DIR'] = {str(data)!r}\n"
    code += SPLITS.replace("for seed in (0, 1):", "for seed in (5,):")
    with pytest.raises(AssertionError, match="ValueError: The photos in .* are damaged"):
        run(cache, "-c", code)


SPLITS = """
from helpers import tracks

track = tracks.current()
for seed in (0, 1):
    print(track.cats_and_dogs(train=74, validation=22, test=52, seed=seed))  # all that there are
"""


def test_no_photo_is_in_two_splits_whatever_the_seed(cache):
    lines = run(cache, "-c", SPLITS).splitlines()
    one, other = (Path(line) for line in lines if line.startswith("/"))

    def photos(*splits):
        paths = [path for split in splits for path in split.rglob("*.jpg")]
        return [path.read_bytes() for path in paths]

    assert len(photos(one)) == 148 and len(photos(one / "train" / "cat")) == 37
    assert len(set(photos(one))) == 148
    for split in ("train", "validation", "test"):
        rest = [one / name for name in ("train", "validation", "test") if name != split]
        assert not set(photos(other / split)) & set(photos(*rest))
    first = "train/cat/00000.jpg"
    assert (one / first).read_bytes() != (other / first).read_bytes()


def test_a_damaged_photo_is_written_again(cache):
    lines = run(cache, "-c", SPLITS).splitlines()
    photo = Path(next(line for line in lines if line.startswith("/"))) / "train/cat/00000.jpg"
    before = photo.read_bytes()
    photo.write_bytes(b"")
    run(cache, "-c", SPLITS)
    assert photo.read_bytes() == before


def test_pictures_of_others_among_the_photos_are_refused_and_stay(cache):
    lines = run(cache, "-c", SPLITS).splitlines()
    folder = Path(next(line for line in lines if line.startswith("/")))
    stranger = folder / "train" / "cat" / "mine.png"
    stranger.write_bytes(b"mine")
    (folder / "train" / "cat" / "00000.jpg").write_bytes(b"")
    with pytest.raises(AssertionError, match="mine.png is not one of the pictures made here"):
        run(cache, "-c", SPLITS)
    assert stranger.read_bytes() == b"mine"
    stranger.unlink()
    run(cache, "-c", SPLITS)


FEATURES = """
import sys

import keras
import numpy as np
import tensorflow_datasets as tfds

from helpers import tracks

track = tracks.current()
data = tfds.load("cats_vs_dogs", split="train", as_supervised=True)
resize = keras.layers.Resizing(*track.image_size)
data = data.map(lambda photo, label: (resize(photo), label)).batch(50).prefetch(2)
backbone = keras.applications.MobileNetV2(
    include_top=False, pooling="avg", weights=track.weights("mobilenet_v2"),
    input_shape=(*track.image_size, 3),
)
prepare = keras.applications.mobilenet_v2.preprocess_input
assert backbone.layers[-2].output.shape[1:] == (5, 5, 1280), "in front of the pooling"
features = backbone.predict(data.map(lambda photo, label: prepare(photo)), verbose=0)
labels = np.concatenate([label for _, label in data.as_numpy_iterator()])
np.savez(sys.argv[1], features=features, labels=labels)
"""


def probe(cache, folder):
    """Accuracies of three lines through frozen features of 500 photos, on 300 others each."""
    run(cache, "-c", FEATURES, str(folder / "features.npz"))
    kept = np.load(folder / "features.npz")
    assert kept["features"].shape == (800, 1280)
    scores = []
    for seed in range(3):
        x, x_test, y, y_test = train_test_split(
            kept["features"], kept["labels"], test_size=300, random_state=seed
        )
        line = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
        scores.append(line.fit(x, y).score(x_test, y_test))
    return scores


@pytest.mark.slow
def test_a_line_through_frozen_features_tells_cats_from_dogs(cache, tmp_path):
    scores = probe(cache, tmp_path)
    assert np.mean(scores) >= 0.95, scores
    recorded = pd.read_csv(RECORDED).set_index("what")["accuracy"]
    assert abs(np.mean(scores) - recorded[PROBE]) < 0.015


def measure():
    """Write results/photos.csv."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ACCURACIES:
            found = accuracies(name, lesson(name, folder, folder))
            rows += [(f"lesson {name}", what, value, 52) for what, value in found.items()]
        rows.append(("tests", PROBE, np.mean(probe(folder, folder)), 300))
    table = pd.DataFrame(rows, columns=["where", "what", "accuracy", "test_photos"])
    table["date"] = datetime.date.today().isoformat()
    table["command"] = "python tests/test_photos.py"
    table.to_csv(RECORDED, index=False, float_format="%.4f")


if __name__ == "__main__":
    measure()
