"""The drawn world: portraits of animals, drawn by code from a seed.

A species is its anatomy: ears, muzzle, nose, pupils, horns, whiskers, beak, trunk ... Colour, fur
pattern, background, size, pose, light, accessories and what stands in front vary freely and say
nothing about the species. `draw` knows nothing but a species and a random generator.
"""

import colorsys
import difflib
import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

VERSION = 1  # raised whenever the pixels of a seed change
STYLES = ("crayon", "paint", "ink", "night")
SUPERSAMPLING = 2

# One line a part. (low, high) is drawn uniformly for each individual, a list is chosen from, anything
# else holds for all. Lengths are in head radii. What a line leaves out comes from COMMON.
COMMON = dict(
    width=(0.92, 1.08), height=(0.9, 1.06), jaw=(0.86, 1.0),
    ears="none", ear_size=(0.4, 0.55), ear_angle=(30, 42),
    horns="none", around="none", face="none",
    eyes="plain", eye_size=(0.12, 0.2), eye_gap=(0.32, 0.46), eye_height=(-0.22, -0.05), pupil="round",
    muzzle="oval", muzzle_width=(0.38, 0.5), muzzle_height=(0.28, 0.36),
    nose="oval", nose_size=(0.13, 0.2), mouth=["line", "smile"],
    whiskers=0.0, tongue=[False] * 6 + [True], extra="none",
)  # fmt: skip

ANATOMY = {
    # the source world: what the backbones are pre-trained on
    "bat": dict(ears="point", ear_size=(0.7, 0.95), ear_angle=(28, 42), jaw=(0.6, 0.75),
                muzzle="snout", muzzle_width=(0.2, 0.28), nose="nostrils", mouth="fangs",
                pupil=["slit", "round"], eye_size=(0.1, 0.16)),
    "bear": dict(ears="round", ear_size=(0.26, 0.38), muzzle_width=(0.42, 0.55),
                 nose_size=(0.17, 0.24)),
    "cow": dict(ears="leaf", ear_angle=(72, 95), horns=["stub"] * 3 + ["none"],
                height=(1.0, 1.15), muzzle="wide", muzzle_width=(0.6, 0.75), nose="nostrils",
                eye_gap=(0.42, 0.55)),
    "crocodile": dict(eyes="bulging", pupil="slit", muzzle="long", muzzle_width=(0.5, 0.62),
                      nose="nostrils", mouth="teeth", width=(0.8, 0.95)),
    "deer": dict(ears="leaf", ear_size=(0.5, 0.65), ear_angle=(52, 72), horns="antlers",
                 jaw=(0.66, 0.78), height=(1.05, 1.2), muzzle_width=(0.3, 0.38)),
    "duck": dict(muzzle="bill", muzzle_width=(0.5, 0.68), nose="nostrils", mouth="none",
                 extra=["none", "tuft"]),
    "elephant": dict(ears="fan", ear_size=(0.8, 1.05), muzzle="trunk", nose="none", mouth="none",
                     extra=["none", "tusks"], eye_size=(0.1, 0.14)),
    "frog": dict(eyes="bulging", pupil="bar", muzzle="none", nose="nostrils", mouth="grin",
                 width=(1.05, 1.25), height=(0.75, 0.88), eye_size=(0.17, 0.24)),
    "giraffe": dict(ears="leaf", ear_size=(0.4, 0.52), ear_angle=(60, 80), horns="knobs",
                    width=(0.76, 0.88), height=(1.12, 1.3), jaw=(0.7, 0.85), muzzle="wide",
                    muzzle_width=(0.46, 0.58), nose="nostrils"),
    "goat": dict(ears="leaf", ear_angle=(95, 125), horns="swept", pupil="bar", jaw=(0.62, 0.76),
                 height=(1.05, 1.2), muzzle_width=(0.32, 0.42), nose=["triangle", "nostrils"],
                 extra="beard"),
    "hedgehog": dict(ears="round", ear_size=(0.18, 0.26), ear_angle=(40, 55), around="spines",
                     jaw=(0.55, 0.7), muzzle_width=(0.2, 0.28), nose_size=(0.13, 0.18),
                     whiskers=[0.0, 0.35]),
    "hippo": dict(ears="round", ear_size=(0.18, 0.26), muzzle="long", muzzle_width=(0.78, 0.95),
                  nose="nostrils", mouth="fangs", eye_height=(-0.42, -0.3),
                  eye_size=(0.1, 0.15)),
    "horse": dict(ears="point", ear_size=(0.34, 0.44), ear_angle=(16, 26), around="forelock",
                  width=(0.72, 0.84), height=(1.2, 1.36), muzzle="wide",
                  muzzle_width=(0.42, 0.54), nose="nostrils", eye_gap=(0.42, 0.52)),
    "koala": dict(ears="fluffy", ear_size=(0.5, 0.66), ear_angle=(52, 66), muzzle="none",
                  nose="spoon", eye_size=(0.1, 0.15)),
    "monkey": dict(ears="round", ear_size=(0.36, 0.46), ear_angle=(82, 96), face="heart",
                   muzzle_width=(0.52, 0.62), nose="nostrils"),
    "mouse": dict(ears="round", ear_size=(0.58, 0.78), ear_angle=(42, 56), jaw=(0.55, 0.72),
                  muzzle="pads", muzzle_width=(0.18, 0.24), nose="oval", nose_size=(0.1, 0.15),
                  whiskers=(0.4, 0.7), eye_size=(0.1, 0.16), mouth=["line", "buck"]),
    "otter": dict(ears="round", ear_size=(0.15, 0.22), ear_angle=(58, 70), width=(1.06, 1.2),
                  height=(0.8, 0.92), muzzle="pads", muzzle_width=(0.28, 0.38),
                  whiskers=(0.4, 0.7)),
    "owl": dict(ears="tuft", ear_size=(0.34, 0.48), muzzle="none", nose="hook", mouth="none",
                face="discs", eye_size=(0.24, 0.32)),
    "panda": dict(ears="round", ear_size=(0.32, 0.42), face="patches", width=(1.04, 1.18),
                  muzzle_width=(0.34, 0.44)),
    "pig": dict(ears=["tipped", "point", "flop"], ear_size=(0.36, 0.48), muzzle="snout",
                muzzle_width=(0.32, 0.44), nose="nostrils", eye_size=(0.1, 0.15)),
    "rabbit": dict(ears=["tall"] * 3 + ["lop"], ear_size=(0.95, 1.25), ear_angle=(8, 24), muzzle="pads",
                   muzzle_width=(0.2, 0.27), nose="triangle", nose_size=(0.1, 0.14), mouth="buck",
                   whiskers=[0.0, 0.45, 0.6]),
    "seal": dict(muzzle="pads", muzzle_width=(0.26, 0.36), nose="triangle",
                 nose_size=(0.12, 0.18), whiskers=(0.5, 0.8), eye_size=(0.18, 0.26)),
    "sheep": dict(ears="leaf", ear_angle=(84, 110), around="wool", width=(0.8, 0.92),
                  jaw=(0.68, 0.82), muzzle="none", nose="triangle", nose_size=(0.16, 0.22),
                  pupil=["round", "bar"]),
    "squirrel": dict(ears="tuft", ear_size=(0.36, 0.5), jaw=(0.6, 0.75), muzzle="pads",
                     muzzle_width=(0.18, 0.24), nose_size=(0.1, 0.14), mouth="buck",
                     whiskers=[0.0, 0.4], eye_size=(0.16, 0.22)),
    # never seen in pre-training: the students' two ...
    "cat": dict(ears=["point"] * 8 + ["tipped"], ear_size=(0.4, 0.6), ear_angle=(26, 40),
                width=(0.96, 1.16), height=(0.84, 1.0), jaw=(0.74, 0.98), eye_size=(0.15, 0.23),
                pupil=["slit"] * 2 + ["round"], muzzle=["pads"] * 3 + ["oval"],
                muzzle_width=(0.2, 0.32), muzzle_height=(0.18, 0.27), nose="triangle",
                nose_size=(0.1, 0.18), whiskers=[0.0] + [0.55, 0.7, 0.85] * 2, tongue=[False] * 12
                + [True]),
    "dog": dict(ears=["flop"] * 5 + ["tipped"] * 2 + ["point"] * 4, ear_size=(0.4, 0.7),
                ear_angle=(26, 46), width=(0.84, 1.06), height=(0.92, 1.14), jaw=(0.7, 0.96),
                eye_size=(0.12, 0.2), pupil="round", muzzle=["oval"] * 4 + ["pads"],
                muzzle_width=(0.28, 0.52), muzzle_height=(0.26, 0.42), nose="oval",
                nose_size=(0.15, 0.27), whiskers=[0.0] * 7 + [0.4], tongue=[False] * 3 + [True] *
                2),
    # ... and their five wild cousins
    "fox": dict(ears="point", ear_size=(0.62, 0.82), ear_angle=(26, 40), jaw=(0.4, 0.55),
                around="ruff", face="cheeks", pupil="slit", muzzle_width=(0.2, 0.28),
                nose_size=(0.12, 0.17), whiskers=[0.0, 0.45]),
    "lion": dict(ears="round", ear_size=(0.26, 0.36), around="mane", muzzle="pads",
                 muzzle_width=(0.28, 0.36), nose="triangle", nose_size=(0.2, 0.27),
                 whiskers=[0.0, 0.5]),
    "raccoon": dict(ears="round", ear_size=(0.32, 0.42), ear_angle=(40, 54), jaw=(0.55, 0.7),
                    around="ruff", face="mask", muzzle_width=(0.24, 0.32), whiskers=[0.0, 0.5]),
    "tiger": dict(ears="round", ear_size=(0.3, 0.4), around="ruff", face="stripes", muzzle="pads",
                  muzzle_width=(0.28, 0.36), nose="triangle", nose_size=(0.18, 0.25),
                  whiskers=[0.0, 0.6]),
    "wolf": dict(ears="point", ear_size=(0.42, 0.56), ear_angle=(20, 32), jaw=(0.55, 0.7),
                 around="ruff", height=(1.0, 1.15), muzzle_width=(0.3, 0.38),
                 muzzle_height=(0.4, 0.5), nose_size=(0.17, 0.23), whiskers=0.0),
}  # fmt: skip

HELD_OUT = ("cat", "dog")
COUSINS = ("fox", "lion", "raccoon", "tiger", "wolf")
SOURCE = tuple(s for s in ANATOMY if s not in HELD_OUT + COUSINS)

ACCESSORIES = ["none"] * 9 + ["bow tie", "scarf", "party hat", "glasses", "flower"]
PATTERNS = ["none"] * 3 + ["stripes", "spots", "half", "blaze", "speckles"]


def draw(species, rng, size=96, style="crayon"):
    """Draw one portrait.

    Args:
        species: a name in `ANATOMY`.
        rng: `numpy.random.Generator`; the same state gives the same pixels.
        size: side of the square picture in pixels, 32 to 512.
        style: one of `STYLES`: "crayon" (wax on tinted paper, the default), "paint" (the source
            world: flat colours, dark outlines), "ink" (pen on paper), "night".

    Returns:
        `PIL.Image.Image`, mode RGB, `size` x `size`.

    Raises:
        ValueError: unknown species or style, or a size out of range.
    """
    check_known("species", species, ANATOMY)
    check_known("style", style, STYLES)
    if not 32 <= size <= 512:
        raise ValueError(f"size is {size}: choose a side between 32 and 512 pixels.")
    canvas = _Canvas(size * SUPERSAMPLING, rng, style)
    _background(canvas, rng)
    _Portrait(species, canvas, rng).draw()
    _foreground(canvas, rng)
    return _finish(canvas, rng, size)


def check_known(what, value, known):
    """Raise ValueError, naming the nearest entry of `known`, when `value` is not among them."""
    if value not in known:
        near = difflib.get_close_matches(str(value), known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(known)}."
        raise ValueError(f"unknown {what} {value!r}: {hint}")


# --- geometry: arrays of points (n, 2), x to the right, y down ---------------------------------------


@functools.cache
def _circle(n=28):
    turn = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], 1)


def _oval(x, y, rx, ry, n=28):
    return _circle(n) * (rx, ry) + (x, y)


def _round_off(points, times=2):
    """Cut the corners of a closed polygon (Chaikin, 1974)."""
    points = np.asarray(points, float)
    for _ in range(times):
        after = np.roll(points, -1, 0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1).reshape(
            -1, 2
        )
    return points


def _zigzag(x, y, rx, ry, teeth, depth):
    """A ring of spikes: outer radii (rx, ry), inner ones shorter by the factor `depth`."""
    ring = _circle(2 * teeth) * (rx, ry)
    ring[1::2] *= depth
    return ring + (x, y)


def _curve(*points, n=9):
    """A Bezier curve of degree 2 through the first and last point, pulled by the middle one."""
    a, b, c = np.asarray(points, float)
    t = np.linspace(0, 1, n)[:, None]
    return (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c


def _turn(points, degrees):
    angle = np.radians(degrees)
    return np.asarray(points) @ np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )


# --- colours: arrays of three floats, 0 to 255 -------------------------------------------------------


def _colour(rng, saturation=(0.15, 0.85), value=(0.35, 0.95)):
    return 255 * np.array(
        colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    )


def _mix(a, b, share):
    return (1 - share) * np.asarray(a) + share * np.asarray(b)


BLACK, WHITE = np.zeros(3), np.full(3, 255.0)


class _Canvas:
    """A picture being drawn, and the hand that draws it: the style decides about lines and fills."""

    def __init__(self, side, rng, style):
        self.side, self.rng, self.style = side, rng, style
        self.paper = (
            _colour(rng, (0.02, 0.12), (0.86, 0.98)) if style in ("ink", "crayon") else _colour(rng)
        )
        self.ink = _colour(rng, (0.1, 0.6), (0.08, 0.3))
        self.pen = side / 96 * rng.uniform(0.55, 1.25)
        self.image = Image.new("RGB", (side, side), self._rgb(self.paper))
        self.brush = ImageDraw.Draw(self.image)

    @staticmethod
    def _rgb(colour):
        return tuple(int(c) for c in np.clip(np.round(colour), 0, 255))

    def line(self, points, colour=None, width=1.0, closed=False):
        """Draw a line; `width` is relative to the pen. Without a colour it is an outline."""
        if colour is None or self.style == "ink":
            colour = self.ink
        if self.style in ("crayon", "ink"):
            points = points + self.rng.normal(0, self.side * 0.0022, np.shape(points))
        flat = [tuple(p) for p in points]
        if closed:
            flat += flat[:2]
        self.brush.line(flat, self._rgb(colour), max(1, round(width * self.pen)), joint="curve")

    def shape(self, points, colour, outline=True, solid=False):
        """Fill a closed shape. `solid` shapes stay dark in ink; others show the paper."""
        fill = colour
        if self.style == "ink":
            fill = _mix(self.paper, self.ink, 0.75) if solid else _mix(self.paper, colour, 0.06)
        self.brush.polygon([tuple(p) for p in points], self._rgb(fill))
        if outline:
            self.line(
                points, _mix(colour, BLACK, 0.6) if self.style == "crayon" else None, closed=True
            )


class _Portrait:
    """One individual: its anatomy, colours and pose, and the drawing of its parts from back to front."""

    def __init__(self, species, canvas, rng):
        self.canvas, self.rng = canvas, rng
        self.a = {k: self._sample(v) for k, v in (COMMON | ANATOMY[species]).items()}
        self.fur = _colour(rng)
        self.light = _mix(self.fur, WHITE, rng.uniform(0.35, 0.75))
        self.dark = _mix(self.fur, BLACK, rng.uniform(0.4, 0.7))
        self.second = rng.choice([self.light, self.dark, _colour(rng)])
        self.pink = _mix(_colour(rng), (235, 130, 140), 0.6)
        self.nose_colour = rng.choice(
            [_mix(self.dark, BLACK, 0.6), self.pink, _mix(self.fur, BLACK, 0.75)]
        )
        self.ear_colour = self.second if rng.random() < 0.3 else self.fur
        self.pattern = rng.choice(PATTERNS)
        self.accessory = rng.choice(ACCESSORIES)
        # pose: where the head is, how far it tilts, turns and nods, and how wide the lens makes it
        side = canvas.side
        self.radius = side * rng.uniform(0.19, 0.35)
        self.centre = np.array([side * rng.uniform(0.34, 0.66), side * rng.uniform(0.36, 0.6)])
        self.tilt = rng.normal(0, 11)
        self.gaze = rng.uniform(-0.2, 0.2), rng.uniform(-0.1, 0.1)
        self.stretch = np.array([rng.uniform(0.9, 1.1), 1.0])

    def _sample(self, value):
        if isinstance(value, tuple):
            return self.rng.uniform(*value)
        return value[self.rng.integers(len(value))] if isinstance(value, list) else value

    def place(self, points, depth=0.0):
        """From head radii to pixels; what stands out of the face (depth) moves most when it turns."""
        points = (np.asarray(points, float) + np.multiply(self.gaze, depth)) * self.stretch
        return _turn(points, self.tilt) * self.radius + self.centre

    def fill(self, points, colour, depth=0.0, **options):
        self.canvas.shape(self.place(points, depth), colour, **options)

    def stroke(self, points, depth=0.0, colour=None, width=1.0):
        self.canvas.line(self.place(points, depth), colour, width)

    def both(self, part, *args):
        for side in (-1, 1):
            part(side, *args)

    def draw(self):
        a = self.a
        self._body()
        self._around(behind=True)
        self.both(self._horn)
        hanging = a["ears"] in ("flop", "lop")
        if not hanging:
            self.both(self._ear)
        self._head()
        self._around(behind=False)
        if hanging:
            self.both(self._ear)
        if a["eyes"] == "bulging":
            self.both(self._bulge)
        self._muzzle()
        self.both(self._eye)
        if a["whiskers"]:
            self.both(self._whiskers)
        self._accessory()

    # each part below is drawn in head coordinates: (0, 0) is the middle of the head, 1 its radius

    def _body(self):
        w = self.rng.uniform(0.75, 1.15)
        body = _round_off(
            [(-0.4, 0.5), (0.4, 0.5), (w, 1.5), (w * 1.1, 3.6), (-w * 1.1, 3.6), (-w, 1.5)]
        )
        self.fill(body, self.second if self.rng.random() < 0.3 else self.fur, depth=-0.5)

    def _head(self):
        a = self.a
        outline = _circle(36) * (a["width"], a["height"])
        below = outline[:, 1] > 0
        outline[below, 0] *= 1 - (1 - a["jaw"]) * outline[below, 1] / a["height"]
        self.fill(outline, self.fur)
        self._pattern()
        self._face()

    def _pattern(self):
        a, rng = self.a, self.rng
        w, h = a["width"], a["height"]
        if self.pattern == "stripes":
            for x in (-0.25, 0.0, 0.25):
                self.stroke([(x * w, -0.9 * h), (x * w * 1.1, -0.5 * h)], 0.3, self.second, 2.4)
        elif self.pattern in ("spots", "speckles"):
            r, many = (0.13, 5) if self.pattern == "spots" else (0.05, 12)
            for angle, far in zip(
                rng.uniform(0, 6.283, many), rng.uniform(0.3, 0.8, many), strict=True
            ):
                x, y = far * w * np.cos(angle) * 0.9, far * h * np.sin(angle) * 0.9
                self.fill(_oval(x, y, r, r * 0.85, 12), self.second, 0.2, outline=False)
        elif self.pattern == "half":
            side = rng.choice([-1, 1])
            half = [(0.05 * side, -0.94 * h), (0.62 * side * w, -0.7 * h), (0.92 * side * w, -0.1 * h), (0.6 * side * w * a["jaw"], 0.55 * h),
                    (0.05 * side, 0.85 * h)]  # fmt: skip
            self.fill(_round_off(half, 1), self.second, outline=False)
        elif self.pattern == "blaze":
            self.fill(
                _round_off([(-0.1, -0.95 * h), (0.1, -0.95 * h), (0.22, 0.3), (-0.22, 0.3)]),
                self.second,
                0.1,
                outline=False,
            )

    def _face(self):
        kind, gap, y = self.a["face"], self.a["eye_gap"], self.a["eye_height"]
        w, h, jaw = self.a["width"], self.a["height"], self.a["jaw"]
        if kind == "patches":
            for side in (-1, 1):
                patch = _turn(_oval(0, 0, 0.24, 0.34, 20), 25 * side) + (gap * side, y + 0.05)
                self.fill(patch, self.dark, 0.4, outline=False, solid=True)
        elif kind == "mask":
            mask = [(-0.95 * w, y - 0.1), (-0.3, y - 0.26), (0, y - 0.08), (0.3, y - 0.26), (0.95 * w, y - 0.1), (0.7 * w, y + 0.35),
                    (0.15, y + 0.24), (-0.15, y + 0.24), (-0.7 * w, y + 0.35)]  # fmt: skip
            self.fill(_round_off(mask), self.dark, 0.2, outline=False, solid=True)
        elif kind == "stripes":
            for x, up in ((-0.3, 0.9), (0.0, 0.96), (0.3, 0.9)):
                spike = [(x - 0.08, -up * h), (x + 0.08, -up * h), (x * 0.8, -0.45 * h)]
                self.fill(spike, self.dark, 0.2, outline=False, solid=True)
            for side in (-1, 1):
                for dy in (0.15, 0.38):
                    spike = [
                        (side * w * 0.93, dy - 0.07),
                        (side * w * 0.9, dy + 0.09),
                        (side * w * 0.52, dy + 0.02),
                    ]
                    self.fill(spike, self.dark, 0.1, outline=False, solid=True)
        elif kind == "cheeks":
            for side in (-1, 1):
                cheek = [
                    (side * 0.9 * w, 0.05),
                    (side * 0.12, 0.3),
                    (side * 0.08, 0.9 * h),
                    (side * 0.62 * w * jaw, 0.72 * h),
                ]
                self.fill(_round_off(cheek, 1), self.light, 0.1, outline=False)
        elif kind == "heart":
            lobes = [(0, -0.4), (0.35, -0.62), (0.72, -0.3), (0.55, 0.25), (0.5, 0.75), (0, 0.9)]
            self.fill(_round_off(lobes + [(-x, y) for x, y in lobes[:0:-1]]), self.light, 0.15)
        elif kind == "discs":
            for side in (-1, 1):
                self.fill(_oval(gap * side, y, 0.42, 0.44), self.light, 0.2)

    def _around(self, behind):
        kind, rng = self.a["around"], self.rng
        w, h = self.a["width"], self.a["height"]
        if behind and kind == "mane":
            self.fill(
                _zigzag(0, 0.05, w * 1.5, h * 1.5, int(rng.integers(11, 17)), 0.86), self.dark, -0.2
            )
        elif behind and kind == "spines":
            self.fill(
                _zigzag(0, -0.15, w * 1.42, h * 1.35, int(rng.integers(15, 22)), 0.74),
                self.dark,
                -0.2,
            )
        elif behind and kind == "wool":
            for angle in np.arange(0, 360, 36) + rng.uniform(0, 36):
                x, y = _turn([[1.05, 0.0]], angle)[0]
                self.fill(_oval(x * w, y * h - 0.1, 0.4, 0.4, 18), self.light, -0.2)
        elif behind and kind == "ruff":
            for side in (-1, 1):
                ruff = [(side * 0.8 * w, -0.25), (side * 1.3 * w, 0.3), (side * w, 0.36), (side * 1.12 * w, 0.66), (side * 0.75 * w, 0.64),
                        (side * 0.7 * w, 0.95), (0, 0.8)]  # fmt: skip
                self.fill(ruff, self.light, -0.05)
        elif not behind and kind == "forelock":
            self.fill(_zigzag(0, -0.8 * h, 0.3, 0.42, 6, 0.6), self.dark, 0.2)
        elif not behind and kind == "wool":
            for x in (-0.4, 0, 0.4):
                self.fill(_oval(x, -0.8 * h, 0.3, 0.26, 18), self.light, 0.1)
        if not behind and self.a["extra"] == "tuft":
            self.fill(_zigzag(0, -h, 0.14, 0.32, 5, 0.5), self.dark)

    def _ear(self, side):
        kind, size = self.a["ears"], self.a["ear_size"]
        if kind == "none":
            return
        # with the base at (0, 0) and the tip upwards
        w = 0.62 * size
        outlines = {
            "point": [(-w, 0.2), (-0.15 * w, -1.25 * size), (0.15 * w, -1.25 * size), (w, 0.2)],
            "tipped": [(-w, 0.2), (-0.6 * w, -0.75 * size), (0.6 * w, -0.75 * size), (w, 0.2)],
            "tuft": [(-0.7 * w, 0.25), (0.4 * side * w, -1.3 * size), (0.7 * w, 0.25)],
            "round": _oval(0, -0.3 * size, size, size, 20),
            "fluffy": _zigzag(0, -0.2 * size, 1.1 * size, 1.1 * size, 11, 0.84),
            "fan": _oval(0, -0.35 * size, 0.95 * size, size, 22),
            "tall": _oval(0, -0.55 * size, 0.24 * size, 0.8 * size, 20),
            "leaf": _round_off(
                np.array([(-0.12, 0.1), (-0.42, -0.6), (0, -1.5), (0.42, -0.6), (0.12, 0.1)]) * size
            ),
            "flop": _round_off(
                np.array([(-0.45, -0.3), (0.45, -0.4), (0.5, 0.9), (0.3, 1.8), (-0.4, 1.4)]) * size
            ),
            "lop": _oval(0.1, 0.6 * size, 0.26 * size, 0.8 * size, 20),
        }
        where = np.radians({"fan": 72, "flop": 50, "lop": 35}.get(kind, self.a["ear_angle"]))
        base = 0.9 * np.array([np.sin(where) * self.a["width"], -np.cos(where) * self.a["height"]])
        steep = {"point": 0.55, "tipped": 0.55, "tuft": 0.55, "flop": -0.12, "lop": -0.4}
        lean = np.degrees(where) * steep.get(kind, 1)
        outer = (_turn(outlines[kind], lean) + base) * (side, 1)
        self.fill(outer, self.ear_colour, -0.15)
        if kind in ("point", "round", "fluffy", "fan", "tall", "leaf"):
            middle = outer.mean(0)
            inner = (outer - middle) * 0.6 + middle
            self.fill(inner, self.pink, -0.15, outline=kind != "fluffy")
        elif kind == "tipped":
            tip = [(-0.62 * w, -0.78 * size), (0.62 * w, -0.78 * size), (0.5 * w, -0.1 * size)]
            self.fill((_turn(tip, lean) + base) * (side, 1), self.light, -0.15)

    def _horn(self, side):
        kind, h = self.a["horns"], self.a["height"]
        bone = _mix((225, 210, 170), self.light, 0.3)
        if kind == "stub":
            horn = [
                (0.34, -0.75 * h),
                (0.62, -0.66 * h),
                (0.85, -0.85 * h),
                (0.8, -1.3 * h),
                (0.62, -0.98 * h),
            ]
            self.fill(_round_off(horn, 1) * (side, 1), bone)
        elif kind == "swept":
            horn = [
                (0.14, -0.8 * h),
                (0.42, -0.75 * h),
                (0.72, -1.3 * h),
                (0.95, -1.75 * h),
                (0.5, -1.5 * h),
            ]
            self.fill(_round_off(horn, 1) * (side, 1), bone)
        elif kind == "knobs":
            self.stroke(np.array([(0.26, -0.8 * h), (0.34, -1.28 * h)]) * (side, 1), 0, self.fur, 4)
            self.fill(_oval(0.35 * side, -1.32 * h, 0.12, 0.12, 14), self.dark, solid=True)
        elif kind == "antlers":
            for branch in (((0.25, -0.8), (0.4, -1.3), (0.85, -1.75)), ((0.4, -1.25), (0.75, -1.2), (0.95, -1.4)),
                           ((0.55, -1.45), (0.5, -1.65), (0.45, -1.85))):  # fmt: skip
                self.stroke(_curve(*branch) * (side, h), 0, bone, 3.4)

    def _bulge(self, side):
        size, y = self.a["eye_size"], -self.a["height"] * 0.86
        self.a["eye_height"] = y - 0.02
        self.fill(_oval(self.a["eye_gap"] * side, y, size * 1.5, size * 1.5, 22), self.fur)

    def _eye(self, side):
        a, rng = self.a, self.rng
        if side < 0:
            self.iris = (
                _colour(rng, (0.3, 0.9), (0.5, 0.95))
                if rng.random() < 0.6
                else _mix(WHITE, self.light, 0.15)
            )
            self.lid = rng.choice([0.0, 0.0, 0.0, 0.35, 1.0], p=[0.3, 0.3, 0.24, 0.13, 0.03])
            self.look = rng.uniform(-0.25, 0.25, 2)
        r, x, y = a["eye_size"], a["eye_gap"] * side, a["eye_height"]
        if self.lid == 1.0:  # asleep
            self.stroke(_curve((x - r, y), (x, y + r), (x + r, y)), 0.5)
            return
        iris = self.iris
        if self.canvas.style == "night":
            iris = _mix(iris, (230, 255, 150), 0.7)  # eye-shine
        self.fill(_oval(x, y, r, r * 1.05, 20), iris, 0.5)
        px, py = x + self.look[0] * r, y + self.look[1] * r
        half = {"round": (0.52, 0.55), "slit": (0.2, 0.85), "bar": (0.75, 0.26)}[a["pupil"]]
        self.fill(
            _oval(px, py, r * half[0], r * half[1], 14), BLACK + 12, 0.5, outline=False, solid=True
        )
        if a["pupil"] == "round":
            self.fill(
                _oval(px - r * 0.2, py - r * 0.22, r * 0.16, r * 0.16, 8), WHITE, 0.5, outline=False
            )
        if self.lid:
            top = _circle(20)[10:] * (r * 1.06, r * 1.1) + (x, y)
            self.fill(
                np.vstack([top, [(x + r, y - r * 0.25), (x - r, y - r * 0.25)]]), self.fur, 0.5
            )

    def _muzzle(self):
        a, kind = self.a, self.a["muzzle"]
        w, h, depth = a["muzzle_width"], a["muzzle_height"], 0.9
        y = 0.42 * a["height"]
        colour = self.light if self.rng.random() < 0.65 else self.second
        nose_y = y - h * 0.55
        if kind == "oval":
            self.fill(_oval(0, y, w, h), colour, depth)
        elif kind == "pads":
            nose_y = y - h * 0.45
            for side in (-1, 1):
                self.fill(_oval(w * 0.85 * side, y + 0.06, w, h * 0.9, 22), colour, depth)
            self.fill(_oval(0, y, w * 0.8, h * 0.6, 22), colour, depth, outline=False)
        elif kind == "wide":
            self.fill(_oval(0, y + 0.16, w, h * 1.15), colour, depth)
            nose_y = y + 0.05
        elif kind == "long":
            self.fill(
                _round_off(
                    [
                        (-w * 0.75, y - 0.35),
                        (w * 0.75, y - 0.35),
                        (w * 1.1, y + 0.6),
                        (-w * 1.1, y + 0.6),
                    ]
                ),
                self.fur,
                depth,
            )
            nose_y = y - 0.12
        elif kind == "snout":
            self.fill(_oval(0, y - 0.05, w, w * 0.8), self.pink, depth)
            nose_y = y - 0.05
        elif kind == "bill":
            bill = [
                (-w * 0.35, y - 0.3),
                (w * 0.35, y - 0.3),
                (w, y + 0.12),
                (w * 0.6, y + 0.34),
                (-w * 0.6, y + 0.34),
                (-w, y + 0.12),
            ]
            self.fill(_round_off(bill), _mix((240, 170, 50), self.second, 0.4), depth)
            self.stroke(_curve((-w * 0.8, y + 0.14), (0, y - 0.08), (w * 0.8, y + 0.14)), depth)
            nose_y = y - 0.1
        elif kind == "trunk":
            self._trunk(y)
        self._nose(nose_y, depth)
        self._mouth(y + h * 0.45 if kind != "none" else y + 0.12, depth)
        if a["extra"] == "beard":
            self.fill(_zigzag(0, a["height"] * 1.02, 0.16, 0.5, 5, 0.7), self.light, 0.5)
        if a["extra"] == "tusks":
            for side in (-1, 1):
                self.fill(
                    _round_off([(0.2, 0.45), (0.4, 0.4), (0.6, 1.1)], 1) * (side, 1),
                    WHITE - 20,
                    0.6,
                )

    def _trunk(self, y):
        bend = self.rng.uniform(-0.9, 0.9)
        middle = _curve((0, 0.0), (0.0, 1.1), (bend, 1.25), n=8)
        half = np.linspace(0.26, 0.13, 8)[:, None]
        trunk = np.vstack(
            [
                middle - half * (1, -0.2 * np.sign(bend)),
                (middle + half * (1, -0.2 * np.sign(bend)))[::-1],
            ]
        )
        self.fill(trunk, self.fur, 0.8)
        for i in (2, 4, 6):
            self.stroke(
                [middle[i] - (half[i, 0] * 0.8, 0), middle[i] + (half[i, 0] * 0.8, 0)],
                0.8,
                width=0.7,
            )

    def _nose(self, y, depth):
        kind, s = self.a["nose"], self.a["nose_size"]
        dark = dict(depth=depth + 0.2, solid=True)
        if kind == "oval":
            self.fill(_oval(0, y, s, s * 0.75, 20), self.nose_colour, **dark)
            self.fill(
                _oval(-s * 0.3, y - s * 0.3, s * 0.25, s * 0.14, 8),
                WHITE,
                depth + 0.2,
                outline=False,
            )
        elif kind == "triangle":
            self.fill(
                _round_off([(-s, y - s * 0.6), (s, y - s * 0.6), (0, y + s * 0.8)], 1),
                self.nose_colour,
                **dark,
            )
        elif kind == "spoon":
            self.fill(_oval(0, 0.2, 0.22, 0.38, 22), _mix(self.dark, BLACK, 0.5), **dark)
        elif kind == "hook":
            self.fill(
                _round_off([(-0.17, -0.05), (0.17, -0.05), (0.0, 0.42)], 1),
                _mix((235, 180, 60), self.second, 0.4),
                depth,
            )
        elif kind == "nostrils":
            gap = max(0.1, self.a["muzzle_width"] * 0.4)
            for side in (-1, 1):
                self.fill(
                    _oval(gap * side, y, 0.055, 0.09, 10),
                    self.dark * 0.5,
                    depth + 0.1,
                    outline=False,
                    solid=True,
                )

    def _mouth(self, y, depth):
        kind, w = self.a["mouth"], self.a["muzzle_width"]
        if self.a["tongue"] and kind != "none":
            self.fill(
                _round_off([(-0.11, y), (0.11, y), (0.12, y + 0.3), (-0.12, y + 0.3)]),
                self.pink,
                depth,
            )
        if kind in ("line", "buck"):
            for side in (-1, 1):
                self.stroke(
                    _curve((0, y - 0.12), (0.02 * side, y + 0.08), (w * 0.6 * side, y)), depth
                )
        if kind == "smile":
            self.stroke(_curve((-w * 0.6, y - 0.04), (0, y + 0.16), (w * 0.6, y - 0.04)), depth)
        if kind == "grin":
            self.stroke(_curve((-0.8, 0.2), (0, 0.85), (0.8, 0.2)), 0.4, width=1.3)
        if kind == "buck":
            self.fill([(-0.1, y), (0.1, y), (0.09, y + 0.2), (-0.09, y + 0.2)], WHITE, depth)
        if kind in ("teeth", "fangs"):
            many = 6 if kind == "teeth" else 2
            self.stroke([(-w * 0.95, y + 0.22), (w * 0.95, y + 0.22)], depth)
            for x in np.linspace(-w * 0.8, w * 0.8, many):
                self.fill([(x - 0.07, y + 0.22), (x + 0.07, y + 0.22), (x, y + 0.4)], WHITE, depth)

    def _whiskers(self, side):
        long, y = self.a["whiskers"], 0.45 * self.a["height"]
        colour = self.canvas.ink if side < 0 else None
        for slope in (-0.25, 0.02, 0.28):
            start = np.array([0.3 * side, y + slope * 0.3])
            self.stroke(
                _curve(
                    start,
                    start + (long * 0.6 * side, slope * 0.2),
                    start + (long * side, slope * long + 0.06),
                ),
                0.8,
                colour,
                0.7,
            )

    def _accessory(self):
        kind, h, colour = (
            self.accessory,
            self.a["height"],
            _colour(self.rng, (0.5, 0.95), (0.5, 0.95)),
        )
        if kind == "bow tie":
            for side in (-1, 1):
                self.fill(
                    np.array([(0, 1.2), (0.42, 0.98), (0.42, 1.42)]) * (side, h), colour, -0.2
                )
            self.fill(_oval(0, 1.2 * h, 0.1, 0.12, 12), colour, -0.2)
        elif kind == "scarf":
            self.fill(
                _round_off([(-0.75, 0.92 * h), (0.75, 0.92 * h), (0.8, 1.3 * h), (-0.8, 1.3 * h)]),
                colour,
                -0.2,
            )
            self.fill(
                [(0.2, 1.2 * h), (0.55, 1.15 * h), (0.6, 2.0 * h), (0.25, 2.0 * h)], colour, -0.2
            )
        elif kind == "party hat":
            self.fill([(-0.36, -0.82 * h), (0.36, -0.82 * h), (0.05, -1.75 * h)], colour)
            self.fill(_oval(0.05, -1.75 * h, 0.12, 0.12, 12), self.light)
        elif kind == "glasses":
            for side in (-1, 1):
                self.stroke(
                    _oval(self.a["eye_gap"] * side, self.a["eye_height"], 0.27, 0.27, 21),
                    0.6,
                    colour,
                    1.5,
                )
            self.stroke(
                [(-0.14, self.a["eye_height"]), (0.14, self.a["eye_height"])], 0.6, colour, 1.5
            )
        elif kind == "flower":
            x = self.rng.choice([-0.6, 0.6])
            for angle in range(0, 360, 72):
                self.fill(
                    _turn([[0.15, 0]], angle) + _oval(x, -0.8 * h, 0.12, 0.12, 10),
                    colour,
                    outline=False,
                )
            self.fill(_oval(x, -0.8 * h, 0.1, 0.1, 10), (250, 220, 80))


def _blob(rng, side, big):
    """Points of a random triangle, box, oval or stick somewhere in the picture."""
    at, r = rng.uniform(0, side, 2), side * rng.uniform(0.06, big)
    kind = rng.integers(4)
    if kind == 0:
        points = _circle(3) * r
    elif kind == 1:
        points = np.array([(-1, -0.7), (1, -0.7), (1, 0.7), (-1, 0.7)]) * r
    elif kind == 2:
        points = _oval(0, 0, r, r * rng.uniform(0.5, 1), 20)
    else:
        points = np.array([(-2, -0.08), (2, -0.08), (2, 0.08), (-2, 0.08)]) * r
    return _turn(points, rng.uniform(0, 360)) + at


def _background(canvas, rng):
    if canvas.style in ("paint", "night"):  # a wall with light from one side
        other = Image.new("RGB", canvas.image.size, canvas._rgb(_colour(rng)))
        slope = (
            Image.linear_gradient("L")
            .rotate(int(rng.integers(0, 360)))
            .crop((38, 38, 218, 218))
            .resize(canvas.image.size)
        )
        canvas.image.paste(other, mask=slope)
    for _ in range(rng.integers(0, 7)):
        canvas.shape(_blob(rng, canvas.side, 0.2), _colour(rng), outline=rng.random() < 0.4)


def _foreground(canvas, rng):
    """Now and then something stands in front."""
    if rng.random() < 0.35:
        for _ in range(rng.integers(1, 3)):
            canvas.shape(_blob(rng, canvas.side, 0.13), _colour(rng), outline=rng.random() < 0.5)


@functools.cache
def _strokes(side=768):
    """A sheet of wax strokes, (side, side) float32: mean 0, standard deviation 1, streaks at 35 degrees."""
    rng = np.random.default_rng(5)
    streaks = Image.fromarray(rng.integers(0, 256, (side // 9, side), np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    specks = Image.fromarray(rng.integers(0, 256, (side, side), np.uint8)).filter(
        ImageFilter.BoxBlur(0.6)
    )
    sheet = np.asarray(streaks.rotate(35, Image.Resampling.BILINEAR), np.float32) + np.asarray(
        specks, np.float32
    )
    sheet = sheet[side // 6 : -side // 6, side // 6 : -side // 6]
    return (sheet - sheet.mean()) / sheet.std()


def _finish(canvas, rng, size):
    """Shrink, then what the medium, the lens and the light do to the picture."""
    image = canvas.image.reduce(SUPERSAMPLING)
    if canvas.style == "crayon":  # wax leaves some of the paper white
        sheet = _strokes()
        x, y = rng.integers(0, len(sheet) - size + 1, 2)
        cover = np.clip(rng.uniform(0.6, 0.85) + 0.2 * sheet[y : y + size, x : x + size], 0, 1)
        paper = Image.new("RGB", image.size, canvas._rgb(canvas.paper))
        image = Image.composite(image, paper, Image.fromarray(np.uint8(np.round(255 * cover))))
    if rng.random() < 0.25:
        image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.3, 0.8) * size / 96))
    pixels = np.asarray(image, np.float32)
    light = rng.uniform(0.75, 1.15)
    if canvas.style == "night":
        pixels = pixels * (0.34, 0.4, 0.6) * light
        spread = rng.uniform(4, 14)
    else:
        pixels = 128 + (pixels - 128) * rng.uniform(0.75, 1.15) + 60 * (light - 1)
        spread = rng.uniform(1, 8)
    pixels = (
        pixels + rng.normal(0, spread, (size, size, 1)) + rng.normal(0, spread / 3, pixels.shape)
    )
    return Image.fromarray(np.uint8(np.clip(np.round(pixels), 0, 255)))
