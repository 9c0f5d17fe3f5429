"""Versions form a tree, none is ever overwritten, and no tensor changes or is lost unless it is deleted."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from safetensors.torch import load_file

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, ModelError, WeightsError
from napari_nucleiseg.core.models import files
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard, load_model, remember_acceptance, save_model
from napari_nucleiseg.core.teaching import names, versions
from napari_nucleiseg.core.teaching.agreement import Agreement, Gain
from napari_nucleiseg.core.teaching.verdict import Outcome

SPEC = network_spec("nuclei", {"width": 8, "depth": 2, "widest": 16})
SCORES = Agreement(np.zeros((1, 5)), 20, 1)
BASE = ModelCard("base", "nuclei", title="Base", licence="CC0-1.0", commercial_use=True)
NETWORK = build_network(SPEC)


def taught_from(card, *, adopted=True, seed=0):
    """An outcome whose tensors depend on the seed."""
    network = build_network(SPEC)
    torch.manual_seed(seed)
    with torch.no_grad():
        next(network.parameters()).normal_()
    taught = {"family": card.taught.get("family", card.name), "slides": [{"name": "liver.svs", "fingerprint": "f"}]}
    new = replace(card, parent=card.version, created="", sha256="", taught=taught)
    model = LoadedModel(SPEC, new, network.eval())
    reason = "Better." if adopted else "Too few nuclei."
    return Outcome(model, SCORES, SCORES, Gain(0, 0, 0, 0, 0, 0, 1), None, adopted, reason, "Judged.", 2)


def digest(path):
    whole = hashlib.sha256()
    for key, value in sorted(load_file(path).items()):
        whole.update(key.encode() + value.numpy().tobytes())
    return whole.hexdigest()


def make_base(home):
    (home / "models").mkdir(parents=True)
    save_model(home / "models" / "base.safetensors", NETWORK, SPEC, BASE)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folder, with one model that was trained."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))
    make_base(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def base(home):
    return versions.find_version("base")


def shown():
    return [(branch.version.name, branch.depth) for branch in versions.tree() if branch.version.family == "base"]


def test_a_kept_version_is_found_by_its_name_and_is_what_was_judged(base):
    outcome = taught_from(base.card)
    version = versions.keep(outcome)
    assert (version.name, version.kind, version.family) == ("base-2", versions.TAUGHT, "base")
    assert version.title == "base, taught with liver.svs"
    assert version.reason == "Better."
    loaded = load_model("base-2")
    assert loaded.card == version.card
    for key, value in loaded.network.state_dict().items():
        assert torch.equal(value, outcome.model.network.state_dict()[key]), key


def test_the_tree_shows_who_was_taught_from_whom(base):
    second = versions.keep(taught_from(base.card))
    versions.keep(taught_from(base.card, seed=1))
    versions.keep(taught_from(second.card, seed=2))
    assert shown() == [("base", 0), ("base-2", 1), ("base-4", 2), ("base-3", 1)]
    assert next(branch.version.name for branch in versions.tree()) == "nuclei"


def test_a_version_whose_parent_is_gone_is_a_root_that_says_so(base):
    second = versions.keep(taught_from(base.card))
    third = versions.keep(taught_from(second.card, seed=1))
    assert versions.delete(second) == (third,)
    (branch,) = (branch for branch in versions.tree() if branch.version == third)
    assert (branch.depth, branch.missing) == (0, second.card.version)
    assert load_model("base-3").card == third.card
    # Its number is not given again: projects and children know the former one by it.
    assert versions.keep(taught_from(base.card)).name == "base-4"


def test_files_that_name_themselves_as_parents_are_shown_once(home, base):
    card = replace(BASE, name="odd", parent=f"odd@{base.card.sha256[:12]}")
    save_model(home / "models" / "odd.safetensors", NETWORK, SPEC, card)
    assert versions.find_version("odd").card.version == card.parent
    assert [branch.version.name for branch in versions.tree()].count("odd") == 1


def test_a_copy_of_a_file_does_not_double_what_was_taught_from_it(home, base):
    second = versions.keep(taught_from(base.card))
    versions.keep(taught_from(second.card, seed=1))
    (home / "models" / "copy.safetensors").write_bytes(second.path.read_bytes())
    listed = [branch.version.name for branch in versions.tree()]
    assert sorted(listed) == sorted(
        {"nuclei", "nuclei-fine", "nuclei-label-free", "nuclei-research", "base", "base-2", "base-3", "copy"}
    )


def test_a_refused_version_is_apart_until_it_is_taken_anyway(base):
    refused = versions.keep(taught_from(base.card, adopted=False))
    assert refused.kind == versions.REFUSED
    with pytest.raises(ModelError, match="there is no model called base-2"):
        load_model("base-2")
    assert load_model(str(refused.path)).card == refused.card
    with pytest.raises(ModelError, match="The guard refused base-2: Too few nuclei"):
        versions.prefer(refused)
    taken = versions.take_anyway(refused)
    assert (taken.kind, taken.was_refused, taken.reason) == (versions.TAUGHT, True, "Too few nuclei.")
    assert load_model("base-2").card == refused.card
    assert not refused.path.exists()
    with pytest.raises(ModelError, match="is in use already"):
        versions.take_anyway(taken)


def test_taking_overwrites_nothing(base):
    refused = versions.keep(taught_from(base.card, adopted=False))
    in_the_way = names.models_folder() / refused.path.name
    in_the_way.write_bytes(b"mine")
    with pytest.raises(WeightsError, match="none is ever overwritten"):
        versions.take_anyway(refused)
    assert in_the_way.read_bytes() == b"mine"
    assert refused.path.exists()


def test_a_new_title_leaves_all_else(base):
    former = digest(base.path)
    renamed = versions.rename(base, "  Liver,\nsecond µ try ")
    assert renamed == replace(base, title="Liver, second µ try", card=replace(base.card, title="Liver, second µ try"))
    assert digest(base.path) == former
    assert versions.find_version("base") == renamed
    assert load_model("base").version == base.card.version
    with pytest.raises(ModelError, match="at least one letter"):
        versions.rename(base, " ")


def test_what_is_shipped_stays(home):
    shipped = versions.find_version("nuclei")
    assert shipped.kind == versions.SHIPPED
    with pytest.raises(ModelError, match="comes with the program and cannot be deleted"):
        versions.delete(shipped)
    with pytest.raises(ModelError, match="cannot be renamed"):
        versions.rename(shipped, "mine")


def test_an_export_is_a_whole_file_and_overwrites_nothing(base, tmp_path):
    out = versions.export(base, tmp_path / "out")
    assert out == tmp_path / "out.safetensors"
    assert out.read_bytes() == base.path.read_bytes()
    assert versions.export(base, tmp_path) == tmp_path / "base.safetensors"
    out.write_bytes(b"mine")
    with pytest.raises(WeightsError, match="is there already and stays as it is"):
        versions.export(base, out)
    assert out.read_bytes() == b"mine"


def test_the_name_of_a_deleted_version_is_not_given_again(home, base):
    second = versions.keep(taught_from(base.card), name="liver")
    versions.delete(second)
    versions.delete(versions.keep(taught_from(base.card, seed=1)))
    assert versions.keep(taught_from(base.card, seed=2)).name == "base-3"
    with pytest.raises(ModelError, match="there was a model called Liver, and results may still name it"):
        versions.keep(taught_from(base.card, seed=3), name="Liver")
    (home / "models" / "retired.json").write_text("{")
    assert versions.keep(taught_from(base.card, seed=4), name="liver").name == "liver"


def test_going_back_is_to_prefer_the_parent(base):
    assert versions.preferred("base") is None
    second = versions.keep(taught_from(base.card))
    versions.prefer(second)
    assert versions.preferred("base") == second
    versions.prefer(base)
    assert versions.preferred("base") == base
    versions.prefer(versions.find_version("nuclei"))
    assert versions.preferred("base") == base
    versions.prefer(second)
    versions.delete(second)
    assert versions.preferred("base") is None
    assert versions.preferred("nuclei").name == "nuclei"


@pytest.mark.parametrize("content", ["", "{", "[1]", "7"])
def test_a_damaged_file_of_preferences_says_nothing(home, base, content):
    (home / "preferred.json").write_text(content)
    assert versions.preferred("base") is None
    versions.prefer(base)
    assert versions.preferred("base") == base


@pytest.mark.parametrize("name", ["a/b", "..", "", " x", "x ", "a" * 200, "x.safetensors", "nuclei", "BASE"])
def test_names_that_no_file_can_have_or_that_are_taken(home, base, name):
    with pytest.raises(ModelError):
        versions.check_name(name)


def test_a_name_of_ones_own(base):
    assert versions.keep(taught_from(base.card), name="liver", title="Liver").title == "Liver"
    with pytest.raises(ModelError, match="there is a model called liver already"):
        versions.keep(taught_from(base.card), name="liver")
    # The family goes on counting.
    assert versions.keep(taught_from(versions.find_version("liver").card)).name == "base-2"


def test_who_accepted_a_licence_need_not_do_so_again_for_what_was_taught(home):
    card = replace(BASE, name="study", licence="CC-BY-NC-4.0", commercial_use=False)
    versions.keep(taught_from(card))
    with pytest.raises(LicenceNotAcceptedError):
        load_model("study-2")
    remember_acceptance(card)
    versions.keep(taught_from(card, seed=1))
    assert load_model("study-3").card.licence == "CC-BY-NC-4.0"


def test_a_full_disk_is_said_and_leaves_nothing(home, base, monkeypatch):
    def full(_number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    former = sorted(home.rglob("*"))
    with pytest.raises(WeightsError, match=r"is full; \d+ MB are needed\. Make space and try again"):
        versions.keep(taught_from(base.card))
    with pytest.raises(WeightsError, match="is full"):
        versions.rename(base, "other")
    with pytest.raises(WeightsError, match="is full"):
        versions.prefer(base)
    assert sorted(home.rglob("*")) == former
    assert versions.find_version("base") == base


def test_a_file_where_the_folder_should_be_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path))
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(WeightsError, match="is no folder"):
        versions.keep(taught_from(BASE))


def test_a_disk_without_links_is_written_all_the_same(base, monkeypatch):
    def refuse(*_args):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files.os, "link", refuse)
    assert versions.keep(taught_from(base.card)).name == "base-2"
    with pytest.raises(FileExistsError):
        files.write_new(base.path, b"other")


def test_what_damaged_files_hold_is_left_out(home, base):
    (home / "models" / "half.safetensors").write_bytes(base.path.read_bytes()[:100])
    assert "half" not in [version.name for version in versions.all_versions()]
    with pytest.raises(ModelError, match="there is a model called half already"):
        versions.check_name("half")


# A process that keeps one version after the other until it is killed.
KEEPING = """
import sys
sys.path.insert(0, sys.argv[2])
import platformdirs, torch
platformdirs.user_data_dir = lambda *_a, **_k: sys.argv[1]
torch.set_num_threads(1)
import test_versions as here
card = here.versions.find_version("base").card
for seed in range(10_000):
    outcome = here.taught_from(card, adopted=seed % 2 == 0, seed=seed)
    print("begun", flush=True)
    here.versions.keep(outcome)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are sent as POSIX does")
def test_a_kill_while_keeping_leaves_no_half_version(home, base):
    words = [sys.executable, "-c", KEEPING, str(home), str(Path(__file__).parent)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(12):
            assert process.stdout.readline() == "begun\n", process.stderr.read()
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    kept = [version for version in versions.all_versions() if version.kind != versions.SHIPPED]
    assert len(kept) in {12, 13}  # eleven, perhaps the one that was under way, and the first
    on_disk = [*names.models_folder().glob("*.safetensors"), *names.refused_folder().glob("*.safetensors")]
    assert len(on_disk) == len(kept)
    for version in kept:
        assert load_model(str(version.path)).card == version.card


def test_what_a_killed_process_left_half_written_is_swept_away(home, base):
    old, new = (home / "models" / f"{name}.safetensors.ab{files.ENDING}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    versions.keep(taught_from(base.card))
    assert not old.exists()
    assert new.exists()


class Versions(RuleBasedStateMachine):
    """Any sequence of keeping, renaming, taking, deleting and preferring."""

    kept = Bundle("kept")

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.home = Path(self.folder) / str(len(list(Path(self.folder).iterdir())))
        self.patch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(self.home))
        make_base(self.home)
        self.tensors = {"base": digest(versions.find_version("base").path)}
        self.parents = {"base": ""}
        self.preferred = ""
        self.seed = 0

    def teardown(self):
        self.patch.undo()

    @rule(target=kept)
    def first(self):
        return self._keep("base", adopted=True)

    @rule(target=kept, parent=kept, adopted=st.booleans())
    def next(self, parent, adopted):
        return self._keep(parent if parent in self.tensors else "base", adopted=adopted)

    def _keep(self, parent, *, adopted):
        self.seed += 1
        outcome = taught_from(versions.find_version(parent).card, adopted=adopted, seed=self.seed)
        version = versions.keep(outcome)
        # Not even that of a deleted one: results on slides still name it.
        assert version.name not in self.parents
        self.tensors[version.name] = digest(version.path)
        self.parents[version.name] = parent
        return version.name

    @rule(name=kept, title=st.text(min_size=1, max_size=5))
    def rename(self, name, title):
        if name in self.tensors and title.split():
            assert versions.rename(versions.find_version(name), title).title == " ".join(title.split())

    @rule(name=kept)
    def take(self, name):
        if name in self.tensors and versions.find_version(name).kind == versions.REFUSED:
            assert versions.take_anyway(versions.find_version(name)).was_refused

    @rule(name=kept)
    def prefer(self, name):
        if name in self.tensors and versions.find_version(name).kind != versions.REFUSED:
            versions.prefer(versions.find_version(name))
            self.preferred = name

    @rule(name=consumes(kept))
    def delete(self, name):
        if name in self.tensors:
            below = versions.delete(versions.find_version(name))
            assert {version.name for version in below} == {
                child for child in self.tensors if self.parents[child] == name
            }
            del self.tensors[name]
            self.preferred = "" if self.preferred == name else self.preferred

    @invariant()
    def nothing_is_lost_and_the_tree_is_whole(self):
        branches = [branch for branch in versions.tree() if branch.version.kind != versions.SHIPPED]
        assert {branch.version.name: digest(branch.version.path) for branch in branches} == self.tensors
        assert len(branches) == len(self.tensors)
        above = []
        for branch in branches:
            parent, name = self.parents[branch.version.name], branch.version.name
            del above[branch.depth :]
            assert (above[-1] if above else "") == (parent if parent in self.tensors else ""), name
            assert bool(branch.missing) == bool(parent and parent not in self.tensors)
            above.append(name)
        preferred = versions.preferred("base")
        assert (preferred.name if preferred else "") == self.preferred


def test_no_sequence_of_changes_loses_a_version_or_breaks_the_tree(tmp_path):
    Versions.folder = tmp_path
    case = Versions.TestCase()
    case.settings = settings(
        max_examples=12, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    case.runTest()


def test_cards_of_before_still_load(home):
    path = home / "models" / "base.safetensors"
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    card = json.loads(json.loads(content[8:end])["__metadata__"]["card"])
    card.pop("taught")
    header = json.loads(content[8:end])
    header["__metadata__"]["card"] = json.dumps(card)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
    assert versions.find_version("base").card.taught == {}
    assert versions.keep(taught_from(versions.find_version("base").card)).name == "base-2"


def test_a_file_that_was_given_another_name_is_found_by_both(base):
    moved = base.path.rename(base.path.with_name("liver.safetensors"))
    assert versions.find_version("liver").path == versions.find_version("base").path == moved
