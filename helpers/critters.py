"""The drawn world: portraits of animals, drawn by code from a seed.

A species is its anatomy: ears, muzzle, nose, pupils, horns, whiskers, beak, trunk ... Colour, fur
pattern, background, size, pose, light, accessories and what stands in front vary freely and say
nothing about the species. `draw` knows nothing but a species and a random generator.
"""

import colorsys
import difflib
import functools
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

VERSION = 1  # raised whenever the pixels of a seed change
STYLES = ("crayon", "paint", "ink", "night")
SUPERSAMPLING = 2

# fmt: off
# One entry a species. (low, high) is drawn uniformly for each individual, a list is chosen from,
# anything else holds for all. Lengths are in head radii, angles in degrees from the top of the
# head. What an entry leaves out comes from COMMON.
COMMON = dict(
    width=(0.92, 1.08), height=(0.9, 1.06), jaw=(0.86, 1.0),
    ears="none", ear_size=(0.4, 0.55), ear_angle=(30, 42),
    horns="none", around="none", face="none",
    eyes="plain", eye_size=(0.12, 0.2), eye_gap=(0.32, 0.46), eye_height=(-0.22, -0.05),
    pupil="round", muzzle="oval", muzzle_width=(0.38, 0.5), muzzle_height=(0.28, 0.36),
    nose="oval", nose_size=(0.13, 0.2), mouth=["line", "smile"],
    whiskers=0.0, tongue=[False] * 6 + [True], extra="none",
)

ANATOMY = {
    # the source world: what the backbones are pre-trained on
    "bat": dict(ears="point", ear_size=(0.7, 0.95), ear_angle=(28, 42), jaw=(0.6, 0.75),
                muzzle="snout", muzzle_width=(0.2, 0.28), nose="nostrils", mouth="fangs",
                pupil=["slit", "round"], eye_size=(0.1, 0.16)),
    "bear": dict(ears="round", ear_size=(0.26, 0.38), muzzle_width=(0.42, 0.55),
                 nose_size=(0.17, 0.24)),
    "cow": dict(ears="leaf", ear_angle=(72, 95), horns=["stub"] * 3 + ["none"], height=(1.0, 1.15),
                muzzle="wide", muzzle_width=(0.6, 0.75), nose="nostrils", eye_gap=(0.42, 0.55)),
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
                  nose="nostrils", mouth="fangs", eye_height=(-0.42, -0.3), eye_size=(0.1, 0.15)),
    "horse": dict(ears="point", ear_size=(0.34, 0.44), ear_angle=(16, 26), around="forelock",
                  width=(0.72, 0.84), height=(1.2, 1.36), muzzle="wide", muzzle_width=(0.42, 0.54),
                  nose="nostrils", eye_gap=(0.42, 0.52)),
    "koala": dict(ears="fluffy", ear_size=(0.5, 0.66), ear_angle=(52, 66), muzzle="none",
                  nose="spoon", eye_size=(0.1, 0.15)),
    "monkey": dict(ears="round", ear_size=(0.36, 0.46), ear_angle=(82, 96), face="heart",
                   muzzle_width=(0.52, 0.62), nose="nostrils"),
    "mouse": dict(ears="round", ear_size=(0.58, 0.78), ear_angle=(42, 56), jaw=(0.55, 0.72),
                  muzzle="pads", muzzle_width=(0.18, 0.24), nose_size=(0.1, 0.15),
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
    "rabbit": dict(ears=["tall"] * 3 + ["lop"], ear_size=(0.95, 1.25), ear_angle=(8, 24),
                   muzzle="pads", muzzle_width=(0.2, 0.27), nose="triangle", nose_size=(0.1, 0.14),
                   mouth="buck", whiskers=[0.0, 0.45, 0.6]),
    "seal": dict(muzzle="pads", muzzle_width=(0.26, 0.36), nose="triangle", nose_size=(0.12, 0.18),
                 whiskers=(0.5, 0.8), eye_size=(0.18, 0.26)),
    "sheep": dict(ears="leaf", ear_angle=(84, 110), around="wool", width=(0.8, 0.92),
                  jaw=(0.68, 0.82), muzzle="none", nose="triangle", nose_size=(0.16, 0.22),
                  pupil=["round", "bar"]),
    "squirrel": dict(ears="tuft", ear_size=(0.36, 0.5), jaw=(0.6, 0.75), muzzle="pads",
                     muzzle_width=(0.18, 0.24), nose_size=(0.1, 0.14), mouth="buck",
                     whiskers=[0.0, 0.4], eye_size=(0.16, 0.22)),
    # never seen in pre-training: the students' two ...
    "cat": dict(ears=["point"] * 15 + ["tipped"], ear_size=(0.46, 0.64), ear_angle=(26, 40),
                width=(1.0, 1.18), height=(0.82, 0.96), jaw=(0.74, 0.98), eye_size=(0.15, 0.23),
                pupil=["slit"] * 2 + ["round"], muzzle=["pads"] * 6 + ["oval"],
                muzzle_width=(0.2, 0.3), muzzle_height=(0.18, 0.27), nose="triangle",
                nose_size=(0.1, 0.16), whiskers=[0.0] + [0.6, 0.75, 0.9] * 4,
                tongue=[False] * 12 + [True]),
    "dog": dict(ears=["flop"] * 10 + ["tipped", "point"], ear_size=(0.45, 0.7),
                ear_angle=(26, 46), width=(0.84, 1.02), height=(0.98, 1.16), jaw=(0.7, 0.96),
                eye_size=(0.12, 0.2), pupil="round", muzzle=["oval"] * 8 + ["pads"],
                muzzle_width=(0.34, 0.54), muzzle_height=(0.3, 0.44), nose="oval",
                nose_size=(0.18, 0.28), whiskers=[0.0] * 7 + [0.4],
                tongue=[False, True]),
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
                 muzzle_height=(0.4, 0.5), nose_size=(0.17, 0.23)),
}

# Shapes as points (x to the right, y down); of a pair, the right one. Horns and brow stripes are
# stretched by the head's height, ruff and cheek stripes by its width, ears by their size.
HORNS = {"stub": [(0.34, -0.75), (0.62, -0.66), (0.85, -0.85), (0.8, -1.3), (0.62, -0.98)],
         "swept": [(0.14, -0.8), (0.42, -0.75), (0.72, -1.3), (0.95, -1.75), (0.5, -1.5)]}
ANTLERS = [[(0.25, -0.8), (0.4, -1.3), (0.85, -1.75)], [(0.4, -1.25), (0.75, -1.2), (0.95, -1.4)],
           [(0.55, -1.45), (0.5, -1.65), (0.45, -1.85)]]
LEAF = [(-0.12, 0.1), (-0.42, -0.6), (0, -1.5), (0.42, -0.6), (0.12, 0.1)]
FLOP = [(-0.45, -0.3), (0.45, -0.4), (0.5, 0.9), (0.3, 1.8), (-0.4, 1.4)]
RUFF = [(0.8, -0.25), (1.3, 0.3), (1, 0.36), (1.12, 0.66), (0.75, 0.64), (0.7, 0.95), (0, 0.8)]
HEART = [(0, -0.4), (0.35, -0.62), (0.72, -0.3), (0.55, 0.25), (0.5, 0.75), (0, 0.9)]
BROW_STRIPES = [[(-0.38, -0.9), (-0.22, -0.9), (-0.24, -0.45)],
                [(-0.08, -0.96), (0.08, -0.96), (0, -0.45)],
                [(0.22, -0.9), (0.38, -0.9), (0.24, -0.45)]]
CHEEK_STRIPES = [[(0.93, 0.08), (0.9, 0.24), (0.52, 0.17)],
                 [(0.93, 0.31), (0.9, 0.47), (0.52, 0.4)]]
TUSK = [(0.2, 0.45), (0.4, 0.4), (0.6, 1.1)]
# fmt: on

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
        ValueError: unknown species or style, or a size that is not a whole number from 32 to 512.
    """
    check_known("species", species, ANATOMY)
    check_known("style", style, STYLES)
    if size not in range(32, 513):
        raise ValueError(f"size is {size!r}: choose a side between 32 and 512 pixels.")
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


# --- geometry: arrays of points (n, 2), or of shapes (k, n, 2); x to the right, y down ---


@functools.cache
def _circle(n):
    turn = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([np.cos(turn), np.sin(turn)], 1)


def _oval(centre, rx, ry, n=28):
    """One shape for a centre (2,), k shapes for centres (k, 2)."""
    return np.asarray(centre)[..., None, :] + _circle(n) * (rx, ry)


def _zigzag(y, rx, ry, teeth, depth):
    """A ring of spikes: outer radii (rx, ry), inner ones shorter by the factor `depth`."""
    ring = _circle(2 * teeth) * (rx, ry)
    ring[1::2] *= depth
    return ring + (0, y)


def _mirror(points):
    """What is on the right side, on the left and on the right."""
    return np.stack([np.multiply(points, (-1, 1)), points])


def _round_off(points, times=2):
    """Cut the corners of a closed polygon (Chaikin, 1974)."""
    for _ in range(times):
        after = np.roll(points, -1, 0)
        pairs = [_mix(points, after, 0.25), _mix(points, after, 0.75)]
        points = np.stack(pairs, 1).reshape(-1, 2)
    return points


def _smooth(*right):
    """A symmetric shape with round corners, from the points of its right half, top to bottom."""
    left, right = _mirror(right)
    top = left[:1] if right[0, 0] else left[:0]  # a first point on the axis counts once
    return _round_off(np.vstack([top, right, left[:0:-1]]))


def _curve(*points, n=9):
    """A Bezier curve of degree 2 through the first and last point, pulled by the middle one."""
    a, b, c = np.array(points)
    t = np.linspace(0, 1, n)[:, None]
    return (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c


def _turn(points, degrees):
    """Clockwise about (0, 0)."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.asarray(points) @ [[cos, sin], [-sin, cos]]


def _mix(a, b, share):
    """Points or colours on the way from a (share 0) to b (share 1)."""
    return (1 - share) * np.asarray(a) + share * np.asarray(b)


# --- colours: arrays of three floats, 0 to 255 ---

BLACK, WHITE = np.zeros(3), np.full(3, 255.0)


def _colour(rng, saturation=(0.15, 0.85), value=(0.35, 0.95)):
    hsv = rng.random(), rng.uniform(*saturation), rng.uniform(*value)
    return 255 * np.array(colorsys.hsv_to_rgb(*hsv))


def _rgb(colour):
    return tuple(int(c) for c in np.clip(np.round(colour), 0, 255))


class _Canvas:
    """A picture being drawn, and the hand that draws it: the style decides on lines and fills."""

    def __init__(self, side, rng, style):
        self.side, self.rng, self.style = side, rng, style
        tint = ((0.02, 0.12), (0.86, 0.98)) if style in ("ink", "crayon") else ()
        self.paper = _colour(rng, *tint)
        self.ink = _colour(rng, (0.1, 0.6), (0.08, 0.3))
        self.pen = side / 96 * rng.uniform(0.55, 1.25)
        self.image = Image.new("RGB", (side, side), _rgb(self.paper))
        self.brush = ImageDraw.Draw(self.image)

    def line(self, points, colour=None, width=1.0, closed=False):
        """Draw a line; `width` is relative to the pen. Without a colour it is an outline."""
        if colour is None or self.style == "ink":
            colour = self.ink
        if self.style in ("crayon", "ink"):
            points = points + self.rng.normal(0, self.side * 0.0022, points.shape)
        path = [tuple(p) for p in points]
        if closed:
            path += path[:2]
        self.brush.line(path, _rgb(colour), max(1, round(width * self.pen)), joint="curve")

    def shape(self, points, colour, outline=True, solid=False):
        """Fill a closed shape. `solid` shapes stay dark in ink; others show the paper."""
        fill = colour
        if self.style == "ink":
            fill = _mix(self.paper, self.ink, 0.75) if solid else _mix(self.paper, colour, 0.06)
        self.brush.polygon([tuple(p) for p in points], _rgb(fill))
        if outline:
            edge = _mix(colour, BLACK, 0.6) if self.style == "crayon" else None
            self.line(points, edge, closed=True)


class _Portrait:
    """One individual: its anatomy, colours and pose, and its parts drawn from back to front.

    Parts are drawn in head coordinates: (0, 0) is the middle of the head, 1 its radius.
    """

    def __init__(self, species, canvas, rng):
        self.canvas, self.rng = canvas, rng
        sampled = {part: self._sample(v) for part, v in (COMMON | ANATOMY[species]).items()}
        self.a = SimpleNamespace(**sampled)
        if self.a.eyes == "bulging":  # on top of the head
            self.a.eye_height = -0.86 * self.a.height - 0.02
        self.fur = _colour(rng)
        self.light = _mix(self.fur, WHITE, rng.uniform(0.35, 0.75))
        self.dark = _mix(self.fur, BLACK, rng.uniform(0.4, 0.7))
        self.second = rng.choice([self.light, self.dark, _colour(rng)])
        self.pink = _mix(_colour(rng), (235, 130, 140), 0.6)
        noses = _mix(self.dark, BLACK, 0.6), self.pink, _mix(self.fur, BLACK, 0.75)
        self.nose_colour = rng.choice(noses)
        self.ear_colour = self.second if rng.random() < 0.3 else self.fur
        self.pattern = rng.choice(PATTERNS)
        self.accessory = rng.choice(ACCESSORIES)
        # pose: where the head is, how far it tilts, turns and nods, and how wide the lens makes it
        side = canvas.side
        self.radius = side * rng.uniform(0.19, 0.35)
        self.centre = side * np.array([rng.uniform(0.34, 0.66), rng.uniform(0.36, 0.6)])
        self.tilt = rng.normal(0, 11)
        self.gaze = rng.uniform(-0.2, 0.2), rng.uniform(-0.1, 0.1)
        self.stretch = rng.uniform(0.9, 1.1), 1.0

    def _sample(self, value):
        if isinstance(value, tuple):
            return self.rng.uniform(*value)
        return value[self.rng.integers(len(value))] if isinstance(value, list) else value

    def place(self, shapes, depth):
        """From head radii to pixels, (k, n, 2); what stands out moves most when the head turns."""
        points = (np.asarray(shapes) + np.multiply(self.gaze, depth)) * self.stretch
        points = _turn(points, self.tilt) * self.radius + self.centre
        return points.reshape(-1, *points.shape[-2:])

    def fill(self, shapes, colour, depth=0.0, **options):
        for points in self.place(shapes, depth):
            self.canvas.shape(points, colour, **options)

    def stroke(self, lines, depth=0.0, colour=None, width=1.0):
        for points in self.place(lines, depth):
            self.canvas.line(points, colour, width)

    def draw(self):
        behind = [self._body, self._behind, self._horns]
        head = [self._head, self._pattern, self._face, self._hair]
        front = [self._muzzle, self._nose, self._mouth, self._eyes, self._whiskers, self._accessory]
        hanging = self.a.ears in ("flop", "lop")
        (head if hanging else behind).append(self._ears)
        for part in behind + head + front:
            part()

    def _body(self):
        w = self.rng.uniform(0.75, 1.15)
        colour = self.second if self.rng.random() < 0.3 else self.fur
        self.fill(_smooth((0.4, 0.5), (w, 1.5), (1.1 * w, 3.6)), colour, -0.5)

    def _behind(self):
        kind, w, h, rng = self.a.around, self.a.width, self.a.height, self.rng
        if kind == "mane":
            mane = _zigzag(0.05, 1.5 * w, 1.5 * h, rng.integers(11, 17), 0.86)
            self.fill(mane, self.dark, -0.2)
        elif kind == "spines":
            spines = _zigzag(-0.15, 1.42 * w, 1.35 * h, rng.integers(15, 22), 0.74)
            self.fill(spines, self.dark, -0.2)
        elif kind == "wool":
            curls = _turn(1.05 * _circle(10), rng.uniform(0, 36)) * (w, h) - (0, 0.1)
            self.fill(_oval(curls, 0.4, 0.4, 18), self.light, -0.2)
        elif kind == "ruff":
            self.fill(_mirror(np.multiply(RUFF, (w, 1))), self.light, -0.05)

    def _horns(self):
        kind, h = self.a.horns, self.a.height
        bone = _mix((225, 210, 170), self.light, 0.3)
        for side in (-1, 1):
            if kind in HORNS:
                self.fill(_round_off(np.multiply(HORNS[kind], (side, h)), 1), bone)
            elif kind == "knobs":
                self.stroke([(0.26 * side, -0.8 * h), (0.34 * side, -1.28 * h)], 0, self.fur, 4)
                self.fill(_oval((0.35 * side, -1.32 * h), 0.12, 0.12, 14), self.dark, solid=True)
            elif kind == "antlers":
                self.stroke([_curve(*branch) * (side, h) for branch in ANTLERS], 0, bone, 3.4)

    def _ears(self):
        kind, s = self.a.ears, self.a.ear_size
        if kind == "none":
            return
        w = 0.62 * s
        angle = {"fan": 72, "flop": 50, "lop": 35}.get(kind, self.a.ear_angle)
        base = _turn((0, -0.9), angle) * (self.a.width, self.a.height)
        lean = {"point": 0.55, "tipped": 0.55, "tuft": 0.55, "flop": -0.12, "lop": -0.4}
        lean = angle * lean.get(kind, 1)
        for side in (-1, 1):
            outline = {  # with the base at (0, 0) and the tip upwards
                "fan": _oval((0, -0.35 * s), 0.95 * s, s, 22),
                "flop": _round_off(np.multiply(FLOP, s)),
                "fluffy": _zigzag(-0.2 * s, 1.1 * s, 1.1 * s, 11, 0.84),
                "leaf": _round_off(np.multiply(LEAF, s)),
                "lop": _oval((0.1, 0.6 * s), 0.26 * s, 0.8 * s, 20),
                "point": [(-w, 0.2), (-0.15 * w, -1.25 * s), (0.15 * w, -1.25 * s), (w, 0.2)],
                "round": _oval((0, -0.3 * s), s, s, 20),
                "tall": _oval((0, -0.55 * s), 0.24 * s, 0.8 * s, 20),
                "tipped": [(-w, 0.2), (-0.6 * w, -0.75 * s), (0.6 * w, -0.75 * s), (w, 0.2)],
                "tuft": [(-0.7 * w, 0.25), (0.4 * side * w, -1.3 * s), (0.7 * w, 0.25)],
            }[kind]
            outer = (_turn(outline, lean) + base) * (side, 1)
            self.fill(outer, self.ear_colour, -0.15)
            if kind == "tipped":
                tip = [(-0.62 * w, -0.78 * s), (0.62 * w, -0.78 * s), (0.5 * w, -0.1 * s)]
                self.fill((_turn(tip, lean) + base) * (side, 1), self.light, -0.15)
            elif kind not in ("flop", "lop", "tuft"):
                inner = _mix(outer, outer.mean(0), 0.4)
                self.fill(inner, self.pink, -0.15, outline=kind != "fluffy")

    def _head(self):
        outline = _circle(36) * (self.a.width, self.a.height)
        below = np.maximum(outline[:, 1], 0) / self.a.height
        outline[:, 0] *= 1 - (1 - self.a.jaw) * below
        self.fill(outline, self.fur)

    def _pattern(self):
        kind, w, h, rng = self.pattern, self.a.width, self.a.height, self.rng
        if kind == "stripes":
            stripes = [[(x * w, -0.9 * h), (1.1 * x * w, -0.5 * h)] for x in (-0.25, 0, 0.25)]
            self.stroke(stripes, 0.3, self.second, 2.4)
        elif kind in ("spots", "speckles"):
            r, many = (0.13, 5) if kind == "spots" else (0.05, 12)
            angle, far = rng.uniform(0, 6.283, many), 0.9 * rng.uniform(0.3, 0.8, many)
            spots = np.stack([far * w * np.cos(angle), far * h * np.sin(angle)], 1)
            self.fill(_oval(spots, r, 0.85 * r, 12), self.second, 0.2, outline=False)
        elif kind == "half":
            cheek = (0.62 * w, -0.7 * h), (0.92 * w, -0.1 * h), (0.6 * w * self.a.jaw, 0.55 * h)
            half = _round_off([(0.05, -0.94 * h), *cheek, (0.05, 0.85 * h)], 1)
            self.fill(half * (rng.choice([-1, 1]), 1), self.second, outline=False)
        elif kind == "blaze":
            self.fill(_smooth((0.1, -0.95 * h), (0.22, 0.3)), self.second, 0.1, outline=False)

    def _face(self):
        kind, w, h = self.a.face, self.a.width, self.a.height
        gap, y = self.a.eye_gap, self.a.eye_height
        dark = dict(colour=self.dark, outline=False, solid=True)
        if kind == "patches":
            patch = _turn(_oval((0, 0), 0.24, 0.34, 20), 25) + (gap, y + 0.05)
            self.fill(_mirror(patch), depth=0.4, **dark)
        elif kind == "mask":
            brow = (0, y - 0.08), (0.3, y - 0.26), (0.95 * w, y - 0.1)
            self.fill(_smooth(*brow, (0.7 * w, y + 0.35), (0.15, y + 0.24)), depth=0.2, **dark)
        elif kind == "stripes":
            self.fill(np.multiply(BROW_STRIPES, (1, h)), depth=0.2, **dark)
            self.fill(_mirror(np.multiply(CHEEK_STRIPES, (w, 1))), depth=0.1, **dark)
        elif kind == "cheeks":
            cheek = (0.9 * w, 0.05), (0.12, 0.3), (0.08, 0.9 * h), (0.62 * w * self.a.jaw, 0.72 * h)
            self.fill(_mirror(_round_off(cheek, 1)), self.light, 0.1, outline=False)
        elif kind == "heart":
            self.fill(_smooth(*HEART), self.light, 0.15)
        elif kind == "discs":
            self.fill(_oval(_mirror((gap, y)), 0.42, 0.44), self.light, 0.2)
        if self.a.eyes == "bulging":
            r = 1.5 * self.a.eye_size
            self.fill(_oval(_mirror((gap, y + 0.02)), r, r, 22), self.fur)

    def _hair(self):
        kind, h = self.a.around, self.a.height
        if kind == "forelock":
            self.fill(_zigzag(-0.8 * h, 0.3, 0.42, 6, 0.6), self.dark, 0.2)
        elif kind == "wool":
            curls = [(-0.4, -0.8 * h), (0, -0.8 * h), (0.4, -0.8 * h)]
            self.fill(_oval(curls, 0.3, 0.26, 18), self.light, 0.1)
        if self.a.extra == "tuft":
            self.fill(_zigzag(-h, 0.14, 0.32, 5, 0.5), self.dark)

    def _muzzle(self):
        kind, w, h = self.a.muzzle, self.a.muzzle_width, self.a.muzzle_height
        y = 0.42 * self.a.height
        colour = self.light if self.rng.random() < 0.65 else self.second
        if kind == "oval":
            self.fill(_oval((0, y), w, h), colour, 0.9)
        elif kind == "pads":
            self.fill(_oval(_mirror((0.85 * w, y + 0.06)), w, 0.9 * h, 22), colour, 0.9)
            self.fill(_oval((0, y), 0.8 * w, 0.6 * h, 22), colour, 0.9, outline=False)
        elif kind == "wide":
            self.fill(_oval((0, y + 0.16), w, 1.15 * h), colour, 0.9)
        elif kind == "long":
            self.fill(_smooth((0.75 * w, y - 0.35), (1.1 * w, y + 0.6)), self.fur, 0.9)
        elif kind == "snout":
            self.fill(_oval((0, y - 0.05), w, 0.8 * w), self.pink, 0.9)
        elif kind == "bill":
            bill = _smooth((0.35 * w, y - 0.3), (w, y + 0.12), (0.6 * w, y + 0.34))
            self.fill(bill, _mix((240, 170, 50), self.second, 0.4), 0.9)
            self.stroke(_curve((-0.8 * w, y + 0.14), (0, y - 0.08), (0.8 * w, y + 0.14)), 0.9)
        elif kind == "trunk":
            bend = self.rng.uniform(-0.9, 0.9)
            middle, half = _curve((0, 0), (0, 1.1), (bend, 1.25), n=8), np.linspace(0.26, 0.13, 8)
            across = half[:, None] * (1, -0.2 * np.sign(bend))
            self.fill(np.vstack([middle - across, (middle + across)[::-1]]), self.fur, 0.8)
            across = half[:, None] * (0.8, 0)
            self.stroke(np.stack([middle - across, middle + across], 1)[2::2], 0.8, width=0.7)

    def _nose(self):
        kind, s, h = self.a.nose, self.a.nose_size, self.a.muzzle_height
        drop = {"pads": -0.45 * h, "wide": 0.05, "long": -0.12, "snout": -0.05, "bill": -0.1}
        y = 0.42 * self.a.height + drop.get(self.a.muzzle, -0.55 * h)
        if kind == "oval":
            self.fill(_oval((0, y), s, 0.75 * s, 20), self.nose_colour, 1.1, solid=True)
            shine = _oval((-0.3 * s, y - 0.3 * s), 0.25 * s, 0.14 * s, 8)
            self.fill(shine, WHITE, 1.1, outline=False)
        elif kind == "triangle":
            nose = _round_off([(-s, y - 0.6 * s), (s, y - 0.6 * s), (0, y + 0.8 * s)], 1)
            self.fill(nose, self.nose_colour, 1.1, solid=True)
        elif kind == "spoon":
            spoon = _oval((0, 0.2), 0.22, 0.38, 22)
            self.fill(spoon, _mix(self.dark, BLACK, 0.5), 1.1, solid=True)
        elif kind == "hook":
            hook = _round_off([(-0.17, -0.05), (0.17, -0.05), (0, 0.42)], 1)
            self.fill(hook, _mix((235, 180, 60), self.second, 0.4), 0.9)
        elif kind == "nostrils":
            centres = _mirror((max(0.1, 0.4 * self.a.muzzle_width), y))
            nostrils = _oval(centres, 0.055, 0.09, 10)
            self.fill(nostrils, 0.5 * self.dark, 1.0, outline=False, solid=True)

    def _mouth(self):
        kind, w = self.a.mouth, self.a.muzzle_width
        y = 0.42 * self.a.height
        y += 0.12 if self.a.muzzle == "none" else 0.45 * self.a.muzzle_height
        if self.a.tongue and kind != "none":
            self.fill(_smooth((0.11, y), (0.12, y + 0.3)), self.pink, 0.9)
        if kind in ("line", "buck"):
            lip = _curve((0, y - 0.12), (0.02, y + 0.08), (0.6 * w, y))
            self.stroke(_mirror(lip), 0.9)
        if kind == "buck":
            self.fill([(-0.1, y), (0.1, y), (0.09, y + 0.2), (-0.09, y + 0.2)], WHITE, 0.9)
        elif kind == "smile":
            self.stroke(_curve((-0.6 * w, y - 0.04), (0, y + 0.16), (0.6 * w, y - 0.04)), 0.9)
        elif kind == "grin":
            self.stroke(_curve((-0.8, 0.2), (0, 0.85), (0.8, 0.2)), 0.4, width=1.3)
        elif kind in ("teeth", "fangs"):
            y, roots = y + 0.22, np.linspace(-0.8 * w, 0.8 * w, 6 if kind == "teeth" else 2)
            self.stroke([(-0.95 * w, y), (0.95 * w, y)], 0.9)
            self.fill([[(x - 0.07, y), (x + 0.07, y), (x, y + 0.18)] for x in roots], WHITE, 0.9)
        if self.a.extra == "beard":
            self.fill(_zigzag(1.02 * self.a.height, 0.16, 0.5, 5, 0.7), self.light, 0.5)
        elif self.a.extra == "tusks":
            self.fill(_mirror(_round_off(TUSK, 1)), WHITE - 20, 0.6)

    def _eyes(self):
        rng, r, y = self.rng, self.a.eye_size, self.a.eye_height
        white = rng.random() >= 0.6
        iris = _mix(WHITE, self.light, 0.15) if white else _colour(rng, (0.3, 0.9), (0.5, 0.95))
        if self.canvas.style == "night":
            iris = _mix(iris, (230, 255, 150), 0.7)  # eye-shine
        lid = rng.choice(["open", "heavy", "asleep"], p=[0.84, 0.13, 0.03])
        look = rng.uniform(-0.25, 0.25, 2)
        rx, ry = {"round": (0.52, 0.55), "slit": (0.2, 0.85), "bar": (0.75, 0.26)}[self.a.pupil]
        for x in (-self.a.eye_gap, self.a.eye_gap):
            if lid == "asleep":
                self.stroke(_curve((x - r, y), (x, y + r), (x + r, y)), 0.5)
                continue
            self.fill(_oval((x, y), r, 1.05 * r, 20), iris, 0.5)
            px, py = r * look + (x, y)
            pupil = _oval((px, py), r * rx, r * ry, 14)
            self.fill(pupil, BLACK + 12, 0.5, outline=False, solid=True)
            if self.a.pupil == "round":
                shine = _oval((px - 0.2 * r, py - 0.22 * r), 0.16 * r, 0.16 * r, 8)
                self.fill(shine, WHITE, 0.5, outline=False)
            if lid == "heavy":
                top = _circle(20)[10:] * (1.06 * r, 1.1 * r) + (x, y)
                edge = [(x + r, y - 0.25 * r), (x - r, y - 0.25 * r)]
                self.fill(np.vstack([top, edge]), self.fur, 0.5)

    def _whiskers(self):
        long, y = self.a.whiskers, 0.45 * self.a.height
        for side in (-1, 1) if long else ():
            for slope in (-0.25, 0.02, 0.28):
                hair = _curve((0, 0), (0.6 * long, 0.2 * slope), (long, slope * long + 0.06))
                self.stroke((hair + (0.3, y + 0.3 * slope)) * (side, 1), 0.8, width=0.7)

    def _accessory(self):
        kind, h, gap, y = self.accessory, self.a.height, self.a.eye_gap, self.a.eye_height
        colour = _colour(self.rng, (0.5, 0.95), (0.5, 0.95))
        if kind == "bow tie":
            bow = [(0, 1.2 * h), (0.42, 0.98 * h), (0.42, 1.42 * h)]
            self.fill(_mirror(bow), colour, -0.2)
            self.fill(_oval((0, 1.2 * h), 0.1, 0.12, 12), colour, -0.2)
        elif kind == "scarf":
            end = [(0.2, 1.2 * h), (0.55, 1.15 * h), (0.6, 2 * h), (0.25, 2 * h)]
            self.fill(_smooth((0.75, 0.92 * h), (0.8, 1.3 * h)), colour, -0.2)
            self.fill(end, colour, -0.2)
        elif kind == "party hat":
            self.fill([(-0.36, -0.82 * h), (0.36, -0.82 * h), (0.05, -1.75 * h)], colour)
            self.fill(_oval((0.05, -1.75 * h), 0.12, 0.12, 12), self.light)
        elif kind == "glasses":
            self.stroke(_oval(_mirror((gap, y)), 0.27, 0.27, 21), 0.6, colour, 1.5)
            self.stroke([(-0.14, y), (0.14, y)], 0.6, colour, 1.5)
        elif kind == "flower":
            x, y = self.rng.choice([-0.6, 0.6]), -0.8 * h
            petals = _oval(_oval((x, y), 0.15, 0.15, 5), 0.12, 0.12, 10)
            self.fill(petals, colour, outline=False)
            self.fill(_oval((x, y), 0.1, 0.1, 10), (250, 220, 80))


# --- the world around the animal, and the medium ---


def _blob(rng, side, big):
    """Points of a random triangle, box, oval or stick somewhere in the picture."""
    at, r = rng.uniform(0, side, 2), side * rng.uniform(0.06, big)
    kind = rng.integers(4)
    if kind == 0:
        points = _circle(3)
    elif kind == 2:
        points = _oval((0, 0), 1, rng.uniform(0.5, 1), 20)
    else:
        x, y = (1, 0.7) if kind == 1 else (2, 0.08)
        points = np.array([(-x, -y), (x, -y), (x, y), (-x, y)])
    return _turn(r * points, rng.uniform(0, 360)) + at


def _background(canvas, rng):
    if canvas.style in ("paint", "night"):  # a wall with light from one side
        other = Image.new("RGB", canvas.image.size, _rgb(_colour(rng)))
        slope = Image.linear_gradient("L").rotate(int(rng.integers(0, 360)))
        slope = slope.crop((38, 38, 218, 218)).resize(canvas.image.size)
        canvas.image.paste(other, mask=slope)
    for _ in range(rng.integers(0, 7)):
        canvas.shape(_blob(rng, canvas.side, 0.2), _colour(rng), outline=rng.random() < 0.4)


def _foreground(canvas, rng):
    """Now and then something stands in front."""
    if rng.random() < 0.35:
        for _ in range(rng.integers(1, 3)):
            canvas.shape(_blob(rng, canvas.side, 0.13), _colour(rng), outline=rng.random() < 0.5)


@functools.cache
def _strokes():
    """A sheet of slanted wax strokes, (512, 512) float32: mean 0, standard deviation 1."""
    rng, side = np.random.default_rng(5), 768
    streaks = Image.fromarray(rng.integers(0, 256, (side // 9, side), np.uint8))
    streaks = streaks.resize((side, side), Image.Resampling.BICUBIC)
    streaks = streaks.rotate(35, Image.Resampling.BILINEAR)
    specks = Image.fromarray(rng.integers(0, 256, (side, side), np.uint8))
    specks = specks.filter(ImageFilter.BoxBlur(0.6))
    sheet = np.asarray(streaks, np.float32) + np.asarray(specks, np.float32)
    sheet = sheet[side // 6 : -side // 6, side // 6 : -side // 6]
    return (sheet - sheet.mean()) / sheet.std()


def _finish(canvas, rng, size):
    """Shrink, then what the medium, the lens and the light do to the picture."""
    image = canvas.image.reduce(SUPERSAMPLING)
    if canvas.style == "crayon":  # wax leaves some of the paper white
        sheet = _strokes()
        x, y = rng.integers(0, len(sheet) - size + 1, 2)
        cover = np.clip(rng.uniform(0.8, 0.98) + 0.1 * sheet[y : y + size, x : x + size], 0, 1)
        paper = Image.new("RGB", image.size, _rgb(canvas.paper))
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
        spread = rng.uniform(1, 4 if canvas.style == "crayon" else 8)
    pixels = pixels + rng.normal(0, spread, (size, size, 1))
    pixels = pixels + rng.normal(0, spread / 3, pixels.shape)
    return Image.fromarray(np.uint8(np.clip(np.round(pixels), 0, 255)))
