"""The page in a real Chromium: what a person sees and does."""

import re

import pytest

from loratelier.adapter import store
from tests.studio.conftest import TOKEN, until


@pytest.fixture
def opened(chromium, address):
    """Open a room in a fresh browser; in the end its log must be empty."""
    said, contexts = [], []

    def open_room(room, *, width=1280, language="en-US", dark=False, context=None):
        if context is None:
            context = chromium.new_context(
                viewport={"width": width, "height": 860},
                locale=language,
                color_scheme="dark" if dark else "light",
            )
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        if not context.cookies():
            page.goto(f"{address}/?token={TOKEN}")
        page.goto(f"{address}/#/{room}")
        page.wait_for_selector("main h1")
        return page

    yield open_room
    for context in contexts:
        context.close()
    assert said == []


def show_field(page, prompt="The sea is"):
    page.select_option("form.ask select", "adapter:poet")
    page.fill("form.ask input.input", prompt)
    page.click("form.ask button.main")
    page.wait_for_selector("[role=slider]")


def drag(page, slider, share):
    """Drag a bar to a share of its track, as a hand does."""
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2, steps=6)
    page.mouse.up()


def test_a_bar_is_dragged_the_adapter_follows_and_both_tabs_agree(opened):
    page = opened("editor")
    show_field(page)
    other = opened("editor", context=page.context)
    show_field(other)
    slider = page.locator("[role=slider]").nth(2)
    label, before = slider.get_attribute("aria-label"), float(slider.get_attribute("aria-valuenow"))
    drag(page, slider, 0.6)
    page.wait_for_selector(".verdict")
    moved = page.get_by_role("slider", name=label, exact=True)
    page.wait_for_function("!document.querySelector('[aria-busy=true]')")
    reached = float(moved.get_attribute("aria-valuenow"))
    assert reached > before + 10
    theirs = other.get_by_role("slider", name=label, exact=True)
    until(lambda: float(theirs.get_attribute("aria-valuenow")) == reached, 20)
    page.keyboard.press("Control+z")
    until(lambda: float(moved.get_attribute("aria-valuenow")) == before, 20)
    until(lambda: float(theirs.get_attribute("aria-valuenow")) == before, 20)
    page.get_by_role("button", name=re.compile("Redo")).click()
    until(lambda: float(moved.get_attribute("aria-valuenow")) == reached, 20)
    page.get_by_label("Save as a new adapter").fill("poet-edited")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("“poet-edited” is in the store.").wait_for()
    assert "poet-edited" in store.names()
    page.reload()
    show_field(page)
    assert page.get_by_role("button", name=re.compile("Undo")).is_enabled()


def test_a_bar_moves_by_keys_alone(opened):
    page = opened("editor")
    show_field(page)
    slider = page.locator("[role=slider]").nth(1)
    label, before = slider.get_attribute("aria-label"), float(slider.get_attribute("aria-valuenow"))
    slider.focus()
    for key in ("PageUp", "PageUp", "ArrowRight"):
        page.keyboard.press(key)
    assert float(slider.get_attribute("aria-valuenow")) == pytest.approx(before + 21, abs=0.2)
    page.keyboard.press("Escape")
    assert float(slider.get_attribute("aria-valuenow")) == before
    for key in ("PageUp", "PageUp", "Enter"):
        page.keyboard.press(key)
    page.wait_for_selector(".verdict")
    now = page.get_by_role("slider", name=label, exact=True)
    until(lambda: float(now.get_attribute("aria-valuenow")) > before + 5, 20)


def test_a_finger_drags_too(opened, chromium, address):
    context = chromium.new_context(viewport={"width": 360, "height": 740}, has_touch=True)
    page = opened("editor", context=context)
    show_field(page)
    slider = page.locator("[role=slider]").nth(1)
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    y, points = box["y"] + box["height"] / 2, [0.05, 0.2, 0.4, 0.5]
    touch = context.new_cdp_session(page)
    for number, share in enumerate(points):
        at = [{"x": box["x"] + share * box["width"], "y": y}]
        kind = "touchMove" if number else "touchStart"
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_selector(".verdict")
    context.close()


def test_a_token_picked_in_one_picture_is_picked_in_all_within_300_ms(opened):
    page = opened("scope")
    page.select_option("form.ask select", "poet")
    page.fill("form.ask input.input", "What is the sea?")
    page.click("form.ask button.main")
    page.wait_for_selector("canvas[data-drawn]")
    page.wait_for_selector("main h2:has-text('Heads that look elsewhere')")
    assert page.evaluate(_PICK) < 300
    token = page.locator(".tokens .picked").text_content()
    assert page.locator("tr.picked th").text_content() == token
    assert page.get_by_role("heading", name=f"After “{token}”").is_visible()
    assert page.get_by_role("heading", name=f"from “{token}”").is_visible()
    # And back: a row of the lens picks the token of the text.
    page.locator("tbody th button", has_text="W").first.click()
    assert page.locator(".tokens .picked").text_content() == "W"
    page.locator("td button.cell").first.click()
    page.get_by_role("heading", name="Head 0 of layer 0").wait_for()


def test_columns_talk_and_a_reload_forgets_nothing(opened):
    page = opened("dialogue")
    page.select_option(".lane select", "poet")
    page.get_by_role("button", name="column").click()
    until(lambda: page.locator(".lane").count() == 2)
    page.get_by_role("textbox", name="Say something").fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Send").wait_for(timeout=120_000)
    assert page.locator(".assistant .quote").count() == 2
    answers = page.locator(".assistant .quote").all_text_contents()
    page.reload()
    page.locator(".assistant").nth(1).wait_for()
    assert page.locator(".assistant .quote").all_text_contents() == answers
    assert "poet ×1" in page.locator(".assistant").first.text_content()


@pytest.mark.parametrize(("language", "dark"), [("en-US", False), ("ru-RU", True)])
@pytest.mark.parametrize("width", [360, 1600])
def test_every_room_fits_its_screen_in_both_languages(opened, width, language, dark):
    page = opened("start", width=width, language=language, dark=dark)
    assert page.locator("html").get_attribute("lang") == language[:2]
    for room in ("start", "dialogue", "editor", "scope", "corpus", "train", "check", "compose"):
        page.goto(page.url.partition("#")[0] + f"#/{room}")
        page.wait_for_function("document.querySelector('[aria-current=page]')")
        page.wait_for_timeout(150)
        over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(over) <= 0, room
        unnamed = page.evaluate(
            """[...document.querySelectorAll('button, a, input, select, textarea')].filter(
              (each) => !each.textContent.trim() && !each.ariaLabel && !each.labels?.length
            ).map((each) => each.outerHTML)"""
        )
        assert unnamed == [], room


def test_language_and_theme_are_kept(opened):
    page = opened("start")
    page.get_by_role("button", name="Русский").click()
    page.get_by_role("heading", name="От ваших заметок к голосу").wait_for()
    page.locator(".switches button").nth(1).click()
    page.locator(".switches button").nth(1).click()
    page.reload()
    page.get_by_role("heading", name="От ваших заметок к голосу").wait_for()
    assert page.locator("html").get_attribute("data-theme") == "dark"


def test_a_map_of_512_tokens_draws_within_a_second(opened):
    page = opened("scope")
    page.select_option("form.ask select", "poet")
    page.locator("form.ask input[type=checkbox]").check()
    page.fill("form.ask input.input", ("The sea is old and it moves. " * 20)[:470])
    page.click("form.ask button.main")
    page.wait_for_selector("canvas[data-drawn]")
    drawn = page.locator("canvas[data-drawn]")
    assert int(drawn.get_attribute("width")) >= 470
    assert float(drawn.get_attribute("data-drawn")) < 1000


def test_notes_become_a_corpus_by_hand(opened, notes):
    page = opened("corpus")
    page.get_by_role("button", name="New corpus").click()
    page.get_by_label("Folder", exact=True).fill(str(notes))
    page.get_by_role("button", name="Open", exact=True).click()
    page.get_by_text("Files in it: 12").wait_for()
    page.get_by_label("Name", exact=True).fill("mine")
    page.get_by_role("button", name="Build", exact=True).click()
    page.get_by_text("Turn it over.").first.wait_for(timeout=60_000)
    page.get_by_role("button", name="Files", exact=True).click()
    assert page.locator("tbody tr").count() == 12


@pytest.mark.long
def test_the_whole_road_by_hand_on_the_demo_base(chromium, home_with_demo, demo_base):
    """From the sample notes to an adapter that was trained, talked to, looked at and dragged."""
    from loratelier.studio import create_app
    from tests.studio.conftest import listening

    where, end = listening(create_app(TOKEN, bases=(demo_base,)))
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, locale="en-US")
    page, said = context.new_page(), []
    page.set_default_timeout(60_000)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        page.goto(f"{where}/?token={TOKEN}")
        page.get_by_role("button", name="Sample notes").click()
        page.get_by_label("What to call it").fill("vault")
        page.get_by_role("button", name="Read the notes").click()
        page.get_by_role("button", name="Train", exact=True).click(timeout=180_000)
        page.get_by_role("button", name="Talk to it").click(timeout=1_800_000)
        page.get_by_role("textbox", name="Say something").fill("What is rest?")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Send").wait_for(timeout=300_000)
        assert page.locator(".assistant .quote").count() == 2
        page.goto(f"{where}/#/scope")
        page.fill("form.ask input.input", "What is rest?")
        page.click("form.ask button.main")
        page.wait_for_selector("canvas[data-drawn]", timeout=300_000)
        assert page.evaluate(_PICK) < 300
        page.goto(f"{where}/#/editor")
        page.fill("form.ask input.input", "The capital of France is")
        page.click("form.ask button.main")
        page.wait_for_selector("[role=slider]")
        page.locator("input.mono").fill(" London")
        page.get_by_role("button", name="Show", exact=True).click()
        london = page.get_by_role("slider", name="Probability of ·London", exact=True)
        london.wait_for()
        drag(page, london, 0.6)
        page.wait_for_selector(".verdict", timeout=180_000)
        until(lambda: abs(float(london.get_attribute("aria-valuenow")) - 60) < 4, 20)
    finally:
        context.close()
        end()
    assert said == []


# Until the moves, the row of the lens and the heads of the token that was picked are all there.
_PICK = """async () => {
  const tokens = [...document.querySelectorAll('.tokens button')];
  const before = performance.now();
  const answered = () => performance.getEntriesByType('resource')
    .some((each) => each.name.endsWith('/pick/4') && each.responseEnd > before);
  tokens[4].click();
  while (!answered() || !document.querySelector('tr.picked'))
    await new Promise(requestAnimationFrame);
  return performance.now() - before;
}"""
