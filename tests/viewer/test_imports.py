"""Threads of a window that begin at once: what their packages share is imported by one of them."""

import subprocess
import sys
import textwrap

PROGRAM = """
    import sys
    import threading
    from collections import defaultdict
    from types import SimpleNamespace

    from napari_nucleiseg.core.slides.synthetic import synthetic_slide
    from napari_nucleiseg.viewer.engine import Engine

    engine, slide = Engine(), synthetic_slide(2048, 2048)
    importers = defaultdict(set)

    class Watch:
        def find_spec(self, name, path=None, target=None):
            parts = name.split(".")
            if parts[0] in {"scipy", "skimage"} and len(parts) == 2 and not parts[1].startswith("_"):
                importers[threading.current_thread().name].add(name)

    def segmented():
        tissue = engine.tissue(slide)
        model = engine.load("nuclei")
        engine.plan(slide, model.spec, None, tissue)
        opened = SimpleNamespace(slide=slide, tissue=tissue, project=None)
        list(engine.levels.model_for(model, opened, "slide"))
        engine.looking(model, ignore_brown=True)

    works = [lambda: engine.preferred("nuclei"), engine.models, segmented, engine.warm_up]
    start, failures = threading.Barrier(len(works)), []

    def run(work):
        start.wait()
        try:
            work()
        except BaseException as error:
            failures.append(repr(error))

    sys.meta_path.insert(0, Watch())
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(failures, {name: sorted(found) for name, found in importers.items()})
    sys.exit(bool(failures) or len(importers) != 1 or len(next(iter(importers.values()))) < 5)
"""


def test_one_thread_imports_and_the_others_wait():
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(PROGRAM)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
