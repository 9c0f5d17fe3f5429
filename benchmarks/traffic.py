"""What passes through dask's scheduler and client while a cohort is segmented: bytes, tasks, and how often models load.

A part of `batch_scaling.py`. Scheduler and client are in this process, so every message of a run is written or read
here: those at the scheduler's end are counted as they are on the wire, heartbeats included, and what the client would
fetch from workers itself.
"""

import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from measuring import note, table, verdict

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from alias_svs import alias_svs
from napari_nucleiseg.core.batch.engines.cluster import DaskEngine
from napari_nucleiseg.core.batch.unattended.database import read_run_database
from napari_nucleiseg.core.batch.unattended.job import BatchFinished, BatchJob
from napari_nucleiseg.core.batch.unattended.run import run_batch

WORKERS = 2
SLIDES, PIECES, PIECE_PX = 2, 3, 4096
# Labels take 27,000 to 87,000 bytes a megapixel when they are packed (RESULTS.md): what stays below does not hold them.
MAX_BYTES_PER_MP = 10_000
# A tile of 1,024 px without its halo, uint8 RGB.
TILE_BYTES = 3 * 1024**2
MAX_OF_TILE = 0.05
HEARTBEATS = "heartbeats"
loads = []


def watch_loads():
    """On a worker: keep in mind each model that it loads."""
    from napari_nucleiseg.core.batch.unattended import work
    from traffic import loads

    load_model = work.load_model

    def told(name, **facts):
        loads.append(name)
        return load_model(name, **facts)

    work.load_model = told


def loaded():
    """On a worker: how many models it has loaded since it is watched."""
    from traffic import loads

    return len(loads)


class Watched(DaskEngine):
    """An engine that knows afterwards what it was given, and how many models each worker loaded."""

    def submit(self, task):
        self.given = [*getattr(self, "given", ()), task.function.__name__]
        super().submit(task)

    def close(self):
        self.loads = list(self.client.run(loaded).values())
        super().close()


class Messages:
    """Messages of this process: bytes and number by what they are about, and the largest."""

    def __init__(self):
        self.bytes, self.count = Counter(), Counter()
        self.largest, self.largest_about = 0, ""

    def add(self, size, message):
        about = about_what(message)
        self.bytes[about] += size
        self.count[about] += 1
        if size > self.largest:
            self.largest, self.largest_about = size, about


def about_what(message):
    """What a message is about, in a word or two: operations of dask's protocol."""
    if isinstance(message, dict):
        operation = str(message.get("op", ""))
        # The answer to a heartbeat names none.
        if operation.startswith("heartbeat") or "heartbeat-interval" in message:
            return HEARTBEATS
        return operation or ("results" if "data" in message else "answers")
    if isinstance(message, list | tuple):
        operations = {str(one["op"]) for one in message if isinstance(one, dict) and "op" in one}
        return " and ".join(sorted(operations)) or "answers"
    return "answers"


@contextmanager
def counted(client_end):
    """Count the messages of this process, but for those at the ends of which `client_end` says that they are its."""
    from distributed.comm import tcp

    found, end, kept = Messages(), ContextVar("end"), (tcp.TCP.read, tcp.TCP.write, tcp.to_frames, tcp.from_frames)
    read, write, packed, unpacked = kept

    async def reading(comm, *rest, **more):
        end.set(comm.peer_address)
        return await read(comm, *rest, **more)

    async def writing(comm, *rest, **more):
        end.set(comm.peer_address)
        return await write(comm, *rest, **more)

    async def to_frames(message, *rest, **more):
        frames = await packed(message, *rest, **more)
        if not client_end(end.get("")):
            found.add(sum(memoryview(frame).nbytes for frame in frames), message)
        return frames

    async def from_frames(frames, *rest, **more):
        size = sum(memoryview(frame).nbytes for frame in frames)
        message = await unpacked(frames, *rest, **more)
        if not client_end(end.get("")):
            found.add(size, message)
        return message

    tcp.TCP.read, tcp.TCP.write, tcp.to_frames, tcp.from_frames = reading, writing, to_frames, from_frames
    try:
        yield found
    finally:
        tcp.TCP.read, tcp.TCP.write, tcp.to_frames, tcp.from_frames = kept


def measure():
    """Segment a cohort on two workers; print what passed, and return whether that is as little as wanted."""
    folder = Path(tempfile.mkdtemp())
    try:
        slides = [alias_svs(folder / f"slide-{number}.svs", seed=number, pieces=PIECES) for number in range(SLIDES)]
        job = BatchJob(tuple(str(slide.path) for slide in slides), str(folder / "out"), formats=("csv",), device="cpu")
        engine = Watched.started_here(WORKERS)
        scheduler = engine.client.scheduler.address
        engine.client.run(watch_loads)
        # The peer of the client's end is the scheduler; that of the scheduler's ends is a client or a worker.
        with counted(lambda peer: peer == scheduler) as messages:
            start = time.perf_counter()
            *_, end = run_batch(job, engine=engine)
            wall = time.perf_counter() - start
        if not isinstance(end, BatchFinished) or end.done != SLIDES:
            raise SystemExit(f"the cohort did not come to its end: {end}")
        rows, _ = read_run_database(folder / "out")
        return told(messages, engine, sum(row.tiles for row in rows.values()), wall)
    finally:
        shutil.rmtree(folder)


def told(messages, engine, tiles, wall):
    """Print the table and the verdicts; whether all are good."""
    megapixels = SLIDES * PIECES * PIECE_PX**2 / 1e6
    total = sum(messages.bytes.values())
    rows = [(about, messages.count[about], f"{size:,}", f"{size / megapixels:.0f}")
            for about, size in messages.bytes.most_common(8)]  # fmt: skip
    rows.append(("all", sum(messages.count.values()), f"{total:,}", f"{total / megapixels:.0f}"))
    title = (
        f"What passes through dask: {SLIDES} slides of 100,000 px, {megapixels:.0f} MP of tissue, {tiles} tiles, "
        f"{WORKERS} workers, {wall:.0f} s"
    )
    table(("messages about", "number", "bytes", "bytes a megapixel"), rows, title=title)
    units = engine.given.count("segment_tiles")
    note(f"{units} tasks of tiles, {tiles / units:.1f} tiles each; in all {len(engine.given)} tasks. "
         f"The largest message: {messages.largest_about}, {messages.largest:,} bytes.")  # fmt: skip
    name = "through dask's scheduler and client, bytes a megapixel of tissue"
    good = verdict(name, total / megapixels, MAX_BYTES_PER_MP, form="{:.0f}", goal="S2")
    good &= verdict(
        "the largest message, of a tile's pixels", messages.largest / TILE_BYTES, MAX_OF_TILE, form="{:.4f}", goal="S2"
    )
    return good & verdict("models loaded, a worker, at most", max(engine.loads), 1, form="{:.0f}", goal="S2")
