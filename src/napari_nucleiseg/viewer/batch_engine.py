"""The doors to unattended runs; heavy imports happen behind them, in the thread that calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.core.batch.unattended.database import NAME as DATABASE
from napari_nucleiseg.core.batch.unattended.database import SlideRow, read_run_database
from napari_nucleiseg.core.batch.unattended.job import BatchEvent, BatchJob
from napari_nucleiseg.core.batch.unattended.manifest import SUFFIXES, Entry, read_entries, write_entries
from napari_nucleiseg.core.batch.unattended.page import NAME as SUMMARY
from napari_nucleiseg.core.errors import NucleiSegError
from napari_nucleiseg.core.slides.bytesource import is_address
from napari_nucleiseg.core.store.finding import ENDING

if TYPE_CHECKING:
    from napari_nucleiseg.core.batch.engines.base import Engine
    from napari_nucleiseg.core.models.weights import ModelCard

QUEUE = "queue.csv"


@dataclass(frozen=True, slots=True)
class Listed:
    """What some paths mean: slides, and sentences on what could not be taken."""

    entries: tuple[Entry, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What a folder of results says: slides, in their order, and whether there is a summary."""

    folder: str
    slides: tuple[SlideRow, ...]
    has_summary: bool


@dataclass(frozen=True, slots=True)
class Encoders:
    """Encoders that can be used.

    Parameters
    ----------
    titles : dict of str to str
        Titles of encoders of patches, by name.
    regions : dict of str to dict of str to str
        For each of them, titles of the region encoders that read its features, by name.
    """

    titles: dict[str, str]
    regions: dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True, eq=False)
class NotAccepted:
    """These weights have a licence that must be accepted before the run."""

    card: ModelCard


class BatchEngine:
    """Lists slides, reads folders of results, and runs jobs; replaceable in tests."""

    def listed(self, paths: Sequence[str]) -> Listed:
        """Return the slides that files, folders and manifests name; what is none is told and left out."""
        from napari_nucleiseg.core.slides.registry import can_open

        entries: list[Entry] = []
        refused: list[str] = []
        for path in paths:
            is_file = not is_address(path) and Path(path).is_file() and Path(path).suffix.lower() not in SUFFIXES
            if is_file and not can_open(path):
                refused.append(f"{Path(path).name} is no slide or picture that can be read.")
                continue
            try:
                entries += [replace(entry, path=_absolute(entry.path)) for entry in read_entries([path])]
            except (NucleiSegError, OSError) as error:
                refused.append(str(error))
        return Listed(tuple(entries), tuple(refused))

    def known(self, folder: str) -> Known:
        """Return what earlier runs have written to a folder; nothing if there was none.

        Raises
        ------
        StoreError
            If it cannot be read.
        """
        place = Path(folder)
        slides: tuple[SlideRow, ...] = ()
        if (place / DATABASE).is_file():
            rows, _ = read_run_database(place)
            slides = tuple(replace(row, path=_absolute(row.path)) for row in rows.values())
        return Known(folder, slides, (place / SUMMARY).is_file())

    def encoders(self) -> Encoders:
        """Return the encoders that can be used."""
        from napari_nucleiseg.core.attention.look import fits
        from napari_nucleiseg.core.errors import ModelError
        from napari_nucleiseg.core.models.encoders import PATCH, REGION, available_encoders, encoder_spec

        found = []
        for card in available_encoders():
            with suppress(ModelError):
                found.append((card, encoder_spec(card.network, card.params)))
        patches = [pair for pair in found if pair[1].kind == PATCH]
        regions = [pair for pair in found if pair[1].kind == REGION]
        return Encoders(
            {card.name: card.title or card.name for card, _ in patches},
            {
                card.name: {
                    other.name: other.title or other.name
                    for other, other_spec in regions
                    if fits(card, spec, other, other_spec)
                }
                for card, spec in patches
            },
        )

    def run(
        self,
        job: BatchJob,
        entries: Sequence[Entry],
        mpp_um: float | None,
        *,
        cancelled: Callable[[], bool],
        paused: Callable[[], bool],
    ) -> Iterator[BatchEvent | NotAccepted]:
        """Work through slides; they are also listed in the folder of results, for the same run from a shell.

        Parameters
        ----------
        job : BatchJob
            What to do; its paths are replaced.
        entries : sequence of Entry
            The slides.
        mpp_um : float or None
            Micrometres per pixel of files that do not say it.
        cancelled, paused : callable
            As of `run_batch`.

        Yields
        ------
        BatchEvent or NotAccepted
            As of `run_batch`; nothing else follows a `NotAccepted`.

        Raises
        ------
        NucleiSegError
            As of `run_batch`.
        """
        from napari_nucleiseg.core.batch.unattended.run import run_batch
        from napari_nucleiseg.core.store.failure import explained

        card = self.unaccepted(job)
        if card is not None:
            yield NotAccepted(card)
            return
        if mpp_um is not None:
            entries = [_sized(entry, mpp_um) for entry in entries]
        out = Path(job.out).absolute()
        with explained(out):
            out.mkdir(parents=True, exist_ok=True)
            write_entries(out / QUEUE, entries)
        # Workers on other machines do not know what was accepted on this one.
        asked = replace(job, paths=(str(out / QUEUE),), out=str(out), accept_licence=True)
        yield from run_batch(asked, cancelled=cancelled, paused=paused, engine=self.place(job))

    def place(self, job: BatchJob) -> Engine | None:  # noqa: ARG002 - a test's own place may need it
        """Return where tasks are done; None leaves that to the job."""
        return None

    def unaccepted(self, job: BatchJob) -> ModelCard | None:
        """Return the first card of a job whose licence must be accepted and was not; None if there is none."""
        from napari_nucleiseg.core.models.encoders import available_encoders
        from napari_nucleiseg.core.models.weights import available_models, licence_accepted

        wanted = {job.model}
        cards = list(available_models())
        if job.encoder:
            wanted |= {job.encoder, job.region_encoder}
            cards += available_encoders()
        needed = (card for card in cards if card.name in wanted and not card.commercial_use)
        return next((card for card in needed if not licence_accepted(card)), None)


def project_folder(folder: str, stem: str) -> Path:
    """Return where the project of a slide lies in a folder of results."""
    return Path(folder).absolute() / f"{stem}{ENDING}"


def _absolute(path: str) -> str:
    return path if is_address(path) else str(Path(path).absolute())


def _sized(entry: Entry, mpp_um: float) -> Entry:
    """Say how large pixels are if neither a manifest nor the file does; what cannot be opened fails in the run."""
    from napari_nucleiseg.core.slides.registry import open_slide

    if entry.mpp_um is None:
        with suppress(NucleiSegError, OSError), closing(open_slide(entry.path)) as slide:
            if slide.mpp_um is None:
                return replace(entry, mpp_um=mpp_um)
    return entry
