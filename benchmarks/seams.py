"""Whether nuclei come out whole, once and all of them where tiles meet: exact counts, tiled against untiled, order.

Run ``python benchmarks/seams.py [--side 3000] [--model nuclei]``. Two networks: one without weights for which dark is
nucleus, so that the truth of the synthetic slide must be met exactly; and the default model, for which a picture in
one piece is the reference. InstanSeg's joining of the same tiles runs in its own environment, where
``python benchmarks/environments.py instanseg`` made it.
"""

import argparse
import runpy
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from environments import FOLDER, NotInstalledError, PeerFailedError, answer_of
from measuring import MIN_SHARE, Clock, in_turn, note, one_thread, record, table, unmeasured, verdict
from napari_nucleiseg.core.decoders.measure import centroids_of
from napari_nucleiseg.core.evaluation.scores import scores
from napari_nucleiseg.core.inference.instances import find_nuclei
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.predict import predict
from napari_nucleiseg.core.inference.segment import default_options, segment_picture
from napari_nucleiseg.core.inference.stitch import join_tiles
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.slides.synthetic import synthetic_slide
from napari_nucleiseg.core.store.project import Project
from synthetic_fields import yardstick

# 3.9 to 4.4 MP a CPU second where scipy.ndimage.label took 3.3 ms a megapixel.
TILE, HALO = 384, 64  # px, where the cost of joining is asked
MATCH_LABELS_YARDSTICKS = 1e3 / 4.15 / 3.3
STAND_IN = Path(__file__).parents[1] / "tests" / "core" / "inference" / "darkness.py"
darkness_model = runpy.run_path(str(STAND_IN))["darkness_model"]


def errors(found, truth):
    """True nuclei that nothing was found of, and found ones beyond the first of each true one.

    A found nucleus stands for the true one that covers most of it.
    """
    width = int(truth.max()) + 1
    inside = found > 0
    pairs, shared = np.unique(found[inside].astype(np.int64) * width + truth[inside], return_counts=True)
    one, other = np.divmod(pairs, width)
    # The last entry written for each found nucleus is that of its largest overlap.
    order = np.argsort(shared, kind="stable")
    meant = np.zeros(int(found.max()) + 1, np.int64)
    meant[one[order]] = other[order]
    meant = meant[np.unique(one)]
    true = np.unique(truth)[1:]
    return len(np.setdiff1d(true, meant)), len(meant) - len(np.intersect1d(true, meant))


def same_up_to_numbers(one, other):
    """Whether two label images show the same nuclei, pixel for pixel."""
    pairs = np.unique(one.ravel().astype(np.int64) * (int(other.max()) + 1) + other.ravel())
    first, second = np.divmod(pairs, int(other.max()) + 1)
    return len(np.unique(first)) == len(pairs) == len(np.unique(second))


def tiles_of(slide, model):
    plan, options = plan_inference(slide, model.spec), default_options(model)
    return [
        find_nuclei(prediction.tile, prediction.maps, plan, model.spec, options)
        for prediction in predict(plan, slide, model, device="cpu")
    ]


def joined(slide, tiles, order, folder):
    """The label image of a project into which the tiles were written in some order, and the CPU seconds of that."""
    clock = Clock()
    with Project.create(folder, slide) as project:
        with clock("write"):
            for index in order:
                project.write_tile(tiles[index], "m@1", "key")
        image = project.labels.read(slide.region)
    shutil.rmtree(folder)
    _, labels = np.unique(image, return_inverse=True)
    return labels.reshape(image.shape).astype(np.int32), clock.seconds["write"]


def exact_counts(side, folder):
    rows, wrong = [], 0
    for mpp, tile in ((0.5, 256), (0.5, 1024), (0.25, 256)):
        slide = synthetic_slide(round(side * 0.5 / mpp), round(side * 0.5 / mpp), mpp, seed=1, glass=False)
        truth = slide.truth_labels(slide.region)
        model = darkness_model(tile_px=tile, halo_px=48)
        tiles = tiles_of(slide, model)
        orders = {"as planned": np.arange(len(tiles))}
        orders |= {f"shuffled {seed}": np.random.default_rng(seed).permutation(len(tiles)) for seed in (1, 2)}
        whole = segment_picture(slide, darkness_model(tile_px=-(-side // 16) * 16, halo_px=48), device="cpu")
        count = f"{len(np.unique(truth)) - 1:,}"
        # What the stand-in network misses in one piece is not the seams' fault.
        missed, surplus = errors(whole, truth)
        rows.append((f"{mpp:g}", "-", "in one piece", count, f"{whole.max():,}", missed, surplus, "-", "-"))
        for name, order in orders.items():
            image, seconds = joined(slide, tiles, order, folder / "p")
            lost, extra = errors(image, truth)
            same = same_up_to_numbers(image, whole)
            wrong += abs(lost - missed) + abs(extra - surplus) + (not same)
            megapixels = slide.region.area / 1e6
            rows.append((f"{mpp:g}", tile, name, count, f"{image.max():,}", lost, extra,
                         "yes" if same else "NO", f"{megapixels / seconds:.0f}"))  # fmt: skip
    header = ("um/px", "tile", "order", "true", "found", "lost", "extra", "as in one piece", "write MP/cpu-s")
    table(header, rows, title="Counts on the synthetic slide")
    return wrong


def jittered(side, folder):
    """Tiles that disagree: the masks of some, by chance, are moved by a pixel before they are joined."""
    slide = synthetic_slide(side, side, 0.5, seed=1, glass=False)
    rng = np.random.default_rng(0)
    tiles = []
    for nuclei in tiles_of(slide, darkness_model(tile_px=256, halo_px=48)):
        dy, dx = (int(step) for step in rng.integers(0, 2, 2))
        box = nuclei.box.translate(dy, dx)
        if not slide.region.contains(box):
            dy = dx = 0
            box = nuclei.box
        moved = nuclei.centroids + np.array([dy, dx])
        tiles.append(replace(nuclei, box=box, centroids=moved, boxes=nuclei.boxes + np.array([dy, dx, dy, dx])))
    image, _ = joined(slide, tiles, range(len(tiles)), folder / "j")
    true = slide.truth_centroids(slide.region)
    _, nearest = cKDTree(true).query(centroids_of(image)[1:])
    lost, extra = len(true) - len(np.unique(nearest)), len(nearest) - len(np.unique(nearest))
    note(f"tiles of 256 px that disagree by a pixel: {lost} lost, {extra} doubled of {len(true):,}")
    return (lost + extra) / len(true)


def cost_of_joining(folder, rounds):
    """Yardsticks a megapixel that joining takes, in memory: what InstanSeg's match_labels does of the same tiles."""
    side = 2048
    slide = synthetic_slide(side, side, 0.5, seed=1, glass=False)
    tiles = tiles_of(slide, darkness_model(tile_px=TILE, halo_px=HALO))
    found = in_turn(
        {"join in memory": lambda: join_tiles(tiles, slide.shape),
         "write into a project": lambda: joined(slide, tiles, range(len(tiles)), folder / "cost")},
        rounds,
    )  # fmt: skip
    yard, megapixels = yardstick(rounds), side * side / 1e6
    rows = [
        (name, f"{megapixels / one.cpu:.1f}", f"{one.cpu * 1e3 / megapixels / yard:.1f}", f"{one.share:.2f}")
        for name, one in found.items()
    ]
    title = f"Cost of {len(tiles)} tiles of 512 px with halos of 64 px"
    table(("what", "MP/cpu-s", "yardsticks", "cpu/wall"), rows, title=title)
    return found["join in memory"].cpu * 1e3 / megapixels / yard


def beside_instanseg(ours, folder, environments):
    """How many times our joining InstanSeg's costs on true labels of the same tiles, in yardsticks of each process."""
    slide = synthetic_slide(2048, 2048, 0.5, seed=1, glass=False)
    truth, given, name = slide.truth_labels(slide.region), folder / "truth.npy", "InstanSeg's match_labels, times ours"
    np.save(given, truth.astype(np.int32))
    try:
        yards, share, count = answer_of("instanseg", "seams.py", given, TILE, HALO, folder=environments)
    except (NotInstalledError, PeerFailedError) as error:
        unmeasured("G5", name, str(error))
        return True
    true = len(np.unique(truth)) - 1
    busy = f"; CPU over wall time only {share:.2f}" if share < MIN_SHARE else ""
    note(f"InstanSeg's match_labels: {yards:.1f} yardsticks, {count:,} nuclei of {true:,}{busy}")
    return verdict(name, yards / ours, 10, at_most=False, form="{:.1f}", goal="G5")


def against_untiled(side, name):
    model = load_model(name)
    rows, worst = [], 1.0
    for mpp in (model.spec.mpp_um, model.spec.mpp_um / 2):
        size = round(side * model.spec.mpp_um / mpp)
        slide = synthetic_slide(size, size, mpp, seed=2, glass=False)
        whole_side = -(-side // 1024) * 1024
        untiled = replace(model, spec=replace(model.spec, tile_px=whole_side))
        whole = segment_picture(slide, untiled, device="cpu")
        for tile in (model.spec.tile_px, 512):
            tiled_model = replace(model, spec=replace(model.spec, tile_px=tile))
            tiles = tiles_of(slide, tiled_model)
            quality = scores(whole, join_tiles(tiles, slide.shape), distances=False).pq
            worst = min(worst, quality) if tile == model.spec.tile_px else worst
            rows.append((f"{mpp:g}", tile, f"{whole.max():,}", f"{quality:.4f}"))
    title = f"{model.version}: tiled against one piece of {side} px"
    table(("um/px", "tile", "nuclei in one piece", "PQ"), rows, title=title)
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=3000)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--environments", type=Path, default=FOLDER)
    wanted = parser.parse_args()
    one_thread()
    folder = Path(tempfile.mkdtemp())
    try:
        wrong = exact_counts(wanted.side, folder)
        off = jittered(wanted.side, folder)
        cost = cost_of_joining(folder, wanted.rounds)
        beside = beside_instanseg(cost, folder, wanted.environments)
        quality = against_untiled(wanted.side, wanted.model)
    finally:
        shutil.rmtree(folder)
    good = verdict("nuclei lost, split or doubled at seams", wrong, 0, form="{:.0f}", goal="G5")
    good &= verdict("counting error with tiles a pixel apart", off, 0.001, form="{:.5f}", goal="G5")
    good &= verdict("PQ of tiled against untiled", quality, 0.99, at_most=False, form="{:.4f}", goal="G5")
    name = "joining tiles of 512 px, in yardsticks (scipy.ndimage.label)"
    good &= verdict(name, cost, MATCH_LABELS_YARDSTICKS / 10, form="{:.1f}", goal="G5")
    good &= beside
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)
