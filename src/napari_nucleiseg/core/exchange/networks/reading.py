"""A bioimage.io model package becomes a model: one of ours as it was, a foreign one as far as it is understood.

No Python of a package is run: its weights are TorchScript or ONNX, or the weight file of one of ours.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_nucleiseg.core.errors import ModelError, UnclearPackageError, WeightsError
from napari_nucleiseg.core.exchange.networks.bioimageio import CONFIG
from napari_nucleiseg.core.exchange.networks.exported import GREY, agree
from napari_nucleiseg.core.exchange.networks.facts import card_of
from napari_nucleiseg.core.exchange.networks.layout import InputLayout, OutputLayout, Sides, read_input, read_outputs
from napari_nucleiseg.core.exchange.networks.mapping import Mapped, Meaning, map_heads
from napari_nucleiseg.core.exchange.networks.own import own_model, own_outputs
from napari_nucleiseg.core.exchange.networks.package import Package
from napari_nucleiseg.core.models.imported import AXES, Description, ImportedNetwork, network_of
from napari_nucleiseg.core.models.programs import ONNX, TORCHSCRIPT
from napari_nucleiseg.core.models.weights import LoadedModel, encode_model

VERSIONS = "0.5."
# What is asked of a package's own test, as the format has it where the package says nothing else.
TOLERANCE = 1e-3
_TILE_PX = 1024
_HALO_UM = 24.0
_BYTE, _UNIT = 255.0, 1.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A model that a package was made into.

    Parameters
    ----------
    model : LoadedModel
        It says what the package's test says it should.
    content : bytes
        Of its weight file.
    told : str
        What was understood of it, as a sentence.
    """

    model: LoadedModel
    content: bytes
    told: str


def read_package(path: str | os.PathLike[str], meaning: Meaning | None = None) -> Arrival:
    """Read a bioimage.io model package: a zip, a folder, or the ``rdf.yaml`` in it. Nothing is downloaded.

    Parameters
    ----------
    path : path
        The package.
    meaning : Meaning, optional
        What a person says of a foreign network whose package does not.

    Raises
    ------
    UnclearPackageError
        If it does not say what its network means, and `meaning` does not, either.
    WeightsError
        If it is damaged, unsafe, not understood, or does not say what its own test says.
    MissingDependencyError
        If its weights are ONNX, and what runs that is not installed.
    """
    with Package(path) as package:
        try:
            return _read(package, meaning or Meaning())
        except WeightsError as error:
            named = str(error) if str(package.path) in str(error) else f"{package.path} is not imported: {error}"
            raise type(error)(named if named.endswith(".") else f"{named}.") from error
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise WeightsError(
                f"{package.path} is not understood ({type(error).__name__}: {error}); its document is damaged or of "
                "another format than bioimage.io's 0.5."
            ) from error


def _read(package: Package, meaning: Meaning) -> Arrival:
    document = package.document
    version = str(document.get("format_version", ""))
    if document.get("type") != "model" or not version.startswith(VERSIONS):
        raise WeightsError(
            f"it is a {document.get('type', 'package')} in the format {version or 'of nothing'}, and models in the "
            "format 0.5 are read here; bioimage.io offers most models in it, and bioimageio.spec converts others"
        )
    config = (document.get("config") or {}).get(CONFIG) or {}
    if (config.get("input") or {}).get("name") == GREY.name:
        return _read_stack(package, document)
    given = read_input(document)
    outputs = read_outputs(document, given)
    x = _tensor(package, given.test, given.axes, "input")
    tests = [None if one.reason else _tensor(package, one.test, one.axes, one.name) for one in outputs]
    if not meaning.foreground and config and (own := own_model(package)) is not None:
        model, content = own
        _must_repeat(lambda values: own_outputs(model, values), x, tests, outputs, document)
        return Arrival(model, content, "It is one of this program, the same as it was exported.")
    mapped = map_heads(outputs, tests, meaning, config)
    kind, content = _weights(package)
    description = _description(
        document, given, outputs, mapped=mapped, meaning=meaning, kind=kind, size=len(content), test=x
    )
    network = network_of(description, content)
    _must_repeat(network.outputs, x, tests, outputs, document)
    _must_run(network)
    spec = description.spec()
    weights, card = encode_model(network, spec, card_of(package, spec, config))
    return Arrival(LoadedModel(spec, card, network), weights, mapped.told)


def _read_stack(package: Package, document: Mapping[str, Any]) -> Arrival:
    """Read a network for stacks, which are understood only if they are of this program."""
    own = own_model(package)
    if own is None:
        raise WeightsError("it is a network for stacks, and its weight file is missing or of a network not known here")
    model, content = own
    (given,), outputs = document["inputs"], document["outputs"]
    x, *tests = (
        torch.from_numpy(np.ascontiguousarray(_test(package, one.get("test_tensor"), str(one["id"])), np.float32))
        for one in (given, *outputs)
    )
    layouts = [OutputLayout(str(one["id"]), "", "", (), 0, 0, (), None) for one in outputs]
    _must_repeat(lambda values: own_outputs(model, values), x, tests, layouts, document)
    return Arrival(model, content, "It is one of this program, for stacks, the same as it was exported.")


def _test(package: Package, entry: Any, name: str) -> NDArray[Any]:
    """Return the values of a test, as they lie in the package."""
    if entry is None:
        raise WeightsError(f"it has no test for its {name}, so that nobody can tell whether it is read right")
    try:
        values: NDArray[Any] = np.load(io.BytesIO(package.source(entry)), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise WeightsError(f"its test of {name} is damaged ({error})") from error
    return values


def _tensor(package: Package, entry: Any, axes: str, name: str) -> Tensor:
    """Return a test tensor, ``(batch, channels, y, x)`` float32."""
    values = _test(package, entry, name)
    if values.ndim != len(axes):
        raise WeightsError(f"its test of {name} has {values.ndim} axes and not {len(axes)} as described")
    found = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    if "c" not in axes:
        found, axes = found[..., None], f"{axes}c"
    return found.permute([axes.index(axis) for axis in AXES])


def _weights(package: Package) -> tuple[str, bytes]:
    """Return what kind the weights are that can be run here, and their content."""
    entries: Mapping[str, Any] = package.document["weights"]
    for kind in (TORCHSCRIPT, ONNX):
        entry = entries.get(kind)
        if entry and entry.get("external_data"):
            raise WeightsError("its ONNX keeps its numbers in another file; ask its maker for one file that holds all")
        if entry:
            return kind, package.source(entry)
    if "pytorch_state_dict" in entries:
        raise WeightsError(
            "its weights are a pytorch_state_dict, which needs source code of its maker to be run, and no code of "
            "others is run here. Ask for a package with TorchScript or ONNX weights"
        )
    raise WeightsError(f"its weights are {', '.join(entries) or 'missing'}; TorchScript and ONNX can be run here")


def _description(
    document: Mapping[str, Any],
    given: InputLayout,
    outputs: Sequence[OutputLayout],
    *,
    mapped: Mapped,
    meaning: Meaning,
    kind: str,
    size: int,
    test: Tensor,
) -> Description:
    mpp_um = meaning.mpp_um or given.mpp_um
    if mpp_um is None or not 0 < mpp_um < math.inf:
        raise UnclearPackageError(
            "it does not say how large the pixels are that its network looks at; say how many micrometres, such as 0.5"
        )
    used = [outputs[head.output] for head in mapped.heads]
    if len(margins := {output.margin_px for output in used}) > 1:
        raise WeightsError("its outputs are of different sizes; it cannot be used")
    (margin,) = margins
    black, white = _range(given, test)
    tile_px, halo_px = _tile(given.sides, margin, max(output.halo_px for output in used), mpp_um)
    return Description(
        kind=kind,
        size_bytes=size,
        title=str(document.get("name", "A network of another program")),
        paper="; ".join(str(one.get("text", "")) for one in document.get("cite") or ()),
        mpp_um=mpp_um,
        axes=given.axes,
        black=black,
        white=white,
        before=given.before,
        output_axes=tuple("" if output.reason else output.axes for output in outputs),
        after=tuple(output.after for output in outputs),
        heads=mapped.heads,
        decoder=mapped.decoder,
        tile_px=tile_px,
        halo_px=halo_px,
        size_multiple=given.sides.step or tile_px + 2 * halo_px,
        output_margin_px=margin,
        least_px=given.sides.least,
        one_at_a_time=given.one_at_a_time,
    )


def _range(given: InputLayout, test: Tensor) -> tuple[float, float]:
    """Return the values that stand for black and white, stated or as the test picture has them."""
    if given.is_byte:
        return 0.0, _BYTE
    if given.least is not None and given.most is not None:
        return given.least, given.most
    most = float(test.max())
    if most > _BYTE:
        raise WeightsError(
            f"its input holds values up to {most:g} and it is not said which is white; 8-bit pictures are read here"
        )
    return 0.0, _UNIT if most <= _UNIT else _BYTE


def _tile(sides: Sides, margin: int, halo_px: int, mpp_um: float) -> tuple[int, int]:
    """Return side of a tile's core and halo, in pixels, that the network can take."""
    if sides.step and not margin and sides.least % sides.step:
        raise WeightsError(
            f"its input's sides are {sides.least} px and {sides.step} px more each, which tiles here cannot be"
        )
    wanted = max(halo_px, math.ceil(_HALO_UM / mpp_um))
    more = -(-max(0, _TILE_PX + 2 * (wanted + margin) - sides.least) // sides.step) if sides.step else 0
    side = sides.least + more * sides.step - 2 * margin
    halo = min(wanted, max(halo_px, side // 4))
    if side - 2 * halo < 1:
        raise WeightsError(f"its output of {side} px is all border (a halo of {halo_px} px); it cannot be used")
    return side - 2 * halo, halo


def _must_repeat(
    run: Callable[[Tensor], Sequence[Tensor | None]],
    x: Tensor,
    tests: Sequence[Tensor | None],
    outputs: Sequence[OutputLayout],
    document: Mapping[str, Any],
) -> None:
    """Refuse what does not say of the package's test picture what the package says it should."""
    try:
        with torch.inference_mode():
            found = run(x)
    except (RuntimeError, ModelError) as error:
        if isinstance(error, WeightsError):
            raise
        reason = (str(error).strip().splitlines() or [""])[-1]
        raise WeightsError(f"its network cannot be run on its own test picture: {reason}") from error
    tolerance = _tolerance(document)
    for output, expected, one in zip(outputs, tests, found, strict=True):
        if expected is not None and (one is None or not agree(expected, one, tolerance)):
            raise WeightsError(
                f"its network says something else of its own test picture than the package has as {output.name}; it "
                "is damaged, or is read in another way than it was meant. It is not used"
            )


def _tolerance(document: Mapping[str, Any]) -> float:
    """Return the tolerance a package asks for; never a looser one than a hundredth."""
    stated = ((document.get("config") or {}).get("bioimageio") or {}).get("reproducibility_tolerance") or ()
    asked = [float(one.get("absolute_tolerance", TOLERANCE)) for one in stated if isinstance(one, Mapping)]
    return min(0.01, max([TOLERANCE, *asked]))


def _must_run(network: ImportedNetwork) -> None:
    """Refuse a network that does not take a whole tile as the engine hands it over."""
    spec = network.description.spec()
    side = spec.tile_px + 2 * (spec.halo_px + spec.output_margin_px)
    try:
        with torch.inference_mode():
            found = network(torch.full((1, 3, side, side), 128.0))
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [""])[-1]
        raise WeightsError(f"its network cannot be run on a tile of {side} px: {reason}") from error
    expected = (spec.tile_px + 2 * spec.halo_px,) * 2
    for name, maps in found.items():
        if tuple(maps.shape[2:]) != expected:
            raise WeightsError(f"its map {name} is {tuple(maps.shape[2:])} px where {expected} px are described")
