import re
from html.parser import HTMLParser
from pathlib import Path

from napari_nucleiseg.core.batch.unattended.database import RunRow, SlideRow
from napari_nucleiseg.core.batch.unattended.page import render

RUN = RunRow(1, 1.7e9, 1.7e9 + 75, "done", {}, {"model": "nuclei@1", "torch": "2"}, "this machine, 2 processes")
FOLDER = Path("/results/cohort <7>")


class Balanced(HTMLParser):
    """Tags that were opened are closed, in order."""

    VOID = frozenset({"meta", "br", "img"})

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_whatever_people_wrote_is_shown_as_text():
    rows = [
        SlideRow("a & b", "/x/<a>.svs", state="failed", sentence="<script>alert(1)</script>"),
        SlideRow("c", "/x/c.svs", state="done", nuclei=5, told={"manifest": {"case": "<b>7</b>"}}, notes=("<i>",)),
    ]
    page = render(FOLDER, rows, (RUN,))
    assert "<script>alert" not in page
    assert "&lt;b&gt;7&lt;/b&gt;" in page
    assert "cohort &lt;7&gt;" in page
    reader = Balanced()
    reader.feed(page)
    assert reader.open == []


def test_it_needs_nothing_from_elsewhere():
    page = render(FOLDER, [SlideRow("c", "/x/c.svs", state="done")], (RUN,))
    assert not re.search(r"""(src|href)=["'](https?:)?//""", page)
    assert "url(" not in page


def test_totals_are_those_of_slides_that_are_done():
    rows = [
        SlideRow("a", "a", state="done", nuclei=1500, told={"tissue_mm2": 0.5}),
        SlideRow("b", "b", state="done", nuclei=500, told={"tissue_mm2": 0.5}),
        SlideRow("c", "c", state="stopped", nuclei=999, told={"tissue_mm2": 9.0}),
    ]
    page = render(FOLDER, rows, (RUN,))
    assert "<b>2,000</b>" in page
    assert "<b>2 of 3</b>" in page
    assert 'data-by="3000.0"' in page
    assert '<b>2,000</b><span class="quiet">nuclei per mm²' in page


def test_results_are_linked_as_seen_from_the_page():
    row = SlideRow("a", "a", state="done", outputs=(str(FOLDER / "a b.parquet"), "/elsewhere/a.csv"))
    page = render(FOLDER, [row], (RUN,))
    assert '<a href="a%20b.parquet">' in page
    assert "elsewhere" not in page


def test_a_folder_that_was_never_run_says_so():
    assert "Not run yet." in render(FOLDER, [], ())
