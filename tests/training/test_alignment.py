"""The alignment head: neighbours land in their cell, and a student that agrees with its teacher has loss -1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evatok.training import losses
from evatok.training.alignment import AlignmentHead


def bare(head: AlignmentHead) -> AlignmentHead:
    """The head without its MLP, and with a linear map that copies as much as fits."""
    head.mlp = nn.Identity()
    with torch.no_grad():
        head.project.weight.copy_(torch.eye(*head.project.weight.shape))
        head.project.bias.zero_()
    return head


def numbered(blocks: int, height: int, width: int) -> torch.Tensor:
    """(1, K, P, 1) features: each patch's own number."""
    return torch.arange(blocks * height * width).float().view(1, blocks, height * width, 1)


def test_at_the_papers_size_space_is_merged_and_time_is_split():
    head = AlignmentHead(768, (4, 16, 16), 1024, (8, 8, 8))
    assert (head.merge, head.split) == ((1, 2, 2), (2, 1, 1))
    small = AlignmentHead(12, (4, 16, 16), 20, (8, 8, 8))
    assert small(torch.rand(2, 4, 256, 12)).shape == (2, 8, 8, 8, 20)


def test_merging_concatenates_the_neighbours_of_a_cell():
    head = bare(AlignmentHead(1, (2, 4, 4), 8, (1, 2, 2)))
    merged = head(numbered(2, 4, 4))
    assert merged.shape == (1, 1, 2, 2, 8)
    # The cell of row 0, column 1: patches of rows 0 and 1, columns 2 and 3, of both blocks.
    assert merged[0, 0, 0, 1].tolist() == [2, 3, 6, 7, 18, 19, 22, 23]


def test_splitting_lays_a_patchs_vectors_side_by_side():
    head = bare(AlignmentHead(4, (1, 1, 2), 2, (2, 1, 2)))
    features = torch.tensor([[[[0.0, 1, 2, 3], [10, 11, 12, 13]]]])
    split = head(features)
    assert split.shape == (1, 2, 1, 2, 2)
    assert split[0, 0, 0].tolist() == [[0, 1], [10, 11]]
    assert split[0, 1, 0].tolist() == [[2, 3], [12, 13]]


def test_every_place_of_the_teachers_grid_hears_only_of_its_own_patches():
    """Merged in space and split in time at once: nothing leaks between cells."""
    torch.manual_seed(0)
    head = AlignmentHead(3, (2, 4, 4), 5, (4, 2, 2))
    features = torch.rand(1, 2, 16, 3)
    changed = features.clone()
    changed[0, 1, 4 * 2 + 3] += 1  # block 1, row 2, column 3
    moved = (head(features) != head(changed)).any(-1)[0]
    assert moved.nonzero().tolist() == [[2, 1, 1], [3, 1, 1]]


def test_equal_grids_are_neither_merged_nor_split():
    head = AlignmentHead(6, (4, 8, 8), 7, (4, 8, 8))
    assert (head.merge, head.split) == ((1, 1, 1), (1, 1, 1))


def test_a_student_that_agrees_with_its_teacher_has_loss_minus_one():
    head = bare(AlignmentHead(4, (2, 2, 2), 4, (2, 2, 2)))
    teacher = torch.randn(3, 2, 2, 2, 4)
    student = head(5 * teacher.view(3, 2, 4, 4))
    assert losses.alignment(student, teacher).item() == pytest.approx(-1, abs=1e-5)
    assert losses.alignment(-student, teacher).item() == pytest.approx(1, abs=1e-5)


def test_the_loss_teaches_the_decoder_and_the_head():
    torch.manual_seed(0)
    head = AlignmentHead(8, (2, 2, 2), 6, (4, 2, 2))
    features, teacher = torch.randn(2, 2, 4, 8, requires_grad=True), torch.randn(2, 4, 2, 2, 6)
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    start = losses.alignment(head(features), teacher)
    start.backward()
    assert features.grad.abs().sum() > 0
    for _ in range(30):
        optimiser.zero_grad()
        loss = losses.alignment(head(features), teacher)
        loss.backward()
        optimiser.step()
    assert loss < start - 0.3


@pytest.mark.parametrize("teacher", [(3, 8, 8), (4, 12, 8), (4, 8, 5)])
def test_grids_that_do_not_divide_are_refused(teacher):
    with pytest.raises(ValueError, match=r"\(4, 8, 8\) cannot be mapped to an encoder's \("):
        AlignmentHead(8, (4, 8, 8), 8, teacher)


def test_features_of_another_grid_are_refused():
    with pytest.raises(ValueError, match=r"must be \(B, 2, 4, 8\), got \(1, 4, 2, 8\)"):
        AlignmentHead(8, (2, 2, 2), 6, (2, 2, 2))(torch.rand(1, 4, 2, 8))


def test_the_mlp_is_three_layers_of_four_times_the_width():
    with torch.device("meta"):
        head = AlignmentHead(768, (4, 16, 16), 1024, (8, 8, 8))
    assert sum(p.numel() for p in head.mlp.parameters()) == pytest.approx(14.2e6, rel=0.01)
    assert head.mlp[2].weight.shape == (3072, 3072)
