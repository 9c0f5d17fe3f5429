"""Two processes with half a batch each learn what one learns from all of it."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.training.dino.loop import pretrain
from napari_nucleiseg.core.training.dino.processes import Processes

CODE = "from napari_nucleiseg.cli import main; import sys; sys.exit(main())"


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_gradients_centre_and_teacher_of_two_processes_are_those_of_one(config, tmp_path):
    config = replace(config, steps=1, drop_path=0.0, clip=0.0, mixed_precision=False, freeze_last=0.0)
    (only,) = pretrain(config)
    both = replace(config, out=str(tmp_path / "both"))
    (tmp_path / "both.json").write_text(json.dumps(asdict(both)))
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CODE, "pretrain", "dino", "--config", str(tmp_path / "both.json")]
    ranks = [{**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    running = [subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) for env in ranks]
    told = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    states = [torch.load(f"{item.out}/last.pt", weights_only=True) for item in (config, both)]
    # Adam keeps a tenth of the first gradient; its step is not compared, for it magnifies what rounding does.
    moments = [state["optimiser"]["state"] for state in states]
    assert moments[0].keys() == moments[1].keys()
    for key, moment in moments[0].items():
        other = moments[1][key]["exp_avg"]
        assert moment["exp_avg"].abs().max() > 0
        assert torch.allclose(moment["exp_avg"], other, rtol=1e-3, atol=1e-3 * float(moment["exp_avg"].abs().max()))
    centres = [state["loss"]["centre"] for state in states]
    assert centres[0].abs().max() > 0
    assert torch.allclose(*centres, atol=1e-6)
    logs = [json.loads((tmp_path / name / "log.jsonl").read_text())["loss"] for name in ("run", "both")]
    assert logs == pytest.approx([only.loss] * 2, rel=1e-5)


def test_a_batch_that_cannot_be_parted_is_refused():
    assert Processes(1, 2).part_of(6) == range(3, 6)
    with pytest.raises(DataError, match="batch of 5 cannot be parted among 2 processes"):
        Processes(0, 2).part_of(5)


def test_one_process_alone_changes_nothing():
    value = torch.tensor([1.0, 2.0])
    assert torch.equal(Processes().mean(value), value)
    Processes().average_gradients([value])
    Processes().wait()
