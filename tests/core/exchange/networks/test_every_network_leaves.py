"""Every network of pictures can be given to other programs as a program that agrees with it."""

import pytest

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.networks.formats import export_model
from napari_nucleiseg.core.models.registry import network_names, network_spec
from small_models import SMALL
from torchvision_shim import import_timm
from zoo_parts import slim_model, zoo_names

# Networks outside of the zoo whose sibling is tried beside, with every format.
SIBLINGS = {"nuclei-fine": {"width": 4, "depth": 1, "widest": 8}, "scale-attention": {"width": 4}}


@pytest.fixture(autouse=True)
def _libraries():
    pytest.importorskip("monai", reason="the extra zoo is not installed")
    import_timm()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*zoo_names(), *SIBLINGS])
def test_it_leaves_as_torchscript(name, tmp_path):
    model = slim_model(name, **SIBLINGS.get(name, {}))
    assert export_model(model, tmp_path / "out", "torchscript").stat().st_size > 1000


def test_no_network_of_pictures_is_left_out():
    """Those outside of the zoo are tried beside, with every format."""
    pictures = {name for name in network_names() if network_spec(name).dimensions == 2}
    assert pictures == {*zoo_names(), *SIBLINGS, *SMALL}


def test_where_a_program_could_not_say_the_same_nothing_is_written(tmp_path):
    """Windows of Swin UNETR that cover the whole map of a small picture are shifted in a larger one."""
    pytest.importorskip("einops")
    with pytest.raises(ExportError, match="windows of 16 tokens are as large as its coarsest maps"):
        export_model(slim_model("swin-unetr", window=16), tmp_path / "out", "torchscript")
    assert not list(tmp_path.iterdir())
