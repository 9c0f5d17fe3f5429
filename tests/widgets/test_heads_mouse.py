"""A person looks at heads on real slides: picks, composes, pins, asks, ranks, paints and teaches, with a real mouse."""

import os
from pathlib import Path

import pytest
from mouse_parts import NEEDS_A_MOUSE, told_by

pytestmark = NEEDS_A_MOUSE

SLIDE = "wsi_mosaic_dev/tnbc_dev_mosaic_40x.tiff"


def test_heads_by_mouse(tmp_path, shared_data, monkeypatch):
    slide = shared_data / SLIDE
    if not slide.exists():
        pytest.skip(f"no {SLIDE}")
    monkeypatch.setenv("NUCLEISEG_HEADS_SLIDE", str(slide))
    if pictures := os.environ.get("NUCLEISEG_HEADS_PICTURES"):
        folder = Path(pictures, slide.stem)
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("NUCLEISEG_HEADS_PICTURES", str(folder))
    said = told_by("heads_process.py", tmp_path, "HEADS")
    assert said["patches"] > 1
    assert said["gallery"][-3:] == ["mean", "max", "rollout"]
    assert said["layer"].endswith("head 1")
    assert said["cross"]
    assert said["ring"]
    assert said["picked"][0] == "Head 2"
    assert said["picked"][1].endswith("head 2")
    if "pair" in said:
        assert said["pair"][0] == said["pair"][1]
        assert said["pinned"] == ["Pinned (1)", True]
    whole, asked, title = said["asked"]
    assert asked != whole
    assert "token" in title
    assert said["escaped"] == [False, whole]
    assert "There are no nuclei here" in said["unranked"]
    assert "tells nuclei from the rest best" in said["ranked"]
    assert said["rows"] > 1
    assert f"head {said['row'][0]}" in said["row"][1]
    assert said["coloured"]
    assert "from the most attended" in said["most"]
    assert "seeds where the map" in said["seeds"]
    assert "Nothing is painted" in said["unpainted"]
    assert said["painted"] > 0
    # So little paint is refused, by a sentence or by the guard.
    assert "paint" in " ".join(said["taught"]).casefold()
