"""What is in a project, for tests that the same comes out whoever made it."""

from pathlib import Path

from napari_nucleiseg.core.store.project import Project


def content_of(folder):
    """Everything of a project that must not depend on who made it: files of pixels, nuclei, claims, tiles done."""
    labels = Path(folder) / "labels.zarr"
    files = {str(path.relative_to(labels)): path.read_bytes() for path in labels.rglob("*") if path.is_file()}
    with Project.open(folder, writable=False) as project:
        columns = "id, cell, y, x, y0, x0, y1, x1, area_um2, score, class, state, review"
        database = project.ledger.reader
        nuclei = database.execute(f"SELECT {columns} FROM nuclei ORDER BY id").fetchall()
        claims = database.execute("SELECT * FROM claims ORDER BY id").fetchall()
        tiles = database.execute("SELECT tile, n FROM tiles WHERE whole ORDER BY tile").fetchall()
    return files, nuclei, claims, tiles


def assert_same(one, other):
    """Compare two projects bit for bit."""
    (files, *tables), (others, *other_tables) = content_of(one), content_of(other)
    assert tables == other_tables
    assert sorted(files) == sorted(others)
    assert [name for name in files if files[name] != others[name]] == []
