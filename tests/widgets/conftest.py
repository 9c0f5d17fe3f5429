"""Napari in a real window with the panel docked."""

from gui_parts import *  # noqa: F403 - fixtures that the viewer's tests share
