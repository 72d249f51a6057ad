"""The pictures that every lesson shows: grids of animals, learning curves, bars with intervals.

Each takes `alt`, the sentence that says what is to be seen for those who cannot see it.
"""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display

LARGEST = 60_000  # bytes of a picture in a notebook, so that notebooks stay light
# colour-blind safe (Okabe and Ito, 2008)
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777"


def grid(pictures, titles=None, right=None, *, alt, columns=8):
    """Show pictures side by side.

    Args:
        pictures: (n, height, width) or (n, height, width, 3), numbers in 0..255.
        titles: n short texts, one above each picture.
        right: n booleans: right answers get a green frame, wrong ones a red frame and a cross.
        columns: pictures a row.
    """
    pictures = np.asarray(pictures)
    if len(pictures) == 0:
        raise ValueError("There are no pictures to show.")
    if 0 < pictures.max() <= 1:
        raise ValueError(
            f"grid takes 0..255, the largest number is {pictures.max():.3g}: times 255."
        )
    pictures = np.clip(np.round(pictures), 0, 255).astype("uint8")
    rows = -(-len(pictures) // columns)
    height = 1.15 if titles is None else 1.35
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * 1.15, rows * height), squeeze=False
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for i, (axis, picture) in enumerate(zip(axes.flat, pictures, strict=False)):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
        colour, mark = "black", ""
        if right is not None:
            colour, mark = (GREEN, "") if right[i] else (RED, " ✗")
            axis.set_frame_on(True)
            axis.spines[:].set(color=colour, linewidth=3)
        if titles is not None:
            axis.set_title(f"{titles[i]}{mark}", fontsize=8, color=colour, pad=3)
    figure.subplots_adjust(wspace=0.08, hspace=0.08 if titles is None else 0.28)
    show(figure, alt, photo=True)


def curves(*histories, metric, alt):
    """Draw the learning curves of one `fit` after another; dashed lines mark where the next began.

    Args:
        histories: `keras.callbacks.History` objects in the order of training.
        metric: its name in the histories, such as "accuracy"; `val_` and the name gives validation.
    """
    figure, axis = plt.subplots(figsize=(6, 3.4))
    epochs = np.concatenate([h.epoch for h in histories]) + 1  # as people count
    for key, label, colour in ((metric, "training", ORANGE), (f"val_{metric}", "validation", BLUE)):
        axis.plot(
            epochs,
            np.concatenate([h.history[key] for h in histories]),
            "o-",
            ms=4,
            label=label,
            color=colour,
        )
    for history in histories[1:]:
        axis.axvline(
            history.epoch[0] + 0.5,
            color=GREY,
            linestyle="--",
            label="unfreezing" if history is histories[1] else None,
        )
    axis.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    axis.set(xlabel="epoch", ylabel=metric.replace("_", " "))
    axis.legend(frameon=False)
    show(figure, alt)


def bars(values, *, alt, intervals=None, chance=None, ylabel="accuracy on new pictures"):
    """Draw one bar a value.

    Args:
        values: dict from name to number in 0..1.
        intervals: dict from name to half the width of its 95 % interval.
        chance: where guessing would end; a dashed line.
    """
    figure, axis = plt.subplots(figsize=(6, 3.4))
    errors = None if intervals is None else [intervals[name] for name in values]
    drawn = axis.bar(
        list(values), list(values.values()), yerr=errors, capsize=5, width=0.55, color=BLUE
    )
    axis.bar_label(drawn, fmt="%.3f", padding=4)
    if chance is not None:
        axis.axhline(chance, color=GREY, linestyle="--", label=f"guessing: {chance:.3f}")
        axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
    axis.set(ylabel=ylabel, ylim=(0, 1.15))
    show(figure, alt)


def label_curves(curves):
    """Accuracy by number of labels, a line a method, with intervals; give it to `show`.

    Args:
        curves: DataFrame, columns mean and interval, by method and number of labels of both
            classes together, as `experiments.summary(table, ["method", "labels"])` gives it.

    Returns:
        the figure.
    """
    figure, axis = plt.subplots(figsize=(6, 3.6))
    styles = {
        "scratch": (0.95, ORANGE, "o-"),
        "scratch, 40 epochs": (0.95, ORANGE, "s:"),
        "frozen": (1, BLUE, "o-"),
        "fine-tuned": (1.05, GREEN, "o-"),
    }
    for method, (shift, colour, form) in styles.items():
        rows = curves.loc[method].sort_index()
        options = {"fmt": form, "capsize": 3, "label": method, "color": colour}
        axis.errorbar(rows.index / 2 * shift, rows["mean"], rows["interval"], **options)
    axis.axhline(0.5, color=GREY, linestyle="--", label="guessing")
    each = [labels // 2 for labels in sorted(curves.index.unique(1))]
    axis.set(xscale="log", ylim=(0.4, 1), ylabel="accuracy on new drawings")
    axis.set(xlabel="labelled drawings of each animal")
    axis.set_xticks(each, each)
    axis.minorticks_off()
    axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axis.spines[["top", "right"]].set_visible(False)
    plt.close(figure)  # it can still be shown and saved
    return figure


def show(figure, alt, photo=False):
    """Put a figure into the notebook with its description: PNG, or JPEG if it is a photo."""
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(photo)
    form = "jpeg" if photo else "png"
    for quality in (80, 65, 50, 35) if photo else (None,):
        buffer = io.BytesIO()
        options = {"pil_kwargs": {"quality": quality}} if photo else {}
        figure.savefig(buffer, format=form, dpi=100, bbox_inches="tight", **options)
        if buffer.tell() <= LARGEST:
            break
    plt.close(figure)
    picture = base64.b64encode(buffer.getvalue()).decode()
    data = {f"image/{form}": picture, "text/plain": alt}
    display(data, raw=True, metadata={f"image/{form}": {"alt": alt}})
