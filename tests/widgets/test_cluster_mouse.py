"""A person clusters a view, chooses, makes nuclei, and uses the network beside it: with a real mouse."""

from mouse_parts import NEEDS_A_MOUSE, told_by

pytestmark = NEEDS_A_MOUSE


def test_clustered_by_mouse(tmp_path):
    said = told_by("cluster_process.py", tmp_path, "CLUSTER")
    assert said["wants"].startswith("Draw a rectangle")
    shape, view = said["shape"], said["view"]
    # Stopped after the step that was being done.
    assert len(shape["steps"]) < len(view["steps"])
    assert f"found at step {shape['steps'][-1][0]}" in shape["hint"]
    for fit in (shape, view):
        assert fit["hint"].startswith(f"{fit['rows']} clusters")
        assert fit["steps"][-1][1] == fit["rows"]
        assert [step for step, _ in fit["steps"]] == list(range(1, len(fit["steps"]) + 1))
    # The map was seen while it came about.
    assert view["maps"] > 1
    first, other, again = said["ticked"]
    assert len(set(first) ^ set(other)) == 1
    assert again == first
    assert said["made"].startswith(f"{said['nuclei']:,} nuclei were made")
    assert said["nuclei"] > 0
    assert int(said["counted"].replace(",", "")) > 0
    assert said["origins"] == ["S3-Net clusters"]
    # Kept, it finds nuclei beside what it was fitted to.
    assert said["model"].endswith("-clusters")
    assert "in the list of models, and in use" in said["kept"]
    assert said["beside"]["nuclei"] > 0
    assert said["model"] in said["beside"]["origins"]
