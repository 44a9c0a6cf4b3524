"""The API over an engine that writes: held against the bank itself."""

import json
import threading

import numpy as np
import openai as library
import pytest
import torch

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.scope.decode import decode, likeliest
from loratelier.scope.prompt import encode_prompt, end_ids, words
from loratelier.serve.api.app import make_app
from loratelier.serve.engine import Engine, EngineSettings
from tests.serve.api.harness import ask_for, client, eventually, make_api, running

GREEDY = {"temperature": 0, "max_tokens": 12}


@pytest.fixture
def engine(tiny_base):
    engine = Engine(tiny_base, settings=EngineSettings(max_rows=4))
    engine.start()
    yield engine
    engine.stop(0)


@pytest.fixture
def openai(tiny_base, engine, stored):
    with running(make_app(make_api(tiny_base, engine))) as url:
        yield client(url)


def alone(base, folders, mix, text="Hello"):
    """What the bank writes, without server or engine."""
    bank = AdapterBank(base.model)
    for name, folder in folders.items():
        bank.add(name, Adapter.load(folder))
    ids = encode_prompt(base, text).ids
    with bank.activate([mix]):
        steps = decode(base.model, ids, likeliest, rows=1, ends=end_ids(base), limit=12)
        return words(base, [step[0] for step in steps])


MIXES = [None, {"loud": 1.0}, {"odd": 1.0}, {"loud": 0.5, "odd": -0.5}]


def asked(openai, mix, **more):
    lora = [{"name": name, "scale": gate} for name, gate in (mix or {}).items()]
    return ask_for(openai, extra_body={"lora": lora}, **GREEDY, **more)


def test_every_mixture_says_what_the_bank_says(openai, tiny_base, folders):
    expected = [alone(tiny_base, folders, mix) for mix in MIXES]
    assert len(set(expected)) > 2
    said = [asked(openai, mix).choices[0].message.content for mix in MIXES]
    assert said == expected
    streamed = [
        "".join(c.delta.content or "" for p in asked(openai, mix, stream=True) for c in p.choices)
        for mix in MIXES
    ]
    assert streamed == expected


def test_many_at_once_are_each_their_own(openai, tiny_base, folders):
    expected = [alone(tiny_base, folders, mix) for mix in MIXES]
    said = [None] * 12

    def work(number):
        said[number] = asked(openai, MIXES[number % 4]).choices[0].message.content

    workers = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert said == [expected[number % 4] for number in range(12)]


def test_log_probabilities_are_those_of_the_model(openai, tiny_base):
    told = asked(openai, None, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    ids = torch.tensor([encode_prompt(tiny_base, "Hello").ids])
    with torch.no_grad():
        expected = tiny_base.model(ids).logits[0, -1].float().log_softmax(-1)
    assert told[0].logprob == pytest.approx(float(expected.max()), abs=1e-4)
    best = [each.logprob for each in told[0].top_logprobs]
    assert best == pytest.approx(expected.topk(3).values.tolist(), abs=1e-4)


def test_seeds_stops_and_limits(openai):
    def drawn(**more):
        return ask_for(openai, temperature=1.0, max_tokens=20, **more).choices[0]

    assert drawn(seed=3).message.content == drawn(seed=3).message.content
    assert drawn(seed=3).message.content != drawn(seed=4).message.content
    whole = asked(openai, None).choices[0]
    assert whole.finish_reason == "length"
    text = whole.message.content
    stop = text[len(text) // 2]
    cut = asked(openai, None, stop=stop).choices[0]
    assert cut.finish_reason == "stop" and cut.message.content == text[: text.index(stop)]


def test_an_answer_is_held_to_a_schema(openai):
    # Short enough for a random model to come to its end.
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "boolean"}}}
    said = ask_for(openai, temperature=0, max_tokens=30, response_format=form).choices[0]
    assert said.finish_reason == "stop" and json.loads(said.message.content) in (True, False)
    form["json_schema"]["schema"] = {"type": "nothing"}
    with pytest.raises(library.BadRequestError):
        ask_for(openai, response_format=form)


def test_what_was_read_before_comes_from_the_cache(openai):
    text = "The same long question, asked for the second time. " * 8
    first, second = (ask_for(openai, "loud", text, **GREEDY) for _ in range(2))
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens > 300
    assert first.choices[0].message.content == second.choices[0].message.content
    other = ask_for(openai, "odd", text, **GREEDY)  # another adapter reads it anew
    assert other.usage.prompt_tokens_details.cached_tokens == 0


def test_embeddings_are_mean_hidden_states(openai, tiny_base):
    vectors = openai.embeddings.create(model="tiny", input=["snow", "снег"]).data
    ids = torch.tensor([tiny_base.tokenizer("снег")["input_ids"]])
    with torch.no_grad():
        last = tiny_base.model(ids, output_hidden_states=True).hidden_states[-1][0]
    mean = last.mean(0) / last.mean(0).norm()
    assert np.allclose(vectors[1].embedding, mean.numpy(), atol=1e-5)


def test_what_is_being_written_keeps_its_weights(tiny_base, engine, stored, folders):
    expected = alone(tiny_base, folders, {"loud": 1.0})
    api = make_api(tiny_base, engine, admin_key="sk-admin-1")
    with running(make_app(api)) as url:
        openai = client(url)
        pieces = iter(ask_for(openai, "loud", stream=True, **GREEDY))
        said = next(pieces).choices[0].delta.content
        api.wardrobe.load("loud", "odd", replace=True)
        said += "".join(c.delta.content or "" for piece in pieces for c in piece.choices)
        assert said == expected
        other = ask_for(openai, "loud", **GREEDY).choices[0].message.content
        assert other == alone(tiny_base, folders, {"odd": 1.0})
        api.wardrobe.unload("loud")
        with pytest.raises(library.NotFoundError):
            ask_for(openai, "loud")
        assert ask_for(openai, **GREEDY).choices[0].message.content == alone(
            tiny_base, folders, None
        )


def test_a_client_that_goes_away_frees_the_engine(openai, engine):
    stream = ask_for(openai, stream=True, max_tokens=1500, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    assert eventually(lambda: engine.stats().running == 0)
    assert asked(openai, None).choices[0].message.content
