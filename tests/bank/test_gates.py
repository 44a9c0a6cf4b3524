"""Gates by token, by site, by row; and what a mixture is."""

import copy

import pytest
import torch

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from loratelier.kit.errors import InputError
from tests.bank.models import ARCHS, EXPERTS, GREEDY, batch, tiny, write
from tests.conftest import our_hooks

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two plain adapters for each architecture, and one that waits for its invocation."""
    root = tmp_path_factory.mktemp("adapters")
    return {
        arch: {
            "one": write(arch, "plain", root / f"{arch}-one", 1),
            "two": write(arch, "rslora", root / f"{arch}-two", 2),
            "waits": write(arch, "alora", root / f"{arch}-waits", 3),
        }
        for arch in ARCHS
    }


def bank_of(arch, folders):
    bank = AdapterBank(tiny(arch))
    for name, folder in folders[arch].items():
        bank.add(name, folder)
    return bank


@torch.no_grad()
def hidden(model, ids, mask, **more):
    out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, **more)
    return torch.stack(out.hidden_states)


@torch.no_grad()
def logits(model, ids, mask, **more):
    return model(input_ids=ids, attention_mask=mask, **more).logits * mask[..., None]


@pytest.mark.parametrize("arch", ARCHS)
def test_before_the_gate_opens_hidden_states_are_the_bases_to_the_bit(arch, folders):
    model, bank = tiny(arch), bank_of(arch, folders)
    ids, mask = batch()
    base = hidden(model, ids, mask)
    opened = torch.tensor([0.0] * 9 + [1.0, 0.5, 0.0, 2.0, 1.0])
    for mix, options in (("one", {"from_token": 9}), ({"one": opened, "two": opened}, {})):
        with bank.activate(mix, **options):
            ours = hidden(model, ids, mask)
        if arch == "moe":
            # An expert multiplies all tokens that are sent to it at once, and how a product is
            # rounded depends on how many those are; the base alone has no such last bit either.
            torch.testing.assert_close(ours[:, :, :9], base[:, :, :9], atol=1e-5, rtol=0)
        else:
            assert torch.equal(ours[:, :, :9].view(torch.int32), base[:, :, :9].view(torch.int32))
        assert not torch.allclose(ours[:, :, 9], base[:, :, 9], atol=1e-3)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_soft_mixture_is_the_sum_of_the_deltas_in_the_weights(arch, folders, tmp_path):
    folder = dict(folders[arch])
    if arch == "moe":
        folder["experts"] = write(arch, "expert patterns", tmp_path / "experts", 4)
    bank, dense = bank_of(arch, folders), copy.deepcopy(tiny(arch))
    gates = {"one": 0.7, "two": -0.4}
    for name, gate in gates.items():
        for site, delta in Adapter.load(folder[name]).deltas.items():
            weight = dense.get_submodule(site).weight
            weight += gate * (delta.T if arch == "gpt2" else delta)
    if arch == "moe":
        bank.add("experts", folder["experts"])
        gates["experts"] = 0.3
        for site, delta in by_hand(Adapter.load(folder["experts"])).items():
            dense.get_parameter(site).add_(0.3 * delta)
    ids, mask = batch()
    with bank.activate(gates):
        ours = logits(tiny(arch), ids, mask)
    torch.testing.assert_close(ours, logits(dense, ids, mask), atol=1e-4, rtol=0)


def by_hand(adapter):
    """The dense updates of expert parameters, expert by expert, as PEFT lays the pairs out."""
    ranks = {EXPERTS[0]: 2, EXPERTS[1]: 4}
    alphas = {EXPERTS[0]: 6, EXPERTS[1]: 5}
    found = {}
    for site, (down, up) in adapter.extras.experts.items():
        # gate_up_proj is registered first, wrapped first, and so lies deeper.
        name = EXPERTS[0] if site.endswith(".base_layer") else EXPERTS[1]
        rank = ranks[name]
        parts = [
            up.reshape(-1, rank, 4)[:, :, expert] @ down[expert * rank : (expert + 1) * rank]
            for expert in range(4)
        ]
        path = f"{site.removesuffix('.base_layer')}.{name.rpartition('.')[2]}"
        found[path] = alphas[name] / rank * torch.stack(parts)
    return found


@pytest.mark.parametrize("arch", ["llama", "gemma3", "moe"])
def test_token_gates_with_a_cache_are_those_of_the_whole_sequence(arch, folders):
    model, bank = tiny(arch), bank_of(arch, folders)
    ids, _ = batch()
    ids, mask = ids[[0, 3]], torch.ones(2, 14, dtype=torch.long)
    curve = torch.linspace(0, 1, 10)  # four tokens short: the last value goes on
    mix = [{"one": curve}, {"two": 0.5, "one": curve.flip(0)}]
    with bank.activate(mix), torch.no_grad():
        whole = model(input_ids=ids).logits
        start = model(input_ids=ids[:, :6], use_cache=True)
        middle = model(input_ids=ids[:, 6:12], past_key_values=start.past_key_values)
        end = model(input_ids=ids[:, 12:], past_key_values=middle.past_key_values)
    pieces = torch.cat([start.logits, middle.logits, end.logits], dim=1)
    torch.testing.assert_close(pieces, whole, atol=1e-4, rtol=0)
    constant = [{"one": 1.0}, {"two": 0.5, "one": 0.0}]
    with bank.activate(constant):
        assert not torch.allclose(logits(model, ids, mask), whole, atol=1e-2)


def test_only_the_columns_that_reach_the_output_layer_are_gated_there(tmp_path):
    write("llama", "head", tmp_path / "head")
    model, bank = tiny("llama"), AdapterBank(tiny("llama"))
    bank.add("head", tmp_path / "head")
    ids, mask = batch()
    rows = [{"head": torch.linspace(0, 1, 14)}, None, "head", {"head": 0.5}]
    with bank.activate(rows):
        whole = logits(model, ids, mask)
    with bank.activate(rows), torch.no_grad():
        last = model(input_ids=ids, attention_mask=mask, logits_to_keep=3).logits
        some = torch.tensor([2, 13])
        chosen = model(input_ids=ids, attention_mask=mask, logits_to_keep=some).logits
    torch.testing.assert_close(last, whole[:, -3:], atol=1e-5, rtol=0)
    torch.testing.assert_close(chosen[0], whole[0, some], atol=1e-5, rtol=0)


@pytest.mark.parametrize("arch", ["llama", "moe", "gpt2"])
def test_a_gate_by_token_may_carry_a_gradient(arch, folders):
    model, bank = tiny(arch), bank_of(arch, folders)
    ids, mask = batch()
    gate = torch.full((14,), 0.5, requires_grad=True)
    scale = torch.tensor(0.8, requires_grad=True)

    def value(first, second):
        with bank.activate({"one": first, "two": second}):
            out = model(input_ids=ids, attention_mask=mask)
        return out.logits[0, -1, 3]

    value(gate, scale).backward()
    step = 1e-2
    for column in (0, 9, 13):
        nudge = torch.zeros(14)
        nudge[column] = step
        with torch.no_grad():
            slope = (value(gate + nudge, scale) - value(gate - nudge, scale)) / (2 * step)
        assert float(gate.grad[column]) == pytest.approx(float(slope), rel=0.05, abs=2e-3)
    with torch.no_grad():
        slope = (value(gate, scale + step) - value(gate, scale - step)) / (2 * step)
    assert float(scale.grad) == pytest.approx(float(slope), rel=0.05, abs=2e-3)


def test_a_gate_of_experts_may_carry_a_gradient(tmp_path):
    write("moe", "experts", tmp_path / "experts", 4)
    model, bank = tiny("moe"), AdapterBank(tiny("moe"))
    bank.add("experts", tmp_path / "experts")
    ids, mask = batch()
    site = next(s for s in Adapter.load(tmp_path / "experts").sites if "experts" in s)
    gate = torch.tensor(0.5, requires_grad=True)

    def value(at):
        with bank.activate({"experts": {site: at}}):
            return model(input_ids=ids, attention_mask=mask).logits[0, -1, 3]

    value(gate).backward()
    with torch.no_grad():
        slope = (value(0.505) - value(0.495)) / 0.01
    assert float(gate.grad) == pytest.approx(float(slope), rel=0.05, abs=2e-3)


def test_gates_by_site_and_row_and_token_at_once(folders):
    model, bank = tiny("llama"), bank_of("llama", folders)
    ids, mask = batch(2)
    mask = torch.ones_like(mask)
    adapter = Adapter.load(folders["llama"]["one"])
    site = adapter.sites[3]
    with bank.activate([{"one": {site: torch.tensor([0.0] * 5 + [0.6])}}, None]):
        ours = logits(model, ids, mask)
    dense = copy.deepcopy(model)
    dense.get_submodule(site).weight += 0.6 * adapter.deltas[site]
    base, moved = logits(model, ids, mask), logits(dense, ids, mask)
    assert torch.equal(ours[1], base[1])
    assert torch.equal(ours[0, :5], base[0, :5])
    assert not torch.equal(ours[0, 5:], base[0, 5:])
    # Over a prompt that is gated from its first token on, it is the weight's own change.
    with bank.activate({"one": {site: torch.full((14,), 0.6)}}):
        torch.testing.assert_close(logits(model, ids, mask), moved, atol=1e-4, rtol=0)


@pytest.mark.parametrize("budget", [None, 10**9])
def test_many_rows_that_wear_one_each_are_as_if_alone(folders, tmp_path, budget):
    """Enough adapters that rows are sorted by adapter; unevenly many, some of them bare."""
    model, bank = tiny("llama"), AdapterBank(tiny("llama"), resident_bytes=budget)
    bank.add("one", folders["llama"]["one"])
    for seed in range(4, 8):
        bank.add(f"more{seed}", write("llama", "plain", tmp_path / f"{seed}", seed))
    rows = ["more5", "one", "one", None, "more4", {"more6": 0.3}, "one", {"more7": 2.0}, None]
    ids = torch.randint(9, 96, (len(rows), 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    curve = torch.linspace(0, 1, 12)
    for mixes in (rows, [r if r != "one" else {"one": curve} for r in rows], rows[:3] + rows[4:8]):
        ids, mask = ids[: len(mixes)], mask[: len(mixes)]
        with bank.activate(mixes):
            together = logits(model, ids, mask)
            written = model.generate(input_ids=ids, attention_mask=mask, **GREEDY)
        for row, mix in enumerate(mixes):
            one = ids[row : row + 1], mask[row : row + 1]
            with bank.activate(mix):
                torch.testing.assert_close(together[row], logits(model, *one)[0], atol=1e-4, rtol=0)
                alone = model.generate(input_ids=one[0], attention_mask=one[1], **GREEDY)
            assert torch.equal(written[row], alone[0])


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_from_a_token_on_while_generating_with_padding_on_the_left(arch, folders):
    model, bank = tiny(arch), bank_of(arch, folders)
    ids, mask = batch()
    starts = [0, 9, 100, 14]
    with bank.activate("one", from_token=starts):
        written = model.generate(input_ids=ids, attention_mask=mask, **GREEDY)
    with bank.activate(None):
        base = model.generate(input_ids=ids, attention_mask=mask, **GREEDY)
    assert torch.equal(written[2], base[2])
    # One token at a time, each with the whole sequence anew and no cache.
    for row, start in enumerate(starts):
        line, seen = ids[row : row + 1], mask[row : row + 1]
        for _ in range(GREEDY["max_new_tokens"]):
            places = (seen.cumsum(1) - 1).clamp(min=0)
            with bank.activate("one", from_token=start):
                scores = logits(model, line, seen, position_ids=places)[0, -1]
            scores[2] = -torch.inf  # the end of the text, which GREEDY puts off
            line = torch.cat([line, scores.argmax()[None, None]], dim=1)
            seen = torch.cat([seen, torch.ones(1, 1, dtype=torch.long)], dim=1)
        assert torch.equal(written[row], line[0])


def test_an_invocation_that_arrives_later_or_is_generated_opens_the_gate(folders):
    model, bank = tiny("llama"), bank_of("llama", folders)
    ids, mask = batch()
    ids, mask = ids[:1], mask[:1]  # invoked at column 6
    with bank.activate("waits"):
        whole = hidden(model, ids, mask)
    with bank.activate("waits"), torch.no_grad():
        # The two tokens of the invocation come in different passes.
        start = model(input_ids=ids[:, :7], use_cache=True, output_hidden_states=True)
        rest = model(
            input_ids=ids[:, 7:], past_key_values=start.past_key_values, output_hidden_states=True
        )
    base = hidden(model, ids, mask)
    assert torch.equal(whole[:, :, :6], base[:, :, :6])
    assert not torch.allclose(whole[:, :, 6], base[:, :, 6], atol=1e-3)
    # Its first token was computed before it could be known for what it is.
    torch.testing.assert_close(torch.stack(start.hidden_states), base[:, :, :7])
    assert not torch.allclose(torch.stack(rest.hidden_states), base[:, :, 7:], atol=1e-3)


def test_a_wait_for_tokens_that_are_not_given_is_refused(folders):
    model, bank = tiny("llama"), bank_of("llama", folders)
    vectors = model.get_input_embeddings()(batch()[0])
    with bank.activate("waits"), pytest.raises(InputError, match="needs to see the tokens"):
        model(inputs_embeds=vectors)
    with bank.activate("one"), torch.no_grad():
        ours = model(inputs_embeds=vectors).logits
    with bank.activate("one"), torch.no_grad():
        torch.testing.assert_close(model(input_ids=batch()[0]).logits, ours)


def test_a_part_of_the_model_may_run_alone_unless_gates_count_tokens(folders):
    model, bank = tiny("llama"), bank_of("llama", folders)
    ids, _ = batch()
    with bank.activate(["one", None, "two", "one"]), torch.no_grad():
        whole = model(input_ids=ids).logits
        assert torch.equal(model.lm_head(model.model(input_ids=ids).last_hidden_state), whole)
    with (
        bank.activate("one", from_token=3),
        torch.no_grad(),
        pytest.raises(InputError, match="ran outside of the model"),
    ):
        model.model(input_ids=ids)
    assert not our_hooks(model)


def test_beams_take_one_mix_for_all_or_one_for_each_beam(folders):
    model, bank = tiny("llama"), bank_of("llama", folders)
    ids, mask = batch(2)
    settings = {**GREEDY, "num_beams": 2}
    alone = []
    for row, name in enumerate(("one", "two")):
        with bank.activate(name):
            one = {"input_ids": ids[row : row + 1], "attention_mask": mask[row : row + 1]}
            alone.append(model.generate(**one, **settings)[0])
    with bank.activate(["one", "one", "two", "two"]):
        both = model.generate(input_ids=ids, attention_mask=mask, **settings)
    assert torch.equal(both, torch.stack(alone))


def test_dora_is_refused_in_a_mixture_by_name(folders, tmp_path):
    bank = bank_of("llama", folders)
    bank.add("long", write("llama", "dora", tmp_path / "dora"))
    with (
        pytest.raises(InputError, match="'long' is a DoRA adapter"),
        bank.activate(["one", {"one": 0.5, "long": 0.5}]),
    ):
        pass
    with bank.activate(["one", "long", {"long": 0.5}, None]):
        logits(tiny("llama"), *batch())


def test_curves_of_different_lengths_hold_their_last_values(folders):
    model, bank = tiny("llama"), bank_of("llama", folders)
    ids, mask = batch()
    mask = torch.ones_like(mask)
    short, long = torch.tensor([0.2, 0.9]), torch.tensor([0.2] + [0.9] * 30)
    with bank.activate({"one": short, "two": 0.1}):
        first = logits(model, ids, mask)
    with bank.activate({"one": long, "two": torch.full((3,), 0.1)}):
        torch.testing.assert_close(logits(model, ids, mask), first, atol=1e-6, rtol=0)


def test_a_table_of_gates_has_a_row_for_each_row(folders):
    model, bank = tiny("llama"), bank_of("llama", folders)
    ids, mask = batch()
    table = torch.rand(4, 14, generator=torch.Generator().manual_seed(0))
    with bank.activate([{"one": row, "two": 0.3} for row in table]):
        expected = logits(model, ids, mask)
    with bank.activate({"one": table, "two": 0.3}):
        assert torch.equal(logits(model, ids, mask), expected)
    unlike = pytest.raises(InputError, match="unlike numbers of rows: 'one' 4, 'two' 3")
    with unlike, bank.activate({"one": table, "two": table[:3]}):
        pass


def test_gradient_checkpointing_gives_the_same_gradient(folders):
    model = copy.deepcopy(tiny("llama"))
    bank, ids = AdapterBank(model), batch()[0]
    bank.add("one", folders["llama"]["one"])
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            model.train()
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        gate = torch.tensor(0.7, requires_grad=True)
        with bank.activate({"one": gate}):
            model(input_ids=ids, use_cache=False).logits.sum().backward()
        found.append(float(gate.grad))
    assert found[1] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize("kind", ["tokens", "plain"])
@pytest.mark.parametrize("arch", ["qwen2", "gemma3", "gpt2"])
def test_gates_at_all_sites_are_the_whole_adapter_tied_output_included(arch, kind, tmp_path):
    model, folder = tiny(arch), write(arch, kind, tmp_path / "it", 4)
    bank = AdapterBank(model)
    bank.add("it", folder)
    ids, mask = batch()
    with bank.activate("it"):
        whole = logits(model, ids, mask)
    with bank.activate({"it": dict.fromkeys(Adapter.load(folder).sites, 1.0)}):
        by_site = logits(model, ids, mask)
    assert not torch.equal(whole, logits(model, ids, mask))
    torch.testing.assert_close(by_site, whole)
