"""``open`` says before the window what a person should know of a slide."""

import numpy as np
import tifffile

from napari_nucleiseg.cli import open as command


class NoWindow:
    """Takes slides and shows nothing."""

    def __init__(self):
        self.slides = []

    def add_slide(self, slide):
        self.slides.append(slide)


def test_what_was_chosen_is_said(shell, monkeypatch, tmp_path):
    window = NoWindow()
    monkeypatch.setattr(command, "open_window", lambda: window)
    monkeypatch.setattr(command, "show", lambda *_: None)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.zeros((3, 300, 300, 3), np.uint8), metadata={"axes": "ZYXS"}, photometric="rgb")
    answer = shell("open", path)
    assert answer.status == 0
    assert f"{path}: This file is a stack of 3 focal planes; only number 2, the middle one, is used." in answer.err
    assert len(window.slides) == 1


def test_an_address_is_refused_before_a_window_opens(shell, monkeypatch):
    monkeypatch.setattr(command, "open_window", None)
    answer = shell("open", "https://example.org/a.svs")
    assert answer.status == 1
    assert answer.err.startswith(
        "Error: https://example.org/a.svs is an address, and remote stores are not supported yet"
    )
