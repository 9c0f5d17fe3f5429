"""Every network of pictures can be given to other programs as a program that agrees with it."""

import pytest

from napari_nucleiseg.core.errors import NucleiSegError
from napari_nucleiseg.core.exchange.networks.formats import export_model
from torchvision_shim import import_timm
from zoo_parts import slim_model, zoo_names


@pytest.fixture(autouse=True)
def _libraries():
    pytest.importorskip("monai", reason="the extra zoo is not installed")
    import_timm()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in zoo_names() if name != "swin-unetr"])
def test_it_leaves_as_torchscript(name, tmp_path):
    assert export_model(slim_model(name), tmp_path / "out", "torchscript").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")  # of MONAI, in numpy's ceil
def test_where_a_program_would_not_agree_nothing_is_written(tmp_path):
    """MONAI's Swin UNETR reads sizes as plain numbers, so that a trace holds those of the picture it was made with."""
    pytest.importorskip("einops")
    with pytest.raises(NucleiSegError):
        export_model(slim_model("swin-unetr"), tmp_path / "out", "torchscript")
    assert not list(tmp_path.iterdir())
