"""A person draws regions, corrects, holds one out, clicks Teach, and goes back: with a real mouse and a real model."""

import os

from mouse_parts import NEEDS_A_MOUSE, told_by

pytestmark = NEEDS_A_MOUSE


def test_taught_by_mouse(tmp_path):
    said = told_by("teaching_process.py", tmp_path, "TEACH")
    assert said["roles"] == ["teach", "teach", "hold out"]
    assert said["done"] == [True, True, True]
    assert "in 2 regions" in said["advice"]
    assert "held out" in said["advice"]
    assert [step for step, _ in said["steps"]] == list(range(int(os.environ.get("NUCLEISEG_TEACH_STEPS", "4")) + 1))
    assert said["verdict"].startswith("<b>")
    # Whatever the guard said, the person has the last word, and the way back.
    assert said["former"] == "nuclei"
    assert said["taken"] == "nuclei-2"
    assert said["back"] == "nuclei"
    kept = list((tmp_path / "data").rglob("nuclei-2.safetensors"))
    assert len(kept) == 1
    assert "refused" not in kept[0].parts
