"""Pages that were printed for many readers: news article, scientific publication, advertisement, presentation."""

from training.documents import words
from training.documents.page import Box, Page


def news_article(page: Page) -> None:
    """A cutting: headline over narrow justified columns, a picture with a caption."""
    rng = page.rng
    page.leading = rng.uniform(1.05, 1.2)
    page.size = rng.choice([8.0, 9.0, 9.5, 10.0])
    if rng.random() < 0.4:
        page.line(f"{words.company(rng).split()[0]} {rng.choice(['Times', 'Herald', 'Post'])}, {words.date(rng)}", 9)
        page.rule()
        page.skip(0.5)
    size = rng.uniform(20, 44)
    page.paragraph(
        words.title(rng), size=size, box=(page.left, page.y, page.right, page.y + size * rng.choice([1.3, 2.4]))
    )
    page.y += size * 2.4
    page.line(f"By {words.person(rng)}", bold=True)
    page.skip(0.5)
    count = rng.choice([2, 3, 3, 4, 5])
    end = page.bottom if rng.random() < 0.7 else page.y + (page.bottom - page.y) * rng.uniform(0.4, 0.9)
    shot: Box | None = None
    if rng.random() < 0.65:
        span = rng.randint(1, max(1, count - 1))
        first = rng.randint(0, count - span)
        step = page.measure / count
        top = page.y if rng.random() < 0.6 else rng.uniform(page.y, end - 150)
        left = page.left + first * step
        shot = (left, top, left + span * step - 10, top + rng.uniform(0.5, 0.9) * span * step)
        page.picture(shot)
        page.paragraph(words.sentence(rng), size=7, box=(left, shot[3] + 3, shot[2], shot[3] + 22))
    _columns(page, count, end, shot, parted=rng.random() < 0.3)


def scientific_publication(page: Page) -> None:
    """Title, authors, abstract, then one or two columns with headings, figures and references."""
    rng = page.rng
    page.leading = rng.uniform(1.1, 1.3)
    page.size = rng.choice([8.0, 9.0, 9.5, 10.0])
    page.line(
        f"J. {words.skill(rng)} {rng.randint(2, 90)}, {rng.randint(1, 400)}-{rng.randint(401, 900)}",
        8,
        anchor=rng.choice(["left", "right"]),
    )
    if rng.random() < 0.75:
        page.skip(rng.uniform(0.5, 2))
        for _ in range(rng.randint(1, 2)):
            page.line(words.title(rng), page.size * rng.uniform(1.5, 1.9), bold=rng.random() < 0.6, anchor="middle")
        page.line(", ".join(words.person(rng) for _ in range(rng.randint(1, 4))), anchor="middle")
        page.line(words.company(rng), page.size * 0.85, anchor="middle")
        page.skip()
        box = (page.left + 35, page.y, page.right - 35, page.bottom)
        page.y = page.paragraph(
            "Abstract. " + words.prose(rng, rng.randint(3, 8)), size=page.size * 0.9, box=box, justify=True
        )
        page.skip()
    count = rng.choice([1, 2, 2, 2])
    figure: Box | None = None
    if rng.random() < 0.6:
        step = page.measure / count
        left = page.left + rng.randrange(count) * step
        top = rng.uniform(page.y, max(page.y + 1, page.bottom - 190))
        figure = (left, top, left + step - 16, top + rng.uniform(90, 170))
        _figure(page, figure)
    _columns(page, count, page.bottom, figure, headings=True)
    page.text(page.width / 2, page.height * 0.97, str(rng.randint(1, 900)), 8, anchor="middle")


def advertisement(page: Page) -> None:
    """A few large words, a picture, little text; often white on black."""
    rng = page.rng
    dark = rng.random() < 0.4
    if dark:
        page.draw.rectangle((0, 0, page.width, page.height), rng.choice([0, 20, 60]))
    ink = 255 if dark else page.ink
    page.ink = ink
    edge = rng.uniform(0.02, 0.1) * page.width
    if rng.random() < 0.85:
        top = rng.uniform(0, 0.5) * page.height
        page.picture((edge, top, page.width - edge * rng.uniform(1, 4), top + rng.uniform(0.3, 0.5) * page.height))
    for _ in range(rng.randint(0, 4)):
        _shape(page)
    for _ in range(rng.randint(1, 3)):
        size = rng.choice([26.0, 32.0, 40.0, 52.0, 70.0])
        line = words.slogan(rng, rng.randint(1, 3))
        line = line.upper() if rng.random() < 0.5 else line.capitalize()
        while page.text_width(line, size) > page.width * 0.92 and size > 18:
            size -= 6
        y = rng.uniform(0.04, 0.85) * page.height
        page.text(
            rng.uniform(0.45, 0.55) * page.width, y, line, size, bold=rng.random() < 0.7, anchor="middle", ink=ink
        )
    y = rng.uniform(0.6, 0.86) * page.height
    if rng.random() < 0.7:
        page.paragraph(words.prose(rng, rng.randint(1, 6)), box=(page.left + edge, y, page.right - edge, page.bottom))
    if rng.random() < 0.5:
        page.logo(rng.uniform(0.1, 0.8) * page.width, page.height * 0.88, rng.uniform(30, 60))
    if rng.random() < 0.5:
        page.draw.rectangle((edge, edge, page.width - edge, page.height - edge), outline=ink, width=rng.randint(1, 6))


def presentation(page: Page) -> None:
    """Slides: a title and large bullets or a chart, one to three on a page, sometimes in frames."""
    rng = page.rng
    count = 1 if page.width > page.height else rng.choice([1, 2, 2, 3])
    dark = rng.random() < 0.15
    framed = count > 1 or rng.random() < 0.5
    height = page.height * 0.94 / count
    for number in range(count):
        top = page.height * 0.03 + number * height
        box = (page.width * 0.06, top + 6, page.width * 0.94, top + height - 8)
        if dark:
            page.draw.rectangle(box, 50)
        elif framed:
            page.draw.rectangle(box, outline=page.ink, width=rng.randint(1, 3))
        page.ink = 255 if dark else page.ink
        _slide(page, box)


def _slide(page: Page, box: Box) -> None:
    rng = page.rng
    left, top, right, bottom = box
    size = (bottom - top) * rng.uniform(0.055, 0.09)
    title = " ".join(words.title(rng).split()[: rng.randint(2, 5)])
    anchor = rng.choice(["left", "middle"])
    x = left + 20 if anchor == "left" else (left + right) / 2
    page.text(x, top + size * 0.7, title, min(size, (right - left) / len(title) * 1.5), bold=True, anchor=anchor)
    y = top + size * 2.3
    if rng.random() < 0.5:
        page.rule(y - size * 0.3, left=left + 15, right=right - 15, thickness=2)
    if rng.random() < 0.35:
        page.chart((left + 50, y, right - 50, bottom - 30))
        return
    bullet = rng.choice("-*+o")
    while y < bottom - size * 1.4 and rng.random() < 0.92:
        indent = rng.choice([25, 25, 60])
        words_in_line = " ".join(words.sentence(rng).rstrip(".").split()[: rng.randint(3, 7)])
        limit = right - 15
        y = page.paragraph(f"{bullet} {words_in_line}", size=size * 0.65, box=(left + indent, y, limit, bottom - 8))
        y += size * rng.uniform(0.2, 0.7)


def _shape(page: Page) -> None:
    rng = page.rng
    x, y = rng.uniform(0, page.width), rng.uniform(0, page.height)
    width, height = rng.uniform(30, 260), rng.uniform(20, 160)
    fill = rng.choice([None, rng.randint(0, 255)])
    draw = rng.choice([page.draw.ellipse, page.draw.rectangle])
    draw((x - width / 2, y - height / 2, x + width / 2, y + height / 2), fill=fill, outline=page.ink, width=2)


def _figure(page: Page, box: Box) -> None:
    left, _, right, bottom = box
    if page.rng.random() < 0.7:
        page.chart((left + 20, box[1], right - 5, bottom - 5))
    else:
        rng = page.rng
        groups = (
            [words.noun(rng), str(rng.randint(3, 90)), words.amount(rng, 90), words.amount(rng, 9)] for _ in range(7)
        )
        rows = [["Group", "N", "Mean", "SD"], *groups]
        page.table(rows, (2, 1, 1.5, 1.5), box=box, size=8, ruled="heading")
    caption = f"Fig. {page.rng.randint(1, 6)}. {words.sentence(page.rng)}"
    page.paragraph(caption, size=7, box=(left, bottom + 2, right, bottom + 22))


def _columns(
    page: Page, count: int, end: float, hole: Box | None, *, headings: bool = False, parted: bool = False
) -> None:
    """Fills columns with justified prose, around `hole` and the caption under it."""
    rng = page.rng
    step = page.measure / count
    for column in range(count):
        left = page.left + column * step
        right = left + step - 14
        if parted and column:
            page.draw.line((left - 7, page.y, left - 7, end), page.ink)
        y = page.y
        while y + page.size < end:
            stop = end
            if hole is not None and left < hole[2] and right > hole[0]:
                if hole[1] - page.size * 1.5 <= y < hole[3] + 24:
                    y = hole[3] + 26
                    continue
                if y < hole[1]:
                    stop = hole[1]
            if headings and rng.random() < 0.25:
                heading = rng.choice(["Introduction", "Methods", "Results", "Discussion", "References"])
                page.text(left, y, heading, bold=True)
                y += page.size * page.leading * 1.2
            box = (left, y, right, stop)
            y = max(page.paragraph(words.prose(rng, rng.randint(2, 6)), box=box, indent=10, justify=True), y + 1)
