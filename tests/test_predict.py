"""Naming pictures with a saved model: the same from a folder, a file and the command line."""

import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from helpers import datasets, hub_layer, predict

layers = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # of Keras
CLASSES = ["Füchsin", "lion", "wolf"]


def model(*head, size=(24, 36)):
    """Its features are the mean red, green and blue; preprocessing is inside."""
    return keras.Sequential(
        [
            keras.Input((*size, 3)),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.GlobalAveragePooling2D(),
            *(head or [layers.Dense(3)]),
        ]
    )


def inside(*head):
    """The same in two models, one after the other, in a third."""
    features = model(layers.Activation("linear"))
    return keras.Sequential([features, keras.Sequential([keras.Input((3,)), *head])])


@pytest.fixture
def saved(tmp_path):
    """A model that names the strongest of three colours."""
    network = model()
    network.set_weights([5 * np.eye(3), np.zeros(3)])
    predict.save(network, tmp_path / "colours.keras", CLASSES)
    return tmp_path / "colours.keras"


@pytest.fixture
def pictures(tmp_path):
    """One picture of each colour, and noise: larger than the model's input, and not square."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (50, 80, 3), "uint8")
    for i, name in enumerate(("röd", "green", "blue", "noise")):
        picture = noise // 2
        picture[..., i % 3] += 0 if name == "noise" else 120
        Image.fromarray(picture).save(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in ("röd", "green", "blue", "noise")]


def test_save_and_load_give_the_same_model_and_names(saved):
    assert sorted(p.name for p in saved.parent.iterdir()) == [
        "colours.classes.json",
        "colours.keras",
    ]
    network, classes = predict.load(str(saved))
    assert classes == CLASSES
    some = np.random.default_rng(0).uniform(0, 255, (5, 24, 36, 3)).astype("float32")
    expected = 5 * (some / 127.5 - 1).mean((1, 2))
    np.testing.assert_allclose(network.predict(some, verbose=0), expected, atol=1e-4)


def test_saving_again_replaces_both_files(saved):
    predict.save(model(layers.Dense(2)), saved, ["a", "b"])
    network, classes = predict.load(saved)
    assert classes == ["a", "b"] and network.output_shape == (None, 2)


def test_a_failed_save_leaves_the_old_files(saved, monkeypatch):
    def full(self, path):
        path.write_bytes(b"half")
        raise OSError("no space left")

    other = model()
    monkeypatch.setattr(type(other), "save", full)
    with pytest.raises(OSError, match="no space"):
        predict.save(other, saved, ["x", "y", "z"])
    assert predict.load(saved)[1] == CLASSES
    assert len(list(saved.parent.iterdir())) == 2


@pytest.mark.parametrize(
    "network, classes, sentence",
    [
        (model(), ["a", "b"], r"shape \(None, 3\), the classes are \['a', 'b'\]"),
        (model(), ["a", "b", "b"], "one name a class"),
        (model(layers.Dense(1)), ["a"], "one logit for two"),
        (model(layers.Reshape((1, 3))), CLASSES, "one logit and one name"),
        (model(size=(None, None)), CLASSES, "needs one size of colour pictures"),
        (model(layers.Dense(3, activation="softmax")), CLASSES, "gives probabilities"),
        (model(layers.Dense(3), layers.Softmax()), CLASSES, "gives probabilities"),
        (model(layers.Dense(3), layers.Activation("softmax")), CLASSES, "gives probabilities"),
        (model(layers.Dense(1, activation="sigmoid")), ["a", "b"], "leave out the softmax or"),
        (inside(layers.Dense(3, activation="softmax")), CLASSES, "gives probabilities"),
        (
            keras.Sequential([layers.Flatten(), layers.Dense(3)]),
            CLASSES,
            "of shape \\(\\): predict",
        ),
    ],
)
def test_what_does_not_fit_is_not_saved(tmp_path, network, classes, sentence):
    with pytest.raises(ValueError, match=sentence):
        predict.save(network, tmp_path / "model.keras", classes)
    assert not list(tmp_path.iterdir())


def test_another_ending_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match=r"model.h5 is not a .keras file"):
        predict.save(model(), tmp_path / "model.h5", CLASSES)


def test_it_names_pictures(saved, pictures):
    answers = predict.classify(*predict.load(saved), pictures)
    assert [a["class"] for a in answers[:3]] == CLASSES
    assert [a["picture"] for a in answers] == [str(p) for p in pictures]
    for answer in answers:
        shares = answer["probabilities"]
        assert list(shares) == CLASSES and sum(shares.values()) == pytest.approx(1)
        assert max(shares, key=shares.get) == answer["class"]


def test_many_pictures_keep_their_order(saved, pictures):
    answers = predict.classify(*predict.load(saved), pictures * 20)
    assert [a["picture"] for a in answers] == [str(p) for p in pictures * 20]
    assert [a["class"] for a in answers[-4:-1]] == CLASSES


def test_one_path_or_any_iterable(saved, pictures):
    network, classes = predict.load(saved)
    expected = predict.classify(network, classes, pictures[1:2])
    assert [answer["class"] for answer in expected] == ["lion"]
    assert predict.classify(network, classes, pictures[1]) == expected
    assert predict.classify(network, classes, str(pictures[1])) == expected
    assert predict.classify(network, classes, (path for path in pictures[1:2])) == expected
    assert predict.classify(network, classes, iter([])) == []


def test_the_home_folder_has_a_short_name(saved, pictures, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(saved.parent))
    network, classes = predict.load("~/colours.keras")
    (answer,) = predict.classify(network, classes, "~/pictures/blue.png")
    assert answer["picture"] == "~/pictures/blue.png" and answer["class"] == "wolf"
    predict.save(network, "~/new/colours.keras", classes)
    assert len(list((saved.parent / "new").iterdir())) == 2
    monkeypatch.chdir(saved.parent)
    pictures[1].rename("~nobody's.png")
    (answer,) = predict.classify(network, classes, "~nobody's.png")
    assert answer["class"] == "lion"


def test_one_logit_is_two_classes(tmp_path, pictures):
    network = model(layers.Dense(1))
    network.set_weights([np.array([[-4], [4], [0]]), np.zeros(1)])  # red or green
    predict.save(network, tmp_path / "new folder/two.keras", ["red", "green"])
    loaded, classes = predict.load(tmp_path / "new folder/two.keras")
    answers = predict.classify(loaded, classes, pictures[:2])
    assert [a["class"] for a in answers] == ["red", "green"]
    logits = loaded.predict(np.stack([predict.read(p, (24, 36)) for p in pictures[:2]]), verbose=0)
    expected = 1 / (1 + np.exp(-logits[:, 0]))
    assert [a["probabilities"]["green"] for a in answers] == pytest.approx(list(expected), abs=1e-6)


def test_a_file_is_read_as_the_adopted_folder_is(tmp_path, pictures, monkeypatch, capsys):
    """The same picture must look the same to the model in training and afterwards."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    for i, path in enumerate(pictures):
        target = tmp_path / f"own/{'ab'[i % 2]}" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.open(path).resize((700, 500))  # so large that adopt shrinks it
        picture.putalpha(200)
        exif = Image.Exif()
        exif[0x0112] = (1, 6, 3, 8)[i]  # upright or turned
        picture.save(target, exif=exif)
    folder = datasets.adopt(tmp_path / "own", validation=0, test=0)
    sources = json.loads((folder / "manifest.json").read_text("utf-8"))["pictures"]
    size = (24, 36)
    batches = keras.utils.image_dataset_from_directory(
        folder / "train", image_size=size, shuffle=False, verbose=False
    )
    (batch, _) = next(batches.as_numpy_iterator())
    files = [
        sources[file.partition("/own-")[2].partition("/")[2]]["source"]
        for file in batches.file_paths
    ]
    mine = np.stack([predict.read(tmp_path / "own" / file, size) for file in files])
    assert mine.dtype == np.float32 and mine.shape == (4, *size, 3)
    np.testing.assert_array_equal(mine, batch)


def test_an_unreadable_picture_is_named_and_the_others_go_on(saved, pictures, capsys):
    broken = pictures[0].with_name("broken.png")
    broken.write_bytes(pictures[0].read_bytes()[:200])
    wanted = [str(p) for p in (pictures[0], broken, pictures[0].with_name("absent.png"))]
    assert predict.main([str(saved), *wanted, str(pictures[1])]) == 1
    printed = capsys.readouterr()
    assert [line.split()[-2] for line in printed.out.splitlines()] == ["Füchsin", "lion"]
    assert "broken.png" in printed.err and "absent.png" in printed.err
    assert len(printed.err.splitlines()) == 2
    assert predict.main([str(saved), *wanted, "--json"]) == 1
    answers = json.loads(capsys.readouterr().out)
    assert [set(a) for a in answers] == [
        {"picture", "class", "probabilities"},
        {"picture", "error"},
        {"picture", "error"},
    ]


def test_nothing_readable_is_no_crash(saved, capsys):
    assert predict.main([str(saved), "absent.png", "--json"]) == 1
    assert list(json.loads(capsys.readouterr().out)[0]) == ["picture", "error"]


def test_the_command_line(saved, pictures):
    """As a student calls it, from any folder; nothing but the answers, whatever the terminal."""
    command = [sys.executable, "-m", "helpers.predict", saved.name, *map(str, pictures[:3])]
    options = dict(cwd=saved.parent, capture_output=True, text=True, encoding="utf-8")
    plain = os.environ | {"PYTHONIOENCODING": "ascii"}
    text = subprocess.run(command, env=plain, **options)
    assert text.returncode == 0 and text.stderr == ""
    names = [line.rpartition(": ")[2].split()[0] for line in text.stdout.splitlines()]
    assert names == ["F\\xfcchsin", "lion", "wolf"]
    as_json = subprocess.run([*command, "--json"], **options)
    here = predict.classify(*predict.load(saved), [str(p) for p in pictures[:3]])
    for found, expected in zip(json.loads(as_json.stdout), here, strict=True):
        assert found["picture"] == expected["picture"] and found["class"] == expected["class"]
        assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)


def refused(arguments, capsys):
    """The one sentence with which the command line refuses a model."""
    assert predict.main([str(a) for a in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1
    return printed.err


def test_a_missing_model(tmp_path, pictures, capsys):
    sentence = refused([tmp_path / "absent.keras", pictures[0]], capsys)
    assert "There is no model" in sentence and "absent.keras" in sentence


def test_a_missing_file_of_classes(saved, pictures, capsys):
    saved.with_suffix(".classes.json").unlink()
    assert "has no colours.classes.json beside it" in refused([saved, pictures[0]], capsys)


@pytest.mark.parametrize("content", ["[1, 2, 3]", '{"a": 1}', "not json", '["a", "b"]'])
def test_a_damaged_file_of_classes(saved, pictures, capsys, content):
    saved.with_suffix(".classes.json").write_text(content)
    sentence = refused([saved, pictures[0]], capsys)
    assert "is no list of names" in sentence or "one name a class" in sentence


@pytest.mark.parametrize("content", [b"", b"<html>login</html>", b"half"])
def test_a_damaged_model(saved, pictures, capsys, content):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: len(whole) // 2] if content == b"half" else content)
    assert "is damaged or no Keras model" in refused([saved, pictures[0]], capsys)


def test_an_archive_that_is_no_model(saved, pictures, capsys):
    with zipfile.ZipFile(saved, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "cannot be loaded" in refused([saved, pictures[0]], capsys)


def test_not_a_keras_file(pictures, capsys):
    assert "is not a .keras file" in refused([pictures[0], pictures[1]], capsys)


def test_code_in_a_model_file_is_refused(tmp_path, pictures, capsys):
    """Whoever wrote the file must not run code here: safe_mode stays on."""
    spy = model(layers.Lambda(lambda x: x * 2), layers.Dense(3))
    path = tmp_path / "stranger.keras"
    predict.save(spy, path, CLASSES)
    sentence = refused([path, pictures[0]], capsys)
    assert "cannot be loaded" in sentence and "Lambda" in sentence


def test_a_module_is_loaded_only_where_its_layer_is_known(tmp_path, pictures):
    """A file that names a module brings its code in: Keras' own TFSMLayer is refused, too."""
    backbone = keras.Sequential(
        [keras.Input((24, 36, 3)), layers.Conv2D(3, 1), layers.GlobalAveragePooling2D()]
    )
    hub_layer.save_module(backbone, tmp_path / "module")
    network = keras.Sequential(
        [
            keras.Input((24, 36, 3)),
            layers.Rescaling(1 / 255),
            hub_layer.HubLayer(tmp_path / "module"),
        ]
    )
    path = tmp_path / "hub.keras"
    predict.save(network, path, CLASSES)
    loaded, classes = predict.load(path)
    assert predict.classify(loaded, classes, pictures) == predict.classify(
        network, classes, pictures
    )
    command = [sys.executable, "-m", "helpers.predict", str(path), str(pictures[0])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "cannot be loaded" in done.stderr
