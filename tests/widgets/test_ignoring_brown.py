"""“Ignore brown” in a real window: nuclei under the brown of an immunostain, and what is taught then."""

import numpy as np
import pytest
import tifffile

from browned import browned_discs
from dark_model import disc_centres
from gui_parts import click, open_and_settle, until_idle
from napari_nucleiseg.viewer.sentences import LOOKS_BROWN

SHAPE = (384, 512)
DISCS = len(disc_centres(SHAPE))


@pytest.fixture
def brown_slide(tmp_path):
    path = tmp_path / "brown.tif"
    per_cm = 1e4 / 0.5
    tifffile.imwrite(
        path, browned_discs(SHAPE), tile=(256, 256), resolution=(per_cm, per_cm), resolutionunit="CENTIMETER"
    )
    return path


def versions(panel):
    rows = panel.controller.display.shelf.now.project.ledger.reader.execute("SELECT model_version FROM runs").fetchall()
    return [version for (version,) in rows]


def in_view(panel):
    opened = panel.controller.display.shelf.now
    return opened.project.count_in(opened.slide.region)


def test_a_click_finds_what_brown_covers_and_another_goes_back(viewer, panel, brown_slide, qtbot):
    open_and_settle(viewer, panel, brown_slide, qtbot)
    click(qtbot, panel.panel.follow)
    until_idle(qtbot, panel)
    assert in_view(panel) != DISCS
    click(qtbot, panel.panel.ignore_brown)
    until_idle(qtbot, panel)
    assert in_view(panel) == DISCS
    plain, ignoring = versions(panel)
    assert ignoring == f"{plain}+nobrown"
    centres = disc_centres(SHAPE)
    labels = panel.controller.display.shelf.now.project.labels.read(panel.controller.display.shelf.now.slide.region)
    assert len(np.unique(labels[centres[:, 0], centres[:, 1]])) == DISCS
    click(qtbot, panel.panel.ignore_brown)
    until_idle(qtbot, panel)
    assert in_view(panel) != DISCS


def test_while_the_view_is_followed_a_first_look_is_given_up_for_the_right_one(viewer, panel, brown_slide, qtbot):
    open_and_settle(viewer, panel, brown_slide, qtbot)
    click(qtbot, panel.panel.follow)
    panel.session.ignore_brown = True  # before the first results are there
    until_idle(qtbot, panel)
    assert in_view(panel) == DISCS


def test_what_is_in_view_is_looked_at_anew_though_the_view_is_not_followed(
    viewer, panel, brown_slide, monkeypatch, qtbot
):
    open_and_settle(viewer, panel, brown_slide, qtbot)
    click(qtbot, panel.panel.ignore_brown)
    until_idle(qtbot, panel)
    assert panel.controller.display.shelf.now.project is None
    click(qtbot, panel.panel.ignore_brown)
    told = []
    panel.controller.hint_changed.connect(lambda hint: told.append(hint.text))
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    assert in_view(panel) != DISCS
    assert told[-1] == LOOKS_BROWN
    click(qtbot, panel.panel.ignore_brown)
    until_idle(qtbot, panel)
    assert in_view(panel) == DISCS
    assert told[-1] == ""
    click(qtbot, panel.panel.ignore_brown)
    until_idle(qtbot, panel)
    assert told[-1] == LOOKS_BROWN
    monkeypatch.setattr("napari_nucleiseg.viewer.sentences.BROWN_S", 0.0)
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    assert told[-1] == ""
    assert not panel.session.follow


def test_both_switches_say_what_they_are_for(panel):
    assert "Ki-67" in panel.panel.ignore_brown.toolTip()
    assert panel.panel.ignore_brown.text() == "Ignore brown"
