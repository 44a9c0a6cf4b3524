"""Adapters on disk, against PEFT."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from loratelier import Adapter, InputError
from loratelier.adapter import Card, store
from loratelier.adapter.card import BaseRef


def peft_model(base, seed=0, **options):
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]} | options
    )
    torch.manual_seed(seed)
    model = get_peft_model(copy.deepcopy(base.model), config).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


VARIANTS = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"down_proj": 2},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 9},
    },
    "layers": {"layers_to_transform": [1], "target_modules": ["v_proj"]},
    "regex": {"target_modules": r".*layers\.0\.mlp\..*_proj"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_deltas_are_pefts(tiny_base, tmp_path, variant):
    model = peft_model(tiny_base, **VARIANTS[variant])
    model.save_pretrained(tmp_path / "made")
    adapter = Adapter.load(tmp_path / "made")
    layers = {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if "default" in getattr(module, "lora_A", {})
    }
    assert set(adapter.sites) == set(layers)
    for site, module in layers.items():
        expected = module.get_delta_weight("default")
        torch.testing.assert_close(adapter.deltas[site], expected, atol=1e-6, rtol=1e-5)


def test_what_we_save_plain_peft_loads_with_the_same_logits(tiny_base, tmp_path):
    model = peft_model(tiny_base, rank_pattern={"down_proj": 3})
    card = Card(base=BaseRef(fingerprint=tiny_base.fingerprint, spec="tiny", name="tiny"))
    Adapter.from_peft(model, card, "mine").save(tmp_path / "mine")
    loaded = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), tmp_path / "mine").eval()
    ids = torch.arange(15)[None]
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
    again = Adapter.load(tmp_path / "mine")
    assert again.card == card.model_copy(update={"effect": True})
    assert again == Adapter.from_peft(model, card, "mine")
    assert hash(again) == hash(Adapter.from_peft(model, card, "mine"))
    config = json.loads((tmp_path / "mine" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"


@pytest.fixture
def made(tiny_base, tmp_path):
    peft_model(tiny_base).save_pretrained(tmp_path / "made")
    return tmp_path / "made"


def test_a_fresh_adapter_has_no_effect_and_is_called_so(tiny_base, tmp_path):
    config = LoraConfig(r=4, target_modules=["q_proj"])
    get_peft_model(copy.deepcopy(tiny_base.model), config).save_pretrained(tmp_path / "fresh")
    adapter = Adapter.load(tmp_path / "fresh")
    assert not adapter.has_effect
    assert not any(delta.any() for delta in adapter.deltas.values())
    assert "no effect" in adapter.describe()


def test_alpha_zero_is_no_effect_too(made):
    rewrite(made, lora_alpha=0)
    assert not Adapter.load(made).has_effect


def rewrite(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"peft_type": "IA3"}, "IA3 is not LoRA"),
        ({"use_dora": True}, "has no lora_magnitude_vector"),
        ({"use_dora": "yes"}, "use_dora is 'yes'"),
        ({"use_dora": True, "alora_invocation_tokens": [1]}, "nothing that PEFT defines"),
        ({"lora_bias": True}, "has no lora_B.bias"),
        ({"modules_to_save": "lm_head"}, "modules_to_save is 'lm_head'"),
        ({"bias": "some"}, "bias is 'some'"),
        ({"alora_invocation_tokens": [1, -2]}, "alora_invocation_tokens is \\[1, -2\\]"),
        ({"trainable_token_indices": [3, 3]}, "names a token twice"),
        ({"target_parameters": [3]}, "target_parameters is \\[3\\]"),
        ({"use_qalora": True}, "the variant use_qalora"),
        ({"layer_replication": [[0, 1]]}, "the variant layer_replication"),
        ({"arrow_config": {"top_k": 2}}, "the variant arrow_config"),
        ({"use_bdlora": {"x": 1}}, "the variant use_bdlora"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"some_future_variant": {"x": 1}}, "some_future_variant"),
        ({"r": 0}, "rank r is 0"),
        ({"lora_alpha": "much"}, "lora_alpha is 'much'"),
        ({"r": 5}, "config says rank 5"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"use_rslora": "no"}, "use_rslora is 'no'"),
        ({"rank_pattern": {"(": 3}}, "'\\(', which is no regular expression"),
        ({"rank_pattern": {"q_proj": 2.5}}, "gives 'q_proj' the value 2.5"),
        ({"alpha_pattern": {"q_proj": float("inf")}}, "gives 'q_proj' the value inf"),
    ],
)
def test_what_is_not_carried_out_is_refused_by_name(made, changes, named):
    rewrite(made, **changes)
    with pytest.raises(InputError, match=named):
        Adapter.load(made)


def retensor(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors, next(key for key in tensors if "lora_B" in key))
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, key: t.pop(key), "has no lora_B"),
        (lambda t, key: t[key].view(-1)[:1].fill_(float("nan")), "values that are no numbers"),
        (lambda t, key: t.update({key: t[key][:, :2].contiguous()}), "says rank 4"),
        (lambda t, key: t.update({key: t[key][0].contiguous()}), "1 dimensions, not 2"),
        (lambda t, key: t.update({"extra.weight": t[key].clone()}), "extra.weight belongs to no"),
        (lambda t, key: t.clear(), "holds no tensors"),
        (lambda t, key: t.update({key: t[key].int()}), "is stored as I32"),
        (lambda t, key: t.update({key: t[key].to(torch.float8_e4m3fn)}), "stored as F8_E4M3"),
    ],
)
def test_tensors_that_are_not_those_of_the_config(made, change, message):
    retensor(made, change)
    with pytest.raises(InputError, match=message):
        Adapter.load(made)


def test_damaged_folders(made, tmp_path):
    with pytest.raises(InputError, match="no adapter folder"):
        Adapter.load(tmp_path / "nowhere")
    path = made / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged"):
        Adapter.load(made)
    path.rename(made / "adapter_model.bin")
    with pytest.raises(InputError, match="pickle"):
        Adapter.load(made)
    for text in ("{", "[" * 100_000):
        (made / "adapter_config.json").write_text(text)
        with pytest.raises(InputError, match="cannot be read as JSON"):
            Adapter.load(made)
    (made / "adapter_config.json").unlink()
    with pytest.raises(InputError, match="no adapter_config.json"):
        Adapter.load(made)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "card.json"])
def test_a_link_out_of_the_folder_is_refused(made, tmp_path, name):
    (made / "card.json").write_text("{}")
    (made / name).rename(tmp_path / "elsewhere")
    (made / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"{name} is a link that leads out of the folder"):
        Adapter.load(made)


def test_a_card_with_an_unknown_key_is_named(made):
    (made / "card.json").write_text('{"card_version": 1, "moood": 3}')
    with pytest.raises(InputError, match="moood"):
        Adapter.load(made)


def test_an_adapter_for_another_base_is_refused_by_its_fingerprint(tiny_base, made):
    from loratelier.bank import AdapterBank
    from loratelier.base import Base
    from tests.conftest import make_tiny

    other = Base.of(*make_tiny(seed=1), name="other")
    card = Card(base=BaseRef(fingerprint=tiny_base.fingerprint, spec="tiny", name="tiny"))
    (made / "card.json").write_text(card.model_dump_json())
    adapter = Adapter.load(made)
    adapter.require_fit(tiny_base)
    with pytest.raises(InputError, match="made for the base tiny .* other weights"):
        adapter.require_fit(other)
    with pytest.raises(InputError, match="other weights"):
        AdapterBank(other.model).add("made", adapter)


def test_without_a_card_shapes_decide(tiny_base, made):
    from loratelier.base import Base
    from tests.conftest import make_tiny

    adapter = Adapter.load(made)
    assert not adapter.card.proven
    adapter.require_fit(tiny_base)
    wide = Base.of(*make_tiny(hidden_size=128), name="wide")
    with pytest.raises(InputError, match="does not fit: .* is \\[128, 128\\]"):
        adapter.require_fit(wide)
    short = Base.of(*make_tiny(num_hidden_layers=1), name="short")
    with pytest.raises(InputError, match="no linear layer model.layers.1"):
        adapter.require_fit(short)


def test_the_store(made, home, tmp_path):
    store.import_adapter(made, "first")
    (made / "tokenizer.json").write_text("{}")
    (made / "evil.py").write_text("raise SystemExit")
    imported = store.import_adapter(made, "второй")
    assert imported == Adapter.load(made)
    assert store.names() == ["first", "второй"]
    assert {p.name for p in store.path_of("второй").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors", "card.json", "README.md",
    }  # fmt: skip
    with pytest.raises(InputError, match="exists already"):
        store.import_adapter(made, "first")
    store.import_adapter(made, "first", replace=True)
    store.export_adapter("first", tmp_path / "out")
    assert Adapter.load(tmp_path / "out") == imported
    store.remove("first")
    assert store.names() == ["второй"]
    with pytest.raises(InputError, match="no adapter 'vtoroj'"):
        store.remove("vtoroj")


def test_a_half_written_or_damaged_adapter_is_never_taken_for_one(made, home):
    store.import_adapter(made, "good")
    bad = store.path_of("bad")
    bad.mkdir()
    (bad / "adapter_config.json").write_text("{")
    (store.path_of("good").parent / ".unfinished-x-1234").mkdir()
    listed = {entry.name: entry.error for entry in store.entries()}
    assert listed.keys() == {"good", "bad"}
    assert listed["good"] is None
    assert "cannot be read as JSON" in listed["bad"]


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x" * 65, "a\nb", "a b"])
def test_names_that_could_be_paths_are_refused(home, name):
    with pytest.raises(InputError, match="no name for an adapter"):
        store.path_of(name)


def test_replacing_never_deletes_a_folder_of_something_else(made, tmp_path):
    adapter = Adapter.load(made)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("keep me")
    with pytest.raises(InputError, match="is no adapter and would be deleted"):
        adapter.save(tmp_path / "letters", replace=True)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "keep me"
    adapter.save(made, replace=True)
    assert Adapter.load(made) == adapter


def seeded_pair(generator, rank, base, site):
    layer = base.model.get_submodule(site)
    return (
        torch.randn(rank, layer.in_features, generator=generator),
        torch.randn(layer.out_features, rank, generator=generator),
    )


@pytest.mark.parametrize("alphas", [None, 3.0, "by site"])
def test_an_adapter_of_mixed_ranks_is_read_by_peft_with_equal_deltas(tiny_base, tmp_path, alphas):
    ranks = {
        "model.layers.0.mlp.down_proj": 2,
        "model.layers.0.self_attn.q_proj": 4,
        "model.layers.1.mlp.down_proj": 4,
        "model.layers.1.self_attn.o_proj": 1,
    }
    chance = torch.Generator().manual_seed(0)
    pairs = {site: seeded_pair(chance, rank, tiny_base, site) for site, rank in ranks.items()}
    if alphas == "by site":
        alphas = dict(zip(pairs, [0.5, 0.0, -2.0, 7.0], strict=True))
    card = Card(base=BaseRef(spec="tiny", name="tiny"))
    adapter = Adapter.from_tensors(pairs, card, "merged", alphas=alphas)
    adapter.save(tmp_path / "merged")
    theirs = PeftModel.from_pretrained(copy.deepcopy(tiny_base.model), tmp_path / "merged")
    adapted = {
        name
        for name, module in theirs.named_modules()
        if "default" in getattr(module, "lora_A", {})
    }
    assert adapted == {f"base_model.model.{site}" for site in ranks}
    for site, (down, up) in pairs.items():
        scale = (
            {None: 1, 3.0: 3 / ranks[site]}.get(alphas)
            if not isinstance(alphas, dict)
            else alphas[site] / ranks[site]
        )
        expected = scale * up @ down
        torch.testing.assert_close(adapter.deltas[site], expected)
        module = theirs.get_submodule(f"base_model.model.{site}")
        torch.testing.assert_close(module.get_delta_weight("default"), expected)
    assert Adapter.load(tmp_path / "merged") == adapter
    assert adapter.fits(tiny_base)


def test_a_site_whose_name_ends_anothers_keeps_its_own_rank():
    """PEFT takes a pattern for every site that ends with it."""
    pairs = {
        "q": (torch.ones(1, 3), torch.ones(3, 1)),
        "inner.q": (torch.ones(2, 3), torch.ones(3, 2)),
        "k": (torch.ones(2, 3), torch.ones(3, 2)),
    }
    adapter = Adapter.from_tensors(pairs, Card(), "nested")
    assert {site: adapter.settings.rank_at(site) for site in pairs} == {
        "q": 1,
        "inner.q": 2,
        "k": 2,
    }


@pytest.mark.parametrize(
    ("pairs", "alphas", "message"),
    [
        ({}, None, "would have no sites"),
        ({"q": (torch.ones(2, 3), torch.ones(3, 2))}, {"k": 1.0}, "a pair or an alpha, not both"),
        ({"q": (torch.ones(2, 3), torch.ones(3, 1))}, None, "says rank 2"),
        (
            {"q": (torch.full((2, 3), torch.nan), torch.ones(3, 2))},
            None,
            "values that are no numbers",
        ),
    ],
)
def test_pairs_that_make_no_adapter(pairs, alphas, message):
    with pytest.raises(InputError, match=message):
        Adapter.from_tensors(pairs, Card(), "x", alphas=alphas)


def test_removing_leaves_what_was_linked_and_survives_an_interrupted_removal(made, home):
    store.import_adapter(made, "sport")
    (home / "adapters" / "linked").symlink_to(made)
    (home / "adapters" / ".unfinished-sport-removed" / "left").mkdir(parents=True)
    store.remove("sport")
    store.remove("linked")
    assert store.names() == []
    assert Adapter.load(made).has_effect
