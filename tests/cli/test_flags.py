"""Flags made of dataclasses: every kind of field, help from the docstring, and only what was given is changed."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import pytest

from napari_nucleiseg.cli.flags import add_flags, parameter_help, read_flags
from napari_nucleiseg.core.training.config import AugmentConfig, DataSet, TrainConfig


@dataclass(frozen=True)
class Source:
    """A place.

    Parameters
    ----------
    path : str
        Where.
    size_um : float or None
        How large.
    patterns : tuple of str
        Which.
    """

    path: str
    size_um: float | None
    patterns: tuple[str, ...] = ("*",)


@dataclass(frozen=True)
class Nested:
    """A part.

    Parameters
    ----------
    strength : float
        100% of it.
    """

    strength: float = 1.5


@dataclass(frozen=True)
class Config:
    """All kinds of fields.

    Parameters
    ----------
    name : str
        What it is
        called.
    first, second : int
        Two numbers.
    active : bool
        Whether.
    sources : tuple of Source
        From where.
    words : tuple of str
        Some.
    weights : mapping
        By `name`.
    params : mapping
        Anything.
    part : Nested
        A part.
    """

    name: str = "x"
    first: int = 1
    second: int = 2
    active: bool = True
    sources: tuple[Source, ...] = ()
    words: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=lambda: {"a": 1.0})
    params: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    part: Nested = field(default_factory=Nested)


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    add_flags(parser, Config)
    return parser


def test_without_flags_nothing_changes(parser):
    base = Config(name="kept", second=7, part=Nested(3.0))
    assert read_flags(parser.parse_args([]), base) == base


def test_every_kind_of_field_can_be_given(parser):
    words = (
        "--name y --first 5 --no-active --words p --words q --weights a=2,b=0.5 "
        "--params depth=3,rate=0.1,kind=big,deep=true "
        "--sources /one,size_um=0.25,patterns=a*|b* --sources /two --part-strength 2"
    )
    assert read_flags(parser.parse_args(words.split()), Config(second=9)) == Config(
        name="y",
        first=5,
        second=9,
        active=False,
        words=("p", "q"),
        weights={"a": 2.0, "b": 0.5},
        params={"depth": 3, "rate": 0.1, "kind": "big", "deep": True},
        sources=(Source("/one", 0.25, ("a*", "b*")), Source("/two", None)),
        part=Nested(2.0),
    )


def test_help_comes_from_the_docstring(parser):
    assert parameter_help(Config)["name"] == "What it is called."
    assert parameter_help(Config)["first"] == parameter_help(Config)["second"] == "Two numbers."
    shown = " ".join(parser.format_help().split())
    assert "--part-strength X 100% of it. (default: 1.5)" in shown
    assert "By name." in shown


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--sources /one,colour=red", "colour=red is none of path, size_um, patterns"),
        ("--sources /one,size_um=big", "big cannot be read"),
        ("--weights a", "a has no value; write a=..."),
        ("--weights a=x", "x cannot be read"),
        ("--first many", "invalid int value"),
    ],
)
def test_what_cannot_be_read_is_said(parser, capsys, words, sentence):
    with pytest.raises(SystemExit):
        parser.parse_args(words.split())
    assert sentence in capsys.readouterr().err


def test_every_field_of_a_training_run_is_explained_and_has_a_flag():
    parser = argparse.ArgumentParser()
    add_flags(parser, TrainConfig)
    flags = {action.dest for action in parser._actions}
    for config in (TrainConfig, AugmentConfig, DataSet):
        assert {item.name for item in fields(config)} <= parameter_help(config).keys()
    assert {item.name for item in fields(TrainConfig)} - flags == {"augment"}
    assert {f"augment_{item.name}" for item in fields(AugmentConfig)} <= flags
