"""What happened to a page before and in the scanner: holes, stamps, folds, skew, shadows, dirt, blur, noise, fax."""

from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from training.documents.page import Page

Grey = NDArray[np.float32]


def scan(page: Page) -> Image.Image:
    """The page as it comes out of a scanner: grey, about the page's size.

    How much goes wrong is drawn once per page, so that most pages are good and a few are bad.
    """
    rng = page.rng
    wear = rng.betavariate(1.4, 2.6)
    _mark(page, wear)
    placed = _place(page.image, rng, wear)
    if rng.random() < 0.6:
        placed = placed.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.4 + wear)))
    noise = np.random.default_rng(rng.getrandbits(64))
    grey = np.asarray(placed, np.float32)
    grey = _light(grey, rng, wear)
    grey = _dirt(grey, rng, noise, wear)
    if rng.random() < 0.25:  # a fax or a bilevel scanner; grey is kept by dithering or lost
        if rng.random() < 0.3:
            return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("1").convert("L")
        return Image.fromarray(np.where(grey > rng.uniform(120, 190), 255, 0).astype(np.uint8))
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


def _mark(page: Page, wear: float) -> None:
    """What people did to the paper."""
    rng, draw = page.rng, page.draw
    if rng.random() < 0.35:  # the archive's number
        number = str(rng.randint(10**7, 10**10))
        x, y = rng.choice([(0.98, 0.965), (0.6, 0.965), (0.98, 0.015)])
        page.text(x * page.width, y * page.height, number, rng.uniform(8, 13), anchor="right", bold=rng.random() < 0.5)
    if rng.random() < 0.2:
        side = rng.uniform(9, 13)
        for at in rng.choice([(0.5,), (0.33, 0.67), (0.15, 0.5, 0.85)]):
            x, y = page.width * 0.03, page.height * at
            draw.ellipse((x, y, x + side, y + side), fill=rng.choice([0, 60, 190]))
    if rng.random() < 0.12 + 0.2 * wear:
        _stamp(page)
    if rng.random() < 0.1 + 0.25 * wear:  # a note in the margin
        x, y = rng.uniform(0.05, 0.6) * page.width, rng.uniform(0.1, 0.9) * page.height
        page.handwrite(x, y, rng.choice(["see me", "copy to files", "ok", "please check this", "paid", "urgent"]), 14)


def _stamp(page: Page) -> None:
    rng = page.rng
    word = rng.choice(["RECEIVED", "CONFIDENTIAL", "COPY", "PAID", "DRAFT", "FILED", "APPROVED"])
    stamp = Image.new("L", (180, 44), 0)
    draw = ImageDraw.Draw(stamp)
    draw.rectangle((2, 2, 177, 41), outline=255, width=3)
    draw.text((90, 22), word, 255, font_size=24, anchor="mm")
    stamp = stamp.rotate(rng.uniform(-25, 25), expand=True, resample=Image.Resampling.BILINEAR)
    where = (rng.randrange(page.width - 200), rng.randrange(page.height - 120))
    page.image.paste(rng.choice([0, 60, 110]), where, stamp)


def _place(image: Image.Image, rng: Random, wear: float) -> Image.Image:
    """Lays the sheet on the glass: turned, shifted, scaled, the glass showing where the sheet ends."""
    width, height = image.size
    angle = rng.gauss(0, 0.5 + 1.6 * wear) * np.pi / 180
    scale_x, scale_y = (rng.uniform(0.94, 1.08 + 0.12 * wear) for _ in range(2))
    shear = rng.gauss(0, 0.01)
    cos, sin = np.cos(angle), np.sin(angle)
    a, b, d, e = cos * scale_x, sin * scale_x + shear, -sin * scale_y, cos * scale_y
    c = width / 2 * (1 - a) - height / 2 * b + rng.gauss(0, 8)
    f = height / 2 * (1 - e) - width / 2 * d + rng.gauss(0, 8)
    glass = rng.choice([255, 255, 255, 225, 40, 5])
    return image.transform(
        image.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR, fillcolor=glass
    )


def _light(grey: Grey, rng: Random, wear: float) -> Grey:
    """Tone of paper and ink, and light that is not even."""
    paper = rng.uniform(255 - 70 * wear, 255)
    ink = rng.uniform(0, 90 * wear)
    grey = ink + grey * np.float32((paper - ink) / 255)
    height, width = grey.shape
    if rng.random() < 0.35:  # the fold of a book or a lid that was not closed
        along = np.linspace(0, 1, width if rng.random() < 0.7 else height, dtype=np.float32)
        shade = 1 - rng.uniform(0.15, 0.6) * np.exp(-along / rng.uniform(0.02, 0.2))
        shade = shade[::-1] if rng.random() < 0.5 else shade
        grey = grey * (shade[None, :] if len(along) == width else shade[:, None]).astype(np.float32)
    if rng.random() < 0.15:  # folded for an envelope
        at = round(height * rng.choice([1 / 3, 1 / 2, 2 / 3]))
        grey[at : at + 2] *= np.float32(rng.uniform(0.6, 0.95))
    if rng.random() < 0.2 * wear:  # a dirty drum
        for _ in range(rng.randint(1, 4)):
            grey[:, rng.randrange(width)] *= np.float32(rng.uniform(0.2, 0.9))
    return grey


def _dirt(grey: Grey, rng: Random, noise: np.random.Generator, wear: float) -> Grey:
    height, width = grey.shape
    if rng.random() < 0.7:
        grey = grey + noise.standard_normal((height, width), np.float32) * np.float32(rng.uniform(1, 4 + 16 * wear))
    for _ in range(int(rng.expovariate(1) * 120 * wear)):
        x, y, side = rng.randrange(width), rng.randrange(height), rng.choice([1, 1, 1, 2, 3])
        grey[y : y + side, x : x + side] = rng.choice([0, 0, 60, 255])
    return grey
