"""The page in a headless Chromium: filter, search, sort, keyboard, phone, dark and light, ten thousand samples."""

import json

import pytest

from rlcf.report.main import main
from tests.records import captioned, classified, retrieved, unreadable, write_run

KINDS = [(0, 1, 0), (1, 1, 2), (2, 2, 2), (0, 2, 1)]  # label, zero-shot, adapted: fixed, spoilt, unchanged twice
EVIL = ["</script><img src=x onerror=alert(1)>cat", "<b>dog</b>", "owl\x1b\u202e"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows():
    """Forty samples of three classes, two given up and two unreadable; the rewards rise with the index."""
    found = [classified(i, *KINDS[i % 4], rewards=(0.5, 0.5 + 0.01 * i, 0.2)) for i in range(36)]
    found += [classified(36 + i, 0, 1, 1, status="non-finite") for i in range(2)]
    return found + [unreadable(38 + i, label=2, label_name="owl") for i in range(2)]


@pytest.fixture(scope="module")
def file(rows, tmp_path_factory):
    """The page of a run with these samples."""
    root = tmp_path_factory.mktemp("page")
    main([str(write_run(root, {"folder": rows})), "--output", str(root / "page.html")])
    return root / "page.html"


@pytest.fixture
def shown(browser):
    """The ids of the samples in the list, as far as they are drawn, from the top."""
    told = "[...document.querySelectorAll('.card button')].map(b => [+b.dataset.position, b.lastChild.textContent])"
    return lambda: [text for _, text in sorted(browser.run(told))]


def count(browser):
    return browser.run("document.getElementById('count').textContent")


def click(browser, selector):
    browser.run(f"document.querySelector({json.dumps(selector)}).click()")
    browser.frame()


def test_the_filters_show_what_they_say(look, file, shown):
    page = look(file)
    names = "[...document.querySelectorAll('#filters button')].map(b => b.textContent)"
    assert page.run(names) == ["all 40", "fixed 9", "spoilt 9", "unchanged 18", "not finite 2", "unreadable 2"]
    for kind, number in (("fixed", 9), ("spoilt", 9), ("unchanged", 18), ("not finite", 2), ("unreadable", 2)):
        click(page, f"#filters [data-kind='{kind}']")
        assert count(page) == f"{number} of 40 samples" and all(text.startswith(kind) for text in shown())
        assert page.run("document.querySelector('#filters [aria-pressed=true]').dataset.kind") == kind
    assert shown()[0].endswith("no image")  # why it could not be read


def test_search_finds_names_and_files_in_any_order_of_words(look, file, rows):
    page = look(file)
    page.run("document.getElementById('search').focus()")
    page.type("OWL")
    owls = sum("owl" in {row.get("label_name"), row.get("zero_shot_name"), row.get("adapted_name")} for row in rows)
    assert count(page) == f"{owls} of 40 samples"
    page.type(" 38.p")
    assert count(page) == "1 of 40 samples"
    page.type("x")
    assert count(page) == "0 of 40 samples" and page.run("document.querySelectorAll('.card').length") == 0


def test_samples_are_sorted_by_their_reward_gain(look, file, rows):
    page = look(file)
    page.run("const s = document.getElementById('sort'); s.value = '1'; s.dispatchEvent(new Event('change'))")
    page.frame()
    click(page, ".card button")
    # The largest gain: the spoilt sample 1, whose answer's reward falls least below; worked out from the records.
    gains = {row["id"]: gain_of(row) for row in rows if row["status"] != "unreadable"}
    best = max(gains.values())
    title = page.run("document.getElementById('detail-title').textContent")
    assert gains[title.split(": ")[1]] == pytest.approx(best)


def gain_of(row):
    views = row["steps"][0]

    def reward(place):
        found = [r[a.index(place)] for a, r in zip(views["answers"], views["rewards"], strict=True)]
        return sum(found) / len(found)

    return reward(row["adapted"]) - reward(row["zero_shot"])


def test_the_keyboard_reaches_every_sample_and_its_steps(look, file):
    page = look(file)
    focused = "document.activeElement.dataset.position"
    page.run("document.getElementById('sort').focus()")
    page.press("Tab")
    assert page.run(focused) == "0"  # one stop for the whole list
    page.press("ArrowRight")
    assert page.run(focused) == "1"
    page.press("ArrowDown")
    assert page.run(focused) == "4"  # three cards a row
    page.press("End")
    assert page.run(focused) == "39"
    page.press("Home")
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter")
    page.wait("document.querySelectorAll('dialog .steps tbody tr').length > 0")
    cells = "[...document.querySelectorAll('dialog .steps tr')].map(r => [...r.cells].map(c => c.innerText.trim()))"
    table = page.run(cells)
    assert table[0] == ["view", "sampled answer", "reward", "advantage"]
    assert [row[0] for row in table[1:]] == ["centre", "", "", "crop 7", "", ""]
    assert "cat" in table[1][1] and "right:" in table[1][1] and table[1][2] == "0.500"
    page.press("ArrowRight")
    assert page.run("document.getElementById('detail-title').textContent") == "2 of 40: 1.png"
    page.press("Escape")
    assert page.run("document.querySelector('dialog').open") is False and page.run(focused) == "1"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_follows_light_and_dark_and_can_be_read_in_both(look, file, dark):
    page = look(file, dark=dark)
    contrast = """(() => {
        const light = (colour) => {
            const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
            const [r, g, b] = colour.match(/[\\d.]+/g).map(v => linear(v / 255));
            return .2126 * r + .7152 * g + .0722 * b;
        };
        const page = light(getComputedStyle(document.body).backgroundColor);
        const told = ['h1', 'td', '.muted', '.is-right', '.is-wrong', 'svg.figure text', 'select'];
        return [page, ...told.map(s => {
            const style = getComputedStyle(document.querySelector(s));
            const ink = light(s.startsWith('svg') ? style.fill : style.color);
            return (Math.max(ink, page) + .05) / (Math.min(ink, page) + .05);
        })];
    })()"""
    background, *contrasts = page.run(contrast)
    assert (background < 0.05) == dark and min(contrasts) > 4.5


@pytest.mark.parametrize("task", ["classification", "retrieval", "captioning"])
def test_a_phone_scrolls_in_one_direction_alone(write_run, report, look, rows, task):
    long = "averyveryveryverylongwordthatisnotbrokenanywhere" * 2
    records = {
        "classification": rows,
        "retrieval": [retrieved(i, (2, 1), query=f"{long} {i}") for i in range(6)],
        "captioning": [captioned(i, long, f"{long} {i}", (0.5, 0.6)) for i in range(9)],
    }[task]
    name = {"classification": "folder", "retrieval": "json:x-t2i", "captioning": "folder"}[task]
    folders = [write_run({name: records}, f"{number}{long}", task=task, lr=0.1 * (1 + number)) for number in range(2)]
    page = look(report(*folders).file, width=390, height=844)
    assert page.run("document.documentElement.scrollWidth") == 390
    click(page, ".card button")
    page.wait("document.querySelector('dialog .inside').children.length > 1")
    fits = "(d => d.scrollWidth <= d.clientWidth && d.getBoundingClientRect().width <= innerWidth)"
    assert page.run(f"{fits}(document.querySelector('dialog'))")


def test_right_and_wrong_are_told_by_more_than_colour(look, file):
    page = look(file)
    text = page.run("document.querySelector('.card').innerText")
    assert "✗" in text and "✓" in text and "wrong:" in text and "right:" in text


def test_names_that_are_code_run_nowhere(write_run, report, look):
    rows = [classified(i, 0, 1, 2, names=EVIL, id=f"{i}<i>x.png") for i in range(3)]
    page = look(report(write_run({"folder": rows}, "<u>run")).file)
    click(page, ".card button")
    page.wait("document.querySelectorAll('dialog .steps tbody tr').length > 0")
    assert page.run("document.querySelectorAll('b b, u, main i:not(.meter i), img[src=x]').length") == 0
    assert EVIL[0] in page.run("document.querySelector('dialog').innerText")
    assert r"owl\x1b\u202e" in page.run("document.querySelector('dialog').innerText")


def test_classes_are_sorted_by_a_click(look, file):
    page = look(file)
    names = "[...document.querySelectorAll('.sortable tbody th')].map(c => c.textContent)"
    assert sorted(page.run(names)) == ["cat", "dog", "owl"]
    click(page, ".sortable th button")
    assert page.run(names) == ["cat", "dog", "owl"]
    click(page, ".sortable th button")
    assert page.run(names) == ["owl", "dog", "cat"]


def test_another_part_is_shown_when_it_is_chosen(write_run, report, look, rows):
    folders = [write_run({"folder:a": rows, "folder:b": rows[: 5 + i]}, f"run{i}") for i in range(2)]
    page = look(report(*folders).file)
    seen = "[...document.querySelectorAll('section.part:not([hidden]) h2')].map(h => h.innerText)"
    assert page.run(seen) == ["run0: folder:a 38 samples"] and count(page) == "40 of 40 samples"
    page.run("const c = document.getElementById('choose'); c.value = '3'; c.dispatchEvent(new Event('change'))")
    page.frame()
    assert page.run(seen) == ["run1: folder:b 6 samples"] and count(page) == "6 of 6 samples"


def test_ten_thousand_samples_are_drawn_a_screen_at_a_time(write_run, report, look):
    rows = [classified(i, *KINDS[i % 4]) | {"steps": []} for i in range(10_000)]
    done = report(write_run({"folder": rows}, pictures=False), "--pictures", 0)
    assert len(done.page) < 4e6
    page = look(done.file)
    assert count(page) == "10,000 of 10,000 samples"
    for share in (0.0, 0.37, 1.0):
        page.run(f"scrollTo(0, {share} * (document.documentElement.scrollHeight - innerHeight))")
        page.frame()
        assert 0 < page.run("document.querySelectorAll('.card').length") < 60
        inside = "[...document.querySelectorAll('.card')].some(c => c.getBoundingClientRect().top < innerHeight / 2)"
        assert page.run(inside) or share == 0.0
    page.run("document.querySelector('.card button').focus()")
    page.press("End")
    assert page.run("document.activeElement.dataset.position") == "9999"
    assert page.run("(r => r.top >= 0 && r.bottom <= innerHeight)(document.activeElement.getBoundingClientRect())")


def test_thumbnails_are_decoded_from_the_page(look, file):
    page = look(file)
    page.run("Promise.all([...document.images].map(i => i.decode()))")
    sizes = page.run("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])")
    assert sizes and all(size == [8, 8] for size in sizes)
