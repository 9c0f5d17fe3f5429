"""Commands of the menus and the command palette: each opens the panel if need be and presses one of its buttons."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import napari

    from napari_nucleiseg.widgets.nuclei import NucleiWidget


def open_panel(viewer: napari.viewer.Viewer) -> NucleiWidget:
    """Return the panel of a viewer, docked anew if it was closed."""
    _dock, panel = viewer.window.add_plugin_dock_widget("napari-nucleiseg", "Nuclei")
    return cast("NucleiWidget", panel)


def show_panel(viewer: napari.viewer.Viewer) -> None:
    """Show the panel."""
    open_panel(viewer)


def segment_view(viewer: napari.viewer.Viewer) -> None:
    """Segment what the canvas shows."""
    open_panel(viewer).controller.segment_view()


def segment_shape(viewer: napari.viewer.Viewer) -> None:
    """Segment the selected shape."""
    open_panel(viewer).controller.segment_shape()


def segment_slide(viewer: napari.viewer.Viewer) -> None:
    """Segment the whole slide."""
    open_panel(viewer).controller.segment_slide()


def segment_stack(viewer: napari.viewer.Viewer) -> None:
    """Show where the nuclei of a z-stack are found in three dimensions."""
    viewer.window.add_plugin_dock_widget("napari-nucleiseg", "Nuclei in a stack")


def import_nuclei(viewer: napari.viewer.Viewer) -> None:
    """Ask which nuclei to take into the slide."""
    open_panel(viewer).ask_import()


def export_nuclei(viewer: napari.viewer.Viewer) -> None:
    """Ask where to write the nuclei of the slide."""
    open_panel(viewer).ask_export()


def compare_with_reference(viewer: napari.viewer.Viewer) -> None:
    """Ask with which reference the nuclei of the slide are compared."""
    open_panel(viewer).docks.compare_with_reference()


def show_table(viewer: napari.viewer.Viewer) -> None:
    """Show the table of nuclei."""
    open_panel(viewer).docks.show_table()


def show_regions(viewer: napari.viewer.Viewer) -> None:
    """Show the annotated regions."""
    open_panel(viewer).docks.show_regions()


def show_history(viewer: napari.viewer.Viewer) -> None:
    """Show what was done on the slide."""
    open_panel(viewer).docks.show_history()


def show_teach(viewer: napari.viewer.Viewer) -> None:
    """Show where a model is taught."""
    open_panel(viewer).docks.show_teach()


def show_unlabelled(viewer: napari.viewer.Viewer) -> None:
    """Show where a model is trained without labels."""
    open_panel(viewer).docks.show_unlabelled()


def show_versions(viewer: napari.viewer.Viewer) -> None:
    """Show the versions of all models."""
    open_panel(viewer).docks.show_versions()


def show_models(viewer: napari.viewer.Viewer) -> None:
    """Show all models and networks."""
    open_panel(viewer).docks.show_models()


def show_cluster(viewer: napari.viewer.Viewer) -> None:
    """Show where the view is clustered."""
    open_panel(viewer).docks.show_cluster()


def show_like(viewer: napari.viewer.Viewer) -> None:
    """Show where the like of a few marked nuclei is found."""
    open_panel(viewer).docks.show_like()


def show_by_text(viewer: napari.viewer.Viewer) -> None:
    """Show where nuclei are scored by words."""
    open_panel(viewer).docks.show_by_text()


def show_heads(viewer: napari.viewer.Viewer) -> None:
    """Show what the heads of transformers look at."""
    open_panel(viewer).docks.show_heads()


def show_plots(viewer: napari.viewer.Viewer) -> None:
    """Show plots of what is measured of nuclei."""
    open_panel(viewer).docks.show_plots()


def show_batch(viewer: napari.viewer.Viewer) -> None:
    """Show where many slides are worked through unattended."""
    open_panel(viewer).docks.show_batch()


def follow_view(viewer: napari.viewer.Viewer) -> None:
    """Begin or cease to follow the view."""
    session = open_panel(viewer).session
    session.follow = not session.follow
