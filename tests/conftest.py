"""Fixtures that several parts of the tests use."""

import functools
import http.server
import os
import threading
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data():
    """Folder of development data that is not in the repository; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("NUCLEISEG_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no development data at {folder} (set NUCLEISEG_DATA)")
    return folder


@pytest.fixture(autouse=True)
def _own_memory(monkeypatch, tmp_path_factory):
    """What tests open is not remembered as a project of whoever runs them."""
    path = tmp_path_factory.getbasetemp() / "projects.json"
    monkeypatch.setattr("napari_nucleiseg.core.store.finding.registry_path", lambda: path)


@pytest.fixture(autouse=True)
def stacks_folder(monkeypatch, tmp_path_factory, request):
    """Labels of stacks that one test finds or paints are not back in the next, or in the window of whoever runs it."""
    folder = tmp_path_factory.getbasetemp() / "stacks" / str(id(request.node))
    monkeypatch.setattr("napari_nucleiseg.core.store.kept_stack.stacks_folder", lambda: folder)
    return folder


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Sends the files of a folder and tells nobody."""

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """A folder, and the address at which a web server of this machine has what lies in it."""
    folder = tmp_path / "web"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
