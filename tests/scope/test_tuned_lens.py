"""The tuned lens: trained, kept, and used on its own base alone."""

import pytest
import torch
from safetensors.torch import save_file

from loratelier.base.likelihood import general_text
from loratelier.kit.errors import InputError
from loratelier.scope.change import Change
from loratelier.scope.lens import look_at_lens
from loratelier.scope.tuned_lens import TunedLens
from loratelier.scope.tuned_lens_train import train_tuned_lens
from tests.scope.changes import build, on

TEXTS = [*general_text()[:6], "Мысль изречённая есть ложь. Взрывая, возмутишь ключи." * 4]


@pytest.fixture(scope="module")
def base():
    return build("llama")


@pytest.fixture(scope="module")
def lens(base):
    return train_tuned_lens(base, TEXTS, steps=60, learning_rate=0.03)


def test_it_comes_nearer_to_the_output_on_text_held_out(lens):
    assert len(lens.plain) == len(lens.tuned) == 2
    for plain, tuned in zip(lens.plain, lens.tuned, strict=True):
        assert tuned < 0.8 * plain
    assert lens.held_out > 0


def test_its_figure_is_the_divergence_of_the_lens_from_the_models_output(base, lens):
    """Measured again by hand, on text that it has not seen either."""
    ids = torch.tensor([base.tokenizer("Совсем другой текст, unseen before.")["input_ids"]])
    model = base.model
    with torch.no_grad():
        seen = model(input_ids=ids, output_hidden_states=True)
        final = seen.logits[0].log_softmax(-1)
        kl = {}
        for name, states in (
            ("plain", seen.hidden_states[0]),
            ("tuned", lens.translate(0, seen.hidden_states[0])),
        ):
            read = model.lm_head(model.model.norm(states))[0].log_softmax(-1)
            kl[name] = float((final.exp() * (final - read)).sum(-1).mean())
    assert kl["tuned"] < kl["plain"]


def test_it_is_read_with_and_leaves_the_last_row_alone(base, lens):
    change = Change(base, on(base, "model.layers.1.mlp.up_proj"))
    ids = base.tokenizer("Проба.")["input_ids"]
    plain, tuned = look_at_lens(change, ids), look_at_lens(change, ids, tuned=lens)
    assert tuned.tuned
    assert torch.equal(plain.before.probability[:, -1], tuned.before.probability[:, -1])
    assert not torch.equal(plain.before.probability[:, 0], tuned.before.probability[:, 0])


def test_the_same_seed_gives_the_same_lens(base):
    one, other = (train_tuned_lens(base, TEXTS, steps=3, seed=5) for _ in range(2))
    assert torch.equal(one.weight, other.weight)


def test_it_is_kept_and_refused_for_another_base(base, lens, tmp_path):
    lens.save(tmp_path / "lens.safetensors")
    again = TunedLens.load(tmp_path / "lens.safetensors", base)
    assert torch.equal(again.weight, lens.weight)
    assert torch.equal(again.bias, lens.bias)
    assert (again.plain, again.tuned, again.tokens) == (lens.plain, lens.tuned, lens.tokens)
    other = build("gpt2")
    with pytest.raises(InputError, match="trained for llama"):
        TunedLens.load(tmp_path / "lens.safetensors", other)
    with pytest.raises(InputError, match="trained for llama"):
        look_at_lens(Change(other, on(other, "transformer.h.0.mlp.c_fc")), [5, 6, 7], tuned=lens)


def test_a_file_that_is_none_is_refused(base, tmp_path):
    with pytest.raises(InputError, match="There is no tuned lens"):
        TunedLens.load(tmp_path / "none", base)
    (tmp_path / "text").write_text("no tensors", encoding="utf-8")
    with pytest.raises(InputError, match="is no tuned lens"):
        TunedLens.load(tmp_path / "text", base)
    save_file({"weight": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(InputError, match="no tuned lens of this version"):
        TunedLens.load(tmp_path / "other", base)


def test_too_little_text_and_figures_out_of_range_are_said(base):
    with pytest.raises(InputError, match="too little text"):
        train_tuned_lens(base, ["short"])
    with pytest.raises(InputError, match="steps, positions"):
        train_tuned_lens(base, TEXTS, steps=0)
    with pytest.raises(InputError, match="learning rate"):
        train_tuned_lens(base, TEXTS, learning_rate=0)
