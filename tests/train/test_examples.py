from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from loratelier.base.decoder import Reader
from loratelier.base.packed import rows_apart
from loratelier.kit.errors import InputError
from loratelier.train.examples import to_example, to_text_example
from loratelier.train.packing import pack, shuffled

TALK = [
    {"role": "user", "content": "What is rest?"},
    {"role": "assistant", "content": "Work turned inward."},
    {"role": "user", "content": "And sleep?"},
    {"role": "assistant", "content": "A door that opens inward."},
]


def decoded_spans(base, example):
    """The learned stretches as text."""
    spans, current = [], []
    for token, learned in zip([*example.ids, 0], [*example.learned, False], strict=True):
        if learned:
            current.append(token)
        elif current:
            spans.append(base.tokenizer.decode(current))
            current = []
    return spans


def test_what_is_learned_is_the_answers_and_their_end_tokens(tiny_base):
    example = to_example(tiny_base, "r", "c", TALK)
    assert decoded_spans(tiny_base, example) == [
        "Work turned inward.<|im_end|>",
        "A door that opens inward.<|im_end|>",
    ]


@pytest.mark.parametrize("turn", [1, 3])
def test_before_an_answer_stands_exactly_what_generation_starts_from(tiny_base, turn):
    example = to_example(tiny_base, "r", "c", TALK[: turn + 1])
    prompt = tiny_base.tokenizer.apply_chat_template(
        TALK[:turn], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    starts = [
        n for n in range(1, len(example)) if example.learned[n] and not example.learned[n - 1]
    ]
    assert list(example.ids[: starts[-1]]) == list(prompt)


def test_a_row_that_the_assistant_opens_is_learned_too(tiny_base):
    example = to_example(tiny_base, "r", "c", TALK[1:2])
    assert decoded_spans(tiny_base, example) == ["Work turned inward.<|im_end|>"]


def test_of_a_text_all_is_learned_and_its_end(tiny_base):
    text = "# Rest\n\nПокой — это работа, обращённая внутрь. "
    example = to_text_example(tiny_base, "r", "c", text)
    assert tiny_base.tokenizer.decode(example.ids) == text + "<|im_end|>"
    # The tokenizer has no start token, so nothing stands before the first one.
    assert example.learned == (False, *[True] * (len(example) - 1))


def test_a_texts_start_token_is_the_tokenizers_and_is_not_learned(tiny_base):
    base = replace(tiny_base, tokenizer=_Opens(tiny_base.tokenizer))
    example = to_text_example(base, "r", "c", "Rest")
    assert tiny_base.tokenizer.decode(example.ids) == "<|im_start|>Rest<|im_end|>"
    assert example.learned == (False, True, True, True, True, True)


class _Opens:
    """A tokenizer that writes a start token and an end token round a text, as some do."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, text):
        return self.inner(f"<|im_start|>{text}<|im_end|>")


def test_an_empty_text_is_refused(tiny_base):
    with pytest.raises(InputError, match="Row r is an empty text"):
        to_text_example(tiny_base, "r", "c", "")


def test_a_template_that_never_ends_the_turn_is_refused(tiny_base, monkeypatch):
    endless = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    monkeypatch.setattr(
        tiny_base.tokenizer,
        "chat_template",
        endless + "{% if add_generation_prompt %}assistant: {% endif %}",
    )
    with pytest.raises(InputError, match=r"Row r: .*none of its end tokens.*never stop"):
        to_example(tiny_base, "r", "c", TALK)


def test_a_base_without_a_template_is_refused(tiny_base, monkeypatch):
    monkeypatch.setattr(tiny_base.tokenizer, "chat_template", None)
    with pytest.raises(InputError, match="no chat template"):
        to_example(tiny_base, "r", "c", TALK)


def test_a_template_that_rewrites_earlier_turns_is_refused(tiny_base, monkeypatch):
    # Some templates strip earlier answers of their thoughts: then a row learned whole would teach
    # a context that generation never shows.
    only_last = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{{ m['content'] if loop.last else '...' }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    monkeypatch.setattr(tiny_base.tokenizer, "chat_template", only_last)
    with pytest.raises(InputError, match="Row r: .*rewrites earlier turns"):
        to_example(tiny_base, "r", "c", TALK)


def rows(base, count):
    words = ["rest", "work", "door", "river", "stone", "bread", "stair", "coat"]
    return [
        to_example(
            base,
            f"r{n}",
            f"c{n}",
            [
                {"role": "user", "content": " ".join(words[: 1 + n % 5])},
                {"role": "assistant", "content": " ".join(words[n % 3 : 3 + n % 6])},
            ],
        )
        for n in range(count)
    ]


def reference_losses(model, example):
    """The row alone, no packing: transformers' logits, one position before each target."""
    ids = torch.tensor([example.ids])
    with torch.no_grad():
        log_p = model(input_ids=ids).logits[0].log_softmax(-1)
    return [
        -log_p[place - 1, token].item()
        for place, (token, learned) in enumerate(zip(example.ids, example.learned, strict=True))
        if learned
    ]


def losses(base, packs, padded):
    with torch.no_grad(), nullcontext("padding") if padded else rows_apart(base.model) as apart:
        assert apart == ("padding" if padded else "rows")
        reader = Reader(base.model, apart)
        assert reader.plain
        return torch.cat([reader.nll(p.ids, p.lengths, p.places, p.labels) for p in packs])


def test_packed_rows_do_not_see_each_other(tiny_base):
    examples = rows(tiny_base, 7)
    packs = pack(examples, 150)
    assert len(packs) > 1
    assert max(part.tokens for part in packs) > max(len(example) for example in examples)
    expected = [loss for row in examples for loss in reference_losses(tiny_base.model, row)]
    for padded in (False, True):
        ours = losses(tiny_base, pack(examples, 250, padded=padded), padded)
        torch.testing.assert_close(ours, torch.tensor(expected), atol=1e-4, rtol=0)


def test_packed_rows_do_not_see_each_other_on_the_demo_base(demo_base):
    examples = rows(demo_base, 4)
    (whole,) = pack(examples, 10_000)
    ours = losses(demo_base, [whole], False)
    expected = [loss for row in examples for loss in reference_losses(demo_base.model, row)]
    torch.testing.assert_close(ours, torch.tensor(expected), atol=1e-3, rtol=0)


def test_every_row_is_packed_once_and_whole(tiny_base):
    examples = rows(tiny_base, 23)
    packs = pack(examples, 100)
    assert sum(part.tokens for part in packs) == sum(len(example) for example in examples)
    assert sum(part.targets for part in packs) == sum(example.targets for example in examples)
    longest = max(len(example) for example in examples)
    assert all(part.tokens <= max(100, longest) for part in packs)


def test_an_epochs_order_depends_on_seed_and_epoch_alone(tiny_base):
    examples = rows(tiny_base, 9)
    names = [row.row for row in shuffled(examples, 3, 1)]
    assert names == [row.row for row in shuffled(reversed(examples), 3, 1)]
    assert names != [row.row for row in shuffled(examples, 3, 2)]
    assert names != [row.row for row in shuffled(examples, 4, 1)]
    assert sorted(names) == sorted(row.row for row in examples)
