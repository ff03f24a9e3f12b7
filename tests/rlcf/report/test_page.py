"""The page as a file: complete in itself, with texts that stay texts, and what the command says."""

import base64
import gzip
import itertools
import json
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from rlcf.report import figures
from rlcf.report.numbers import Value
from rlcf.report.page import settings_of
from rlcf.report.runs import read_runs
from tests.records import captioned, classified, retrieved, unreadable

EVIL = ["</script><script>told(1)</script>", "<img src=x onerror=told(2)>", "owl\x1b[2J\u202e\x00\ud800"]


class Tags(HTMLParser):
    """The elements of a page with their attributes, and what its scripts of data hold."""

    def __init__(self, text):
        super().__init__()
        self.found, self.data, self._id = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._id = dict(attrs).get("id") if tag == "script" else None

    def handle_data(self, data):
        if self._id:
            self.data[self._id] = self.data.get(self._id, "") + data


def rows_of(page, part=0):
    """The rows of a part of the page, with names in place of numbers."""
    held = json.loads(Tags(page).data[f"rows-{part}"])
    rows = [dict(zip(held["keys"], row, strict=True)) for row in held["rows"]]
    for row in rows:
        row["truth"] = [held["names"][i] for i in row["truth"]]
        row["answers"] = [held["names"][i] for i in row["answers"]]
    return rows


def steps_of(page, part=0, chunk=0):
    return json.loads(gzip.decompress(base64.b64decode(Tags(page).data[f"steps-{part}-{chunk}"])))


def test_a_page_asks_for_no_other_file(write_run, report):
    done = report(write_run({"folder": [classified(0, 0, 1, 0)]}))
    for _, attributes in Tags(done.page).found:
        for name in ("src", "href", "action", "srcset", "xlink:href", "data"):
            assert re.match(r"(#|data:)", attributes.get(name) or "#")
    assert "@import" not in done.page and not re.search(r"url\((?!#)", done.page)
    assert "default-src 'none'" in done.page and f"report: {done.file}" in done.printed


def test_names_and_captions_stay_text(write_run, report):
    rows = [classified(0, 0, 1, 2, names=EVIL), unreadable(1, label=1, label_name=EVIL[1], reason=EVIL[0])]
    done = report(write_run({"folder:<b>&": rows}, name="<i>run", method="tpt", prompt="<u>a photo of a"))
    tags = Tags(done.page)
    assert not {"b", "i", "u", "img"} & {tag for tag, _ in tags.found}
    assert sum(tag == "script" and "id" not in attributes for tag, attributes in tags.found) == 1  # the page's own
    assert "&lt;i&gt;run" in done.page and "&lt;u&gt;a photo of a" in done.page and "folder:&lt;b&gt;&amp;" in done.page
    row = rows_of(done.page)[0]
    assert row["answers"] == [EVIL[1], r"owl\x1b[2J\u202e\x00\ud800"] and row["truth"] == [EVIL[0]]
    assert not re.search("[\x00\x1b\u202e\ud800]", done.page)


def test_a_row_and_its_steps_tell_what_the_record_held(write_run, report):
    record = classified(0, 0, 1, 0)
    page = report(write_run({"folder": [record]})).page
    (row,) = rows_of(page)
    assert (row["id"], row["kind"], row["truth"], row["answers"]) == ("0.png", "fixed", ["cat"], ["dog", "cat"])
    assert (row["right"], row["gain"], row["pictures"]) == ([0, 1], -0.5, [0, -1, -1])
    held = steps_of(page)
    (((loss, views),),) = held["steps"]
    assert loss == -0.5 and [view for view, _ in views] == [0, 7]
    told = [(held["names"][name], reward, right) for name, reward, _, right in views[0][1]]
    assert told == [("cat", 0.5, 1), ("dog", 1.0, 0), ("owl", 0.25, 0)]


def test_texts_that_search_images_show_the_images_found(write_run, report):
    page = report(write_run({"json:x-t2i": [retrieved(i, (2, 1)) for i in range(6)]}, task="retrieval")).page
    row = rows_of(page)[0]
    pictures = Tags(page).data["pictures-0"].splitlines()
    assert row["pictures"] == [0, 1, 0] and len(pictures) == 3


def test_a_caption_that_was_left_out_has_no_reward_gain(write_run, report):
    page = report(write_run({"folder": [captioned(0, "a", "b", (None, 0.5))]}, task="captioning")).page
    (row,) = rows_of(page)
    assert (row["rewards"], row["gain"]) == ([None, 0.5], None)


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_that_is_not_finished_is_told(write_run, report, finished):
    folder = write_run({"folder": [classified(0, 0, 1, 0)]}, finished=finished)
    done = report(folder)
    said = f"{folder} is not finished: the report is of its samples so far"
    assert (said in done.printed, "Not finished:" in done.page) == (not finished, not finished)


def test_images_that_were_moved_are_told_and_found_again(write_run, report, tmp_path):
    folder = write_run({"folder": [classified(0, 0, 1, 0), classified(1, 0, 1, 0)]})
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    done = report(folder)
    assert f"2 of 2 images could not be read, such as {tmp_path}/images/0.png: the gallery shows these" in done.printed
    assert [row["pictures"][0] for row in rows_of(done.page)] == [-1, -1]
    again = report(folder, "--images", tmp_path / "elsewhere")
    assert "could not be read" not in again.printed and [row["pictures"][0] for row in rows_of(again.page)] == [0, 1]


def test_a_run_that_does_not_tell_where_its_images_are_is_shown_without(write_run, report):
    folder = write_run({"folder": [classified(0, 0, 1, 0)]})
    (folder / "folder" / "images.json").unlink()
    done = report(folder)
    assert f"nothing in {folder}/folder tells where its images are: give --images their folder" in done.printed
    assert rows_of(done.page)[0]["pictures"] == [-1, -1, -1]


def test_few_pictures_are_those_of_samples_that_changed(write_run, report):
    rows = [classified(i, 0, 0, 0) for i in range(4)] + [classified(4, 0, 1, 0)]
    done = report(write_run({"folder": rows}), "--pictures", 2)
    assert [row["pictures"][0] for row in rows_of(done.page)] == [1, -1, -1, -1, 0]
    assert "3 samples are shown without a picture" in done.printed


def test_a_run_of_pictures_without_labels_has_a_page(write_run, report):
    row = classified(0, 0, 1, 0)
    del row["label"], row["label_name"]
    page = report(write_run({"folder": [row]})).page
    assert rows_of(page)[0]["kind"] == "changed" and "have no labels" in page


def test_a_run_of_unreadable_images_alone_has_a_page(write_run, report):
    page = report(write_run({"folder": [unreadable(0, label=0, label_name="cat")]})).page
    assert rows_of(page)[0]["kind"] == "unreadable"


def test_names_of_figures_parts_do_not_clash(write_run, report):
    page = report(write_run({"folder:a": [classified(0, 0, 1, 0)], "folder:b": [classified(0, 1, 1, 0)]})).page
    ids = [attributes["id"] for _, attributes in Tags(page).found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', page):
        assert target in ids


def test_several_runs_lie_in_the_folder_that_holds_them(write_run, capsys, tmp_path):
    from rlcf.report.main import main

    first, second = (write_run({"folder": [classified(0, 0, 1, i)]}, f"runs/{i}") for i in (0, 1))
    main([str(first), str(second)])
    assert f"report: {tmp_path}/runs/report.html" in capsys.readouterr().out
    main([str(first)])
    assert (first / "report.html").is_file()
    assert "The runs compared" in (tmp_path / "runs" / "report.html").read_text()


def test_settings_that_differ_stand_apart_and_those_of_steps_are_told_of_runs_that_took_some(write_run):
    row = classified(0, 0, 1, 0)
    first = write_run({"folder": [row]}, "first", lr=0.5, seed=3)
    second = write_run({"folder": [row | {"steps": []}]}, "second", lr=0.5, seed=3, method="zero")
    told = settings_of(read_runs([first, second]))
    apart = dict(told["apart"])
    assert apart["method"] == ["rlcf", "zero"] and apart["lr"] == ["0.5", ""]
    assert dict(told["first"])["seed"] == "3" and "output" not in apart
    assert not dict(told["first"]).keys() & dict(told["further"]).keys()


def test_an_interval_that_rounding_ends_below_its_mean_is_drawn():
    points = [("zero", 0.1, Value(1.0, 0.34, 0.9999999999999999)), ("mta", 0.2, Value(0.0, 1e-17, 0.66))]
    assert "<svg" in figures.draw(figures.cost(points, None, "top-1"), "c0", "cost", (5.4, 3.4))


def test_names_of_points_that_lie_close_cover_neither_each_other_nor_the_points():
    points = [(f"method {i}", 0.1 + 0.001 * i, Value(50.0 + i, 45.0, 55.0)) for i in range(6)]
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    figures.cost(points, None, "top-1")(axes)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 6
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    places = axes.transData.transform([(seconds, value.mean) for _, seconds, value in points])
    assert not any(box.contains(*place) for box in boxes for place in places)
