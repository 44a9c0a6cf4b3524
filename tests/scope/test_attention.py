"""Attention before and after, against transformers' own maps and against planted truth."""

import copy

import pytest
import torch

from loratelier.base import Base
from loratelier.kit.errors import InputError
from loratelier.scope.attention import look_at_attention
from loratelier.scope.change import Change
from tests.conftest import our_hooks
from tests.scope.changes import build, by_hand, on, random_pair

TEXT = "Кто смотрит на кого? Who looks."
SITES = {
    "gpt2": ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_fc"],
    "llama": ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"],
}


def ids_of(base, text=TEXT):
    return base.tokenizer(text)["input_ids"]


def eager_maps(change, ids):
    """What transformers gives with output_attentions: [rows, L, H, T, T]."""
    model = change.base.model
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    batch = torch.tensor([ids] * change.rows)
    with torch.no_grad(), change.together():
        maps = model(input_ids=batch, use_cache=False, output_attentions=True).attentions
    model.set_attn_implementation(before)
    return torch.stack(maps, 1)


@pytest.mark.parametrize("arch", ["llama", "mistral", "gemma2", "gemma3", "gpt2", "gpt_oss"])
def test_both_sides_equal_transformers_own_maps(arch):
    base = build(arch)
    change = Change(base, on(base, *SITES.get(arch, SITES["llama"][:1])))
    ids = ids_of(base)
    seen = look_at_attention(change, ids)
    theirs = eager_maps(change, ids)
    assert seen.before.shape == (2, 4, len(ids), len(ids))
    torch.testing.assert_close(seen.before, theirs[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.after, theirs[1], atol=1e-5, rtol=0)
    assert (seen.after - seen.before).abs().max() > 0.01  # the comparison is of something
    assert seen.before.triu(1).abs().max() == 0  # nobody looks ahead


@pytest.fixture(scope="module")
def llama():
    return build("llama", num_hidden_layers=3)


def head_rows(head, size=8):
    return slice(head * size, (head + 1) * size)


@pytest.mark.parametrize(("layer", "head"), [(0, 1), (1, 3), (2, 0)])
def test_an_adapter_of_one_heads_queries_is_seen_in_that_head(llama, layer, head):
    site = f"model.layers.{layer}.self_attn.q_proj"
    adapter = by_hand(llama, {site: random_pair(llama, site, scale=1.0, rows=head_rows(head))})
    seen = look_at_attention(Change(llama, adapter), ids_of(llama))
    # Within its layer and below nothing else moves; the layers above see other inputs.
    moved = seen.by_head
    assert int(moved[layer].argmax()) == head
    assert moved[layer, head] > 0.05
    others = [h for h in range(4) if h != head]
    assert moved[layer, others].max() < 1e-6
    assert layer == 0 or moved[:layer].max() < 1e-6
    # What layers do by themselves is the planted truth alone.
    assert divmod(int(seen.direct.argmax()), 4) == (layer, head)
    elsewhere = seen.direct.clone()
    elsewhere[layer, head] = 0
    assert elsewhere.max() < 1e-6
    torch.testing.assert_close(seen.direct[layer, head], moved[layer, head], atol=1e-6, rtol=0)
    assert [each.queries for each in seen.touched] == [
        (head,) if number == layer else () for number in range(3)
    ]
    assert seen.together == {}
    if layer == 2:  # nothing is above it, so that the largest single move is its own too
        assert (seen.moves[0].layer, seen.moves[0].head) == (layer, head)


def test_a_change_of_keys_is_shared_by_the_heads_of_their_group(llama):
    site = "model.layers.1.self_attn.k_proj"
    adapter = by_hand(llama, {site: random_pair(llama, site, scale=1.0, rows=head_rows(1))})
    seen = look_at_attention(Change(llama, adapter), ids_of(llama))
    assert seen.groups == ((0, 0, 1, 1),) * 3
    assert seen.touched[1].keys == (1,)
    assert seen.touched[1].queries == ()
    assert seen.together == {1: (1,)}
    assert seen.direct[1, 2:].min() > 0.01
    assert seen.direct[1, :2].max() < 1e-6
    assert "move together" in seen.sentences[-1]
    assert seen.to_json()["together"] == {"1": [1]}


def test_values_are_carried_and_do_not_steer(llama):
    adapter = on(llama, "model.layers.1.self_attn.v_proj")
    seen = look_at_attention(Change(llama, adapter), ids_of(llama))
    assert seen.touched[1].values == (0, 1)
    assert seen.touched[1].keys == ()
    assert seen.direct.max() < 1e-6
    assert seen.by_layer[2] > 1e-3  # the layer above reads what was carried


def test_summaries_are_those_of_the_whole_maps(llama, monkeypatch):
    monkeypatch.setattr("loratelier.base.attention._BLOCK", 2 * 4 * 31 * 7)  # blocks of 7 or so
    change = Change(llama, on(llama, *SITES["llama"]))
    ids = ids_of(llama)
    seen = look_at_attention(change, ids, top=9)
    maps = eager_maps(change, ids)
    torch.testing.assert_close(seen.difference, maps[1] - maps[0], atol=1e-5, rtol=0)
    shift = 0.5 * (maps[1] - maps[0]).abs().sum(-1)
    torch.testing.assert_close(seen.by_query, shift, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.by_layer, shift.mean((1, 2)), atol=1e-5, rtol=0)
    largest = (maps[1] - maps[0]).abs().flatten().topk(9).values
    found = torch.tensor([abs(gaze.moved) for gaze in seen.moves])
    torch.testing.assert_close(found, largest, atol=1e-5, rtol=0)
    for gaze in seen.moves:
        assert gaze.after == pytest.approx(float(maps[1, gaze.layer, gaze.head, gaze.at, gaze.to]))
        assert gaze.at >= gaze.to
        assert gaze.at_token == seen.tokens[gaze.at]
    mean = maps.mean((1, 2))
    torch.testing.assert_close(seen.mean_before, mean[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.mean_after, mean[1], atol=1e-5, rtol=0)
    pair = seen.pairs[0]
    assert abs(pair.moved) == pytest.approx(float((mean[1] - mean[0]).abs().max()), abs=1e-5)
    assert 0 < seen.by_head.max() <= 1


def test_one_row_at_a_time_is_that_row_of_the_whole(llama):
    change = Change(llama, on(llama, *SITES["llama"]))
    ids = ids_of(llama)
    whole = look_at_attention(change, ids)
    some = look_at_attention(change, ids, query=[-1, 3])
    assert some.queries == (3, len(ids) - 1)
    assert some.before.shape == (3, 4, 2, len(ids))
    assert torch.equal(some.after, whole.after[:, :, [3, -1]])
    assert some.moves == whole.moves
    room = 8 * 3 * 4 * len(ids)
    assert look_at_attention(change, ids, most_bytes=room).queries == ()
    assert look_at_attention(change, ids, query=5, most_bytes=room).queries == (5,)
    assert some.row(3)["after"] == whole.after[:, :, 3].tolist()
    with pytest.raises(InputError, match="position 4 was not kept"):
        some.row(4)
    with pytest.raises(InputError, match="Ask for 1 at a time"):
        look_at_attention(change, ids, query=[5, 6], most_bytes=room)
    with pytest.raises(InputError, match="Position 99 is not in this text"):
        look_at_attention(change, ids, query=99)
    with pytest.raises(InputError, match="no tokens"):
        look_at_attention(change, [])


def test_an_adapter_without_effect_moves_nothing_at_all(tiny_base, silent):
    seen = look_at_attention(Change(tiny_base, silent), ids_of(tiny_base))
    assert not seen.effect
    for figure in (seen.difference, seen.by_head, seen.direct, seen.mean_after - seen.mean_before):
        assert not bool(figure.any())
    assert seen.moves == seen.pairs == ()
    assert seen.sentences == ("No attention moves: nothing differs between before and after",)
    assert seen.to_json()["by_layer"] == [0.0, 0.0]


def test_two_versions_of_an_adapter_are_compared_with_each_other(llama):
    one = on(llama, "model.layers.1.self_attn.q_proj", name="one")
    other = on(llama, "model.layers.2.self_attn.q_proj", name="other")
    seen = look_at_attention(Change(llama, other, before=one), ids_of(llama))
    bare = look_at_attention(Change(llama, one), ids_of(llama))
    torch.testing.assert_close(seen.before, bare.after)
    assert [bool(each.queries) for each in seen.touched] == [False, True, True]


def test_the_model_keeps_its_attention_whatever_happens(llama, monkeypatch):
    change = Change(llama, on(llama, *SITES["llama"]))
    ids = ids_of(llama)
    for own in ("eager", "sdpa"):
        llama.model.set_attn_implementation(own)
        look_at_attention(change, ids)
        assert llama.model.config._attn_implementation == own

    def stumbles(*_):
        raise RuntimeError("stumbled")

    monkeypatch.setattr("loratelier.scope.attention_sums.Sums.see", stumbles)
    with pytest.raises(RuntimeError, match="stumbled"):
        look_at_attention(change, ids)
    assert llama.model.config._attn_implementation == "sdpa"
    assert our_hooks(llama.model) == []


def test_a_base_whose_attention_is_its_own_affair_is_refused(llama, monkeypatch):
    other = Base.of(copy.deepcopy(llama.model), llama.tokenizer, name="other")
    monkeypatch.setattr(
        type(other.model), "_can_set_attn_implementation", classmethod(lambda cls: False)
    )
    monkeypatch.setattr(
        type(other.model.model), "_can_set_attn_implementation", classmethod(lambda cls: False)
    )
    with pytest.raises(InputError, match="cannot be seen"):
        look_at_attention(Change(other, on(other, SITES["llama"][0])), ids_of(other))


def test_the_demo_base_is_seen_as_transformers_sees_it(demo_base):
    change = Change(demo_base, on(demo_base, "model.layers.15.self_attn.q_proj"))
    ids = ids_of(demo_base, "Тишина говорит громче. Silence speaks.")
    seen = look_at_attention(change, ids)
    theirs = eager_maps(change, ids)
    torch.testing.assert_close(seen.before, theirs[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.after, theirs[1], atol=1e-5, rtol=0)
    assert [each.layer for each in seen.touched if each.queries] == [15]
    assert int(seen.direct.max(1).values.argmax()) == 15
