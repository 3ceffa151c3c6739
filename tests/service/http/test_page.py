"""The page at `/` in a real browser: images in, labels out; errors, unknown, and nothing from anywhere else."""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, Route, expect, sync_playwright

from service.request import MAX_TOP_K
from tests.pictures import COLOURS, encode, plain
from tests.running import Service

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_BROWSER = os.environ.get("GRAFT_TEST_BROWSER") or next(filter(None, map(shutil.which, _BROWSERS)), None)
_MAPS = "Show what spoke for the label"
expect.set_options(timeout=60_000)
needs_browser = pytest.mark.skipif(_BROWSER is None, reason=f"needs one of {', '.join(_BROWSERS)}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless browser, the one that is installed."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=_BROWSER, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """The page of the shared service."""
    yield from _open(browser, service)


@pytest.fixture
def mapped_page(browser: Browser, mapped_service: Service) -> Iterator[Page]:
    """The page of the service that is not sure of greys and has class activation maps."""
    yield from _open(browser, mapped_service)


def _open(browser: Browser, service: Service) -> Iterator[Page]:
    """The page, with its list of models loaded; fails when it complains or asks anybody else."""
    opened = browser.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda said: complaints.append(said.text) if "Content Security Policy" in said.text else None)
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(f"{service.http}/")
    expect(opened.locator("#model option")).to_have_count(1)
    yield opened
    assert not complaints
    assert all(url.startswith((service.http, "data:", f"blob:{service.http}")) for url in asked)
    opened.close()


def _give(page: Page, names: Sequence[str], files: Sequence[bytes]) -> None:
    payloads: list[FilePayload] = [
        {"name": name, "mimeType": "image/png", "buffer": file} for name, file in zip(names, files, strict=True)
    ]
    page.locator("#files").set_input_files(payloads)


@needs_browser
def test_upload(page: Page):
    """One image: its label, a bar and a score for each label, the timing, and that it is done."""
    _give(page, ["a red one.png"], [plain("red")])
    card = page.locator("article")
    expect(card.locator("h2")).to_have_text("red")
    expect(card.locator("tbody tr")).to_have_count(len(COLOURS))
    expect(card.locator(".timing")).to_contain_text("inference")
    expect(card.locator("img")).to_have_attribute("alt", "a red one.png: red")
    expect(page.locator("#status")).to_have_text("1 classified")
    best = card.locator(".bar").first.bounding_box()
    second = card.locator(".bar").nth(1).bounding_box()
    assert best
    assert second
    assert best["width"] > second["width"]


@needs_browser
def test_several(page: Page):
    """Many at once, more than are sent at a time: each gets its own label, in the order given."""
    colours = [*COLOURS, *COLOURS]
    _give(page, [f"{at}.png" for at in range(8)], [plain(colour) for colour in colours])
    expect(page.locator("#status")).to_have_text("8 classified")
    expect(page.locator("article h2")).to_have_text(colours)


@needs_browser
def test_an_error_is_shown_beside_the_others(page: Page):
    """A file that is no image says so in its own card; its neighbour is classified."""
    _give(page, ["broken.png", "blue.png"], [b"no image at all", plain("blue")])
    expect(page.locator("#status")).to_have_text("2 classified, 1 of them failed")
    expect(page.locator("article").first.locator(".error")).to_contain_text("UNSUPPORTED_FORMAT")
    expect(page.locator("article").nth(1).locator("h2")).to_have_text("blue")


@needs_browser
def test_unknown_is_shown_as_such(mapped_page: Page):
    """A score below the version's threshold: the word, not the label, and bars that say so in colour."""
    _give(mapped_page, ["grey.png", "red.png"], [plain("grey"), plain("red")])
    cards = mapped_page.locator("article")
    expect(cards.first.locator("h2")).to_have_text("unknown perhaps grey")
    expect(cards.first.locator("tr.low")).to_have_count(len(COLOURS))
    expect(cards.nth(1).locator("h2")).to_have_text("red")
    expect(cards.nth(1).locator(".badge, tr.low")).to_have_count(0)


@needs_browser
def test_the_overlay_lies_where_the_model_looked(mapped_page: Page):
    """Asked for after the answer: a map of the middle square that the model saw, strongest on the red corner."""
    picture = Image.new("RGB", (320, 160), (90, 90, 90))
    picture.paste((230, 20, 20), (80, 0, 160, 80))
    _give(mapped_page, ["corner.png"], [encode(picture, "PNG")])
    expect(mapped_page.locator("article h2")).to_have_text("red")
    expect(mapped_page.locator("canvas")).to_have_count(0)
    mapped_page.get_by_label(_MAPS).check()
    overlay = mapped_page.get_by_role("img", name="Red where the picture spoke most for red")
    expect(overlay).to_be_visible()
    around, inside = mapped_page.locator("article img").bounding_box(), overlay.bounding_box()
    assert around
    assert inside
    seen = [(inside["x"] - around["x"]) / around["width"], inside["width"] / around["width"]]
    assert [*seen, inside["height"] / around["height"]] == pytest.approx([0.25, 0.5, 1], abs=0.01)
    opacity = overlay.evaluate(
        """canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]
            .filter((_, at) => at % 4 === 3)"""
    )
    assert (np.reshape(opacity, (4, 4)) > 75).tolist() == np.kron([[1, 0], [0, 0]], np.ones((2, 2))).astype(
        bool
    ).tolist()


@needs_browser
def test_without_maps_there_are_labels_all_the_same(page: Page):
    """A version that has none: the answer stays, and says so."""
    page.get_by_label(_MAPS).check()
    _give(page, ["red.png"], [plain("red")])
    expect(page.locator("article h2")).to_have_text("red")
    expect(page.locator("article")).to_contain_text("This version cannot show what spoke for the label.")


@needs_browser
def test_snippets_ask_as_the_page_did_in_the_end(page: Page):
    """A version that has refused a map: the snippets do not ask for one."""
    page.get_by_label(_MAPS).check()
    expect(page.locator("#text")).to_contain_text("activation_map=1")
    _give(page, ["red.png"], [plain("red")])
    expect(page.locator("article")).to_contain_text("This version cannot show")
    expect(page.locator("#text")).not_to_contain_text("activation_map")


@needs_browser
def test_an_answer_outlives_its_map(mapped_page: Page):
    """A second request that fails leaves label and scores, says so, and hides nothing when it works the next time."""
    _give(mapped_page, ["red.png"], [plain("red")])
    card = mapped_page.locator("article")
    expect(card.locator("h2")).to_have_text("red")
    mapped_page.route("**/classify?*", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    mapped_page.get_by_label(_MAPS).check()
    expect(card.locator(".timing").first).to_contain_text("What spoke for the label did not come")
    expect(card.locator("h2")).to_have_text("red")
    expect(card.locator("tbody tr")).to_have_count(len(COLOURS))
    expect(mapped_page.get_by_role("status")).to_have_text("1 classified")
    mapped_page.unroute("**/classify?*")
    mapped_page.get_by_label(_MAPS).uncheck()
    mapped_page.get_by_label(_MAPS).check()
    expect(card.locator("canvas")).to_be_visible()
    expect(card).not_to_contain_text("did not come")


@needs_browser
def test_maps_are_asked_for_once_and_hidden_again(mapped_page: Page):
    """While they come the page says so; who ticks, unticks and ticks again asks no second time, and may hide them."""
    _give(mapped_page, [f"{at}.png" for at in range(6)], [plain("red")] * 6)
    expect(mapped_page.get_by_role("status")).to_have_text("6 classified")
    asked: list[str] = []
    mapped_page.on("request", lambda request: asked.append(request.url))
    held: list[Route] = []
    released: list[bool] = []
    mapped_page.route("**/classify?*", lambda route: route.continue_() if released else held.append(route))
    tick = mapped_page.get_by_label(_MAPS)
    tick.check()
    expect(mapped_page.get_by_role("status")).to_have_text("Looking for what spoke for the label ...")
    expect(mapped_page.locator("article[aria-busy=true]")).to_have_count(6)
    tick.uncheck()
    tick.check()
    released.append(True)
    for route in held:
        route.continue_()
    expect(mapped_page.get_by_role("status")).to_have_text("6 classified")
    expect(mapped_page.locator("canvas:visible")).to_have_count(6)
    tick.uncheck()
    expect(mapped_page.locator("canvas:visible")).to_have_count(0)
    tick.check()
    expect(mapped_page.locator("canvas:visible")).to_have_count(6)
    expect(mapped_page.locator("article[aria-busy=true]")).to_have_count(0)
    assert len([url for url in asked if "activation_map" in url]) == 6


@needs_browser
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": 502, "body": "<h1>Bad gateway</h1>"}, "HTTP 502"),
        ({"status": 404, "json": {"message": "not here"}}, "HTTP 404"),
        ({"status": 400, "json": {"code": "INVALID_REQUEST", "detail": "no"}}, "INVALID_REQUEST no"),
        (None, "NO_ANSWER The service did not answer."),
    ],
)
def test_a_failure_says_what_it_was_and_can_be_tried_again(page: Page, answer: dict[str, object] | None, said: str):
    """What a proxy says, what the service says, and nothing at all are told apart; the same card gets its label."""
    page.route("**/classify", lambda route: route.fulfill(**answer) if answer else route.abort())
    _give(page, ["red.png"], [plain("red")])
    expect(page.locator("article .error")).to_contain_text(said)
    expect(page.get_by_role("status")).to_have_text("1 classified, 1 of them failed")
    page.unroute("**/classify")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("article h2")).to_have_text("red")
    expect(page.locator("article")).to_be_focused()
    expect(page.get_by_role("status")).to_have_text("1 classified")


@needs_browser
def test_a_busy_service_is_asked_again(page: Page):
    """A card whose image was refused for now says that it will be tried again, and then has its label."""
    busy = [True]
    page.route(
        "**/classify",
        lambda route: route.fulfill(status=429, headers={"Retry-After": "2"}, json={}) if busy else route.continue_(),
    )
    _give(page, ["red.png"], [plain("red")])
    expect(page.locator("article h2")).to_have_text("Busy, trying again ...")
    busy.clear()
    expect(page.locator("article h2")).to_have_text("red")


@needs_browser
def test_a_folder_is_no_image(page: Page, tmp_path: Path):
    """Dropped among images: its card says what it is, rather than that the service is silent."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "red.png").write_bytes(plain("red"))
    box = page.locator("#drop").bounding_box()
    assert box
    dropped = {"items": [], "files": [str(tmp_path / "photos"), str(tmp_path / "red.png")], "dragOperationsMask": 1}
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": box["x"] + 5, "y": box["y"] + 5}
        devtools.send("Input.dispatchDragEvent", {"type": kind, **at, "data": dropped})
    expect(page.get_by_role("status")).to_have_text("2 classified, 1 of them failed")
    expect(page.locator(".error")).to_have_text("UNREADABLE This is a folder or cannot be read.")


@needs_browser
def test_looking_for_models_changes_nothing_where_nothing_is_new(page: Page):
    """The regular look leaves options and snippet as they are; a service that was away is forgotten when it is back."""
    _give(page, ["red.png"], [plain("red")])
    expect(page.get_by_role("status")).to_have_text("1 classified")
    page.evaluate("[...document.querySelectorAll('option')].forEach(one => one.before = true)")
    before = page.evaluate_handle("byId('text').firstChild")
    page.evaluate("readModels()")
    assert page.evaluate("[...document.querySelectorAll('option')].every(one => one.before)")
    assert page.evaluate("before => before === byId('text').firstChild", before)
    page.route("**/readyz", lambda route: route.abort())
    page.evaluate("readModels()")
    expect(page.get_by_role("status")).to_have_text("The service cannot be reached.")
    page.unroute("**/readyz")
    page.evaluate("readModels()")
    expect(page.get_by_role("status")).to_have_text("1 classified")
    expect(page.get_by_role("status")).not_to_have_class("bad")


@needs_browser
def test_the_number_of_labels_is_the_services_to_bound(page: Page):
    """Up to what the service gives; beyond it the browser says so, and what was typed is not changed on the way."""
    labels = page.get_by_label("Labels shown")
    expect(labels).to_have_attribute("max", str(MAX_TOP_K))
    for number, valid in (("0", False), (str(MAX_TOP_K), True), (str(MAX_TOP_K + 1), False)):
        labels.fill(number)
        labels.blur()
        assert labels.evaluate("one => one.checkValidity()") is valid
        expect(page.locator("#text")).to_contain_text(f"top_k={number}'")
    _give(page, ["red.png"], [plain("red")])
    expect(page.locator(".error")).to_contain_text(f"1 to {MAX_TOP_K}, got")


@needs_browser
def test_many_images_are_counted_rather_than_read_aloud(page: Page):
    """Of a dozen at once the live regions say that it is going on, and at the end how many there are."""
    page.evaluate(
        """() => {
            window.said = [];
            new MutationObserver(() => said.push(byId("status").textContent))
                .observe(byId("status"), { childList: true, characterData: true, subtree: true });
        }"""
    )
    _give(page, [f"{at}.png" for at in range(12)], [plain("red")] * 12)
    expect(page.get_by_role("status")).to_have_text("12 classified")
    assert page.evaluate("said") == ["Classifying 12 images ...", "12 classified"]
    expect(page.get_by_role("log").locator("p")).to_have_count(0)


@needs_browser
@pytest.mark.parametrize("copies", [True, False])
def test_a_snippet_that_is_not_copied_says_so(page: Page, copies: bool):
    """A browser may refuse its clipboard: then the text is selected, and the page says what to do."""
    page.evaluate(
        """copies => {
            navigator.clipboard.writeText = async () => { throw new DOMException("no", "NotAllowedError"); };
            document.execCommand = () => copies;
        }""",
        copies,
    )
    _give(page, ["red.png"], [plain("red")])
    page.locator("summary").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copied")).to_have_text("Copied" if copies else re.compile("did not copy"))
    assert page.evaluate("`${getSelection()}`").startswith("curl ")


@needs_browser
def test_by_keyboard_and_by_ear(page: Page):
    """Tab reaches everything in the order that it is seen, Enter chooses files, and each answer is said once."""
    files: list[FilePayload] = [
        {"name": name, "mimeType": "image/png", "buffer": file}
        for name, file in (("red.png", plain("red")), ("none.png", b"text"))
    ]
    page.on("filechooser", lambda chooser: chooser.set_files(files))
    page.evaluate("document.body.focus()")
    reached = []
    for _ in range(11):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    nav = ["Metrics", "State", "HTTP interface"]
    assert reached == ["Skip to the results", "report", *nav, "model", "version", "top_k", "map", "files", "camera"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("2 classified, 1 of them failed")
    expect(page.get_by_role("log").locator("p")).to_have_count(2)
    said = sorted(page.get_by_role("log").locator("p").all_inner_texts())
    assert said[0].startswith("none.png: expected a JPEG")
    assert re.fullmatch(r"red\.png: red, \d+\.\d %", said[1])


@needs_browser
def test_options_reach_the_request_and_the_snippets(page: Page, service: Service):
    """Version and number of labels: in the answer, and in what a program would send."""
    page.locator("#version").select_option("version=1")
    page.locator("#top_k").fill("2")
    page.locator("#top_k").blur()
    _give(page, ["it's green.png"], [plain("green")])
    expect(page.locator("article tbody tr")).to_have_count(2)
    page.locator("summary").click()
    expect(page.locator("#text")).to_contain_text(f"{service.http}/classify?version=1&top_k=2")
    expect(page.locator("#text")).to_contain_text("'it'\\''s green.png'")
    page.locator("#tab-curl").press("ArrowRight")
    expect(page.locator("#text")).to_contain_text("requests.post")
    page.locator("#tab-Python").press("ArrowRight")
    expect(page.locator("#text")).to_contain_text(f'ImageClassifierStub(grpc.insecure_channel("{service.grpc}"))')


@needs_browser
def test_paste_and_clear(page: Page):
    """An image from the clipboard is classified; Clear leaves nothing behind, says so, and one may go on."""
    page.evaluate(
        """async (numbers) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(numbers)], "pasted.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
        }""",
        list(plain("red")),
    )
    expect(page.locator("article h2")).to_have_text("red")
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("article")).to_have_count(0)
    expect(page.get_by_role("status")).to_have_text("Cleared")
    expect(page.locator("#files")).to_be_focused()


@needs_browser
@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_is_wider_than_the_screen(page: Page, width: int):
    """On a phone nothing has to be scrolled sideways, and what is to be touched is at least 44 px high."""
    page.set_viewport_size({"width": width, "height": 700})
    _give(page, ["a-name-that-is-very-long-and-has-no-space-in-it-at-all-as-cameras-make-them.png"], [plain("grey")])
    expect(page.locator("article h2")).to_have_text("grey")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for control in page.locator("select, .button, #clear, input[type=number]").all():
        box = control.bounding_box()
        assert box
        assert box["height"] >= 44


@needs_browser
@pytest.mark.parametrize("width", [320, 1280])
def test_long_labels_break_where_words_end_and_cut_nothing_off(page: Page, width: int):
    """Folders have underscores where others have spaces; a word longer than the column breaks anywhere."""
    labels = ["scientific_publication", "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerk"]
    top = [{"label": label, "score": 0.5} for label in labels]
    timing = {"queue": 0.1, "decode": 0.1, "inference": 0.1}
    result = {"label": labels[0], "score": 0.5, "unknown": False, "top": top, "timing_ms": timing, "batch_size": 1}
    answer = {"model": "pets", "version": 1, "results": [result]}
    page.set_viewport_size({"width": width, "height": 700})
    page.route("**/classify?*", lambda route: route.fulfill(json=answer))
    page.route("**/classify", lambda route: route.fulfill(json=answer))
    _give(page, ["a.png"], [plain("grey")])
    expect(page.locator("tbody th")).to_have_text(labels)
    assert page.locator("article").evaluate("card => card.scrollWidth <= card.clientWidth")
    lines_by_word = page.locator("tbody th span").first.evaluate(
        """span => [...span.childNodes].filter(one => one.nodeType === Node.TEXT_NODE).map(one => {
            const range = document.createRange();
            range.selectNode(one);
            return range.getClientRects().length;
        })"""
    )
    assert lines_by_word == [1, 1]


@needs_browser
def test_the_description_fits_a_phone(browser: Browser, service: Service):
    """/docs with everything opened has nothing to scroll sideways."""
    page = browser.new_page(viewport={"width": 320, "height": 700})
    page.goto(f"{service.http}/docs")
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.close()


@needs_browser
def test_a_link_of_the_index_opens_what_it_leads_to(browser: Browser, service: Service):
    """Every path of /docs is closed at first, but for one; its link shows it, summary and all."""
    page = browser.new_page(viewport={"width": 800, "height": 600})
    page.goto(f"{service.http}/docs")
    metrics = page.locator("details", has=page.locator("#metrics"))
    expect(metrics).not_to_have_attribute("open", "")
    page.locator("nav a[href='#metrics']").click()
    expect(metrics).to_have_attribute("open", "")
    expect(metrics.locator("summary")).to_be_in_viewport()
    page.close()


def test_nothing_outside_is_named():
    """The page's files name no other host, and no style or script stands in the HTML, where the policy forbids it."""
    static = Path(__file__).parents[3] / "service" / "http" / "static"
    for file in static.iterdir():
        text = file.read_text(encoding="utf-8")
        assert "https://" not in text
        assert "http://" not in text
        assert " style=" not in text


def test_report(service: Service):
    """A version without a report, an unknown version and an unknown model are not found, as problem documents."""
    for path in ("/reports/pets/1/", "/reports/pets/9/", "/reports/nobody/1/", "/reports/..%2f..%2fetc/1/"):
        assert service.get(path).status == 404
