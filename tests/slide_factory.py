"""Small slides on disk for tests: OME-Zarr of both versions, with every shape that the standard allows."""

import cv2
import numpy as np
import zarr

from napari_nucleiseg.core.slides.synthetic import synthetic_slide


def tissue_picture(height, width, seed=0):
    """Return ``(y, x, 3)`` uint8 H&E-like pixels."""
    return synthetic_slide(height, width, seed=seed, glass=False).levels[0][...]


def write_ome_zarr(
    path,
    picture,
    *,
    version="0.5",
    axes="cyx",
    levels=3,
    chunk=64,
    shard=None,
    mpp_um=0.25,
    unit="micrometer",
    labels=("R", "G", "B"),
    attributes=None,
    group="",
):
    """Write a pyramid of area means; return the levels as arrays ``(y, x, channel)``."""
    form = 3 if version == "0.5" else 2
    root = zarr.open_group(path, mode="a", zarr_format=form)
    image = root.create_group(group) if group else root
    written, datasets = [], []
    for index in range(levels):
        if index:
            height, width = (-(-size // 2) for size in picture.shape[:2])
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, -1)
        stored = _arranged(picture, axes)
        spatial = {"y": chunk, "x": chunk}
        chunks = tuple(min(spatial.get(axis, size), size) for axis, size in zip(axes, stored.shape, strict=True))
        shards = None
        if shard is not None and form == 3:
            shards = tuple(
                step * (shard // chunk if axis in spatial else 1) for axis, step in zip(axes, chunks, strict=True)
            )
        array = image.create_array(
            str(index), shape=stored.shape, chunks=chunks, shards=shards, dtype=stored.dtype, fill_value=0
        )
        array[...] = stored
        written.append(picture)
        scale = [mpp_um * 2**index if axis in spatial else 1.0 for axis in axes]
        datasets.append({"path": str(index), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    image.attrs.update(_metadata(version, axes, unit=unit, labels=labels, datasets=datasets, attributes=attributes))
    return written


def _arranged(picture, axes):
    """Put ``(y, x, c)`` into the order of `axes`; others are of length one."""
    order = [{"y": 0, "x": 1, "c": 2}[axis] for axis in axes if axis in "yxc"]
    stored = picture.transpose(order) if "c" in axes else picture[..., 0]
    for index, axis in enumerate(axes):
        if axis not in "yxc":
            stored = np.expand_dims(stored, index)
    return np.ascontiguousarray(stored)


def _metadata(version, axes, *, unit, labels, datasets, attributes):
    kinds = {"t": "time", "c": "channel"}
    facts = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    for fact in facts:
        if fact["name"] in "zyx" and unit:
            fact["unit"] = unit
    multiscale = {"name": "test", "axes": facts, "datasets": datasets}
    ome = {"multiscales": [multiscale], "omero": {"channels": [{"label": label} for label in labels]}}
    ome.update(attributes or {})
    if version == "0.5":
        return {"ome": {"version": "0.5", **ome}}
    multiscale["version"] = "0.4"
    return ome


def write_dicom_slide(folder, picture, *, levels=3, tile=64, mpp_um=0.25, colours="RGB", uid="1.2.3", label=True):
    """Write a DICOM series, one file a level, uncompressed; return the levels as arrays ``(y, x, 3)``."""
    folder.mkdir(exist_ok=True, parents=True)
    written = []
    for index in range(levels):
        if index:
            height, width = (-(-size // 2) for size in picture.shape[:2])
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        written.append(picture)
        own_uid, pixel = f"{uid}.{index + 1}", mpp_um * 2**index
        facts = _dicom_facts(picture, tile=tile, mpp_um=pixel, colours=colours, own_uid=own_uid, series_uid=uid)
        facts.ImageType = [
            "ORIGINAL" if index == 0 else "DERIVED",
            "PRIMARY",
            "VOLUME",
            "NONE" if index == 0 else "RESAMPLED",
        ]
        facts.save_as(folder / f"level-{index}.dcm", enforce_file_format=True)
    if label:
        cut = picture[:40, :50]
        facts = _dicom_facts(cut, tile=64, mpp_um=10.0, colours=colours, own_uid=f"{uid}.99", series_uid=uid)
        facts.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
        facts.save_as(folder / "label.dcm", enforce_file_format=True)
    return written


def _dicom_facts(picture, *, tile, mpp_um, colours, own_uid, series_uid):
    """Make one instance, TILED_FULL, with all that the standard asks of whole-slide images and readers need."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    whole_slide = "1.2.840.10008.5.1.4.1.1.77.1.6"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = whole_slide, own_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    facts = Dataset()
    facts.file_meta = meta
    facts.SOPClassUID, facts.SOPInstanceUID = whole_slide, own_uid
    facts.StudyInstanceUID, facts.SeriesInstanceUID = "1.2.3.1000", f"{series_uid}.2000"
    facts.FrameOfReferenceUID = f"{series_uid}.3000"
    facts.Modality, facts.Manufacturer = "SM", "Maker"
    height, width = picture.shape[:2]
    down, across = -(-height // tile), -(-width // tile)
    padded = np.pad(picture, ((0, down * tile - height), (0, across * tile - width), (0, 0)), constant_values=255)
    samples = 3 if colours == "RGB" else 1
    frames = padded.reshape(down, tile, across, tile, 3).swapaxes(1, 2)[..., :samples]
    facts.PixelData = np.ascontiguousarray(frames).tobytes()
    facts.NumberOfFrames = down * across
    facts.Rows = facts.Columns = tile
    facts.TotalPixelMatrixRows, facts.TotalPixelMatrixColumns = height, width
    facts.TotalPixelMatrixFocalPlanes = 1
    facts.SamplesPerPixel, facts.PhotometricInterpretation = samples, colours
    if samples == 3:
        facts.PlanarConfiguration = 0
    facts.BitsAllocated = facts.BitsStored = 8
    facts.HighBit, facts.PixelRepresentation = 7, 0
    facts.DimensionOrganizationType, facts.NumberOfOpticalPaths = "TILED_FULL", 1
    facts.ImagedVolumeWidth, facts.ImagedVolumeHeight = width * mpp_um / 1000, height * mpp_um / 1000
    facts.ImagedVolumeDepth = 0.001
    facts.ImageOrientationSlide = [0, 1, 0, 1, 0, 0]
    facts.FocusMethod, facts.ExtendedDepthOfField = "AUTO", "NO"
    facts.SpecimenLabelInImage, facts.BurnedInAnnotation = "NO", "NO"
    facts.LossyImageCompression = "00"
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    facts.TotalPixelMatrixOriginSequence = [origin]
    optical = Dataset()
    optical.OpticalPathIdentifier, optical.OpticalPathDescription = "0", "DAPI" if samples == 1 else "Brightfield"
    optical.ObjectiveLensPower = 40
    facts.OpticalPathSequence = [optical]
    measures = Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp_um / 1000, mpp_um / 1000], 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    facts.SharedFunctionalGroupsSequence = [shared]
    return facts
