"""What the user has set under Preferences > Plugins, brought into the session."""

from __future__ import annotations

from typing import Any

from napari_nucleiseg.state import Session

PLUGIN = "napari-nucleiseg"


class Preferences:
    """Keeps a session in step with the plugin's settings until `close`.

    Parameters
    ----------
    session : Session
        Given model, device, limit, folder and person at once; the others again whenever they are changed.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._settings = _plugin_settings()
        if self._settings is None:
            return
        session.model = self._settings.segmentation.model
        session.device = self._settings.segmentation.device
        self._apply()
        for emitter in self._emitters():
            emitter.connect(self._apply)

    def _emitters(self) -> tuple[Any, ...]:
        settings = self._settings
        return (
            settings.segmentation.events.follow_limit,
            settings.results.events.folder,
            settings.editing.events.person,
        )

    def _apply(self, _event: Any = None) -> None:
        self._session.follow_limit = self._settings.segmentation.follow_limit
        self._session.results_folder = self._settings.results.folder
        self._session.person = self._settings.editing.person.strip()

    def close(self) -> None:
        """Let go of the settings."""
        if self._settings is not None:
            for emitter in self._emitters():
                emitter.disconnect(self._apply)
            self._settings = None


def batch_folder() -> str:
    """Return the folder that unattended runs wrote to last; empty for none."""
    settings = _plugin_settings()
    return "" if settings is None else str(settings.batch.folder)


def remember_batch_folder(folder: str) -> None:
    """Remember where unattended runs write to."""
    settings = _plugin_settings()
    if settings is not None:
        settings.batch.folder = folder


def _plugin_settings() -> Any:
    """Return the plugin's settings; None where napari does not know the plugin."""
    from napari.settings import get_plugin_settings

    try:
        return get_plugin_settings(PLUGIN)
    except KeyError:
        return None
