from napari.utils.events import EmitterGroup
from psygnal import Signal

from napari_nucleiseg.viewer.connections import Connections


class Bell:
    rung = Signal(int)


def test_slots_are_told_between_open_and_close_and_once_each_time():
    bell, napari_events, heard = Bell(), EmitterGroup(moved=None), []

    class Listener:
        def on_rung(self, number):
            heard.append(number)

        def on_moved(self, _event):
            heard.append("moved")

    listener = Listener()
    connections = Connections((bell.rung, listener.on_rung), (napari_events.moved, listener.on_moved))

    def ring(number):
        bell.rung.emit(number)
        napari_events.moved()
        found = list(heard)
        heard.clear()
        return found

    assert ring(1) == []
    for number in (2, 3):
        connections.open()
        connections.open()
        assert connections.is_open
        assert ring(number) == [number, "moved"]
        connections.close()
        connections.close()
        assert ring(number) == []
    assert not connections.is_open
