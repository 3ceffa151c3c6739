"""Pages that somebody wrote to somebody: letter, memo, email, handwritten note, resume."""

from training.documents import words
from training.documents.page import Page


def letter(page: Page) -> None:
    """Letterhead, date, address, salutation, paragraphs, signature."""
    rng = page.rng
    page.typed = rng.random() < 0.4
    anchor = rng.choice(["left", "middle", "right"])
    _letterhead(page, anchor)
    page.skip(rng.uniform(0.5, 2))
    page.line(words.date(rng), anchor=rng.choice(["left", "right"]))
    page.skip()
    addressee = words.person(rng)
    for line in (addressee, words.company(rng), *words.address(rng)):
        page.line(line)
    if rng.random() < 0.25:
        page.line(f"Re: {words.title(rng)}", bold=True)
    page.skip()
    page.line(f"Dear {rng.choice(['Mr.', 'Ms.', 'Dr.'])} {addressee.split()[-1]}:")
    _body(page, rng.randint(1, 5))
    if rng.random() < 0.15 and page.y < page.bottom - 160:
        page.y = page.table(
            _figures(page, 4), (3, 1, 1), box=(page.left + 30, page.y, page.right - 30, page.bottom - 80)
        )
        page.skip()
    _close(page)


def memo(page: Page) -> None:
    """The word memorandum, a block of to and from, a rule, paragraphs."""
    rng = page.rng
    page.typed = rng.random() < 0.5
    if rng.random() < 0.3:
        _letterhead(page, "middle")
    if rng.random() < 0.85:
        heading = rng.choice(["MEMORANDUM", "INTEROFFICE MEMO", "M E M O", "Interoffice Correspondence", "MEMO"])
        page.line(heading, page.size * rng.uniform(1, 2.2), bold=True, anchor=rng.choice(["left", "middle"]))
    page.skip(rng.uniform(0, 1.5))
    fields = [("TO", words.person(rng)), ("FROM", words.person(rng)), ("DATE", words.date(rng))]
    if rng.random() < 0.5:
        rng.shuffle(fields)
    if rng.random() < 0.4:
        fields.insert(1, ("CC", ", ".join(words.person(rng) for _ in range(rng.randint(1, 2)))))
    _fields(page, [*fields, (rng.choice(["RE", "SUBJECT"]), words.title(rng))], rng.uniform(1, 1.7))
    if rng.random() < 0.6:
        page.rule(thickness=rng.choice([1, 2, 3]))
    _body(page, rng.randint(1, 5))
    if rng.random() < 0.2 and page.y < page.bottom - 120:
        page.y = page.table(_figures(page, 5), (3, 1, 1), box=(page.left, page.y, page.right, page.bottom - 30))
    if rng.random() < 0.3:
        page.signature(page.left + rng.uniform(0, 200), min(page.y + 30, page.bottom))


def email(page: Page) -> None:
    """A printed message: header lines in small type, short paragraphs, quoted older messages."""
    rng = page.rng
    page.typed = rng.random() < 0.35
    if rng.random() < 0.5:
        page.line(words.person(rng), page.size * 1.3, bold=True)
        page.rule(thickness=rng.choice([1, 2, 4]))
        page.skip(0.5)
    _message_header(page)
    if rng.random() < 0.35:
        page.rule()
        page.skip(0.5)
    _body(page, rng.randint(1, 3), longest=3)
    page.line(words.person(rng).split()[0])
    while rng.random() < 0.55 and page.y < page.bottom - 100:
        page.skip()
        page.line(rng.choice(["-----Original Message-----", "-" * 30, "> " + words.sentence(rng)]), indent=10)
        page.left += rng.choice([0, 14])
        _message_header(page)
        _body(page, rng.randint(1, 2), longest=3)
    if rng.random() < 0.3:
        page.text(page.right, page.height * 0.96, f"Page {rng.randint(1, 3)} of {rng.randint(1, 3)}", 9, anchor="right")


def handwritten(page: Page) -> None:
    """Lines written by hand, on plain or ruled paper, with a sketch or some arithmetic now and then."""
    rng = page.rng
    size = rng.uniform(13, 26)
    step = size * rng.uniform(1.3, 2)
    if rng.random() < 0.45:
        _ruled_paper(page, step)
    if rng.random() < 0.15:
        _letterhead(page, "middle")
    page.y += step
    if rng.random() < 0.6:
        page.handwrite(
            page.left + rng.uniform(0.3, 0.6) * page.measure, page.y, words.date(rng), size, page.measure * 0.5
        )
        page.y += step
    end = page.y + (page.bottom - page.y) * rng.uniform(0.3, 1)
    slope = rng.gauss(0, 0.008)
    while page.y < end:
        if rng.random() < 0.08:
            page.y += step * rng.uniform(0.5, 1.5)
        if rng.random() < 0.04 and page.y < page.bottom - 170:
            page.chart((page.left + 40, page.y, page.left + rng.uniform(180, 330), page.y + 110))
            page.y += 110 + step
        x = page.left + (rng.uniform(10, 60) if rng.random() < 0.2 else rng.gauss(0, 4))
        reach = page.right - x if rng.random() < 0.85 else page.measure * rng.uniform(0.3, 0.8)
        page.handwrite(x, page.y, words.prose(rng, 2), size, reach)
        page.y += step + slope * page.measure
    if rng.random() < 0.4:
        page.handwrite(page.left + page.measure * 0.5, min(page.y + step, page.bottom), words.person(rng), size * 1.2)


def resume(page: Page) -> None:
    """A name, then headed sections of dated entries and lists."""
    rng = page.rng
    page.typed = rng.random() < 0.3
    anchor = rng.choice(["left", "middle", "middle"])
    if rng.random() < 0.4:
        page.line(
            rng.choice(["CURRICULUM VITAE", "RESUME", "Biographical Sketch"]), page.size * 1.2, bold=True, anchor=anchor
        )
    page.line(words.person(rng), page.size * rng.uniform(1.2, 2.2), bold=True, anchor=anchor)
    for line in (*words.address(rng), words.phone(rng)):
        page.line(line, anchor=anchor)
    page.skip(rng.uniform(0.3, 1.2))
    ruled, dated = rng.random() < 0.5, rng.choice(["left", "right"])
    sections = ["EDUCATION", "EXPERIENCE", "PUBLICATIONS", "SKILLS", "HONORS AND AWARDS", "PERSONAL", "MEMBERSHIPS"]
    for section in [*sections[:2], *rng.sample(sections[2:], rng.randint(1, 5))]:
        if page.full:
            break
        page.line(section if rng.random() < 0.8 else section.title(), page.size * 1.1, bold=True)
        if ruled:
            page.rule(page.y - page.size * 0.2)
        for _ in range(rng.randint(1, 4)):
            _entry(page, section, dated)
        page.skip(rng.uniform(0.3, 1))


def _entry(page: Page, section: str, dated: str) -> None:
    rng = page.rng
    if page.full:
        return
    if section in ("SKILLS", "MEMBERSHIPS", "PERSONAL"):
        page.line(
            rng.choice(["- ", "* ", ""]) + ", ".join(words.skill(rng) for _ in range(rng.randint(1, 4))), indent=12
        )
        return
    year = rng.randint(1950, 2000)
    span = f"{year}-{rng.choice([str(year + rng.randint(1, 9)), 'present'])}"
    if dated == "left":
        page.text(page.left, page.y, span)
    else:
        page.text(page.right, page.y, span, anchor="right")
    indent = 95 if dated == "left" else 0
    page.line(f"{words.skill(rng)}, {words.company(rng)}"[: 60 - indent // 6], indent=indent, bold=rng.random() < 0.4)
    if section == "EXPERIENCE" and rng.random() < 0.8:
        room = (page.left + indent, page.y, page.right, page.bottom)
        page.y = page.paragraph(words.prose(rng, rng.randint(1, 3)), box=room)


def _letterhead(page: Page, anchor: str) -> None:
    rng = page.rng
    if rng.random() < 0.4:
        side = rng.uniform(26, 60)
        page.logo(page.left if anchor == "right" else page.right - side, page.y, side)
    page.line(words.company(rng), page.size * rng.uniform(1.3, 2.4), bold=True, anchor=anchor)
    for line in words.address(rng):
        page.line(line, max(7.0, page.size * 0.8), anchor=anchor)
    if rng.random() < 0.4:
        page.rule(thickness=rng.choice([1, 2]))
    page.skip()


def _fields(page: Page, fields: list[tuple[str, str]], spacing: float) -> None:
    indent = page.rng.uniform(60, 90)
    for name, value in fields:
        page.text(page.left, page.y, f"{name}:", bold=page.rng.random() < 0.6)
        page.line(value, indent=indent)
        page.skip(spacing - 1)


def _message_header(page: Page) -> None:
    rng = page.rng
    fields = [
        ("From", words.person(rng)),
        ("Sent", f"{words.date(rng)} {rng.randint(1, 12)}:{rng.randint(0, 59):02d} PM"),
    ]
    fields.append(("To", "; ".join(words.person(rng) for _ in range(rng.randint(1, 3)))))
    if rng.random() < 0.4:
        fields.append(("Cc", "; ".join(words.person(rng) for _ in range(rng.randint(1, 3)))))
    _fields(page, [*fields, ("Subject", rng.choice(["", "RE: ", "FW: "]) + words.title(rng))], 1)


def _body(page: Page, paragraphs: int, longest: int = 6) -> None:
    rng = page.rng
    indent, justify = rng.choice([0, 0, 24]), rng.random() < 0.2
    page.skip(rng.uniform(0.5, 1))
    for _ in range(paragraphs):
        page.paragraph(words.prose(rng, rng.randint(1, longest)), indent=indent, justify=justify)
        page.skip(rng.uniform(0.4, 1))


def _figures(page: Page, rows: int) -> list[list[str]]:
    rng = page.rng
    return [
        ["Item", "Planned", "Actual"],
        *([words.item(rng), words.amount(rng), words.amount(rng)] for _ in range(rows)),
    ]


def _close(page: Page) -> None:
    rng = page.rng
    if page.y > page.bottom - 50:
        return
    indent = rng.choice([0, page.measure * 0.55])
    page.line(rng.choice(["Sincerely,", "Yours truly,", "Very truly yours,", "With best regards,"]), indent=indent)
    page.signature(page.left + indent, page.y + page.size * 2)
    page.skip(3)
    page.line(words.person(rng), indent=indent)
    if rng.random() < 0.4:
        page.line(rng.choice(["Enclosure", "cc: " + words.person(rng), "Director of Research"]), indent=indent)


def _ruled_paper(page: Page, step: float) -> None:
    grey = page.rng.choice([120, 170, 200])
    y = page.y + step
    while y < page.height:
        page.draw.line((0, y + 2, page.width, y + 2), grey)
        y += step
    if page.rng.random() < 0.5:
        page.draw.line((page.left - 8, 0, page.left - 8, page.height), grey, 2)
