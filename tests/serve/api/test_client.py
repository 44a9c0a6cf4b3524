"""The unmodified OpenAI client against the server."""

import json

import httpx2
import openai as library
import pytest

from loratelier.serve.api.keys import KeyRule
from tests.serve.api.harness import ask_for as ask
from tests.serve.api.harness import client, serving


def test_models_are_listed_with_root_and_parent(openai):
    models = {model.id: model for model in openai.models.list()}
    assert set(models) == {"tiny", "auto", "loud", "odd", "silent"}
    assert (models["loud"].root, models["loud"].parent) == ("loud", "tiny")
    assert (models["tiny"].root, models["tiny"].parent) == ("tiny", None)
    assert openai.models.retrieve("odd").id == "odd"


@pytest.mark.parametrize(
    ("model", "mix"), [("tiny", None), ("loud", {"loud": 1.0}), ("auto", None)]
)
def test_chat_wears_what_is_named(openai, engine, model, mix):
    answer = ask(openai, model)
    assert engine.last.mix == mix
    assert answer.choices[0].message.content == f"I am {'loud' if mix else 'base'}."
    assert answer.choices[0].finish_reason == "stop"
    assert engine.prompt() == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert answer.usage.prompt_tokens == len(engine.last.ids)
    assert answer.usage.completion_tokens == len(answer.choices[0].message.content)
    assert answer.usage.prompt_tokens_details.cached_tokens == 1


def test_a_stream_says_the_same_and_ends_with_the_counts(openai):
    stream = ask(openai, "odd", stream=True, stream_options={"include_usage": True}, n=2)
    said, finish, usage = {0: "", 1: ""}, {}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
            finish[choice.index] = choice.finish_reason or finish.get(choice.index)
    assert said == {0: "I am odd.", 1: "I am odd."}
    assert finish == {0: "stop", 1: "stop"}
    assert usage.completion_tokens == 18


def test_log_probabilities_of_chat_and_text(openai):
    told = ask(openai, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert [each.token for each in told] == list("I am base.")
    assert told[0].logprob == -0.5 and told[0].bytes == [73] and len(told[0].top_logprobs) == 3
    answer = openai.completions.create(model="tiny", prompt="Once", logprobs=2)
    assert answer.choices[0].logprobs.tokens == list("I am base.")
    assert answer.choices[0].logprobs.text_offset == list(range(10))


def test_text_completions_of_several_prompts(openai, engine):
    answer = openai.completions.create(
        model="loud", prompt=["One", "Two"], n=2, echo=True, max_tokens=4, seed=7
    )
    assert [choice.text for choice in answer.choices] == [
        "OneI am",
        "OneI am",
        "TwoI am",
        "TwoI am",
    ]
    assert [choice.finish_reason for choice in answer.choices] == ["length"] * 4
    assert [asked.sampling.seed for asked in engine.asked] == [7, 8, 9, 10]
    assert answer.usage.prompt_tokens == 6
    openai.completions.create(model="loud", prompt=[70, 71, 72])
    assert engine.last.ids == (70, 71, 72)


def test_embeddings_as_the_client_asks_for_them(openai):
    answer = openai.embeddings.create(model="tiny", input=["abc", "de"])
    assert [each.embedding for each in answer.data] == [[1.0, 3.0], [1.0, 2.0]]
    with pytest.raises(library.BadRequestError, match="Embeddings are the base's"):
        openai.embeddings.create(model="loud", input="abc")


def test_settings_reach_the_engine(openai, engine):
    ask(
        openai,
        temperature=0.3,
        top_p=0.8,
        stop=["x", "y"],
        seed=5,
        max_tokens=9,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"70": -100},
        extra_body={"top_k": 4, "min_p": 0.1, "repetition_penalty": 1.2, "ignore_eos": True},
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object", "title": "Т"}},
        },
    )
    sampling = engine.last.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (
        0.3, 0.8, 4, 0.1,
    )  # fmt: skip
    assert (sampling.stop, sampling.seed, sampling.max_tokens) == (("x", "y"), 5, 9)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.5, -0.5)
    assert sampling.logit_bias == ((70, -100.0),) and sampling.ignore_eos
    assert json.loads(sampling.schema) == {"type": "object", "title": "Т"}
    ask(openai, response_format={"type": "json_object"})
    assert json.loads(engine.last.sampling.schema) == {"type": "object"}


def test_a_mixture_is_worn_as_it_is_given(openai, engine):
    mixture = [{"name": "loud", "scale": 0.5}, {"name": "odd", "scale": -1}]
    raw = openai.chat.completions.with_raw_response.create(
        model="tiny",
        messages=[{"role": "user", "content": "Привет"}],
        extra_body={"lora": mixture},
    )
    assert engine.last.mix == {"loud": 0.5, "odd": -1.0}
    assert raw.headers["x-loratelier-adapter"] == "loud=0.5,odd=-1"
    assert raw.headers["x-loratelier-stage"] == "name"


def test_tools_are_shown_or_refused(openai, tiny_base, engine, monkeypatch):
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    with pytest.raises(library.BadRequestError, match="knows no tools"):
        ask(openai, tools=tools)
    shows = "{% if tools %}{{ tools | tojson }}{% endif %}" + tiny_base.tokenizer.chat_template
    monkeypatch.setattr(tiny_base.tokenizer, "chat_template", shows)
    ask(openai, tools=tools)
    assert '"name": "look"' in engine.prompt()
    with pytest.raises(library.BadRequestError, match="tool_choice"):
        ask(openai, tools=tools, tool_choice="required")


def test_errors_are_error_objects(openai, url, engine):
    with pytest.raises(library.NotFoundError, match="Did you mean 'loud'") as caught:
        ask(openai, "lout")
    assert caught.value.body["code"] == "model_not_found"
    with pytest.raises(library.BadRequestError, match=r"temperatur.*temperature"):
        ask(openai, extra_body={"temperatur": 1})
    with pytest.raises(library.BadRequestError, match="2048 tokens"):
        ask(openai, max_tokens=5000)
    engine.most = 0
    with pytest.raises(library.RateLimitError) as busy:
        ask(openai)
    assert busy.value.response.headers["retry-after"] == "1"
    for sent, status in ((b"{", 400), (b"[]", 400), (b"\xff\xfe", 400), (b"", 400)):
        got = httpx2.post(
            f"{url}/v1/completions", content=sent, headers={"content-type": "application/json"}
        )
        assert got.status_code == status and got.json()["error"]["message"]
    assert httpx2.get(f"{url}/nowhere").json()["error"]["type"] == "not_found_error"
    assert httpx2.get(f"{url}/v1/completions").status_code == 405
    assert httpx2.get(f"{url}/health").json() == {"status": "ok"}


def test_what_breaks_in_a_stream_is_said_in_the_stream(openai, engine):
    engine.breaks = "deadline"
    with pytest.raises(library.APIStatusError) as caught:
        ask(openai)
    assert caught.value.status_code == 504
    with pytest.raises(library.APIError, match="longer than this server allows"):
        list(ask(openai, stream=True))


def test_a_default_client_of_another_address_is_not_let_in(tiny_base, engine, stored):
    rules = {"ann": {"key": "sk-secret-1"}}
    with serving(tiny_base, engine, keys={n: KeyRule(**r) for n, r in rules.items()}) as url:
        with pytest.raises(library.AuthenticationError):
            ask(client(url, "sk-wrong"))
        assert ask(client(url, "sk-secret-1"), "loud").choices[0].message.content == "I am loud."
        assert httpx2.get(f"{url}/v1/models").status_code == 401
        assert httpx2.get(f"{url}/health").status_code == 200
