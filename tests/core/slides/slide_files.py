"""Small slides of the kinds that scanners write, made with tifffile and OpenCV, and what must be read from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import skimage.data
import tifffile

HEIGHT, WIDTH = 700, 1100
APERIO = "Aperio Image Library v11.2.1 \r\n{width}x{height} (256x256) JPEG/RGB Q=90|AppMag = 40|MPP = 0.2520"


@cache
def tissue(height=HEIGHT, width=WIDTH):
    """Real stained tissue, ``(y, x, 3)`` uint8, mirrored to any size so that it is nowhere the same twice in a row."""
    base = skimage.data.immunohistochemistry()
    image = np.pad(base, ((0, max(0, height - 512)), (0, max(0, width - 512)), (0, 0)), mode="symmetric")
    image = np.ascontiguousarray(image[:height, :width])
    image.flags.writeable = False
    return image


def smaller(image, factor):
    """Area mean by a whole factor; what does not divide is cut, as scanners do."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    return cv2.resize(image[: height * factor, : width * factor], (width, height), interpolation=cv2.INTER_AREA)


def pyramid(factors=(1, 2, 4)):
    return [tissue() if factor == 1 else smaller(tissue(), factor) for factor in factors]


def write_svs(path, levels=(1, 4), tile=256, description=APERIO, **options):
    """As Aperio writes: level 0, a thumbnail in strips, the other levels, label, macro."""
    options = {"compression": "jpeg", "compressionargs": {"level": 92}, "photometric": "rgb", **options}
    images = pyramid(levels)
    with tifffile.TiffWriter(path) as tiff:
        common = {"metadata": None, "software": False}
        text = description.format(height=HEIGHT, width=WIDTH)
        tiff.write(images[0], tile=(tile, tile), description=text, **common, **options)
        tiff.write(smaller(tissue(), 7), rowsperstrip=16, description=text, **common, **options)
        for image in images[1:]:
            tiff.write(image, tile=(tile, tile), description=text, **common, **options)
        tiff.write(
            tissue(60, 50),
            compression="lzw",
            predictor=True,
            photometric="rgb",
            subfiletype=1,
            description="Aperio Image Library v11.2.1 \r\nlabel 50x60",
            **common,
        )
        tiff.write(
            tissue(40, 120),
            compression="jpeg",
            photometric="rgb",
            subfiletype=9,
            rowsperstrip=16,
            description="Aperio Image Library v11.2.1 \r\nmacro 120x40",
            **common,
        )


_FULL_COLOUR = {"compression": "jpeg", "compressionargs": {"level": 97}, "photometric": "rgb", "subsampling": (1, 1)}


def write_generic(path, levels=(1, 2, 4), resolution=(40000, 40000), unit="CENTIMETER", mark=True, **options):
    """A tiled pyramid with a page a level; without `mark` the pages do not say that they are reduced."""
    options = {**_FULL_COLOUR, **options}
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False)) as tiff:
        for number, image in enumerate(pyramid(levels)):
            tiff.write(
                image,
                tile=(256, 256),
                resolution=resolution,
                resolutionunit=unit,
                metadata=None,
                subfiletype=1 if number and mark else 0,
                **options,
            )


def write_ome(path, levels=(1, 2, 4), unit="µm", mpp=0.25, **options):
    """Lower levels as SubIFDs."""
    options = {**_FULL_COLOUR, **options}
    images = pyramid(levels)
    metadata = {
        "axes": "YXS",
        "PhysicalSizeX": mpp,
        "PhysicalSizeXUnit": unit,
        "PhysicalSizeY": mpp,
        "PhysicalSizeYUnit": unit,
    }
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(images[0], tile=(256, 256), subifds=len(images) - 1, metadata=metadata, **options)
        for image in images[1:]:
            tiff.write(image, tile=(256, 256), subfiletype=1, metadata=None, **options)


def write_encoded(path, encode, compression, tables=None, photometric="rgb"):
    """A tiled page whose tiles are encoded here, for codecs that tifffile does not write."""
    padded = np.pad(tissue(), ((0, -HEIGHT % 256), (0, -WIDTH % 256), (0, 0)), mode="edge")
    places = [(y, x) for y in range(0, HEIGHT, 256) for x in range(0, WIDTH, 256)]
    tiles = [encode(np.ascontiguousarray(padded[y : y + 256, x : x + 256])) for y, x in places]
    text = APERIO.format(height=HEIGHT, width=WIDTH)
    extra = [(347, 7, len(tables), tables, True)] if tables else []
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            iter(tiles),
            shape=tissue().shape,
            dtype=np.uint8,
            tile=(256, 256),
            compression=compression,
            photometric=photometric,
            description=text,
            metadata=None,
            extratags=extra,
        )


def as_jpeg2000_ycbcr(tile):
    """Aperio's 33003: YCbCr planes that the code stream does not know to be such."""
    converted = cv2.cvtColor(tile, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]
    return imagecodecs.jpeg2k_encode(np.ascontiguousarray(converted), codecformat="j2k", level=0, mct=False)


def as_jpeg2000_rgb(tile):
    """Aperio's 33005."""
    return imagecodecs.jpeg2k_encode(tile, codecformat="j2k", level=0, reversible=True)


def split_tables(jpeg):
    """Part a JPEG into its tables (as TIFF's JPEGTables tag holds them) and the stream without them."""
    tables, rest, at = b"", b"\xff\xd8", 2
    while True:
        length = int.from_bytes(jpeg[at + 2 : at + 4], "big") + 2
        segment = jpeg[at : at + length]
        if segment[1] == 0xDA:
            return b"\xff\xd8" + tables + b"\xff\xd9", rest + jpeg[at:]
        if segment[1] in (0xC4, 0xDB):
            tables += segment
        elif segment[1] not in range(0xE0, 0xF0):
            rest += segment
        at += length


def write_jpeg_tables(path):
    """Tables kept once for all tiles, as Aperio and libtiff do."""

    def encode(tile):
        return imagecodecs.jpeg8_encode(tile, level=92)

    tables, _ = split_tables(encode(np.ascontiguousarray(tissue()[:256, :256])))
    write_encoded(path, lambda tile: split_tables(encode(tile))[1], 7, tables, "ycbcr")


def write_rgb_jpeg(path):
    """JPEG whose components are RGB without saying so in the stream: the Aperio quirk."""
    write_encoded(
        path,
        lambda tile: _without_app(imagecodecs.jpeg8_encode(tile, level=95, colorspace="rgb", outcolorspace="rgb")),
        7,
    )


def _without_app(jpeg):
    """Drop application marks (JFIF, Adobe), which would name the colours."""
    tables, rest = split_tables(jpeg)
    return tables[:-2] + rest[2:]


def write_scn(path):
    """Leica SCN: a BigTIFF whose scanned part lies at (1024, 1536) of a larger slide."""
    image = tissue(1024, 1536)
    macro = cv2.resize(image, (512, 341), interpolation=cv2.INTER_AREA)
    nm, (height, width) = 500, image.shape[:2]
    full = (4 * width * nm, 4 * height * nm)

    def describe(dimensions, view, objective):
        parts = "".join(
            f'<dimension sizeX="{x}" sizeY="{y}" r="{number}" ifd="{page}"/>'
            for number, (y, x, page) in enumerate(dimensions)
        )
        y, x, _ = dimensions[0]
        view_text = 'sizeX="{}" sizeY="{}" offsetX="{}" offsetY="{}"'.format(*view)
        return (
            f'<image><creationDate>2020</creationDate><device model="m" version="1"/>'
            f'<pixels sizeX="{x}" sizeY="{y}">{parts}</pixels><view {view_text}/><scanSettings>'
            f"<objectiveSettings><objective>{objective}</objective></objectiveSettings><illuminationSettings>"
            "<numericalAperture>0.3</numericalAperture><illuminationSource>brightfield</illuminationSource>"
            "</illuminationSettings></scanSettings></image>"
        )

    text = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="c" sizeX="{full[0]}" sizeY="{full[1]}"><barcode>MQ==</barcode>'
        + describe([(341, 512, 0)], (*full, 0, 0), 0.6)
        + describe([(1024, 1536, 1), (256, 384, 2)], (width * nm, height * nm, width * nm, height * nm), 20)
        + "</collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, level in enumerate((macro, image, smaller(image, 4))):
            tiff.write(
                level,
                tile=(256, 256),
                compression="jpeg",
                photometric="rgb",
                metadata=None,
                software=False,
                description=text if number == 0 else None,
                resolution=(20000, 20000),
                resolutionunit="CENTIMETER",
            )


def write_vms(path):
    """Hamamatsu VMS: an index beside a JPEG with restart marks."""
    folder, image = Path(path).parent, tissue(512, 1024)
    # With halved chroma OpenSlide would look beyond the restart marks that part its tiles.
    flags = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    flags += [cv2.IMWRITE_JPEG_QUALITY, 92, cv2.IMWRITE_JPEG_RST_INTERVAL, 4]
    cv2.imwrite(str(folder / "pixels.jpg"), image[..., ::-1], flags)
    cv2.imwrite(str(folder / "map.jpg"), smaller(image, 8)[..., ::-1], flags)
    cv2.imwrite(str(folder / "macro.jpg"), smaller(image, 8)[..., ::-1])
    Path(path).write_text(
        "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\nImageFile=pixels.jpg\n"
        "MapFile=map.jpg\nOptimisationFile=\nMacroImage=macro.jpg\nPhysicalWidth=256000\nPhysicalHeight=128000\n"
        "PhysicalMacroWidth=20000000\nPhysicalMacroHeight=20000000\nXOffsetFromSlideCentre=0\n"
        "YOffsetFromSlideCentre=0\nSourceLens=40\n"
    )


@dataclass(frozen=True)
class Case:
    """A file, how to write it, and what reading it must give."""

    name: str
    write: Callable[[str], None]
    factors: tuple[int, ...] = (1, 2, 4)
    mpp_um: float | None = 0.25
    objective: float | None = None
    vendor: str = "generic-tiff"
    associated: frozenset[str] = frozenset()
    tolerance: float = 2.0
    """Mean absolute difference to the pixels written, grey levels: 0 for lossless codecs, 5 for halved chroma."""


_RGB = {"photometric": "rgb", "compressionargs": {}, "subsampling": None}
_SVS = {
    "factors": (1, 4),
    "mpp_um": 0.252,
    "objective": 40.0,
    "vendor": "aperio",
    "associated": frozenset({"thumbnail", "label", "macro"}),
    "tolerance": 5,
}
_ONE = {"factors": (1,), "mpp_um": 0.252, "objective": 40.0, "vendor": "aperio"}

CASES = (
    Case("jpeg.svs", write_svs, **_SVS),
    Case("three-levels.svs", lambda path: write_svs(path, (1, 3, 9)), **{**_SVS, "factors": (1, 3, 9)}),
    Case("odd-tiles.svs", lambda path: write_svs(path, tile=240), **_SVS),
    Case("jpeg-tables.svs", write_jpeg_tables, **_ONE),
    Case("jpeg-rgb.svs", write_rgb_jpeg, **_ONE),
    Case("jpeg2000-33005.svs", lambda path: write_encoded(path, as_jpeg2000_rgb, 33005), **_ONE, tolerance=0),
    Case("jpeg2000-33003.svs", lambda path: write_encoded(path, as_jpeg2000_ycbcr, 33003), **_ONE, tolerance=1),
    Case("jpeg2000-34712.tif", lambda path: write_encoded(path, as_jpeg2000_rgb, 34712), **_ONE, tolerance=0),
    Case("generic.tif", write_generic),
    Case("half-colour.tif", lambda path: write_generic(path, subsampling=(2, 2)), tolerance=5),
    Case("unmarked.tif", lambda path: write_generic(path, mark=False)),
    Case("bigtiff.tif", lambda path: write_generic(path, bigtiff=True)),
    Case("lzw.tif", lambda path: write_generic(path, compression="lzw", predictor=True, **_RGB), tolerance=0),
    Case("deflate.tif", lambda path: write_generic(path, compression="deflate", **_RGB), tolerance=0),
    Case("zstd.tif", lambda path: write_generic(path, compression="zstd", **_RGB), tolerance=0),
    Case("raw.tif", lambda path: write_generic(path, compression=None, **_RGB), tolerance=0),
    Case("inch.tif", lambda path: write_generic(path, resolution=(101600, 101600), unit="INCH")),
    Case("dpi72.tif", lambda path: write_generic(path, resolution=(72, 72), unit="INCH"), mpp_um=None),
    Case("no-unit.tif", lambda path: write_generic(path, resolution=(40000, 40000), unit="NONE"), mpp_um=None),
    Case("sub-ifds.ome.tif", write_ome, vendor="ome"),
    Case("nanometres.ome.tif", lambda path: write_ome(path, unit="nm", mpp=250.0), vendor="ome"),
    Case("millimetres.ome.tif", lambda path: write_ome(path, unit="mm", mpp=0.00025), vendor="ome"),
    Case("no-pyramid.ome.tif", lambda path: write_ome(path, (1,)), vendor="ome", factors=(1,)),
)
