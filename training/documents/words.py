"""What the made-up pages say: names, dates, amounts and sentences from small word lists. Nobody real is meant."""

from random import Random
from typing import Final

_FIRST: Final = (
    *("Ada", "Boris", "Carla", "Daniel", "Elena", "Farid", "Greta", "Hugo", "Irene", "Jonas", "Karin", "Leon", "Mara"),
    *("Nadia", "Oscar", "Paula", "Quentin", "Rosa", "Samuel", "Tessa", "Umar", "Vera", "Walter", "Yara", "Zoltan"),
)
_LAST: Final = (
    *("Abbott", "Bergmann", "Castillo", "Dawson", "Eriksen", "Fontaine", "Garrity", "Hollis", "Ivanov", "Jensen"),
    *("Keller", "Lindqvist", "Moreau", "Novak", "Okafor", "Pellegrini", "Quigley", "Rahman", "Sorensen", "Tanaka"),
    *("Ulrich", "Vasquez", "Whitcomb", "Xu", "Yardley", "Zimmer"),
)
_COMPANY: Final = (
    *(
        "Northfield",
        "Alder",
        "Crown Point",
        "Meridian",
        "Harbour",
        "Silverton",
        "Pioneer",
        "Westgate",
        "Calder",
        "Union",
    ),
    *("Redwood", "Summit", "Lakeshore", "Granite", "Orchard", "Beacon", "Falcon", "Juniper", "Castle", "Prairie"),
)
_TRADE: Final = (
    *("Laboratories", "Paper Mills", "Insurance", "Foods", "Research Institute", "Shipping", "Instruments", "Textiles"),
    *("Publishing", "Electric", "Seed Company", "Tobacco", "Railway", "Chemicals", "Brewing", "Advertising", "Bank"),
)
_STREET: Final = (
    "Mill",
    "Church",
    "Station",
    "River",
    "Market",
    "Oak",
    "Harvest",
    "College",
    "Bridge",
    "Garden",
    "Park",
)
_CITY: Final = (
    *("Ashford", "Brookhaven", "Clayton", "Dunmore", "Easton", "Fairview", "Greenport", "Hartwell", "Kingsbury"),
    *("Linden", "Marlow", "Newbridge", "Oakdale", "Portland", "Ridgefield", "Salem", "Thornton", "Waverly"),
)
_MONTH: Final = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November"),
    "December",
)
_ADJECTIVE: Final = (
    *("annual", "preliminary", "revised", "attached", "recent", "regional", "proposed", "final", "monthly", "internal"),
    *("second", "confidential", "average", "independent", "current", "previous", "additional", "chemical", "public"),
)
_NOUN: Final = (
    *("report", "budget", "sample", "shipment", "contract", "survey", "meeting", "laboratory", "campaign", "invoice"),
    *("committee", "schedule", "estimate", "analysis", "market", "filter", "machine", "warehouse", "customer", "study"),
    *("product", "agreement", "office", "research", "department", "supplier", "test", "material", "order", "group"),
)
_VERB: Final = (
    *("confirms", "requires", "includes", "supports", "replaces", "exceeds", "describes", "follows", "affects"),
    *("delays", "reduces", "covers", "explains", "precedes", "measures", "improves", "shows", "questions"),
)
_TAIL: Final = (
    *("by the end of the month", "in the second quarter", "as discussed on the telephone", "without further cost"),
    *("under the present terms", "in all four regions", "for the coming year", "with the help of our staff", "at once"),
    *("according to the enclosed table", "since the last meeting", "within ten working days", "on two occasions"),
)
_OPENING: Final = (
    *("As you know,", "In addition,", "However,", "For this reason,", "At present,", "We believe that", "Last week"),
    *("It appears that", "Please note that", "In our opinion", "To our knowledge,", "In general,", "On the whole,"),
)
_SELLING: Final = (
    *("fresh", "smooth", "bright", "taste", "pure", "pleasure", "comfort", "style", "value", "quality", "new", "extra"),
    *("summer", "freedom", "flavour", "better", "light", "rich", "today", "discover", "enjoy", "only", "more", "free"),
)
_SKILLS: Final = (
    *("Chemistry", "Accounting", "Marketing", "Statistics", "Engineering", "Nursing", "Economics", "Law", "Biology"),
    *("Physics", "Editing", "Purchasing", "Design", "Teaching", "Quality Control", "Public Relations", "Agronomy"),
)


def person(rng: Random) -> str:
    """A first name, often an initial, and a family name."""
    middle = f" {rng.choice('ABCDEFGHJKLMPRSTW')}." if rng.random() < 0.4 else ""
    return f"{rng.choice(_FIRST)}{middle} {rng.choice(_LAST)}"


def company(rng: Random) -> str:
    """A firm's name."""
    return f"{rng.choice(_COMPANY)} {rng.choice(_TRADE)}" + rng.choice(["", "", ", Inc.", " Ltd.", " & Co."])


def address(rng: Random) -> list[str]:
    """Street and city, two lines."""
    street = f"{rng.randint(1, 2400)} {rng.choice(_STREET)} {rng.choice(['Street', 'Road', 'Avenue', 'Lane'])}"
    return [
        street,
        f"{rng.choice(_CITY)}, {rng.choice('ACIKLMNOPVW')}{rng.choice('AEIKNTXY')} {rng.randint(10000, 99999)}",
    ]


def date(rng: Random) -> str:
    """A date between 1960 and 2009, in one of three spellings."""
    day, month, year = rng.randint(1, 28), rng.randrange(12), rng.randint(1960, 2009)
    return rng.choice(
        [f"{_MONTH[month]} {day}, {year}", f"{day} {_MONTH[month][:3]} {year}", f"{month + 1}/{day}/{year % 100:02d}"]
    )


def phone(rng: Random) -> str:
    """A telephone number."""
    return f"({rng.randint(200, 989)}) 555-{rng.randint(100, 9999):04d}"


def amount(rng: Random, largest: int = 90000) -> str:
    """A sum with thousands separators."""
    value = rng.randint(1, largest)
    return f"{value:,}.{rng.randrange(100):02d}" if rng.random() < 0.7 else f"{value:,}"


def item(rng: Random) -> str:
    """Something that can be ordered, counted or budgeted for."""
    return f"{rng.choice(_ADJECTIVE)} {rng.choice(_NOUN)}".capitalize()


def noun(rng: Random) -> str:
    """One word, capitalised: a heading of a column, the caption of a field."""
    return rng.choice(_NOUN).capitalize()


def skill(rng: Random) -> str:
    """A field of work or study."""
    return rng.choice(_SKILLS)


def title(rng: Random) -> str:
    """A heading of three to nine words."""
    first = f"{rng.choice(_ADJECTIVE)} {rng.choice(_NOUN)}"
    joint = rng.choice(["of the", "for the", "and", "in the", "on the"])
    words = f"{first} {joint} {rng.choice(_ADJECTIVE)} {rng.choice(_NOUN)}" if rng.random() < 0.8 else f"the {first}"
    return words.title()


def slogan(rng: Random, count: int) -> str:
    """`count` words that want to sell something."""
    return " ".join(rng.choice(_SELLING) for _ in range(count))


def sentence(rng: Random) -> str:
    """A grammatical sentence of about 8 to 20 words that means nothing."""
    words = f"the {rng.choice(_ADJECTIVE)} {rng.choice(_NOUN)} {rng.choice(_VERB)} the {rng.choice(_NOUN)}"
    if rng.random() < 0.6:
        words += f" {rng.choice(_TAIL)}"
    if rng.random() < 0.3:
        words += f", and the {rng.choice(_NOUN)} {rng.choice(_VERB)} our {rng.choice(_ADJECTIVE)} {rng.choice(_NOUN)}"
    words = f"{rng.choice(_OPENING)} {words}" if rng.random() < 0.35 else words[0].upper() + words[1:]
    return words + "."


def prose(rng: Random, sentences: int) -> str:
    """So many sentences, as one string."""
    return " ".join(sentence(rng) for _ in range(sentences))


def question(rng: Random) -> str:
    """A survey's question."""
    start = rng.choice(
        ["How often do you use the", "Are you satisfied with the", "Have you heard of the", "What do you think of the"]
    )
    return f"{start} {rng.choice(_ADJECTIVE)} {rng.choice(_NOUN)}" + rng.choice(["?", f" {rng.choice(_TAIL)}?"])
