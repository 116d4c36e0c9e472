"""Parameter groups and freezing."""

import pytest
import torch
from toy import make_potential

from forgefield.core.errors import ModelError
from forgefield.train.groups import check_claimed, freeze, parameter_groups


def named(groups):
    return {group["name"]: (group["names"], group["weight_decay"]) for group in groups}


def test_vectors_and_readouts_do_not_decay():
    assert named(parameter_groups(make_potential(), 0.1, [])) == {
        "decay": (["architecture.linear.weight"], 0.1),
        "no_decay": (["architecture.linear.bias", "architecture.readouts.0.weight"], 0.0),
    }


def test_keywords_are_regular_expressions():
    groups = named(parameter_groups(make_potential(), 0.1, [r"linear\.w"]))
    assert list(groups) == ["no_decay"]
    assert len(groups["no_decay"][0]) == 3


def test_head_only():
    potential = make_potential()
    frozen = freeze(potential, "head_only")
    assert frozen == ["architecture.linear.weight", "architecture.linear.bias"]
    assert [p.requires_grad for p in potential.parameters()] == [False, False, True]
    assert named(parameter_groups(potential, 0.1, [])) == {"no_decay": (["architecture.readouts.0.weight"], 0.0)}


def test_head_only_needs_a_head():
    potential = make_potential()
    potential.architecture.head_parameters = lambda: []
    with pytest.raises(ModelError, match="no head parameters"):
        freeze(potential, "head_only")


def test_nothing_to_train():
    potential = make_potential()
    potential.requires_grad_(False)
    with pytest.raises(ModelError, match="no trainable"):
        parameter_groups(potential, 0.1, [])


def test_unclaimed_and_doubly_claimed_parameters():
    potential = make_potential()
    groups = parameter_groups(potential, 0.1, [])
    with pytest.raises(ModelError, match=r"linear\.weight"):
        check_claimed(potential, groups[1:])
    with pytest.raises(ModelError, match=r"linear\.bias"):
        check_claimed(potential, [*groups, groups[1]])
    potential.register_parameter("late", torch.nn.Parameter(torch.zeros(2)))
    with pytest.raises(ModelError, match="late"):
        check_claimed(potential, groups)
