"""How well the detectors of lost meaning find errors that were put into scenes by hand.

``python -m bench.meaning [--seed 0]`` prints a line for each kind of error: in how many of the
scenes that have it it was found, and in how many another was found that is not there.
"""

import argparse
import random
import time
from pathlib import Path

from loratelier.check.meaning.injected import drawn_scene, validate_detectors
from loratelier.corpus.written import read_written

SCENES = Path(__file__).parents[1] / "examples" / "scenes"
WORDS = [
    *("rain", "flood", "oven", "window", "mother", "river", "letter", "silence", "hunger", "train"),
    *("winter", "debt", "song", "ladder", "дождь", "письмо", "окно", "река", "голод", "мост"),
]
COUNT = 200


def scenes():
    """Return the shipped scenes, and drawn ones up to 200."""
    own = [
        scene.graph
        for file in sorted(SCENES.glob("*.yaml"))
        for scene in read_written(file.read_text(encoding="utf-8"), file.name).scenes
    ]
    return own, [drawn_scene(random.Random(n), WORDS) for n in range(COUNT - len(own))]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    own, drawn = scenes()
    print(f"{len(own)} shipped scenes and {len(drawn)} drawn ones, seed {seed}")
    began = time.perf_counter()
    for one in validate_detectors([*own, *drawn], seed=seed):
        what = one.injected or "no error"
        said = ", said otherwise" if one.paraphrased else ""
        low, high = one.found.interval
        print(
            f"{what}{said}: right in {one.found.right} of {one.found.count} "
            f"[{low:.3f}; {high:.3f}], false alarms in {one.beside.right}"
        )
    print(f"{time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
