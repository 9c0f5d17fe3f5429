"""Checkpoints of other programs: of what they pickled only tensors and plain values are read, never code."""

from __future__ import annotations

import argparse
import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_nucleiseg.core.errors import WeightsError

DAMAGE = (
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    AttributeError,
    TypeError,
    AssertionError,
    OverflowError,
    struct.error,
)
"""What torch raises where bytes are missing or not those that were written."""


def read_checkpoint(path: Path) -> object:
    """Read what torch has pickled, as far as it is tensors and plain values; no code of it is run.

    Parameters
    ----------
    path : Path
        Of a file that ``torch.save`` wrote.

    Raises
    ------
    WeightsError
        If it is missing, damaged, not to be read, or holds anything else.
    """
    if not path.is_file():
        raise WeightsError(f"there is no weight file {path}")
    try:
        with torch.serialization.safe_globals(_plain_values()), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of files that another protocol of pickle wrote
            # Only what is looked at is read: the optimizer is twice as large as the rest.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except PermissionError as error:
        raise WeightsError(f"{path} may not be read by you; ask for the right to.") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} holds more than tensors and plain values. Loading it could run foreign code, so it is refused; "
            "ask its maker for the tensors alone, as safetensors."
        ) from error
    except DAMAGE as error:
        raise WeightsError(
            f"{path} is damaged or cut off ({path.stat().st_size:,} bytes); get it again from its maker."
        ) from error


def _plain_values() -> list[Any]:
    """Return what a checkpoint may hold beside tensors: options of training, and numbers that numpy made."""
    # The optimizer of DINO holds rates of learning as numpy's numbers; files of numpy 1 call their maker otherwise.
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    kinds = [type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64", "bool")]
    return [argparse.Namespace, np.dtype, *kinds, *((scalar, name) for name in names)]
