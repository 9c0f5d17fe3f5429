"""TIAToolbox's SemanticSegmentor with the stand-in as its model: a map of two classes, in a zarr; no nuclei."""

import logging
import os
import warnings
from pathlib import Path

import numpy as np
import stand_in
from cpu_torchvision import declare_operators

declare_operators()

from tiatoolbox.models.engine.io_config import IOSegmentorConfig  # noqa: E402
from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor  # noqa: E402
from tiatoolbox.models.models_abc import ModelABC  # noqa: E402


class Dark(ModelABC):
    """Two channels: the probability of anything else and that of a nucleus."""

    level = 0.0

    def forward(self, pixels):
        raise NotImplementedError

    @staticmethod
    def infer_batch(model, batch_data, *, device):
        del device
        with stand_in.inside():
            nuclei = np.stack([stand_in.darkness(pixels) > model.level for pixels in batch_data.numpy()])
            return np.stack([~nuclei, nuclei], axis=-1).astype(np.float32)

    @staticmethod
    def postproc(image):
        return np.argmax(image, axis=-1)


def run(path, folder, job):
    warnings.simplefilter("ignore")
    model = Dark()
    model.level = job["level"]
    side, baseline = job["tile_px"], [{"units": "baseline", "resolution": 1.0}]
    layout = IOSegmentorConfig(
        input_resolutions=baseline, output_resolutions=baseline, save_resolution=baseline[0],
        patch_input_shape=(side, side), patch_output_shape=(side, side), stride_shape=(side, side),
    )  # fmt: skip
    engine = SemanticSegmentor(model, batch_size=8, num_workers=0, verbose=False)
    engine.run(
        images=[Path(path)], patch_mode=False, ioconfig=layout, save_dir=folder / "out", output_type="zarr",
        device="cpu", auto_get_mask=False, overwrite=True,
    )  # fmt: skip


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    os.environ["TQDM_DISABLE"] = "1"
    stand_in.measure(run)
