import math

import pytest
import torch

from loratelier.base.likelihood import bits_per_byte, general_text


def test_bits_per_byte_by_hand(tiny_base):
    """The byte-level base has one token a byte: bits over all bytes but the first."""
    text = "Bread rises. Ё."
    ids = torch.tensor([tiny_base.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        log_p = tiny_base.model(input_ids=ids).logits[0].log_softmax(-1)
    bits = -sum(log_p[n, ids[0, n + 1]].item() for n in range(ids.shape[1] - 1)) / math.log(2)
    measured = bits_per_byte(tiny_base.model, tiny_base.tokenizer, [text])
    assert measured.size == len(text.encode()) - 1
    assert measured.bits == pytest.approx(bits, rel=1e-5)


def test_texts_add_up(tiny_base):
    texts = ["one text", "another one, longer"]
    both = bits_per_byte(tiny_base.model, tiny_base.tokenizer, texts)
    apart = [bits_per_byte(tiny_base.model, tiny_base.tokenizer, [text]) for text in texts]
    assert both.bits == pytest.approx(sum(part.bits for part in apart))
    assert both.size == sum(part.size for part in apart)


def test_the_demo_base_finds_general_text_likely_and_noise_not(demo_base):
    texts = general_text()
    assert len(texts) >= 30
    assert len(set(texts)) == len(texts)
    plain = bits_per_byte(demo_base.model, demo_base.tokenizer, texts[:2]).value
    shuffled = [" ".join(sorted(text.split())) for text in texts[:2]]
    assert 0.5 < plain < 1.3
    assert bits_per_byte(demo_base.model, demo_base.tokenizer, shuffled).value > plain * 1.5
