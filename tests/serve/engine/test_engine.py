"""The engine against transformers' own generate under PEFT, one request at a time."""

import copy
import json
import threading
import time
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.base import Base
from loratelier.kit.errors import InputError
from loratelier.serve.engine import Asked, Busy, Engine, EngineSettings, Sampling
from tests.conftest import make_tiny, our_hooks

GREEDY = Sampling(temperature=0, max_tokens=12, ignore_eos=True)
TEXTS = (
    "What is rest?",
    "Tell me of the sea, of its tides and of those who wait for them at night.",
    "Два слова о покое.",
    "If it rains, then what?",
    "a",
)


def make_adapter(base, folder, seed, rank=4):
    """An adapter whose B is not zero, saved by PEFT."""
    torch.manual_seed(seed)
    config = LoraConfig(r=rank, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])
    model = get_peft_model(copy.deepcopy(base.model), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder / str(seed))
    return Adapter.load(folder / str(seed))


@pytest.fixture(scope="session")
def adapters(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("worn")
    return {name: make_adapter(tiny_base, folder, n + 1) for n, name in enumerate("abcde")}


@pytest.fixture
def engine(tiny_base, adapters):
    made = make_engine(tiny_base, adapters)
    yield made
    made.stop()


def make_engine(base, adapters, **settings):
    # A model of its own: the fixture's is what answers are compared with meanwhile.
    base = replace(base, model=copy.deepcopy(base.model))
    engine = Engine(base, settings=EngineSettings(**{"max_rows": 4, **settings}))
    for name, adapter in adapters.items():
        engine.adapters.add(name, adapter)
    engine.start()
    return engine


def ids_of(base, text):
    return tuple(base.tokenizer(text, add_special_tokens=False)["input_ids"])


def written(ticket):
    return [token.id for event in ticket.events(60) for token in event.tokens]


def alone(base, adapters, ids, mix, count=12):
    """What the bank writes with the model's own generate."""
    bank = AdapterBank(base.model)
    for name in mix or {}:
        bank.add(name, adapters[name])
    given = torch.tensor([ids])
    with bank.activate(dict(mix) if mix else None), torch.no_grad():
        done = base.model.generate(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            do_sample=False,
            max_new_tokens=count,
            min_new_tokens=count,
            eos_token_id=None,
            pad_token_id=0,
        )
    bank.close()
    return done[0, len(ids) :].tolist()


def cases(base):
    mixes = (None, {"a": 1.0}, {"b": 0.5}, {"a": 0.7, "c": 0.6}, {"d": 1.0}, {"e": -1.0})
    return [
        (ids_of(base, text), mix)
        for number, text in enumerate(TEXTS)
        for mix in mixes[number % 2 :: 2]
    ]


@pytest.mark.parametrize("settings", [{}, {"cache_bytes": 0, "prefill_chunk": 3}])
def test_a_batch_writes_what_each_request_writes_alone(tiny_base, adapters, settings):
    engine = make_engine(tiny_base, adapters, **settings)
    asked = cases(tiny_base)
    try:
        for _ in range(2):  # the second time from the prefix cache, where there is one
            tickets = []
            for number, (ids, mix) in enumerate(asked):
                sampling = replace(GREEDY, max_tokens=5 + number % 8)
                tickets.append(engine.submit(Asked(ids, mix, sampling)))
            for number, (ticket, (ids, mix)) in enumerate(zip(tickets, asked, strict=True)):
                count = 5 + number % 8
                assert written(ticket) == alone(tiny_base, adapters, ids, mix, count)
        stats = engine.stats()
        assert (stats.cache_hits > 0) == (settings == {})
        assert stats.finished == 2 * len(asked) and stats.running == 0
    finally:
        engine.stop()


def test_a_replaced_adapter_never_reads_the_old_ones_keys(tiny_base, adapters, engine):
    ids, mix = ids_of(tiny_base, TEXTS[1]), {"a": 1.0}
    before = written(engine.submit(Asked(ids, mix, GREEDY)))
    engine.adapters.replace("a", adapters["b"])
    after = written(engine.submit(Asked(ids, mix, GREEDY)))
    assert before == alone(tiny_base, adapters, ids, {"a": 1.0})
    assert after == alone(tiny_base, adapters, ids, {"b": 1.0})
    assert before != after


def test_a_running_request_keeps_the_adapter_that_it_began_with(tiny_base, adapters, engine):
    ids = ids_of(tiny_base, TEXTS[0])
    ticket = engine.submit(Asked(ids, {"a": 1.0}, replace(GREEDY, max_tokens=60)))
    events = ticket.events(60)
    first = next(events)
    engine.adapters.replace("a", adapters["b"])
    engine.adapters.remove("a")
    rest = [token.id for event in events for token in event.tokens]
    expected = alone(tiny_base, adapters, ids, {"a": 1.0}, 60)
    assert [token.id for token in first.tokens] + rest == expected
    with pytest.raises(InputError, match="no adapter 'a'"):
        engine.submit(Asked(ids, {"a": 1.0}, GREEDY))


def test_an_adapter_that_waits_for_its_invocation_shares_the_trunk(tiny_base, adapters):
    """Before the invocation the keys are the base's: a switch reads one turn again, no more."""
    history = ids_of(tiny_base, TEXTS[1])
    call = ids_of(tiny_base, " now")
    waiting = {}
    for name in "ab":
        raw = adapters[name].settings.raw | {"alora_invocation_tokens": list(call)}
        settings = replace(adapters[name].settings, invocation=call, raw=raw)
        waiting[name] = replace(adapters[name], settings=settings)
    engine = make_engine(tiny_base, waiting)
    try:
        ids = history + call
        for name in "aba":
            ticket = engine.submit(Asked(ids, {name: 1.0}, GREEDY))
            assert written(ticket) == alone(tiny_base, waiting, ids, {name: 1.0})
        ticket = engine.submit(Asked(ids, None, GREEDY))
        assert written(ticket) == alone(tiny_base, waiting, ids, None)
        assert ticket.cached_tokens >= len(history)
        # From where the request says, whatever the adapter waits for.
        given = engine.submit(Asked(ids, {"a": 1.0}, GREEDY, from_token=0))
        plain = {"a": adapters["a"]}
        assert written(given) == alone(tiny_base, plain, ids, {"a": 1.0})
    finally:
        engine.stop()


def test_log_probabilities_are_those_of_a_plain_forward(tiny_base, adapters, engine):
    ids = ids_of(tiny_base, TEXTS[0])
    ticket = engine.submit(Asked(ids, None, replace(GREEDY, logprobs=3)))
    tokens = [token for event in ticket.events(60) for token in event.tokens]
    whole = torch.tensor([[*ids, *(token.id for token in tokens)]])
    with torch.no_grad():
        likely = tiny_base.model(whole).logits[0].log_softmax(-1)
    for place, token in enumerate(tokens, start=len(ids) - 1):
        assert token.logprob == pytest.approx(float(likely[place, token.id]), abs=1e-4)
        values, best = likely[place].topk(3)
        assert [each for each, _ in token.top] == best.tolist()
        assert [value for _, value in token.top] == pytest.approx(values.tolist(), abs=1e-4)


def test_a_seed_draws_the_same_whoever_else_is_there(tiny_base, engine):
    ids = ids_of(tiny_base, TEXTS[0])
    sampling = Sampling(temperature=1.2, top_p=0.9, seed=7, max_tokens=10, ignore_eos=True)
    one = written(engine.submit(Asked(ids, None, sampling)))
    others = [engine.submit(Asked(ids, {"a": 1.0}, replace(sampling, seed=n))) for n in range(6)]
    again = engine.submit(Asked(ids, None, sampling))
    assert written(again) == one
    assert len({tuple(written(ticket)) for ticket in others}) > 1


def test_a_stop_string_is_never_shown_whole_or_in_part(tiny_base, engine):
    ids = ids_of(tiny_base, TEXTS[2])
    plain = engine.submit(Asked(ids, None, replace(GREEDY, max_tokens=40)))
    text = "".join(event.text for event in plain.events(60))
    stop = text[9:13]
    ticket = engine.submit(Asked(ids, None, replace(GREEDY, max_tokens=40, stop=(stop,))))
    events = list(ticket.events(60))
    assert "".join(event.text for event in events) == text[: text.index(stop)]
    assert events[-1].finish == "stop"


def test_an_answer_is_held_to_a_schema(tiny_base, engine):
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"],
        "additionalProperties": False,
    }
    sampling = Sampling(temperature=1, seed=1, max_tokens=60, schema=json.dumps(schema))
    ticket = engine.submit(Asked(ids_of(tiny_base, TEXTS[0]), None, sampling))
    events = list(ticket.events(60))
    assert events[-1].finish == "stop", events[-1]
    assert 0 <= json.loads("".join(event.text for event in events))["n"] <= 9


def test_a_full_queue_a_cancelled_request_and_a_deadline(tiny_base, adapters):
    engine = make_engine(tiny_base, adapters, max_rows=1, max_queue=1)
    ids = ids_of(tiny_base, TEXTS[0])
    long = replace(GREEDY, max_tokens=1500)
    try:
        running = engine.submit(Asked(ids, None, long))
        next(iter(running.events(60)))
        waiting = engine.submit(Asked(ids, None, long, deadline=0.2))
        with pytest.raises(Busy):
            engine.submit(Asked(ids, None, long))
        assert list(waiting.events(60))[-1].finish == "deadline"
        running.cancel()
        assert list(running.events(60))[-1].finish == "cancelled"
        assert written(engine.submit(Asked(ids, None, GREEDY)))
    finally:
        engine.stop()


def test_a_stop_lets_what_runs_be_answered_and_takes_nothing_new(tiny_base, adapters):
    engine = make_engine(tiny_base, adapters)
    ids = ids_of(tiny_base, TEXTS[0])
    short = engine.submit(Asked(ids, None, GREEDY))
    long = engine.submit(Asked(ids, {"a": 1.0}, replace(GREEDY, max_tokens=1900)))
    ending = threading.Thread(target=engine.stop, args=(1.0,))
    ending.start()
    time.sleep(0.05)
    with pytest.raises(Busy):
        engine.submit(Asked(ids, None, GREEDY))
    assert list(short.events(60))[-1].finish == "length"
    assert list(long.events(60))[-1].finish in ("shutdown", "length")
    ending.join(30)
    assert not our_hooks(engine.base.model)


def test_what_is_asked_of_an_engine_as_it_ends_is_answered(tiny_base, adapters):
    """Whoever adds an adapter at that very moment must not wait for ever."""
    for _ in range(10):
        engine = make_engine(tiny_base, {})
        adding = threading.Thread(target=engine.adapters.add, args=("a", adapters["a"]))
        ending = threading.Thread(target=engine.stop)
        adding.start()
        ending.start()
        adding.join(20)
        ending.join(20)
        assert not adding.is_alive() and not ending.is_alive()


def test_bad_requests_are_refused_in_one_line(tiny_base, engine):
    ids = ids_of(tiny_base, TEXTS[0])
    for asked, said in (
        (Asked(()), "Nothing is asked"),
        (Asked(ids, {"zeta": 1.0}), "no adapter 'zeta'"),
        (Asked(ids, {"a": float("nan")}), "finite"),
        (Asked(ids * 3000), "reads 2048"),
        (Asked((10**9,)), "none of the base's"),
        (Asked(ids, None, replace(GREEDY, schema="{")), "schema"),
    ):
        with pytest.raises(InputError, match=said):
            engine.submit(asked)


def test_texts_are_embedded_by_the_base_alone(tiny_base, adapters, engine):
    ids = ids_of(tiny_base, TEXTS[1])
    running = engine.submit(Asked(ids, {"a": 1.0}, replace(GREEDY, max_tokens=200)))
    (found,) = engine.embed([ids])
    with torch.no_grad():
        mean = tiny_base.model.get_decoder()(torch.tensor([ids])).last_hidden_state[0].mean(0)
    assert found == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
    assert written(running) == alone(tiny_base, adapters, ids, {"a": 1.0}, 200)


def test_an_adapter_that_does_not_fit_is_refused(adapters, engine, tmp_path):
    model, tokenizer = make_tiny(hidden_size=32)
    other = make_adapter(Base.of(model, tokenizer, name="small"), tmp_path, 3)
    with pytest.raises(InputError):
        engine.adapters.add("other", other)
    with pytest.raises(InputError, match="held already"):
        engine.adapters.add("a", adapters["b"])
