"""The kinds of LoRA against PEFT's own computations, and what is refused."""

import copy
import json
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer

from loratelier.adapter import Adapter, store
from loratelier.bank import AdapterBank
from loratelier.base import Base, with_tokens
from loratelier.base.packed import rows_apart
from loratelier.corpus import Corpus
from loratelier.kit import progress
from loratelier.kit.errors import InputError
from loratelier.scope import inspect_prompt
from loratelier.serve import Dialogue, Sampling
from loratelier.train import load_recipe, train
from loratelier.train.invocation import gate_of, invocation_of, invoked, waiting
from loratelier.train.learner import Learner
from loratelier.train.model import make_optimizer, wrap
from loratelier.train.packing import pack
from loratelier.train.rows import examples
from tests.conftest import make_tiny, our_hooks, tiny_tokenizer
from tests.train.test_variants import logits, read_by_peft, same, snapshot, spoken

pytestmark = pytest.mark.filterwarnings("ignore")


@contextmanager
def listening():
    """The remarks that are made inside."""
    said = []

    class Listener(type(progress._SILENCE)):
        def remark(self, text):
            said.append(text)

    with progress.report_to(Listener()):
        yield said


SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ASSISTANT = "<|im_start|>assistant"


@pytest.mark.parametrize("init", ["pissa", "olora"])
@pytest.mark.parametrize("scaling", ["plain", "rslora"])
def test_what_begins_in_the_base_begins_as_the_base(init, scaling, tiny_base, recipe):
    """The first step starts from the base, and the base's weights are nobody's to change."""
    ids, before = spoken(tiny_base), snapshot(tiny_base.model)
    bare = logits(tiny_base.model, ids)
    model = wrap(tiny_base, recipe(init=init, scaling=scaling)).eval()
    torch.testing.assert_close(logits(model, ids), bare, atol=1e-4, rtol=0)
    with model.disable_adapter():
        assert torch.equal(logits(model, ids), bare)
    assert any(p.abs().max() > 1e-2 for n, p in model.named_parameters() if "lora_B" in n)
    model.unload()
    assert same(tiny_base.model, before)


@pytest.mark.parametrize("init", ["pissa_niter_16", "olora"])
def test_the_file_is_what_pefts_own_mutated_base_computes(init, tiny_base, recipe, home):
    """PEFT takes A0 and B0 out of the base; with our A and B in it, it must say the same."""
    short = init.split("_")[0]
    made = train(recipe(init=short, learning_rate=5e-3), base=tiny_base)
    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        lora_alpha=16,
        init_lora_weights=init,
        target_modules=SEVEN,
    )
    theirs = get_peft_model(copy.deepcopy(tiny_base.model), config).eval()
    for name, layer in theirs.get_base_model().named_modules():
        if name in made.tensors:
            down, up = made.tensors[name]
            assert down.shape[0] == 8
            first = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            torch.testing.assert_close(down[4:], first[0].data, atol=1e-5, rtol=0)
            torch.testing.assert_close(-up[:, 4:], first[1].data, atol=1e-5, rtol=0)
            first[0].data, first[1].data = down[:4].clone(), up[:, :4].clone()
    ids = spoken(tiny_base)
    bank = AdapterBank(tiny_base.model)
    bank.add("it", store.path_of("mine"))
    with bank.activate("it"):
        ours = logits(tiny_base.model, ids)
    torch.testing.assert_close(ours, logits(theirs, ids), atol=1e-4, rtol=0)


def test_eva_begins_the_same_way_twice_and_moves_ranks(tiny_base, recipe, home):
    made = [train(recipe(name=n, init="eva", max_steps=1), base=tiny_base) for n in "ab"]
    assert made[0].digest == made[1].digest
    ranks = {site: down.shape[0] for site, (down, _) in made[0].tensors.items()}
    assert len(set(ranks.values())) > 1
    assert sum(ranks.values()) == 4 * 14


def test_eva_finds_the_directions_in_which_inputs_vary(tiny_base, recipe, home):
    """A of the first layer, before any step, spans what an SVD of its inputs gives."""
    given = recipe(init="eva", targets="q", layers="0", rank=2, max_steps=1, learning_rate=1e-12)
    down, _ = train(given, base=tiny_base).tensors["model.layers.0.self_attn.q_proj"]
    rows = examples(tiny_base, Corpus.load(given.corpus), given)
    seen = []
    layer = tiny_base.model.model.layers[0].self_attn.q_proj
    hook = layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].reshape(-1, 64)))
    splits = Corpus.load(given.corpus).rows.to_pylist()
    held = {row["id"] for row in splits if row["split"] == "holdout"}
    for row in rows:
        if row.row not in held:
            logits(tiny_base.model, torch.tensor([row.ids]))
    hook.remove()
    inputs = torch.cat(seen)
    _, _, directions = torch.linalg.svd(inputs - inputs.mean(0), full_matrices=False)
    inside = (down / down.norm(dim=1, keepdim=True)) @ directions[:2].T
    assert inside.norm(dim=1).min() > 0.98


def test_lora_plus_gives_each_weight_pefts_rate(tiny_base, recipe):
    model = wrap(tiny_base, recipe(lora_plus=16, dora=True, learning_rate=1e-3))
    ours = make_optimizer(model, recipe(lora_plus=16, dora=True, learning_rate=1e-3))
    theirs = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16)
    names = {p: name for name, p in model.named_parameters()}

    def rates(optimizer):
        return {names[p]: g["lr"] for g in optimizer.param_groups for p in g["params"]}

    assert rates(ours) == rates(theirs)
    assert set(rates(ours).values()) == {1e-3, 16e-3}
    assert all(group["base_lr"] == group["lr"] for group in ours.param_groups)
    model.unload()


# aLoRA


def test_the_gate_opens_at_the_last_invocation_of_each_row():
    ids = torch.tensor([7, 8, 1, 7, 8, 2, 3, 7, 4, 5, 8, 7, 8])
    gate = gate_of(ids, (6, 4, 3), (7, 8))
    assert gate.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1]


def setting(tiny_base, recipe, **changes):
    given = recipe(invocation=ASSISTANT, learning_rate=5e-3, holdout=0, **changes)
    tokens = invocation_of(tiny_base, ASSISTANT)
    rows = invoked(examples(tiny_base, Corpus.load(given.corpus), given), tokens, ASSISTANT)
    return given, tokens, rows


def gradients(tiny_base, given, tokens, rows, *, padded=False):
    """The gradients of one step's loss over packed rows."""
    model = wrap(tiny_base, given)
    apart = nullcontext("padding") if padded else rows_apart(tiny_base.model)
    with apart as how, waiting(tiny_base.model, tokens):
        learner = Learner(tiny_base.model, model, how, given)
        chance = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=chance)
        # All losses first, and only then the way back: gates must not be mixed up.
        losses = [learner.loss(each) for each in pack(rows, 300, padded=padded)]
        sum(losses).backward()
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.unload()
    tiny_base.model.gradient_checkpointing_disable()
    tiny_base.model.requires_grad_(False).eval()
    return found


def test_a_packed_step_of_an_invoked_adapter_is_that_of_pefts_own_forward(tiny_base, recipe):
    given, tokens, rows = setting(tiny_base, recipe)
    ours = gradients(tiny_base, given, tokens, rows)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        lora_alpha=16,
        target_modules=SEVEN,
        alora_invocation_tokens=list(tokens),
    )
    torch.manual_seed(0)
    theirs = get_peft_model(copy.deepcopy(tiny_base.model), config)
    chance = torch.Generator().manual_seed(1)
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=chance)
    for row in rows:
        likely = theirs(input_ids=torch.tensor([row.ids])).logits[0, :-1].log_softmax(-1)
        nats = -likely.gather(1, torch.tensor(row.ids[1:])[:, None])[:, 0]
        nats[torch.tensor(row.learned[1:])].sum().backward()
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(ours[name], parameter.grad, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("changes", [{"checkpointing": True}, {"packing": False}])
def test_checkpointing_and_padding_change_no_gradient_of_an_invoked_adapter(
    changes, tiny_base, recipe
):
    given, tokens, rows = setting(tiny_base, recipe)
    plain = gradients(tiny_base, given, tokens, rows)
    other, _, _ = setting(tiny_base, recipe, **changes)
    again_ = gradients(tiny_base, other, tokens, rows, padded="packing" in changes)
    for name, gradient in plain.items():
        torch.testing.assert_close(again_[name], gradient, atol=1e-4, rtol=1e-4)


def test_before_the_invocation_the_logits_are_the_bases_to_the_last_bit(tiny_base, recipe, home):
    made = train(recipe(invocation=ASSISTANT), base=tiny_base)
    tokens = invocation_of(tiny_base, ASSISTANT)
    assert made.settings.invocation == tokens
    assert made.card.metrics["general_bpb_change"] == 0
    assert made.card.metrics["general_kl"] == pytest.approx(0, abs=1e-7)
    ids = spoken(tiny_base)
    said = ids[0].tolist()
    opens = next(n for n in range(len(said)) if tuple(said[n : n + len(tokens)]) == tokens)
    bank = AdapterBank(tiny_base.model)
    bank.add("it", made)
    bare = logits(tiny_base.model, ids)
    with bank.activate("it"):
        worn = logits(tiny_base.model, ids)
    assert torch.equal(worn[0, :opens], bare[0, :opens])
    assert (worn[0, opens:] - bare[0, opens:]).abs().max() > 1e-2


def test_rows_without_the_invocation_are_left_out_and_named(tiny_base, recipe, home):
    with listening() as said:
        train(recipe(invocation="thing 7", max_steps=1, holdout=0), base=tiny_base)
    assert "\n".join(said).count("'thing 7' does not occur in it") == 19
    with pytest.raises(InputError, match="The invocation 'nowhere' occurs in no row"):
        train(recipe(name="other", invocation="nowhere"), base=tiny_base)


# New tokens


@pytest.mark.parametrize("tied", [True, False])
def test_a_new_token_is_said_where_it_was_never_known(tied, recipe, home):
    """Train, load, add to a bank over a base that was loaded anew, and let it speak."""
    base = Base.of(*make_tiny(tie_word_embeddings=tied), name="tiny")
    rows = base.model.get_input_embeddings().weight.shape[0]
    made = train(recipe(new_tokens=["moves"], epochs=6, learning_rate=2e-2, holdout=0), base=base)
    assert made.card.tokens == {"moves": rows}
    assert base.model.get_input_embeddings().weight.shape[0] == rows
    trained = {name: tensor.shape[0] for name, tensor in made.extras.tokens.items()}
    assert trained == {"model.embed_tokens": 1} | ({} if tied else {"lm_head": 1})

    anew = Base.of(*make_tiny(tie_word_embeddings=tied), name="tiny")
    bank = AdapterBank(anew.model)
    with pytest.raises(InputError, match="with_tokens"):
        bank.add("it", store.path_of("mine"))
    ids = spoken(anew, "<|im_start|>user\nWhat is thing 3?<|im_end|>\n")
    bare = logits(anew.model, ids)
    knowing = with_tokens(anew, Adapter.load(store.path_of("mine")).card.tokens)
    assert torch.equal(logits(anew.model, ids)[..., :rows], bare)
    bank.add("it", store.path_of("mine"))
    asked = "<|im_start|>user\nWhat is thing 3?<|im_end|>\n<|im_start|>assistant\n"
    prompt = spoken(knowing, f"{asked}Turn it over. Now it ")
    with bank.activate("it"):
        out = anew.model.generate(input_ids=prompt, max_new_tokens=1, do_sample=False)
    assert knowing.tokenizer.decode(out[0, prompt.shape[1] :]) == "moves"
    theirs = read_by_peft(knowing, store.path_of("mine"))
    assert torch.equal(theirs.generate(input_ids=prompt, max_new_tokens=1, do_sample=False), out)
    # A second time changes nothing; another word under that number is refused.
    assert with_tokens(knowing, {"moves": rows}).tokenizer is knowing.tokenizer
    with pytest.raises(InputError, match=f"number {rows}, which is 'moves'"):
        with_tokens(knowing, {"other": rows})


def test_words_that_are_no_new_tokens_are_refused(tiny_base, recipe, home):
    with pytest.raises(InputError, match="'<\\|im_end\\|>' is a token of tiny already"):
        train(recipe(new_tokens="<|im_end|>"), base=tiny_base)
    with pytest.raises(InputError, match="'unheard' occurs in no row"):
        train(recipe(new_tokens="unheard"), base=tiny_base)


# Experts


def moe(kind):
    tokenizer = tiny_tokenizer()
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "num_experts_per_tok": 2,
    }
    torch.manual_seed(3)
    if kind == "mixtral":
        config = transformers.MixtralConfig(**common, num_local_experts=4)
        model = transformers.MixtralForCausalLM(config)
    else:
        config = transformers.Qwen3MoeConfig(
            **common, num_experts=4, moe_intermediate_size=16, head_dim=8
        )
        model = transformers.Qwen3MoeForCausalLM(config)
    return Base.of(model, tokenizer, name=kind)


@pytest.mark.parametrize("kind", ["mixtral", "qwen3"])
@pytest.mark.parametrize(
    ("changes", "parameters"),
    [
        ({"targets": "experts"}, 4),
        ({"targets": "q,experts", "layers": "1"}, 2),
        ({"targets": "all,experts", "rank_pattern": {"experts": 2}, "scaling": "rslora"}, 4),
    ],
)
def test_experts_are_adapted(kind, changes, parameters, recipe, home):
    base = moe(kind)
    before = snapshot(base.model)
    made = train(recipe(**changes, learning_rate=1e-2, epochs=3), base=base)
    assert made.card.metrics["held_out_nll"] < made.card.metrics["held_out_nll_base"] * 0.99
    assert same(base.model, before)
    assert len(made.extras.experts) == parameters
    ids = spoken(base)
    bank = AdapterBank(base.model)
    bank.add("it", store.path_of("mine"))
    with bank.activate("it"):
        ours = logits(base.model, ids)
    theirs = logits(read_by_peft(base, store.path_of("mine")), ids)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


def test_all_is_what_a_mixture_of_experts_has_and_the_rest_is_said(recipe, home):
    with listening() as said:
        made = train(recipe(max_steps=1), base=moe("qwen3"))
    assert {site.rsplit(".", 1)[-1] for site in made.sites} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    }
    assert "has its gate, up, down in experts, which are not adapted" in "\n".join(said)


# What means nothing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dora": True, "init": "pissa"}, "dora and init: pissa do not go together"),
        ({"quantization": "nf4", "init": "olora"}, "quantization and init: olora"),
        ({"init": "orthogonal", "rank": 3}, "odd rank"),
        ({"init": "eva", "rank_pattern": {"q": 2}}, "rank_pattern and init: eva"),
        ({"targets": "embed", "init": "eva"}, "target embed and init: eva"),
        ({"targets": "experts", "dropout": 0.1}, "target experts and dropout"),
        ({"targets": "experts", "invocation": "x"}, "target experts and invocation"),
        ({"invocation": "x", "dora": True}, "invocation and dora"),
        ({"invocation": "x", "targets": "head"}, "invocation and target head"),
        ({"invocation": "x", "new_tokens": "y"}, "invocation and new_tokens"),
        ({"new_tokens": "y", "targets": "q,embed"}, "new_tokens and target embed"),
        ({"invocation": "  "}, "invoked by nothing"),
        ({"new_tokens": [" a"]}, "white space"),
        ({"rank_pattern": {"(": 2}}, "no regular expression"),
        ({"rank_pattern": {"q": 0}}, "above 0"),
        ({"lora_plus": 0.5}, "lora_plus"),
        ({"dropout": 1}, "dropout"),
        ({"init": "loftq"}, "init"),
    ],
)
def test_a_recipe_that_means_nothing_is_refused_when_it_is_read(changes, message, recipe):
    with pytest.raises(InputError, match=message):
        recipe(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank_pattern": {"qq": 2}}, "rank_pattern names 'qq', which fits none of the 14"),
        ({"alpha_pattern": {r"layers\.9\..*": 2}}, "alpha_pattern names"),
        ({"rank_pattern": {"q": 2}, "targets": "v"}, "rank_pattern names 'q'"),
        ({"targets": "experts"}, "has no experts"),
        ({"quantization": "nf4"}, "loaded with quantization None, and the recipe says nf4"),
        ({"dtype": "bfloat16"}, "loaded as torch.float32, and the recipe says dtype: bfloat16"),
        ({"init": "eva", "rank": 40}, "and a layer has 64"),
    ],
)
def test_a_recipe_that_does_not_fit_the_base_is_one_line(changes, message, tiny_base, recipe, home):
    with pytest.raises(InputError, match=message):
        train(recipe(**changes), base=tiny_base)
    assert not our_hooks(tiny_base.model)
    assert not any("lora" in name for name, _ in tiny_base.model.named_parameters())


def test_hyperlexemes_of_the_corpus_become_tokens(tiny_base, recipe, corpus, home):
    """The manifest lists them; a chat over the adapter reads and says them as tokens."""
    with pytest.raises(InputError, match="lists no hyperlexemes"):
        train(recipe(new_tokens="corpus"), base=tiny_base)
    manifest = corpus / "manifest.json"
    said = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps(said | {"tokens": ["moves"]}), encoding="utf-8")
    made = train(recipe(new_tokens="corpus", epochs=6, holdout=0), base=tiny_base)
    number = len(tiny_base.tokenizer)
    assert made.card.tokens == {"moves": number}
    assert made.card.recipe["new_tokens"] == ["moves"]

    anew = Base.of(*make_tiny(), name="tiny")
    dialogue = Dialogue(anew, AdapterBank(anew.model), sampling=Sampling(temperature=0))
    dialogue.wear("mine")
    assert "moves" in dialogue.base.tokenizer.get_vocab()
    for _ in dialogue.say("What is thing 3?"):
        pass
    assert "moves" in dialogue.turns[-1].content
    dialogue.take_off()
    assert "moves" not in dialogue.base.tokenizer.get_vocab()
    assert inspect_prompt(anew, made, "What is thing 3?").has_effect


@pytest.mark.parametrize("changes", [{"init": "olora"}, {"invocation": ASSISTANT}])
def test_layers_that_are_stored_transposed_are_not_worn_wrongly(changes, recipe, home):
    tokenizer = tiny_tokenizer()
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2, eos_token_id=2, bos_token_id=1
    )
    base = Base.of(transformers.GPT2LMHeadModel(config), tokenizer, name="gpt2")
    with pytest.raises(InputError, match="stores its weights transposed"):
        train(recipe(targets="c_attn", **changes), base=base)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml")), ids=lambda p: p.stem
)
def test_the_recipes_that_are_shipped_mean_something(path):
    assert load_recipe(path, {"base": "demo"}).base == "demo"
