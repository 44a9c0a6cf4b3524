"""Strengths, directions and intruders, against dense matrices."""

import pytest
import torch

from loratelier import InputError
from loratelier.adapter import store
from loratelier.edit import drop_directions, drop_intruders, scale_sites
from tests.cli.test_errors import refused, run
from tests.scope.changes import by_hand

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"


def test_strengths_multiply_the_update_and_keep_the_factors(adapter):
    half = scale_sites(adapter, {"*.layers.1.*": 0.5, "*.down_proj": -3}, name="half")
    assert torch.equal(half.deltas[Q], adapter.deltas[Q])
    torch.testing.assert_close(half.deltas[DOWN], -1.5 * adapter.deltas[DOWN])
    assert all(map(torch.equal, half.tensors[DOWN], adapter.tensors[DOWN]))
    assert scale_sites(adapter, {Q: 0}, name="x").sites == (DOWN,)
    assert half.card.parents[0]["digest"] == adapter.digest
    for strengths in ({"*": 0}, {"*.nothing": 1}, {Q: float("nan")}):
        with pytest.raises(InputError):
            scale_sites(adapter, strengths, name="x")


def test_a_direction_is_taken_out(adapter):
    left, values, right = torch.linalg.svd(adapter.deltas[DOWN])
    rest = drop_directions(adapter, {DOWN: [1]}, name="rest")
    wanted = values[1] * left[:, 1:2] @ right[1:2]
    torch.testing.assert_close(rest.deltas[DOWN], wanted, rtol=1e-4, atol=1e-5)
    assert rest.tensors[DOWN][0].shape[0] == 1
    assert drop_directions(adapter, {DOWN: [1, 2]}, name="x").sites == (Q,)
    with pytest.raises(InputError, match="no direction 3"):
        drop_directions(adapter, {DOWN: [3]}, name="x")


def test_intruders_are_taken_out_and_nothing_else(tiny_base):
    """One direction far stronger than the weight, and one that strengthens what is there."""
    weight = tiny_base.model.get_submodule(DOWN).weight.double()
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    odd = torch.nn.functional.normalize(left.sum(1, keepdim=True), dim=0)
    known = left[:, :1]
    up = torch.cat([3 * values[0] * odd, values[0] * known], dim=1).float()
    down = torch.stack([right[7], right[0]]).float()
    loud = by_hand(tiny_base, {DOWN: (down, up)})
    quiet = drop_intruders(tiny_base, loud, name="quiet")
    assert quiet.card.edits["sites"]["intruders"][DOWN] >= 1
    after = weight + quiet.deltas[DOWN].double()
    new = torch.linalg.svd(after, full_matrices=False)[0][:, :10]
    assert float((left.T @ new).abs().amax(0).min()) >= 0.5
    with pytest.raises(InputError, match="no intruder"):
        drop_intruders(tiny_base, quiet, name="x")


def test_on_the_command_line(home, adapter):
    adapter.save(store.path_of("worn"))
    done = run(
        "edits", "sites", "worn", "--scale", "*.q_proj=0", "--drop", f"{DOWN}=2", "--name", "n"
    )
    assert done.returncode == 0, done.stderr
    assert store.open("n").sites == (DOWN,)
    assert store.open("n").rank == 1
    refused(run("edits", "sites", "worn", "--name", "m"), "Nothing is to be changed")
    refused(run("edits", "sites", "worn", "--scale", "q=x", "--name", "m"), "'x' is no number")
    refused(run("edits", "undo", "worn", "--name", "m"), "wears no edits")
