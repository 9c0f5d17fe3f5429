"""The network as it is run by default against eager float32 and ONNX Runtime: how fast, and does it say the same?

Run ``python benchmarks/backends.py [--model nuclei] [--rounds 3]``. One tile with its halo, one thread, CPU time. The
default is batch normalisation folded, channels last, and bfloat16 where the processor multiplies it fast. ONNX Runtime
takes part where it is installed. Whether bfloat16 finds the same nuclei is also asked of real tissue where the data are
at hand: TNBC 04-05 and the sixteen Kumar images that the model was not trained on.
"""

import argparse
from unittest.mock import patch

import numpy as np
import torch

from accuracy import DATA, TRAINING_PART, image_sets, picture, with_model
from measuring import in_turn, note, one_thread, record, table, unmeasured, verdict
from napari_nucleiseg.core.errors import ExportError, MissingDependencyError
from napari_nucleiseg.core.evaluation.scores import scores
from napari_nucleiseg.core.exchange.networks import onnx
from napari_nucleiseg.core.inference.device import Forward
from napari_nucleiseg.core.inference.instances import find_nuclei
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.predict import needed_heads, read_tile
from napari_nucleiseg.core.inference.segment import default_options
from napari_nucleiseg.core.inference.stitch import join_tiles
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.slides.synthetic import synthetic_slide

FAST = "napari_nucleiseg.core.inference.device.has_fast_bfloat16"
TISSUE = ("TNBC 04-05", TRAINING_PART)


def onnx_session(model):
    """ONNX Runtime with the model on one thread, or the reason why not."""
    try:
        import onnxruntime

        content = onnx.encode(model)
    except (ImportError, MissingDependencyError, ExportError) as error:
        return None, str(error)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]), ""


def nuclei_of(forward, slide, model):
    """Labels of the first tile of a slide."""
    plan = plan_inference(slide, model.spec)
    tile = plan.tiles[0]
    maps = {name: values[0] for name, values in forward(read_tile(slide, plan.grid, tile)[None]).items()}
    rows, columns = tile.inside_px.translate(-tile.box_px.y, -tile.box_px.x).slices
    own = {name: values[:, rows, columns] for name, values in maps.items()}
    return join_tiles([find_nuclei(tile, own, plan, model.spec, default_options(model))], slide.shape)


def matched_on(name, model):
    """Share of nuclei (F1) of a set of real pictures that bfloat16 and float32 both find, and their number."""
    folder, mpp_um, stems = image_sets()[name]
    segment, found, count = with_model(model, model.spec.decoder, default_options(model), "cpu"), 0.0, 0
    for stem in stems:
        as_run = segment(picture(folder, stem), mpp_um)
        # Another copy of the network, made for float32.
        with patch(FAST, lambda _: False):
            single = segment(picture(folder, stem), mpp_um)
        number = int(single.max(initial=0))
        found, count = found + number * scores(single, as_run, distances=False).f1, count + number
    return found / max(count, 1), count


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    one_thread(pinned=True)
    model = load_model(wanted.model)
    side = model.spec.tile_px + 2 * model.spec.halo_px
    slide = synthetic_slide(side, side, model.spec.mpp_um, glass=False)
    pixels = slide.levels[0][:side, :side][None]
    heads = needed_heads(model.spec, shown=False)
    with patch(FAST, lambda _: False):
        single = Forward(model, "cpu", heads=heads)
    default = Forward(model, "cpu", heads=heads)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.spec.mean, model.spec.std))
    x = ((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).contiguous()
    session, why = onnx_session(model)
    rgb = {"": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)}

    @torch.inference_mode()
    def eager():
        return model.network(x)

    candidates = {
        "eager float32": eager,
        "folded, channels last, float32": lambda: single(pixels),
        f"as it is run: {default.precision}": lambda: default(pixels),
    }
    if session:
        rgb = {session.get_inputs()[0].name: rgb[""]}
        candidates["ONNX Runtime, float32"] = lambda: session.run(["nuclei"], rgb)
    spent = in_turn(candidates, wanted.rounds)
    slow = spent["eager float32"].cpu
    table(
        ("", "cpu s a tile", "MP/cpu-s", "times eager", "spread", "cpu/wall"),
        [
            (name, f"{one.cpu:.2f}", f"{side * side / 1e6 / one.cpu:.2f}", f"{slow / one.cpu:.2f}",
             f"{one.spread:.0%}", f"{one.share:.2f}")
            for name, one in spent.items()
        ],
        title=f"{model.version}, a tile of {side} px",
    )  # fmt: skip
    with torch.inference_mode():
        reference, folded = model.network(x), single.network(x.contiguous(memory_format=torch.channels_last))
    error = max(float((reference[name] - folded[name]).abs().max()) for name in heads)
    _, as_single, as_run, *_ = (one.cpu for one in spent.values())
    good = verdict("folded float32, times eager", slow / as_single, 1.25, at_most=False, goal="G11")
    good &= verdict("largest error of a raw output, float32", error, 1e-3, form="{:.1e}", goal="G11")
    if default.precision == "bfloat16":
        matched = scores(nuclei_of(single, slide, model), nuclei_of(default, slide, model), distances=False).f1
        good &= verdict("bfloat16, times eager", slow / as_run, 2.0, at_most=False, goal="G11")
        good &= verdict("nuclei of bfloat16 matched with float32's", matched, 0.995, at_most=False, form="{:.4f}",
                        goal="G11")  # fmt: skip
        for name in TISSUE if (DATA / "kumar_train30").is_dir() else ():
            matched, count = matched_on(name, model)
            good &= verdict(f"the same on {name} ({count:,} nuclei)", matched, 0.995, at_most=False, form="{:.4f}",
                            goal="G11")  # fmt: skip
    else:
        unmeasured("G11", "bfloat16, times eager", "this processor does not multiply bfloat16 fast")
    if session:
        said = torch.from_numpy(session.run(["nuclei"], rgb)[0])
        apart = float((said - torch.sigmoid(reference["nuclei"])).abs().max())
        note(f"ONNX Runtime differs from eager float32 by {apart:.1e} of a probability at most")
        as_onnx = spent["ONNX Runtime, float32"].cpu
        good &= verdict("as it is run, times ONNX Runtime float32", as_onnx / as_run, 1.0, at_most=False)
    else:
        unmeasured("", "as it is run, times ONNX Runtime float32", why)
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)
