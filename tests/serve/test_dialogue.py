"""Conversations against transformers' and PEFT's own generate."""

import copy
from collections import Counter

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.kit.errors import InputError
from loratelier.serve import Dialogue, Sampling
from loratelier.serve.commands import run
from tests.conftest import our_hooks

GREEDY = Sampling(temperature=0, repetition_penalty=1)
COUNT = 16


@pytest.fixture
def dialogue(tiny_base, stored):
    return Dialogue(tiny_base, AdapterBank(tiny_base.model), sampling=GREEDY, max_new_tokens=COUNT)


def say(dialogue, text):
    return "".join(dialogue.say(text))


def reference(base, model, turns):
    """What generate writes after these turns, rendered by the tokenizer itself."""
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    text = base.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    given = base.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        done = model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            max_new_tokens=COUNT,
        )
    return base.tokenizer.decode(done[0, given.shape[1] :], skip_special_tokens=True)


def peft(base, folder, strength=1.0):
    model = PeftModel.from_pretrained(copy.deepcopy(base.model), folder).eval()
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.scaling = {name: value * strength for name, value in module.scaling.items()}
    return model


def test_everything_can_be_changed_inside_one_conversation(tiny_base, dialogue, folders):
    """Base, adapter, half of it, off, on, another one: each reply is PEFT's for that history."""
    steps = [
        (None, tiny_base.model),
        ("/wear loud", peft(tiny_base, folders["loud"])),
        ("/strength 0.5", peft(tiny_base, folders["loud"], 0.5)),
        ("/off", tiny_base.model),
        ("/on", peft(tiny_base, folders["loud"], 0.5)),
        ("/wear odd=-1", peft(tiny_base, folders["odd"], -1)),
        ("/wear loud", peft(tiny_base, folders["loud"], 0.5)),
    ]
    for number, (command, model) in enumerate(steps):
        if command:
            run(dialogue, command)
        before = list(dialogue.turns)
        reply = say(dialogue, f"Question {number}?")
        asked, answered = dialogue.turns[len(before) :]
        assert (asked.role, asked.content) == ("user", f"Question {number}?")
        assert reply == answered.content == reference(tiny_base, model, [*before, asked])
    worn = [(turn.adapter, turn.strength) for turn in dialogue.turns if turn.role == "assistant"]
    assert worn == [
        (None, None), ("loud", 1), ("loud", 0.5), (None, None), ("loud", 0.5), ("odd", -1),
        ("loud", 0.5),
    ]  # fmt: skip
    assert not our_hooks(tiny_base.model)


def test_both_answers_the_last_message_twice_and_keeps_the_history(tiny_base, dialogue, folders):
    run(dialogue, "/wear loud")
    say(dialogue, "First?")
    say(dialogue, "Second?")
    history = list(dialogue.turns)
    both = run(dialogue, "/both").both
    asked = history[:3]
    assert both.question == "Second?"
    assert both.base.content == reference(tiny_base, tiny_base.model, asked)
    assert both.adapter.content == reference(tiny_base, peft(tiny_base, folders["loud"]), asked)
    assert (both.base.adapter, both.adapter.adapter, both.adapter.strength) == (None, "loud", 1)
    assert dialogue.turns == history


def test_a_system_message_opens_and_survives_a_reset(tiny_base, stored):
    bank = AdapterBank(tiny_base.model)
    dialogue = Dialogue(tiny_base, bank, system="Be brief.", sampling=GREEDY, max_new_tokens=COUNT)
    first = say(dialogue, "Hello?")
    assert first == reference(tiny_base, tiny_base.model, dialogue.turns[:2])
    run(dialogue, "/reset")
    assert [turn.role for turn in dialogue.turns] == ["system"]
    assert say(dialogue, "Hello?") == first


def test_a_reply_that_is_left_early_closes_the_gates_and_is_kept(tiny_base, dialogue):
    run(dialogue, "/wear loud")
    pieces = dialogue.say("Go on")
    begun = next(pieces) + next(pieces)
    pieces.close()
    assert not our_hooks(tiny_base.model)
    assert dialogue.turns[-1].stopped == "interrupted"
    assert dialogue.turns[-1].content.startswith(begun) and dialogue.turns[-1].tokens == 2


def test_a_reply_says_how_it_ended(tiny_base, dialogue, monkeypatch):
    say(dialogue, "Hello?")
    assert dialogue.turns[-1].stopped == "limit" and dialogue.turns[-1].tokens == COUNT
    first = dialogue.turns[-1].content
    # The third token of the reply is declared an end token: the same reply must end with it.
    ids = tiny_base.tokenizer(first, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(tiny_base.model.generation_config, "eos_token_id", [2, ids[2]])
    run(dialogue, "/reset")
    say(dialogue, "Hello?")
    assert dialogue.turns[-1].stopped == "end"
    assert dialogue.turns[-1].tokens == ids.index(ids[2]) + 1


def test_the_context_is_never_cut_in_silence(tiny_base, dialogue, monkeypatch):
    monkeypatch.setattr(tiny_base.model.config, "max_position_embeddings", 64)
    say(dialogue, "x" * 10)  # 29 tokens with the template: 35 more fit
    assert dialogue.turns[-1].stopped == "limit"
    history = list(dialogue.turns)
    with pytest.raises(InputError, match=r"tokens, and tiny reads 64.*/reset"):
        say(dialogue, "y" * 30)
    assert dialogue.turns == history
    run(dialogue, "/reset")
    say(dialogue, "x" * 35)  # 54 tokens: 10 more fit
    assert dialogue.turns[-1].stopped == "context" and dialogue.turns[-1].tokens == 10


def test_an_adapter_without_effect_is_named_when_it_is_worn(dialogue):
    (line,) = run(dialogue, "/wear silent").lines
    assert "This adapter has no effect: its update is zero everywhere" in line
    assert any("no effect" in line for line in run(dialogue, "/adapters").lines) is False
    run(dialogue, "/wear loud")
    listed = run(dialogue, "/adapters").lines
    assert [line.split()[0] for line in listed] == ["loud", "odd", "silent"]
    assert "worn" in listed[0]


def test_an_adapter_for_another_base_is_one_line_and_changes_nothing(dialogue, folders):
    run(dialogue, "/wear loud")
    from dataclasses import replace

    from loratelier.adapter import BaseRef, Card

    card = Card(base=BaseRef(fingerprint="sha256:" + "0" * 64, spec="other", name="other"))
    stranger = replace(Adapter.load(folders["odd"]), card=card)
    with pytest.raises(InputError, match="made for the base other") as caught:
        dialogue.wear(stranger)
    assert "\n" not in str(caught.value)
    assert dialogue.worn == "loud" and "odd" not in dialogue.strengths


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/of", "Did you mean '/off'"),
        ("/weer loud", "Did you mean '/wear'"),
        ("/wear lowd", "Did you mean 'loud'"),
        ("/wear", "needs a name"),
        ("/wear loud=much", "'much' is no strength"),
        ("/wear loud=9", "from -2 to 4"),
        ("/wear loud=nan", "from -2 to 4"),
        ("/strength 1", "No adapter is worn"),
        ("/on", "No adapter is worn"),
        ("/both", "No adapter is worn"),
        ("/off now", "takes nothing"),
    ],
)
def test_a_command_that_cannot_be_done_says_how_to_mend_it(dialogue, line, message):
    with pytest.raises(InputError, match=message):
        run(dialogue, line)
    assert dialogue.worn is None


def test_help_names_every_command_and_quit_leaves(dialogue):
    told = "\n".join(run(dialogue, "/help").lines)
    for name in ("off", "on", "wear", "strength", "adapters", "both", "reset", "help", "quit"):
        assert f"/{name}" in told
    assert run(dialogue, "/quit").quits


def drawn(base, **settings):
    dialogue = Dialogue(
        base, AdapterBank(base.model), sampling=Sampling(**settings), max_new_tokens=40
    )
    return say(dialogue, "Hello?")


def test_a_seed_gives_the_same_words_and_another_seed_others(tiny_base):
    assert drawn(tiny_base, seed=1) == drawn(tiny_base, seed=1) != drawn(tiny_base, seed=2)


def test_the_narrowest_draw_is_greedy(tiny_base):
    narrow = {"top_p": 1e-6, "temperature": 1.5, "repetition_penalty": 1.0}
    assert drawn(tiny_base, **narrow) == drawn(tiny_base, temperature=0, repetition_penalty=1.0)


def test_a_repetition_penalty_makes_a_reply_repeat_itself_less(tiny_base):
    plain, varied = (
        Counter(drawn(tiny_base, temperature=0, repetition_penalty=penalty)) for penalty in (1, 3)
    )
    assert max(varied.values()) < max(plain.values())


@pytest.mark.parametrize(
    "settings", [{"temperature": -1}, {"temperature": 9}, {"top_p": 0}, {"repetition_penalty": 0}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError):
        Sampling(**settings)
