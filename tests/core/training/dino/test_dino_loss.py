"""The loss and the centre are those of the paper, written out slowly; the watch tells collapse from health."""

import numpy as np
import pytest
import torch

from napari_nucleiseg.core.training.dino.head import DinoHead
from napari_nucleiseg.core.training.dino.loss import DinoLoss, collapse_watch

TEMPERATURE, STUDENT = 0.04, 0.1


def softmax(values):
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def reference(student, teacher, centre):
    """Every pair of a view of the teacher and another of the student, sample by sample."""
    pairs = []
    for ours, seen in enumerate(teacher):
        for theirs, said in enumerate(student):
            if ours == theirs:
                continue
            crosses = [
                -np.sum(softmax((seen[row] - centre) / TEMPERATURE) * np.log(softmax(said[row] / STUDENT)))
                for row in range(len(said))
            ]
            pairs.append(np.mean(crosses))
    return np.mean(pairs)


@pytest.fixture
def outputs():
    """Of five views by the student, of the first two by the teacher."""
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (5, 3, 7)), rng.uniform(-1, 1, (2, 3, 7))


def test_loss_and_centre_are_those_written_out_slowly(outputs):
    student, teacher = outputs
    loss = DinoLoss(7, STUDENT, momentum=0.9)
    loss.centre.copy_(torch.linspace(-0.3, 0.3, 7))
    centre = loss.centre.numpy().copy()
    student_tensor, teacher_tensor = torch.tensor(student).float(), torch.tensor(teacher).float()
    found = loss(student_tensor, loss.targets(teacher_tensor, TEMPERATURE))
    assert float(found) == pytest.approx(reference(student, teacher, centre), rel=1e-5)
    loss.move_centre(teacher_tensor)
    assert np.allclose(loss.centre, 0.9 * centre + 0.1 * teacher.reshape(-1, 7).mean(axis=0), atol=1e-6)


def test_a_view_is_not_told_by_itself(outputs):
    student, teacher = (torch.tensor(item).float() for item in outputs)
    student.requires_grad_()
    loss = DinoLoss(7, STUDENT)
    # Two views, of which the teacher saw the first: only the second is taught.
    loss(student[:2], loss.targets(teacher[:1], TEMPERATURE)).backward()
    assert not student.grad[0].any()
    assert student.grad[1].any()


def test_collapse_is_seen_in_either_form():
    one, even = torch.zeros(2, 8, 16), torch.full((2, 8, 16), 1 / 16)
    one[..., 3] = 1
    each = torch.eye(16).view(2, 8, 16)
    same, apart = torch.ones(16, 32), torch.randn(16, 32, generator=torch.manual_seed(0))
    assert collapse_watch(one, same) == pytest.approx({"entropy": 0, "used": 0, "feature_std": 0}, abs=1e-5)
    assert collapse_watch(even, same)["entropy"] == pytest.approx(np.log(16))
    healthy = collapse_watch(each, apart)
    assert healthy["entropy"] == pytest.approx(0)
    assert healthy["used"] == pytest.approx(np.log(16))
    assert healthy["feature_std"] == pytest.approx(1, abs=0.1)


def test_outputs_are_cosines_whatever_the_lengths():
    torch.manual_seed(0)
    head = DinoHead(6, hidden=8, bottleneck=4, prototypes=5)
    features = torch.randn(3, 6)
    before = head(features)
    assert before.shape == (3, 5)
    assert before.abs().max() <= 1 + 1e-6
    with torch.no_grad():
        head.prototypes.mul_(torch.linspace(0.5, 3, 5)[:, None])
        assert torch.allclose(head(features), before, atol=1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            assert head(features).dtype == torch.float32
