"""Pack the pictures that training reads into one small file, for a machine that cannot fetch them; and unpack it there.

    python benchmarks/training/pack.py pack OUT.zip [--only SET ...] [--lossy SET ...] [--pseudo FOLDER] [--judge]
    python benchmarks/training/pack.py unpack OUT.zip FOLDER     (then set NUCLEISEG_DATA to FOLDER)

Pictures are WebP, lossless except where ``--lossy`` names a set; labels are 16-bit PNG. Of the Kumar images only those
of the training part are packed; ``--judge`` adds those of the test part, always lossless, for what is judged there.
Unlabelled pictures with a known pixel size become a data set of their own, ``unannotated``, at the default network's
0.5 um, all labels -1, for self-training; what `pseudo_label.py` made of them becomes ``pseudo``. Only OpenCV, numpy and
tifffile are needed to unpack.
"""

from __future__ import annotations

import argparse
import json
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import tifffile

SETS = {"tnbc_dev": "*", "nucls15": "*", "dsb2018_tissue": "*", "kumar_train30": "train"}
UNLABELLED = "unlabelled_he/images"
MODEL_MPP_UM = 0.5
QUALITY = 96


PSEUDO = "pseudo"


def pack(out: Path, only: tuple[str, ...], lossy: tuple[str, ...], pseudo: Path | None, *, judge: bool) -> None:
    data = Path(os.environ.get("NUCLEISEG_DATA", "../shared/data"))
    mpp = json.loads((Path(__file__).parent / "unlabelled.json").read_text())["mpp_um"]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as packed:
        for name, which in SETS.items():
            if only and name not in only:
                continue
            trained = _training_part(data / name) if which == "train" else None
            wanted = None if judge else trained
            if which == "train":
                packed.write(data / name / "index.csv", f"{name}/index.csv")
            for path in sorted((data / name / "images").iterdir()):
                if wanted is not None and path.stem not in wanted:
                    continue
                is_lossy = name in lossy and (trained is None or path.stem in trained)
                packed.writestr(f"{name}/images/{path.stem}.webp", _webp(_picture(path), lossy=is_lossy))
                labels = tifffile.imread(data / name / "labels" / f"{path.stem}.tif")
                packed.writestr(f"{name}/labels/{path.stem}.png", _png(labels))
        for path in sorted((data / UNLABELLED).iterdir()) if not only else ():
            image = _picture(path)
            if image is None:
                continue
            packed.writestr(f"{UNLABELLED}/{path.stem}.webp", _webp(image, lossy=UNLABELLED in lossy))
            if path.name in mpp:
                packed.writestr(f"mpp/{path.stem}", str(mpp[path.name]))
        for path in sorted((pseudo / "images").iterdir()) if pseudo else ():
            image = tifffile.imread(path)[..., ::-1]
            packed.writestr(f"{PSEUDO}/images/{path.stem}.webp", _webp(image, lossy=True))
            labels = tifffile.imread(pseudo / "labels" / path.name) + 1  # -1 is not annotated
            packed.writestr(f"{PSEUDO}/labels/{path.stem}.png", _png(labels))
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")


def _training_part(folder: Path) -> set[str]:
    import csv

    with (folder / "index.csv").open() as rows:
        return {
            Path(next(iter(row.values()))).stem
            for row in csv.DictReader(rows)
            if row["hovernet_kumar_split"] == "train"
        }


def _picture(path: Path) -> np.ndarray | None:
    return cv2.imread(str(path), cv2.IMREAD_COLOR)


def _png(labels: np.ndarray) -> bytes:
    return cv2.imencode(".png", labels.astype(np.uint16))[1].tobytes()


def _webp(image: np.ndarray, *, lossy: bool) -> bytes:
    return cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, QUALITY if lossy else 101])[1].tobytes()


def unpack(packed: Path, folder: Path) -> None:
    with zipfile.ZipFile(packed) as files:
        mpp = {name.split("/")[1]: float(files.read(name)) for name in files.namelist() if name.startswith("mpp/")}
        for name in files.namelist():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".csv":
                path.write_bytes(files.read(name))
            if path.suffix not in (".webp", ".png"):
                continue
            values = cv2.imdecode(np.frombuffer(files.read(name), np.uint8), cv2.IMREAD_UNCHANGED)
            if path.suffix == ".png":
                tifffile.imwrite(path.with_suffix(".tif"), values.astype(np.int32) - name.startswith(PSEUDO))
                continue
            tifffile.imwrite(path.with_suffix(".tif"), values[..., 2::-1].copy())
            if name.startswith(UNLABELLED) and path.stem in mpp:
                _unannotated(folder / "unannotated", path.stem, values[..., 2::-1], mpp[path.stem])
    print(f"unpacked to {folder}")


def _unannotated(folder: Path, stem: str, image: np.ndarray, mpp_um: float) -> None:
    size = tuple(round(side * mpp_um / MODEL_MPP_UM) for side in image.shape[1::-1])
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if mpp_um < MODEL_MPP_UM else cv2.INTER_LINEAR)
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "images" / f"{stem}.tif", small)
    tifffile.imwrite(folder / "labels" / f"{stem}.tif", np.full(small.shape[:2], -1, np.int32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--lossy", nargs="*", default=())
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--pseudo", type=Path)
    args = parser.parse_args()
    if args.action == "pack":
        pack(args.file, tuple(args.only), tuple(args.lossy), args.pseudo, judge=args.judge)
    else:
        unpack(args.file, args.folder)


if __name__ == "__main__":
    main()
