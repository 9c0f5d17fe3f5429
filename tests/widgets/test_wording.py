"""How the panel says things, and that they can be read."""

from dataclasses import replace

import pytest
from napari.utils.theme import get_theme
from qtpy.QtGui import QColor

from gui_parts import open_and_settle
from napari_nucleiseg.core.models.weights import ModelCard
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.clustering.fitted import OWN
from napari_nucleiseg.viewer.messages import Counts, Hint, Progress
from napari_nucleiseg.widgets.facts import scan_text
from napari_nucleiseg.widgets.wording import (
    data_text,
    licence_text,
    model_title,
    model_titles,
    progress_text,
    share_text,
    time_left,
    use_text,
    warning_colour,
)


def luminance(colour):
    """Relative luminance, as the contrast of the Web Content Accessibility Guidelines takes it."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in QColor(colour).getRgbF()[:3]]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_warnings_can_be_read(theme):
    light, dark = sorted(map(luminance, (warning_colour(theme), get_theme(theme).background.as_hex())), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_a_new_theme_colours_the_warning_on_show(viewer, panel, disc_slide, qtbot):
    viewer.theme = "dark"
    open_and_settle(viewer, panel, disc_slide, qtbot)
    panel.controller.hint_changed.emit(Hint("The disk is full.", is_warning=True))
    assert warning_colour("dark") in panel.panel.hint.styleSheet()
    assert warning_colour("dark") in panel.welcome.hint.styleSheet()
    viewer.theme = "light"
    assert warning_colour("light") in panel.panel.hint.styleSheet()
    assert warning_colour("light") in panel.welcome.hint.styleSheet()
    panel.controller.hint_changed.emit(Hint("Zoom in."))
    assert panel.panel.hint.styleSheet() == panel.welcome.hint.styleSheet() == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (3, "10 s left"),
        (41, "50 s left"),
        (59, "1 min left"),
        (1380, "23 min left"),
        (9500, "2.5 h left"),
        (7 * 3600, "7 h left"),
    ],
)
def test_time_left_is_rounded(seconds, said):
    assert time_left(seconds) == said


def test_progress_tells_the_time_left_once_it_is_known():
    assert progress_text(Progress("Segmenting", 3, 5909)) == "Segmenting 3 of 5,909"
    assert progress_text(Progress("Segmenting", 18, 5909, left_s=1380)) == "18 of 5,909  ·  23 min left"


def test_a_small_share_is_not_called_none():
    assert share_text(Counts("view", 17_528, 4.2, 0.003)) == "<1% of the tissue in view is segmented"
    assert share_text(Counts("shape", 9, 4.2, 0.42)) == "42% of the tissue in shape is segmented"
    assert share_text(Counts("view", 9, 4.2, 1.0)) == "All of the tissue in view is segmented"
    assert share_text(Counts("view", 9, 4.2, 0.42, knows_tissue=False)) == "42% of the view is segmented"
    assert "no density" in share_text(Counts("view", 9, 0.0, 0.0))
    assert share_text(Counts("view", 0, 0.0, 0.0)) == "Nothing in view is segmented yet"


def test_versions_are_told_apart_by_their_names():
    titles = {
        "nuclei": "Nuclei in H&E, 0.5 um/px",
        "nuclei-2": "Nuclei, taught with a.svs",
        "mine": "Mine",
        "other": "Mine",
        "plain": "plain",
    }
    assert model_titles(titles, {"nuclei-2", "plain"}) == {
        "nuclei": "Nuclei in H&E",
        "nuclei-2": "Nuclei, taught with a.svs (nuclei-2)",
        "mine": "Mine (mine)",
        "other": "Mine (other)",
        "plain": "plain",
    }


def test_licences_are_said_as_a_person_would():
    own, stated = OWN, ModelCard("mine", "nuclei").licence
    assert use_text(own, commercial_use=True) == "Your own picture"
    assert use_text(stated, commercial_use=False) == "Licence not stated · research use only"
    assert use_text("CC-BY-NC-4.0", commercial_use=False) == "CC-BY-NC-4.0 · research use only"
    assert use_text("CC0-1.0", commercial_use=True) == "CC0-1.0"
    assert use_text("CC0-1.0 AND CC-BY-4.0 AND MIT", commercial_use=True) == "Any use (open licences)"
    assert licence_text(f"CC0-1.0 AND {own}") == "CC0-1.0 AND your own picture"
    assert licence_text(stated) == "not stated"
    assert data_text(f"a.svs ({own}), without labels") == "a.svs (your own picture), without labels"


def test_models_are_called_by_a_short_name():
    assert model_title("Nuclei in H&E, research only, 0.5 um/px") == "Nuclei in H&E, research only"
    assert model_title("Nuclei in H&E, 0.25 µm/px") == "Nuclei in H&E"
    assert model_title("Attention, without labels (0.25 µm/px)") == "Attention, without labels"
    assert model_title("Dark discs") == "Dark discs"


@pytest.mark.parametrize(("vendor", "said"), [("aperio", "  ·  Aperio"), ("ome", ""), ("generic-tiff", ""), ("", "")])
def test_only_makers_of_scanners_are_told(disc_slide, vendor, said):
    assert scan_text(replace(open_slide(disc_slide), vendor=vendor)) == f"0.5 µm/px{said}"


def test_undo_says_in_a_word_what_it_would_undo():
    from napari_nucleiseg.widgets.wording import turn_text

    assert turn_text("Undo", "merge") == "Undo join"
    assert turn_text("Redo", "fill holes") == "Redo fill holes"
    assert turn_text("Undo", "") == "Undo"
