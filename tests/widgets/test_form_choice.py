"""A list whose titles are longer than the room there is: cut with an ellipsis, and whole when it is opened."""

import pytest

from napari_nucleiseg.state import BY_SHAPE, METHODS, UnlabelledWishes
from napari_nucleiseg.widgets.form import Choice

LONG = "Nuclei by shape, learned from a slide with a long name.svs"


@pytest.fixture
def made(qtbot):
    def choice(title):
        found = Choice(UnlabelledWishes(), "network", {BY_SHAPE: title, METHODS[1]: "Other"})
        qtbot.addWidget(found)
        found.resize(170, 24)
        found.show()
        qtbot.waitExposed(found)
        return found

    return choice


def test_a_long_title_ends_in_an_ellipsis(made):
    shown = made(LONG).grab().toImage()
    # Whatever comes after the cut is not drawn, not even in part.
    assert shown == made(LONG + " and even more of it").grab().toImage()
    cut = [end for end in range(3, len(LONG)) if made(LONG[:end].rstrip() + "…").grab().toImage() == shown]
    assert cut
    short = made("Short").grab().toImage()
    assert short != made("Short…").grab().toImage()


def test_opened_the_list_has_room_for_all_of_it(made, qtbot):
    choice = made(LONG)
    choice.showPopup()
    qtbot.waitUntil(choice.view().isVisible)
    assert choice.view().width() >= choice.fontMetrics().horizontalAdvance(LONG)
    choice.hidePopup()
