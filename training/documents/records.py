"""Pages that are filled in or counted up: form, invoice, budget table, questionnaire."""

from itertools import pairwise

from training.documents import words
from training.documents.page import Page


def form(page: Page) -> None:
    """Captioned boxes and lines, partly filled in by hand or typewriter."""
    rng = page.rng
    heading = f"{rng.choice(['APPLICATION FOR', 'REQUEST FOR', 'RECORD OF', 'NOTICE OF'])} {words.noun(rng).upper()}"
    page.line(heading, page.size * rng.uniform(1.2, 1.8), bold=True, anchor=rng.choice(["left", "middle"]))
    if rng.random() < 0.5:
        page.line(f"Form {rng.randint(10, 9999)}-{rng.choice('ABCD')} ({words.date(rng)})", 8, anchor="right")
    page.skip(0.5)
    filled = rng.choice([0.0, 0.5, 0.8, 0.95])
    boxed = rng.random() < 0.65
    while page.y < page.bottom - 60:
        kind = rng.random()
        if kind < 0.62:
            _field_row(page, filled, boxed=boxed)
        elif kind < 0.78:
            _tick_row(page, filled)
        elif kind < 0.88:
            _band(page)
        else:
            page.paragraph(words.prose(rng, rng.randint(1, 2)), size=8)
            page.skip(0.5)
    page.rule(page.y + 25, right=page.left + 0.5 * page.measure)
    page.text(page.left, page.y + 28, "Signature", 8)
    page.text(page.left + 0.6 * page.measure, page.y + 28, "Date", 8)
    if rng.random() < filled:
        page.signature(page.left + 20, page.y + 22)


def invoice(page: Page) -> None:
    """A seller, a buyer, items with quantities and prices, a total."""
    rng = page.rng
    page.typed = rng.random() < 0.3
    anchor = rng.choice(["left", "middle", "right"])
    if rng.random() < 0.5:
        page.logo(page.left if anchor == "right" else page.right - 44, page.y - 10, 44)
    page.line(words.company(rng), page.size * rng.uniform(1.2, 2), bold=True, anchor=anchor)
    word = rng.choice(["INVOICE", "Invoice", "STATEMENT", "BILL", "PURCHASE ORDER"])
    page.line(word, page.size * rng.uniform(1.3, 3), bold=True, anchor=rng.choice(["right", "middle", "left"]))
    facts = [f"No. {rng.randint(100, 99999)}", words.date(rng), f"Terms: net {rng.choice([10, 30, 60])}"]
    top = page.y
    for line in ("Sold to:", words.person(rng), words.company(rng), *words.address(rng)):
        page.line(line)
    for number, line in enumerate(facts):
        page.text(page.right, top + number * page.size * page.leading, line, anchor="right")
    page.skip()
    rows = [rng.choice([["Qty", "Description", "Price", "Amount"], ["Units", "Item", "Each", "Total"]])]
    for _ in range(rng.randint(1, 16)):
        rows += [[str(rng.randint(1, 900)), words.item(rng), words.amount(rng, 900), words.amount(rng)]]
    rows += [["", "", "", ""]] * rng.choice([0, 0, 3, 8])
    ruled = rng.choice(["grid", "grid", "rows", "heading", "none"])
    box = (page.left, page.y, page.right, page.bottom - 90)
    page.y = page.table(rows, (1, 4, 1.5, 1.7), box=box, ruled=ruled)
    for name in [*rng.sample(["Subtotal", "Tax", "Freight", "Discount"], rng.randint(0, 3)), "TOTAL"]:
        page.y += 4
        page.text(page.right - 0.25 * page.measure, page.y, name, bold=name == "TOTAL", anchor="right")
        page.line(f"${words.amount(rng)}", bold=name == "TOTAL", anchor="right")
    if rng.random() < 0.5:
        page.skip()
        page.paragraph(words.prose(rng, rng.randint(1, 2)), size=8)
    if rng.random() < 0.25:
        page.signature(page.left + 20, min(page.y + 40, page.bottom))


def budget_table(page: Page) -> None:
    """One large table of figures under a title."""
    rng = page.rng
    page.typed = rng.random() < 0.2
    page.size = rng.choice([7.5, 8.0, 9.0, 10.0])
    anchor = rng.choice(["left", "middle"])
    for _ in range(rng.randint(1, 3)):
        page.line(words.title(rng), page.size * rng.uniform(1.1, 1.6), bold=True, anchor=anchor)
    page.skip(0.5)
    if rng.random() < 0.2:
        page.paragraph(words.prose(rng, 2))
        page.skip()
    columns = rng.randint(3, 6 if page.typed else 8)
    ruled = rng.choice(["grid", "grid", "rows", "heading", "none"])
    while page.y < page.bottom - 100:
        rows = [["", *(rng.choice([str(rng.randint(1960, 2009)), words.noun(rng)[:8]]) for _ in range(columns))]]
        for number in range(rng.randint(6, 40)):
            if number % 7 == 6 and rng.random() < 0.6:
                rows.append(["Total", *(words.amount(rng, 900000) for _ in range(columns))])
            else:
                cells = (words.amount(rng) if rng.random() < 0.9 else "" for _ in range(columns))
                rows.append([words.item(rng)[:24], *cells])
        box = (page.left, page.y, page.right, page.bottom)
        size = min(page.size, page.measure / (columns * 5.5 + 12) * (1.1 if page.typed else 1.7))
        page.y = page.table(rows, (2.2, *[1.0] * columns), box=box, size=max(6.0, size), ruled=ruled)
        page.skip(1.5)
        if rng.random() < 0.6:
            break
        page.line(words.title(rng), bold=True)


def questionnaire(page: Page) -> None:
    """Numbered questions with answers to tick, scales to circle and lines to fill."""
    rng = page.rng
    page.typed = rng.random() < 0.25
    if rng.random() < 0.7:
        page.line(
            f"{words.noun(rng)} {rng.choice(['Survey', 'Questionnaire', 'Interview'])}",
            page.size * 1.5,
            bold=True,
            anchor=rng.choice(["left", "middle"]),
        )
    if rng.random() < 0.5:
        page.paragraph(words.prose(rng, rng.randint(1, 3)))
        page.skip()
    number, answered = rng.choice([1, 1, rng.randint(2, 30)]), rng.random() < 0.6
    boxes = rng.random() < 0.6
    while page.y < page.bottom - 40:
        page.text(page.left, page.y, f"{number}.", bold=rng.random() < 0.5)
        page.y = page.paragraph(words.question(rng), box=(page.left + 26, page.y, page.right, page.bottom))
        kind = rng.random()
        if kind < 0.55:
            _options(page, answered=answered, boxes=boxes)
        elif kind < 0.8:
            _scale(page, answered=answered)
        else:
            for _ in range(rng.randint(1, 3)):
                page.y += page.size * 1.6
                page.rule(left=page.left + 26)
                if answered and rng.random() < 0.7:
                    page.handwrite(page.left + 34, page.y - 3, words.sentence(rng), 13, page.measure - 60)
        page.skip(rng.uniform(0.5, 1.4))
        number += 1


def _field_row(page: Page, filled: float, *, boxed: bool) -> None:
    rng = page.rng
    height = rng.uniform(26, 40)
    count = rng.randint(1, 4)
    edges = sorted([0.0, 1.0, *(rng.uniform(0.15, 0.85) for _ in range(count - 1))])
    for start, stop in pairwise(edges):
        left, right = page.left + start * page.measure, page.left + stop * page.measure
        if right - left < 40:
            continue
        if boxed:
            page.draw.rectangle((left, page.y, right, page.y + height), outline=page.ink)
        else:
            page.rule(page.y + height, left=left, right=right - 8)
        page.text(left + 3, page.y + 2, words.noun(rng)[: int((right - left) / 7)], 7)
        if rng.random() < filled:
            value = rng.choice([words.person(rng), words.date(rng), words.amount(rng)])
            if rng.random() < 0.6:
                page.handwrite(left + 8, page.y + height - 5, value, 13, right - left - 12)
            else:
                page.text(left + 8, page.y + height - 16, value[: int((right - left) / 8)], 11)
    page.y += height + (0 if boxed else 4)


def _tick_row(page: Page, filled: float) -> None:
    rng = page.rng
    x = page.left + 6
    page.y += 5
    while x < page.right - 70:
        page.tick_box(x, page.y, 9, ticked=rng.random() < filled * 0.4)
        x = page.text(x + 14, page.y - 1, words.noun(rng), 9) + rng.uniform(12, 40)
    page.y += 18


def _band(page: Page) -> None:
    shade = page.rng.choice([0, 60, 200])
    page.draw.rectangle((page.left, page.y, page.right, page.y + 16), shade)
    page.text(
        page.left + 5,
        page.y + 2,
        f"{words.noun(page.rng)} {words.noun(page.rng)}".upper(),
        10,
        bold=True,
        ink=255 if shade < 100 else 0,
    )
    page.y += 17


def _options(page: Page, *, answered: bool, boxes: bool) -> None:
    rng = page.rng
    options = rng.choice(
        [
            ["Yes", "No"],
            ["Yes", "No", "Don't know"],
            ["Always", "Often", "Sometimes", "Never"],
            [words.noun(rng) for _ in range(rng.randint(2, 7))],
        ]
    )
    ticked = rng.randrange(len(options)) if answered else -1
    across = len(options) < 4 and rng.random() < 0.5
    x = page.left + 34
    for position, option in enumerate(options):
        if page.full:
            return
        if boxes:
            page.tick_box(x, page.y + 1, page.size * 0.8, ticked=position == ticked)
            end = page.text(x + page.size * 1.4, page.y, option)
        else:
            end = page.text(x, page.y, f"{option} {'.' * 12} {position + 1}")
            if position == ticked:
                page.draw.ellipse((end - 12, page.y - 3, end + 5, page.y + page.size + 3), outline=page.ink, width=2)
        if across:
            x = end + 24
        else:
            page.skip()
    if across:
        page.skip()


def _scale(page: Page, *, answered: bool) -> None:
    rng = page.rng
    count = rng.choice([5, 7, 10])
    step = (page.measure - 60) / count
    chosen = rng.randrange(count) if answered else -1
    for position in range(count):
        x = page.left + 40 + position * step
        page.text(x, page.y + 4, str(position + 1))
        if position == chosen:
            page.draw.ellipse((x - 6, page.y, x + 13, page.y + page.size + 9), outline=page.ink, width=2)
    page.y += page.size + 10
