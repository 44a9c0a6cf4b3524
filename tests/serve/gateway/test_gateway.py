"""The gateway in front of two real processes, with kills in between."""

import json
import threading

import httpx2
import openai as library
import pytest
import yaml

from loratelier.kit.errors import InputError
from loratelier.serve.api.keys import KeyRule, Keys
from loratelier.serve.gateway.replicas import Replica, Replicas
from loratelier.serve.gateway.server import Gated, GatewaySettings
from loratelier.serve.gateway.splice import Spliced
from tests.serve.api.harness import ask_for as ask
from tests.serve.api.harness import client, eventually
from tests.serve.gateway.conftest import POLICY, gating
from tests.serve.gateway.upstream import ADMIN, Upstream


def test_the_client_runs_unmodified(openai, upstreams):
    assert {model.id for model in openai.models.list()} >= {"tiny", "auto", "loud", "odd"}
    assert ask(openai, "loud").choices[0].message.content.startswith("loud of ")
    assert ask(openai).choices[0].message.content.startswith("base of ")
    stream = ask(openai, "odd", stream=True, stream_options={"include_usage": True})
    pieces = list(stream)
    said = "".join(c.delta.content or "" for piece in pieces for c in piece.choices)
    assert said.startswith("odd of ") and pieces[-1].usage.completion_tokens == len(said)
    told = ask(openai, "loud", logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert told[0].token == "l" and len(told[0].top_logprobs) == 2
    text = openai.completions.create(model="odd", prompt="Once").choices[0].text
    assert text.startswith("odd of ")
    assert openai.embeddings.create(model="tiny", input="abc").data[0].embedding == [1.0, 3.0]


def test_auto_is_decided_here_and_the_rest_is_passed_on(openai, gateway):
    raw = openai.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": "Tell me of a hurricane"}]
    )
    assert raw.parse().choices[0].message.content.startswith("loud of ")
    assert raw.headers["x-loratelier-stage"] == "keywords"
    assert raw.headers["x-loratelier-adapter"] == "loud"
    assert ask(openai, "auto", "Hello").choices[0].message.content.startswith("base of ")
    signal = ask(openai, "auto", "<|use_lora_odd|> Hello")
    assert signal.choices[0].message.content.startswith("odd of ")
    plain = ask(openai, "tiny", "Hello")
    assert signal.usage.prompt_tokens == plain.usage.prompt_tokens  # the signal is gone
    shouter = ask(openai, "shouter", "Hello")
    assert shouter.usage.prompt_tokens > plain.usage.prompt_tokens  # and the role's words came


def test_adapters_are_loaded_everywhere_and_again_after_a_restart(gateway, upstreams, openai):
    for server in upstreams:
        assert eventually(lambda server=server: server.models() == {"loud", "odd"})
    first = upstreams[0]
    first.kill()
    for _ in range(6):  # whoever is left answers, and no request fails
        assert ask(openai, "loud").choices[0].message.content == "loud of two"
        assert ask(openai, "odd").choices[0].message.content == "odd of two"
    assert eventually(lambda: not gateway[1].replicas.all[0].is_up)
    first.start()
    assert eventually(lambda: first.models() == {"loud", "odd"}, 15)
    assert eventually(lambda: gateway[1].replicas.all[0].is_up)


def test_a_restart_between_two_looks_is_noticed_by_the_first_request(upstreams, policy):
    with gating(upstreams[:1], policy) as (url, gateway):
        gateway.every = 3600
        assert eventually(lambda: upstreams[0].models() == {"loud", "odd"})
        import time

        time.sleep(0.5)  # the look that had begun is over
        upstreams[0].kill()
        upstreams[0].start()
        assert upstreams[0].models() == set()
        assert ask(client(url), "loud").choices[0].message.content == "loud of one"


def test_requests_under_kills_all_succeed(gateway, upstreams):
    url, failed, answered = gateway[0], [], []
    stop = threading.Event()

    def work(name):
        openai = client(url)
        while not stop.is_set():
            try:
                said = ask(openai, name).choices[0].message.content
                answered.append(said.startswith(f"{name} of "))
            except library.APIError as error:
                failed.append(error)

    workers = [threading.Thread(target=work, args=(n,)) for n in ("loud", "odd", "loud")]
    for worker in workers:
        worker.start()
    for server in upstreams:
        before = len(answered)
        server.kill()
        assert eventually(lambda before=before: len(answered) > before + 6, 15)
        server.start()
        assert eventually(lambda server=server: server.models() == {"loud", "odd"}, 15)
        others = [replica for replica in gateway[1].replicas.all if replica.url == server.url]
        assert eventually(lambda others=others: len(others[0].resident) == 2, 15)
    stop.set()
    for worker in workers:
        worker.join(20)
    assert failed == [] and all(answered)


def test_an_adapter_keeps_to_its_replica(openai, upstreams):
    assert all(eventually(lambda s=s: len(s.models()) == 2) for s in upstreams)
    for _ in range(10):
        ask(openai, "loud")
    assert sorted(server.asked().get("loud", 0) for server in upstreams) == [0, 10]


def test_a_busy_replica_is_passed_over():
    replicas = Replicas(["http://a", "http://b"], "vllm", None, headers={}, admin={})
    for replica in replicas.all:
        replica.is_up, replica.resident = True, {"loud"}
    first, second = replicas.order("loud")
    first.running = 8
    assert replicas.order("loud")[0] is second
    second.running = 8
    assert replicas.order("loud")[0] is first
    second.resident = set()
    assert replicas.order("loud") == [first]


def test_sglang_is_asked_for_base_and_adapter():
    replicas = Replicas(["http://a"], "sglang", None, headers={}, admin={}, model="qwen")
    assert replicas.name_of("poet") == "qwen:poet" and replicas.name_of(None) == "qwen"
    assert isinstance(replicas.all[0], Replica)


def test_soft_mixtures_are_501_and_never_the_strongest_alone(openai, upstreams):
    for asked in (
        {"model": "both"},
        {"model": "auto", "text": "<|use_lora_loud:0.6|> x"},
        {"model": "tiny", "extra_body": {"lora": [{"name": "loud"}, {"name": "odd"}]}},
    ):
        with pytest.raises(library.InternalServerError) as caught:
            ask(openai, **asked)
        assert caught.value.status_code == 501
    assert all(set(server.asked()) <= {"base"} for server in upstreams)


def test_mixtures_of_the_policy_are_merged_beforehand(upstreams, policy, stored):
    with gating(upstreams, policy, merge=True) as (url, gateway):
        (name,) = gateway.mixtures.names
        assert eventually(lambda: all(name in s.models() for s in upstreams), 15)
        raw = client(url).chat.completions.with_raw_response.create(
            model="both", messages=[{"role": "user", "content": "x"}]
        )
        assert raw.parse().choices[0].message.content.startswith(f"{name} of ")
        assert raw.headers["x-loratelier-adapter"] == "loud=0.5,odd=0.25"
        assert name not in {model.id for model in client(url).models.list()}
        with pytest.raises(library.NotFoundError):
            ask(client(url), name)


def test_keys_hold_here_too(upstreams, policy, tmp_path):
    path = tmp_path / "keys.yaml"
    rules = {"bob": {"key": "sk-bob-12345", "adapters": ["odd"], "requests_per_minute": 20}}
    path.write_text(yaml.safe_dump({"keys": rules}), encoding="utf-8")
    with gating(upstreams, policy, key_file=path, upstream_key=ADMIN) as (url, _):
        bob = client(url, "sk-bob-12345")
        assert {model.id for model in bob.models.list()} == {"tiny", "auto", "odd"}
        for road in (
            {"model": "loud"},
            {"model": "shouter"},
            {"model": "tiny", "extra_body": {"lora": [{"name": "loud"}]}},
            {"model": "auto", "extra_body": {"route": {"allow": ["loud"]}}},
        ):
            with pytest.raises(library.NotFoundError):
                ask(bob, **road)
        for text in ("<|use_lora_loud|> x", "a hurricane", "Now as a shouter. Go."):
            assert ask(bob, "auto", text).choices[0].message.content.startswith("base of ")
        with pytest.raises(library.AuthenticationError):
            ask(client(url, "sk-no-1234567"))
        sent = {"authorization": f"Bearer {ADMIN}"}
        for road in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/openapi.json"):
            body = {"lora_name": "odd"}
            got = httpx2.post(f"{url}{road}", json=body, headers=sent)
            assert got.status_code in (404, 405)
        with pytest.raises(library.RateLimitError):
            for _ in range(25):
                ask(bob)


def test_token_quotas_are_refused_and_not_ignored(policy, tmp_path):
    path = tmp_path / "keys.yaml"
    rule = {"key": "sk-bob-12345", "tokens_per_minute": 10}
    path.write_text(yaml.safe_dump({"keys": {"bob": rule}}), encoding="utf-8")
    with pytest.raises(InputError, match="does not count tokens"):
        Gated(GatewaySettings(("http://127.0.0.1:1",), policy, key_file=path, port=0))
    assert not Keys({"a": KeyRule(key="sk-12345678")}).count_tokens
    for url in ("127.0.0.1:1", "ftp://x", "http://x/v1"):
        with pytest.raises(InputError, match="no address"):
            Gated(GatewaySettings((url,), policy, port=0))


def test_nobody_behind_is_503_and_bad_bodies_are_400(policy, tmp_path):
    class Nowhere:
        url = "http://127.0.0.1:9"

    with gating([Nowhere], policy, model="tiny") as (url, _):
        got = httpx2.post(f"{url}/v1/completions", json={"model": "tiny", "prompt": "x"})
        assert got.status_code == 503 and got.json()["error"]["code"] == "upstream_unreachable"
        assert got.headers["retry-after"]
        assert httpx2.get(f"{url}/health").status_code == 503
        for sent in (
            b"", b"{", b"[]", b"\xff", b'{"model":"tiny","model":"loud","prompt":"x"}',
            b'{"model":1}', b'{"model":"auto","messages":"x"}', b'{"a":' + b"[" * 50_000,
            b'{"model":"auto","messages":[{"role":"user","content":7}]}',
            b'{"model":"auto","messages":[{"role":"user","content":"\\ud800"}],"route":{"top":1}}',
            b'{"model":"tiny","messages":[{"role":"user"}],"lora":[{"name":"loud","scale":1e999}]}',
        ):  # fmt: skip
            got = httpx2.post(f"{url}/v1/chat/completions", content=sent)
            assert got.status_code == 400, (sent[:70], got.status_code, got.text)


def test_a_client_that_goes_away_cancels_upstream(tiny_base, stored, policy):
    server = Upstream(tiny_base, name="slow", endless=True, pause=0.01)
    try:
        with gating([server], policy) as (url, gateway):
            stream = ask(client(url), "loud", stream=True, max_tokens=1500)
            next(iter(stream))
            stream.close()
            replica = gateway.replicas.all[0]
            assert eventually(lambda: replica.running == 0)
            with pytest.raises(library.APITimeoutError):
                ask(client(url), "loud", max_tokens=1500, timeout=0.5)
            assert eventually(lambda: replica.running == 0)

            def running():
                return "loratelier_requests_running 0" in httpx2.get(f"{server.url}/metrics").text

            assert eventually(running)
    finally:
        server.kill()


def test_an_answer_that_breaks_off_is_not_made_whole(tiny_base, stored, policy):
    server = Upstream(tiny_base, name="slow", endless=True, pause=0.01)
    with gating([server], policy) as (url, _):
        stream = ask(client(url), "loud", stream=True, max_tokens=1500)
        next(iter(stream))
        server.kill()
        with pytest.raises((library.APIError, httpx2.TransportError)):
            for _ in stream:
                pass


def test_bytes_pass_as_they_are():
    sent = (
        b'{ "messages" : [ {"role":"user","content":"\\u0416 \xd0\x96"} ],\n'
        b' "model":"auto", "x":1.50}'
    )
    body = Spliced(sent)
    assert body.changed({"model": "loud"}) == sent.replace(b'"auto"', b'"loud"')
    assert body.changed({}) == sent
    body = Spliced(b'{"lora": [], "model": "a", "y": [1,  2]}')
    without = body.changed({"model": "b"}, ("lora",))
    assert without == b'{"model": "b", "y": [1,  2]}'
    assert json.loads(Spliced(b"{}").changed({"model": "b"})) == {"model": "b"}
    assert POLICY["adapters"]
