"""The queue of an unattended run: which slides, under which names, and what is known of each."""

import pytest

from napari_nucleiseg.core.batch.job import SlideAdvanced, SlideFailed, SlideNoted, SlideStarted
from napari_nucleiseg.core.batch.unattended.database import DONE, FAILED, RUNNING, STOPPED, WAITING, SlideRow
from napari_nucleiseg.core.batch.unattended.job import BatchAdvanced, SlideDone
from napari_nucleiseg.core.batch.unattended.manifest import Entry, read_entries, write_entries
from napari_nucleiseg.viewer.batch_queue import Queue

A, B = "/s/a.svs", "/s/b.svs"


@pytest.fixture
def queue():
    made = Queue()
    assert made.add((Entry(A, "a"), Entry(B, "b"))) == 2
    return made


def states(queue):
    return {row.path: row.state for row in queue}


def test_a_slide_is_listed_once_and_a_manifest_may_say_more_of_it(queue):
    assert queue.add([Entry(A, "other", 0.25, {"stain": "HE"})]) == 0
    entry = queue[A].entry
    assert (entry.stem, entry.mpp_um, dict(entry.facts)) == ("a", 0.25, {"stain": "HE"})
    assert [row.path for row in queue] == [A, B]
    # What was said of its pixels is not forgotten when it is added once more.
    queue.add([Entry(A, "a")])
    assert queue[A].entry.mpp_um == 0.25


def test_results_of_two_slides_never_have_one_name(queue):
    queue.add([Entry("/t/a.svs", "a"), Entry("/u/t/a.svs", "a"), Entry("/a.svs", "a")])
    assert [entry.stem for entry in queue.entries] == ["a", "b", "t-a", "t-a-2", "a-2"]
    assert len({entry.stem for entry in queue.entries}) == len(queue)


def test_a_slide_keeps_the_name_that_a_folder_knows_it_by():
    queue = Queue()
    queue.add([Entry("/t/a.svs", "a")])
    queue.know([SlideRow("t-a", "/t/a.svs", state=DONE, nuclei=7), SlideRow("a", A)])
    queue.add([Entry(A, "a"), Entry("/u/t-a.svs", "t-a")])
    assert {row.path: row.entry.stem for row in queue} == {"/t/a.svs": "t-a", A: "a", "/u/t-a.svs": "u-t-a"}
    assert queue["/t/a.svs"].nuclei == 7


def test_events_say_what_becomes_of_a_slide(queue):
    assert queue.take(SlideStarted(A, 1, 2)) == A
    assert queue[A].state == RUNNING
    queue.take(SlideAdvanced(A, "segmenting", 3, 12, 40))
    queue.take(SlideNoted(A, "One tile is torn."))
    row = queue[A]
    assert (row.stage, row.part, row.parts, row.nuclei, row.notes) == ("segmenting", 3, 12, 40, ("One tile is torn.",))
    queue.take(SlideDone(A, ("x",), 99, skipped_tiles=1))
    row = queue[A]
    assert (row.state, row.nuclei, row.tiles_skipped, row.notes) == (DONE, 99, 1, ("One tile is torn.",))
    queue.take(SlideFailed(B, "It is torn.", "SlideError"))
    assert (queue[B].state, queue[B].sentence, queue[B].kind) == (FAILED, "It is torn.", "SlideError")
    # Begun anew, nothing is left of what was said before.
    queue.take(SlideStarted(B, 2, 2))
    assert queue[B].sentence == queue[B].kind == ""
    assert queue.take(BatchAdvanced(1, 1, 2, 1, "here")) == ""
    assert queue.take(SlideStarted("/not/listed.svs", 1, 1)) == ""


def test_what_nobody_works_on_any_more_was_begun(queue):
    queue.take(SlideStarted(A, 1, 2))
    queue.settle()
    assert states(queue) == {A: STOPPED, B: WAITING}


def test_a_folder_tells_of_its_slides_and_another_one_of_its_own(queue):
    facts = {"manifest": {"stain": "PAS"}}
    queue.know([SlideRow("c", "/s/c.svs", state=RUNNING, told=facts), SlideRow("a", A, state=DONE, nuclei=5, tiles=4)])
    assert [row.path for row in queue] == ["/s/c.svs", A, B]
    assert states(queue) == {"/s/c.svs": STOPPED, A: DONE, B: WAITING}  # who was killed cannot run any more
    assert dict(queue["/s/c.svs"].entry.facts) == {"stain": "PAS"}
    assert (queue[A].nuclei, queue[A].tiles) == (5, 4)
    queue.know([SlideRow("b", B, state=FAILED, sentence="It is torn.", kind="SlideError")])
    assert states(queue) == {B: FAILED, A: WAITING}
    queue.remove([B, "/not/listed.svs"])
    assert states(queue) == {A: WAITING}


def test_a_written_manifest_says_the_same(tmp_path):
    entries = (
        Entry("/s/a, with a comma.svs", "a", 0.25, {"stain": "HE", "case": "7"}),
        Entry("https://example.org/ä.tiff", "ä", None, {"case": "“8”\nnew"}),
        Entry("/s/c.svs", "c", 0.1 + 0.2),
    )
    path = tmp_path / "queue.csv"
    path.write_text("half of an older one")
    write_entries(path, entries)
    read = read_entries([str(path)])
    assert [(one.path, one.stem, one.mpp_um, dict(one.facts)) for one in read] == [
        (one.path, one.stem, one.mpp_um, dict(one.facts)) for one in entries
    ]
    assert [found.name for found in tmp_path.iterdir()] == ["queue.csv"]
