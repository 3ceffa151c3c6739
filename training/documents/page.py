"""A white page to draw on: text, tables, handwriting, pictures.

Owns the drawing and the page's own style (ink, type, hand); what a letter or an invoice looks like is kinds.py, what a
scanner does to the page is scan.py.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.documents import words

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

WIDTH: Final = 600
HEIGHT: Final = 780


class Page:
    """A grey page with margins and a cursor `y` that the drawing calls below move down.

    Args:
        rng: decides everything about the page.
        landscape: 780 x 600 instead of 600 x 780.
    """

    def __init__(self, rng: Random, *, landscape: bool = False) -> None:
        self.rng = rng
        self.width, self.height = (HEIGHT, WIDTH) if landscape else (WIDTH, HEIGHT)
        self.image = Image.new("L", (self.width, self.height), 255)
        self.draw = ImageDraw.Draw(self.image)
        self.left = rng.uniform(0.06, 0.15) * self.width
        self.right = self.width - rng.uniform(0.05, 0.14) * self.width
        self.bottom = self.height * rng.uniform(0.88, 0.96)
        self.y = self.height * rng.uniform(0.04, 0.12)
        self.size = rng.choice([9.0, 10.0, 10.5, 11.0, 12.0, 13.0])
        self.leading = rng.uniform(1.15, 1.6)
        self.typed = False
        self.ink = rng.choice([0, 0, 20, 45, 70])
        self._hand = _Hand(rng)

    @property
    def measure(self) -> float:
        """Width between the margins."""
        return self.right - self.left

    @property
    def full(self) -> bool:
        """Whether the cursor has reached the bottom margin."""
        return self.y >= self.bottom

    def text(
        self, x: float, y: float, line: str, size: float = 0, *, bold: bool = False, anchor: str = "left", ink: int = -1
    ) -> float:
        """Writes one line with its top at `y` and returns where it ends."""
        size = size or self.size
        width = self.text_width(line, size)
        x -= {"left": 0.0, "middle": width / 2, "right": width}[anchor]
        fill = self.ink if ink < 0 else ink
        stroke = size / 30 if bold else 0
        font = _font(size)
        if not self.typed:
            self.draw.text((x, y), line, fill, font, stroke_width=stroke)
            return x + width
        pitch = size * 0.6
        for position, letter in enumerate(line):
            if letter != " ":
                self.draw.text((x + (position + 0.5) * pitch, y), letter, fill, font, "ma", stroke_width=stroke)
        return x + width

    def text_width(self, line: str, size: float = 0) -> float:
        """How wide `text` would write it."""
        size = size or self.size
        return len(line) * size * 0.6 if self.typed else _length(line, size)

    def line(self, line: str, size: float = 0, *, bold: bool = False, anchor: str = "left", indent: float = 0) -> None:
        """Writes one line at the cursor, cut to the measure, and moves down."""
        size = size or self.size
        while line and self.text_width(line, size) > self.measure - indent:
            line = line[: int(len(line) * 0.9)]
        x = {"left": self.left + indent, "middle": (self.left + self.right) / 2, "right": self.right}[anchor]
        self.text(x, self.y, line, size, bold=bold, anchor=anchor)
        self.y += size * self.leading

    def skip(self, lines: float = 1) -> None:
        """Moves the cursor down by so many lines."""
        self.y += lines * self.size * self.leading

    def paragraph(
        self, prose: str, *, size: float = 0, box: Box | None = None, indent: float = 0, justify: bool = False
    ) -> float:
        """Sets prose in lines from the cursor, or from the top of `box`, until the text or the room ends.

        Returns:
            Where the next line would start. The cursor follows only where no box was given.
        """
        size = size or self.size
        left, y, right, bottom = box or (self.left, self.y, self.right, self.bottom)
        space = self.text_width(" ", size)
        rest = prose.split()
        while rest and y + size <= bottom:
            room, taken = right - left - indent, 0
            used = 0.0
            while taken < len(rest) and (taken == 0 or used + self.text_width(rest[taken], size) <= room):
                used += self.text_width(rest[taken], size) + space
                taken += 1
            line, rest = rest[:taken], rest[taken:]
            if justify and rest and taken > 1:
                gap = space + (room - used + space) / (taken - 1)
                x = left + indent
                for word in line:
                    self.text(x, y, word, size)
                    x += self.text_width(word, size) + gap
            else:
                self.text(left + indent, y, " ".join(line), size)
            y += size * self.leading
            indent = 0
        if box is None:
            self.y = y
        return y

    def rule(self, y: float | None = None, *, left: float = 0, right: float = 0, thickness: int = 1) -> None:
        """A horizontal line, from margin to margin unless told."""
        y = self.y if y is None else y
        self.draw.line((left or self.left, y, right or self.right, y), self.ink, thickness)

    def table(
        self, rows: Sequence[Sequence[str]], shares: Sequence[float], *, box: Box, size: float = 0, ruled: str = "grid"
    ) -> float:
        """Draws rows of cells; the first row is the heading.

        Args:
            rows: the cells' text; an empty one is left blank.
            shares: relative widths of the columns; numbers after the first column are set to the right.
            box: where; rows that do not fit are left out.
            size: of the type.
            ruled: "grid", "rows", "heading" or "none".

        Returns:
            The bottom of the table.
        """
        size = size or self.size
        left, top, right, bottom = box
        edges = [left]
        for share in shares:
            edges.append(edges[-1] + (right - left) * share / sum(shares))
        step = size * max(1.35, self.leading)
        y = top
        for number, row in enumerate(rows):
            if y + step > bottom:
                break
            for column, cell in enumerate(row):
                figures = cell[:1].isdigit() or cell[:1] == "$"
                x = edges[column + 1] - 3 if figures and column else edges[column] + 3
                self.text(
                    x,
                    y + step * 0.12,
                    cell,
                    size,
                    bold=number == 0,
                    anchor="right" if x > edges[column] + 3 else "left",
                )
            y += step
            if ruled in ("grid", "rows") or (ruled == "heading" and number == 0):
                self.rule(y, left=left, right=right)
        if ruled == "grid":
            self.draw.rectangle((left, top, right, y), outline=self.ink)
            for edge in edges[1:-1]:
                self.draw.line((edge, top, edge, y), self.ink)
        return y

    def tick_box(self, x: float, y: float, side: float, *, ticked: bool) -> None:
        """A small square, sometimes crossed by hand."""
        self.draw.rectangle((x, y, x + side, y + side), outline=self.ink)
        if ticked:
            wobble = self.rng.uniform(-side, side) * 0.4
            self.draw.line((x - 2, y + wobble, x + side + 2, y + side), self.ink, 2)
            self.draw.line((x + side + 2, y - 3, x, y + side + wobble), self.ink, 2)

    def handwrite(self, x: float, y: float, prose: str, size: float, room: float = math.inf) -> float:
        """Writes by hand on the base line `y`; returns where the pen stops, at the latest after `room` pixels."""
        end = x + room
        for word in prose.split():
            strokes = self._hand.word(self.rng, word, x, y, size)
            if strokes[-1][0] > end:
                break
            self.draw.line(strokes, self._hand.ink, self._hand.thickness, joint="curve")
            x = strokes[-1][0] + size * self.rng.uniform(0.5, 0.9)
        return x

    def signature(self, x: float, y: float) -> None:
        """A large quick scrawl."""
        self.handwrite(x, y, words.person(self.rng).split()[-1], self.size * self.rng.uniform(1.3, 2.2))

    def picture(self, box: Box) -> None:
        """Something like a printed photograph: soft light, round shapes, grain; sometimes a coarse screen."""
        left, top, right, bottom = (round(edge) for edge in box)
        size = (max(8, right - left), max(8, bottom - top))
        noise = np.random.default_rng(self.rng.getrandbits(64))
        scene = Image.fromarray(noise.integers(20, 250, (self.rng.randint(3, 7), self.rng.randint(3, 7)), np.uint8))
        scene = scene.resize(size, Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(scene)
        for _ in range(self.rng.randint(2, 7)):
            x, y = self.rng.uniform(0, size[0]), self.rng.uniform(0, size[1])
            radius = self.rng.uniform(0.05, 0.3) * min(size)
            shape = (
                x - radius,
                y - radius * self.rng.uniform(0.7, 2),
                x + radius,
                y + radius * self.rng.uniform(0.7, 2),
            )
            (pen.ellipse if self.rng.random() < 0.7 else pen.rectangle)(shape, self.rng.randint(0, 255))
        grain = np.asarray(scene, np.float32) + noise.normal(0, 14, (size[1], size[0])).astype(np.float32)
        scene = Image.fromarray(grain.clip(0, 255).astype(np.uint8))
        self.image.paste(scene.convert("1") if self.rng.random() < 0.3 else scene, (left, top))

    def chart(self, box: Box) -> None:
        """Bars or a curve between two axes."""
        left, top, right, bottom = box
        self.draw.line([(left, top), (left, bottom), (right, bottom)], self.ink, 2)
        count = self.rng.randint(4, 9)
        step = (right - left) / count
        heights = [self.rng.uniform(0.1, 0.95) * (bottom - top) for _ in range(count)]
        if self.rng.random() < 0.5:
            for position, height in enumerate(heights):
                x = left + step * (position + 0.2)
                self.draw.rectangle(
                    (x, bottom - height, x + step * 0.6, bottom), self.rng.choice([0, 90, 160]), self.ink
                )
            return
        for _ in range(self.rng.randint(1, 3)):
            points = [(left + step * (at + 0.5), bottom - height) for at, height in enumerate(heights)]
            self.draw.line(points, self.ink, 2)
            for x, y in points:
                self.draw.ellipse((x - 3, y - 3, x + 3, y + 3), self.rng.choice([0, 255]), self.ink)
            heights = [min(bottom - top, height * self.rng.uniform(0.5, 1.2)) for height in heights]

    def logo(self, x: float, y: float, side: float) -> None:
        """A firm's sign: a shape with a letter in it."""
        shape = (x, y, x + side, y + side)
        filled = self.rng.random() < 0.6
        draw = self.rng.choice([self.draw.ellipse, self.draw.rectangle])
        draw(shape, fill=self.ink if filled else None, outline=self.ink, width=2)
        letter = self.rng.choice("ABCFGHMNRSTW")
        self.text(
            x + side / 2, y + side * 0.18, letter, side * 0.6, bold=True, anchor="middle", ink=255 if filled else -1
        )


class _Hand:
    """One person's handwriting: slant, thickness, height of the letters."""

    def __init__(self, rng: Random) -> None:
        self.slant = rng.uniform(-0.1, 0.6)
        self.thickness = rng.choice([1, 1, 2, 2])
        self.ink = rng.choice([0, 30, 70])
        self.roundness = rng.uniform(0.25, 0.6)
        self.wobble = rng.uniform(0.03, 0.12)

    def word(self, rng: Random, word: str, x: float, y: float, size: float) -> list[tuple[float, float]]:
        """The points of one word's stroke; a letter is a loop as high as the letter is in print."""
        points = []
        for letter in word:
            height = size * (1.0 if letter in "bdfhklt" or not letter.islower() else 0.5)
            depth = size * (0.45 if letter in "gjpqy" else 0.0)
            advance = size * rng.uniform(0.32, 0.5) * (1.5 if letter in "mw" else 1.0)
            for turn in range(6):
                angle = turn / 6 * 2 * math.pi
                rise = (1 - math.cos(angle)) / 2 * height - (depth if turn in (4, 5) else 0)
                across = turn / 6 * advance + math.sin(angle) * advance * self.roundness
                jitter = rng.gauss(0, size * self.wobble)
                points.append((x + across + rise * self.slant + jitter, y - rise + jitter))
            x += advance
        return [*points, (x, y)]


@lru_cache(maxsize=256)
def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("drawing documents needs a Pillow with FreeType")
    # Basic layout: the same result whether or not this Pillow has Raqm, and faster.
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=20000)
def _length(line: str, size: float) -> float:
    return _font(size).getlength(line)
