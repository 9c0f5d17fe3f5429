"""What the model browser offers: which rows there are, what words and filters leave of them, how each is trained."""

import pytest

from napari_nucleiseg.core.models.catalogue import NetworkEntry
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.models.weights import ModelCard
from napari_nucleiseg.viewer.model_rows import CLUSTER, TEACH, UNLABELLED, chosen_rows, rows_of

NETWORKS = ("hover-net", "nuclei", "s3net", "scale-attention", "unet-3d")
CARDS = (
    ModelCard("nuclei", "nuclei", title="Nuclei in H&E", licence="CC0-1.0", commercial_use=True),
    ModelCard("looks", "scale-attention", title="Looks", licence="CC-BY-NC-4.0"),
    ModelCard("volume", "unet-3d", title="Volume", licence="CC0-1.0", commercial_use=True),
    ModelCard("stranger", "imported", title="From elsewhere", training_data=("DSB 2018",)),
)


@pytest.fixture
def rows():
    return rows_of(CARDS, [NetworkEntry(network_spec(name), name != "hover-net") for name in NETWORKS])


def keys(rows, words="", *filters):
    return [row.key for row in chosen_rows(rows, words, filters)]


def test_models_come_first_and_share_no_key_with_networks(rows):
    assert keys(rows) == [*(f"model {card.name}" for card in CARDS), *(f"network {name}" for name in NETWORKS)]
    assert rows[0].entry is rows[5].entry  # its network is known, too
    assert rows[3].entry is None


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("hover", ["network hover-net"]),
        ("touching CROWDED", ["network hover-net"]),
        ("graham 2019", ["network hover-net"]),
        ("dsb", ["model stranger"]),
        ("milletari", []),
        ("monai", ["model volume", "network hover-net", "network unet-3d"]),
    ],
)
def test_all_words_must_occur_somewhere(rows, words, found):
    assert keys(rows, words) == found


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (("usable", "free"), ["model nuclei", "model volume"]),
        (("trainable", "installed"), [f"network {name}" for name in NETWORKS if name != "hover-net"]),
        (("attention",), ["model looks", "network scale-attention"]),
        (("stacks",), ["model volume", "network unet-3d"]),
        (("usable", "trainable"), []),
    ],
)
def test_filters_add_up(rows, filters, found):
    assert keys(rows, "", *filters) == found


def test_each_is_trained_where_it_can_be(rows):
    by_key = {row.key: row for row in rows}
    assert {key: row.trained_in for key, row in by_key.items()} == {
        "model nuclei": TEACH,
        "model looks": TEACH,
        "model volume": "",
        "model stranger": "",
        "network hover-net": "",
        "network nuclei": "",
        "network s3net": CLUSTER,
        "network scale-attention": UNLABELLED,
        "network unet-3d": "",
    }
    assert by_key["model nuclei"].command == "napari-nucleiseg finetune SLIDE --model nuclei"
    assert by_key["model stranger"].command == ""
    assert "--network unet-3d" in by_key["model volume"].command
