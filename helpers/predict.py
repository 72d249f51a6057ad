"""Name pictures with a saved model, in a notebook or from the command line:

    python -m helpers.predict MODEL.keras PICTURE... [--json]

A model's file holds the network with its preprocessing; the names of its classes stand in a file
beside it, `<model>.classes.json`. Keras' safe mode stays on, so code inside a model file is
refused. It is no sandbox: take model files only from people whom you trust.
"""

import argparse
import contextlib
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
from scipy.special import softmax

from helpers.datasets.adopting import clean


@contextlib.contextmanager
def _silence():
    """Error output goes nowhere, that of the C++ libraries neither."""
    shown, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(nowhere)


# On the command line only answers are wanted. No setting silences TensorFlow while it is imported,
# this one does afterwards.
with _silence() if __name__ == "__main__" else contextlib.nullcontext():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf


def save(model, path, classes):
    """Write a model and the names of its classes; both files are whole or absent.

    Args:
        model: takes pictures (n, height, width, 3) in 0..255 and gives logits, (n, classes), or
            (n, 1) for two classes, above 0 for the second.
        path: file of the model, `<name>.keras`; `<name>.classes.json` is put beside it.
        classes: names in the order of the labels.

    Raises:
        ValueError: another ending, classes that do not fit the model, pictures of no fixed size, or
            a model that gives probabilities.
    """
    path = _keras_path(path)
    classes = [str(name) for name in classes]
    _check_fit(model, classes, path)
    if _gives_probabilities(model):
        raise ValueError(
            "The model gives probabilities, predict takes logits: leave out the softmax or sigmoid "
            "at its end, and tell the loss from_logits=True."
        )
    temporary = path.with_name(f".unfinished-{os.getpid()}.keras")
    names = temporary.with_suffix(".classes.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        names.write_text(json.dumps(classes, indent=1), "utf-8")
        model.save(temporary)
        names.replace(_classes_path(path))
        temporary.replace(path)
    finally:
        names.unlink(missing_ok=True)
        temporary.unlink(missing_ok=True)


def load(path):
    """The model and the list of its class names that `save` wrote.

    A model with a HubLayer loads once `helpers.hub_layer` is imported. The file then says which
    module is loaded, and a module is code: do so only for files that you trust.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: a file that is not what it should be, or a model that holds code.
    """
    path = _keras_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no model {path}: check the name.")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is damaged or no Keras model: save it again.")
    file = _classes_path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"{path} has no {file.name} beside it, the names of its classes: copy that file, too, "
            "or write both with predict.save(model, path, classes)."
        )
    try:
        classes = json.loads(file.read_text("utf-8"))
    except ValueError:
        classes = None
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f'{file} is no list of names, such as ["cat", "dog"]: save again.')
    try:
        model = keras.models.load_model(path, compile=False)  # safe_mode is on by default
    except Exception as error:  # of any part of Keras or h5py, as the file is damaged or strange
        reason = str(error).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
        raise ValueError(
            f"{path} cannot be loaded ({reason}): it is damaged, or holds layers or code that are "
            "not Keras' own."
        ) from None
    _check_fit(model, classes, path)
    return model, classes


def classify(model, classes, pictures):
    """Name picture files.

    Args:
        model, classes: as `load` gives them, or the model at hand and its names.
        pictures: one path or several, of files; they are cleaned as `datasets.adopt` does and
            resized as `image_dataset_from_directory` does.

    Returns:
        list of dict, one a picture: picture (the path, str), class (str) and probabilities (dict
        from class to float, together 1); or picture and error (str), if it cannot be read.
    """
    pictures = [pictures] if isinstance(pictures, (str, os.PathLike)) else list(pictures)
    answers = []
    for start in range(0, len(pictures), 32):
        answers += _classify(model, classes, pictures[start : start + 32])
    return answers


def read(path, size):
    """One picture file as a model takes it.

    Returns:
        float32 (height, width, 3) in 0..255; size is (height, width).

    Raises:
        ValueError: the file cannot be read as a picture; the reason.
    """
    jpeg = clean(_expanded(path))
    return tf.image.resize(tf.io.decode_image(jpeg), size).numpy()  # bilinear, not antialiased


def _classify(model, classes, paths):
    answers, pictures = [{"picture": str(path)} for path in paths], {}
    for i, path in enumerate(paths):
        try:
            pictures[i] = read(path, model.input_shape[1:3])
        except ValueError as error:
            answers[i]["error"] = str(error)
    if pictures:
        logits = model(np.stack(list(pictures.values())), training=False).numpy()
        if logits.shape[1] == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        shares = softmax(logits.astype(float), axis=1)
        for i, row in zip(pictures, shares, strict=True):
            answers[i]["class"] = classes[row.argmax()]
            answers[i]["probabilities"] = dict(zip(classes, row.tolist(), strict=True))
    return answers


def _expanded(path):
    """`~/` is the home folder; a file that is named `~something` stays what it is."""
    return Path(os.path.expanduser(path))


def _keras_path(path):
    path = _expanded(path)
    if path.suffix != ".keras":
        raise ValueError(f"{path} is not a .keras file: predict.save writes <name>.keras.")
    return path


def _classes_path(path):
    return path.with_suffix(".classes.json")


def _check_fit(model, classes, path):
    """Raise ValueError unless pictures of one size become one logit a class."""
    shape = getattr(model, "input_shape", ())  # none if the model is not built yet
    if len(shape) != 4 or None in shape[1:] or shape[3] != 3:
        raise ValueError(
            f"{path.name} takes inputs of shape {shape}: predict needs one size of "
            "colour pictures, keras.Input((height, width, 3))."
        )
    outputs = 2 if model.output_shape == (None, 1) else model.output_shape[-1]
    if len(model.output_shape) != 2 or len(classes) != outputs or len(set(classes)) != outputs:
        raise ValueError(
            f"{path.name} gives outputs of shape {model.output_shape}, the classes are {classes}: "
            "there must be one logit and one name a class (or one logit for two)."
        )


def _gives_probabilities(model):
    last = model
    while isinstance(last, keras.Model):
        last = last.layers[-1]
    activation = getattr(last, "activation", None)
    return isinstance(last, keras.layers.Softmax) or activation in (
        keras.activations.softmax,
        keras.activations.sigmoid,
    )


def main(arguments=None):
    """The command line. Returns 0, 1 if a picture could not be read, 2 if the model could not."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.predict", description="Name pictures with a saved model."
    )
    parser.add_argument("model", metavar="MODEL", help="file written by predict.save, *.keras")
    parser.add_argument("pictures", metavar="PICTURE", nargs="+", help="picture files")
    parser.add_argument("--json", action="store_true", help="print a JSON array, one entry each")
    options = parser.parse_args(arguments)
    try:
        model, classes = load(options.model)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    answers = classify(model, classes, options.pictures)
    if options.json:
        print(json.dumps(answers, indent=1))
    else:
        for answer in answers:
            if "error" in answer:
                print(f"{answer['picture']}: {answer['error']}", file=sys.stderr)
            else:
                name = answer["class"]
                print(f"{answer['picture']}: {name} {answer['probabilities'][name]:.3f}")
    return int(any("error" in answer for answer in answers))


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # names that the terminal cannot show
    sys.exit(main())
