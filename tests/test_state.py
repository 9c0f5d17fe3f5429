from dataclasses import fields

import pytest

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.state import Session


def test_every_change_is_told_once():
    session, told = Session(), []
    session.events.threshold.connect(told.append)
    session.threshold = 0.6
    session.threshold = 0.6
    session.threshold = 0.7
    assert told == [0.6, 0.7]


def test_sessions_are_apart():
    one, other, told = Session(), Session(), []
    other.events.follow.connect(told.append)
    one.follow = True
    assert not other.follow
    assert told == []


def test_options_are_what_the_engine_takes():
    session = Session()
    assert session.options == DecodeOptions()
    assert session.options.validation_error() is None


@pytest.mark.parametrize("field", fields(Session), ids=lambda field: field.name)
def test_every_wish_explains_itself(field):
    assert field.metadata["title"]
    assert field.metadata["tip"]
    if "minimum" in field.metadata:
        assert field.metadata["minimum"] <= field.default <= field.metadata["maximum"]


def test_no_setting_of_the_sliders_is_refused_by_the_engine():
    about = {field.name: field.metadata for field in fields(Session)}
    for threshold in (about["threshold"]["minimum"], about["threshold"]["maximum"]):
        for area in (about["min_area_um2"]["minimum"], about["min_area_um2"]["maximum"]):
            assert Session(threshold=threshold, min_area_um2=area).options.validation_error() is None
