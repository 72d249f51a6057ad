"""The drawn world: the same pixels from the same seed, and species that differ by anatomy alone.

After a deliberate change of the world run `python tests/test_critters.py`: it draws the stored
checksums and pictures anew. Raise `critters.VERSION` in the same commit once the world has been
published, or caches keep the old pictures and the shipped weights belong to another world.
"""

import hashlib
import json
import platform
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import critters

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "tests" / "pictures"
CHECKSUMS = PICTURES / "checksums.json"
OTHERS = critters.HELD_OUT + critters.COUSINS
# Every species in the style in which the course uses it, four of them in all styles.
CHECKED = [f"{species}-paint" for species in critters.SOURCE]
CHECKED += [f"{species}-crayon" for species in OTHERS]
CHECKED += [f"{s}-{style}" for s in ("cat", "dog") for style in ("paint", "ink", "night")]
CHECKED += [f"{s}-{style}" for s in ("owl", "cow") for style in ("crayon", "ink", "night")]
STORED = ["cat-crayon", "dog-crayon", "dog-ink", "cat-night"]
STORED += ["fox-crayon", "owl-paint", "elephant-paint", "frog-ink"]


def pixels(species, style, *key, size=96):
    return np.asarray(critters.draw(species, np.random.default_rng(key), size, style))


def checksum(name):
    """SHA-256 of three pictures of "species-style"."""
    three = [pixels(*name.split("-"), 11, k) for k in range(3)]
    return hashlib.sha256(np.stack(three).tobytes()).hexdigest()


def stored_picture(name):
    """What tests/pictures/<name>.png shows: (48, 48, 3) uint8."""
    return pixels(*name.split("-"), 12, size=48)


def not_as_locked():
    """Why the pixels may differ here from the stored checksums by a rounding, or ""."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return f"checksums are of Linux on x86_64, this is {sys.platform} on {platform.machine()}"
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.M))
    for package in ("numpy", "pillow"):
        if version(package) != locked[package]:
            return f"{package} is {version(package)}, requirements.lock has {locked[package]}"
    return ""


# --- the same seed gives the same pixels ---


@pytest.mark.skipif(bool(not_as_locked()), reason=not_as_locked())
@pytest.mark.parametrize("name", CHECKED)
def test_pixels_are_those_of_the_checksum(name):
    assert checksum(name) == json.loads(CHECKSUMS.read_text())["sha256"][name]


def test_checksums_are_of_this_version_of_the_world():
    stored = json.loads(CHECKSUMS.read_text())
    assert stored["version"] == critters.VERSION
    assert sorted(stored["sha256"]) == sorted(CHECKED)


def test_stored_pictures_look_the_same_everywhere():
    assert sorted(path.stem for path in PICTURES.glob("*.png")) == sorted(STORED)
    stored = np.stack([np.asarray(Image.open(PICTURES / f"{name}.png")) for name in STORED])
    drawn = np.stack([stored_picture(name) for name in STORED])
    assert drawn.shape == stored.shape == (8, 48, 48, 3)
    far_off = np.abs(drawn.astype(int) - stored) > 2
    assert far_off.mean() <= 0.001, dict(zip(STORED, far_off.mean((1, 2, 3)), strict=True))


@pytest.mark.parametrize("style", critters.STYLES)
def test_only_the_generator_decides(style):
    rng = np.random.default_rng(3)
    first, second = (np.asarray(critters.draw("cat", rng, 64, style)) for _ in range(2))
    np.random.seed(9)
    assert np.array_equal(pixels("cat", style, 3, size=64), first)
    assert (first != second).mean() > 0.5
    assert (pixels("cat", style, 4, size=64) != first).mean() > 0.5


# --- what can be drawn ---


@pytest.mark.parametrize("species", critters.ANATOMY)
def test_every_species_in_every_style_and_size(species):
    for style in critters.STYLES:
        for size in (32, 96, 224):
            picture = critters.draw(species, np.random.default_rng(5), size, style)
            assert (picture.mode, picture.size) == ("RGB", (size, size))
            assert np.asarray(picture).std() > 4  # something is to be seen


def test_crayon_at_96_pixels_is_the_default():
    picture = critters.draw("dog", np.random.default_rng(2))
    assert np.array_equal(picture, pixels("dog", "crayon", 2, size=96))


def test_species_are_the_source_world_or_held_out():
    assert len(critters.SOURCE) >= 20
    assert critters.HELD_OUT == ("cat", "dog")
    assert len(critters.COUSINS) == 5
    assert sorted(critters.SOURCE + OTHERS) == sorted(critters.ANATOMY)  # nobody is in two groups


@pytest.mark.parametrize(
    ("species", "style", "size", "message"),
    [
        ("kat", "crayon", 96, "unknown species 'kat': did you mean 'cat'?"),
        ("zebu", "crayon", 96, "unknown species 'zebu': choose one of bat, bear, cow, "),
        (3, "crayon", 96, "unknown species 3: choose one of bat, "),
        ("cat", "pant", 96, "unknown style 'pant': did you mean 'paint'?"),
        ("cat", "oil", 96, "unknown style 'oil': choose one of crayon, paint, ink, night."),
        ("cat", "crayon", 31, "size is 31: choose a side between 32 and 512 pixels."),
        ("cat", "crayon", 513, "size is 513: choose a side between 32 and 512 pixels."),
        ("cat", "crayon", 96.5, "size is 96.5: choose a side between 32 and 512 pixels."),
        ("cat", "crayon", "96", "size is '96': choose a side between 32 and 512 pixels."),
    ],
)
def test_unknown_species_style_or_size(species, style, size, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        critters.draw(species, np.random.default_rng(0), size, style)


def test_two_cores_draw_two_hundred_pictures_a_second():
    critters.draw("cat", np.random.default_rng(0))  # draws the sheet of wax strokes once
    start = time.process_time()
    for k in range(200):
        critters.draw(CHECKED[k % len(critters.SOURCE)].split("-")[0], np.random.default_rng(k))
    assert time.process_time() - start < 2  # seconds of one core for 200 pictures


# --- species differ by anatomy, and by nothing else ---


def drawn_kinds():
    """Every kind of part that the table names: ("ears", "point"), ("ears", "round") ..."""
    for entry in critters.ANATOMY.values():
        for part, value in (critters.COMMON | entry).items():
            for kind in value if isinstance(value, list) else [value]:
                if isinstance(kind, str) and kind not in ("none", "plain"):
                    yield part, kind


@pytest.mark.parametrize(("part", "kind"), sorted(set(drawn_kinds())))
def test_every_kind_in_the_table_is_drawn(part, kind, monkeypatch):
    other = {"ears": "none", "pupil": "slit" if kind == "round" else "round"}.get(part, "unknown")
    pictures = []
    for value in (kind, other):
        monkeypatch.setitem(critters.ANATOMY, "critter", {part: value})
        pictures.append(pixels("critter", "paint", 1))
    assert (pictures[0] != pictures[1]).mean() > 0.0005


def test_an_entry_names_parts_of_the_anatomy_only():
    for species, entry in critters.ANATOMY.items():
        assert set(entry) <= set(critters.COMMON), species


def told_apart(cats, dogs):
    """Cross-validated accuracy of a linear probe on features of cats and of dogs, both (n, d)."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    labels = np.repeat([0, 1], [len(cats), len(dogs)])
    return cross_val_score(probe, np.concatenate([cats, dogs]), labels, cv=5).mean()


def colours(species, style, many=300):
    """Mean colour, colours of the four corners, spread of colour of many pictures: (many, 18)."""
    pictures = np.stack(
        [pixels(species, style, *species.encode(), k, size=32) for k in range(many)]
    )
    cells = pictures.reshape(many, 4, 8, 4, 8, 3).mean((2, 4))
    corners = cells[:, ::3, ::3].reshape(many, 12)
    return np.hstack([cells.mean((1, 2)), corners, cells.std((1, 2))])


@pytest.mark.parametrize("style", critters.STYLES)
def test_colour_and_background_do_not_tell_cats_from_dogs(style):
    cats, dogs = colours("cat", style), colours("dog", style)
    assert told_apart(cats, dogs) < 0.6
    tinted = cats + np.repeat([20, 0], [15, 3])
    assert told_apart(tinted, dogs) > 0.65  # the probe would notice


def individuals(species, many=1000):
    """Place, size, tilt and turn of the head, clothes and colours of many animals: (many, 27)."""
    rows = []
    for k in range(many):
        rng = np.random.default_rng([*species.encode(), k])
        it = critters._Portrait(species, critters._Canvas(192, rng, "crayon"), rng)
        worn = critters.PATTERNS.index(it.pattern), critters.ACCESSORIES.index(it.accessory)
        colours = it.fur, it.light, it.second, it.pink, it.nose_colour, it.ear_colour
        pose = it.radius, *it.centre, it.tilt, *it.gaze, it.stretch[0]
        rows.append([*pose, *worn, *np.ravel(colours)])
    return np.array(rows)


def test_pose_size_clothes_and_colours_do_not_tell_cats_from_dogs():
    cats, dogs = individuals("cat"), individuals("dog")
    assert told_apart(cats, dogs) < 0.55
    larger = cats * np.where(np.arange(cats.shape[1]) == 0, 1.2, 1)
    assert told_apart(larger, dogs) > 0.6  # the probe would notice


if __name__ == "__main__":
    if not_as_locked():
        sys.exit(f"Nothing written: {not_as_locked()}.")
    PICTURES.mkdir(exist_ok=True)
    before = json.loads(CHECKSUMS.read_text()) if CHECKSUMS.exists() else {"sha256": {}}
    sums = {name: checksum(name) for name in CHECKED}
    new = {"version": critters.VERSION, "sha256": sums}
    CHECKSUMS.write_text(json.dumps(new, indent=1) + "\n")
    for name in STORED:
        Image.fromarray(stored_picture(name)).save(PICTURES / f"{name}.png", optimize=True)
    changed = [name for name in sums if before["sha256"].get(name) != sums[name]]
    print(f"{len(changed)} of {len(sums)} checksums changed; the world is version {new['version']}")
    if before["sha256"] and changed and before["version"] == critters.VERSION:
        print("The pixels changed but VERSION did not: raise it, unless nobody has this world yet.")
