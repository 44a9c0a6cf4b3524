"""The command line with a model that FSDP2 shards, on CPUs: accelerate itself shards on GPUs only.

Started by torch.distributed.run; what `accelerate launch` with recipes/accelerate/fsdp2.yaml does
on GPUs is done here by hand: every layer and the root are sharded, the optimizer gets the shards.
"""

import sys

from torch.distributed.fsdp import fully_shard
from torch.optim import AdamW

import loratelier.train.processes as processes


class Sharding(processes.Accelerator):
    """An accelerator that shards what it prepares."""

    def prepare(self, learner, optimizer):
        """Shard the learner in place; the optimizer's groups keep what they say."""
        names = {id(p): name for name, p in learner.named_parameters()}
        groups = [
            {**group, "params": [names[id(p)] for p in group["params"]]}
            for group in optimizer.param_groups
        ]
        kinds = set(learner._no_split_modules)
        for layer in [m for m in learner.modules() if type(m).__name__ in kinds]:
            fully_shard(layer)
        fully_shard(learner)
        now = dict(learner.named_parameters())
        for group in groups:
            group["params"] = [now[name] for name in group["params"]]
        return learner, AdamW(groups, weight_decay=0.0)


processes.Accelerator = Sharding

if __name__ == "__main__":
    from loratelier.cli import main

    sys.argv[0] = "loratelier"
    main()
