"""Every variant that PEFT writes, on five kinds of models, against PEFT itself."""

import pytest
import torch

from loratelier.adapter import Adapter
from loratelier.bank import AdapterBank
from tests.bank.models import CASES, GREEDY, batch, peft, tiny, write
from tests.conftest import our_hooks

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Adapters on disk, each written once."""
    root, made = tmp_path_factory.mktemp("adapters"), {}

    def folder(arch, variant, seed=0):
        key = (arch, variant, seed)
        if key not in made:
            name = f"{arch} {variant} {seed}".replace(" ", "-")
            made[key] = write(arch, variant, root / name, seed)
        return made[key]

    return folder


@torch.no_grad()
def logits(model, ids, mask):
    """Logits where there are tokens; what stands on padding means nothing."""
    return model(input_ids=ids, attention_mask=mask).logits * mask[..., None]


def tokens(model, ids, mask):
    return model.generate(input_ids=ids, attention_mask=mask, **GREEDY)


@pytest.mark.parametrize(("arch", "variant"), CASES)
def test_alone_it_is_pefts(arch, variant, folders):
    model, folder = tiny(arch), folders(arch, variant)
    ids, mask = batch()
    reference = peft(arch, folder)
    bank = AdapterBank(model)
    bank.add("it", folder)
    base = logits(model, ids, mask)
    with bank.activate("it"):
        ours, written = logits(model, ids, mask), tokens(model, ids, mask)
    theirs = logits(reference, ids, mask)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (theirs - base).abs().max() > 1e-2  # the adapter does something
    assert torch.equal(written, tokens(reference, ids, mask))
    assert torch.equal(logits(model, ids, mask), base)
    assert not our_hooks(model)


@pytest.mark.parametrize(("arch", "variant"), CASES)
def test_in_a_mixed_batch_each_row_is_as_if_alone(arch, variant, folders):
    model = tiny(arch)
    ids, mask = batch()
    bank = AdapterBank(model)
    bank.add("it", folders(arch, variant))
    bank.add("plain", folders(arch, "plain", 1))
    mixes = ["it", None, "plain", {"it": 0.5}]
    with bank.activate(mixes):
        together, written = logits(model, ids, mask), tokens(model, ids, mask)
    for row, mix in enumerate(mixes):
        one = ids[row : row + 1], mask[row : row + 1]
        with bank.activate(mix):
            torch.testing.assert_close(together[row], logits(model, *one)[0], atol=1e-4, rtol=0)
            assert torch.equal(written[row], tokens(model, *one)[0])


@pytest.mark.parametrize(("arch", "variant"), CASES)
def test_what_we_save_is_read_by_peft_and_by_us(arch, variant, folders, tmp_path):
    folder = folders(arch, variant)
    adapter = Adapter.load(folder)
    adapter.save(tmp_path / "again")
    assert Adapter.load(tmp_path / "again") == adapter
    ids, mask = batch()
    ours = logits(peft(arch, tmp_path / "again"), ids, mask)
    torch.testing.assert_close(ours, logits(peft(arch, folder), ids, mask), atol=1e-5, rtol=0)
