"""What is said of a segmentation."""

import pytest

from napari_nucleiseg.viewer.sentences import tiles_in


@pytest.mark.parametrize(
    ("count", "seconds", "said"),
    [
        (1, 0.04, "1 tile in less than 0.1 s"),
        (2, 0.1, "2 tiles in 0.1 s"),
        (12_345, 61.26, "12,345 tiles in 61.3 s"),
    ],
)
def test_a_time_that_rounds_to_nothing_is_not_told_as_none(count, seconds, said):
    assert tiles_in(count, seconds) == said
