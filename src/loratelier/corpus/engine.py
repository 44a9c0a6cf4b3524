"""Where the heavy, independent work of a corpus is done: in this process, or on Ray Data.

The rooms give a function and items, and take the results in the items' order; everything that
depends on more than one item stays in this process. So the rows are the same wherever it was done.
"""

import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from loratelier.kit.errors import InputError, did_you_mean
from loratelier.kit.progress import remark

T = TypeVar("T")
R = TypeVar("R")

ENGINES = ("local", "ray")
# What travels to a worker at once: so many items, or bytes.
_ITEMS, _BYTES = 64, 8 << 20


class Engine(Protocol):
    """Applies a function to items."""

    def map(self, make: Callable[[], Callable[[T], R]], items: Iterable[T]) -> Iterator[R]:
        """Yield the results in the items' order.

        Args:
            make: makes the function, once a process: what is dear to make (a model) is made there.
            items: read as they are needed, or all at once into a temporary folder.

        Raises:
            InputError: as the function raised it.
        """
        ...


class Local:
    """This process, one item after the other."""

    def map(self, make: Callable[[], Callable[[T], R]], items: Iterable[T]) -> Iterator[R]:
        """Yield the results in order; see :class:`Engine`."""
        function = make()
        return (function(item) for item in items)


class Ray:
    """Ray Data: the items lie in files, workers read them, results come back in order."""

    def map(self, make: Callable[[], Callable[[T], R]], items: Iterable[T]) -> Iterator[R]:
        """Yield the results in order; see :class:`Engine`."""
        import ray.data

        folder = Path(tempfile.mkdtemp(prefix="loratelier-ray-"))
        try:
            count = _write(folder, items)
            if not count:
                return
            data = ray.data.read_parquet(str(folder), file_extensions=["parquet"])
            work: Any = _work
            done = data.map_batches(
                work, batch_size=_ITEMS, batch_format="pyarrow", fn_args=(pickle.dumps(make),)
            )
            yield from _in_order(done.iter_batches(batch_size=None, batch_format="pyarrow"), count)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def engine_of(name: str, address: str | None = None) -> Iterator[Engine]:
    """Yield an engine by its name; a local Ray is begun and ended here.

    Args:
        name: ``local`` or ``ray``.
        address: of a Ray cluster that runs already; its machines need this package, and see the
            temporary folder (Ray reads the items from there).

    Raises:
        InputError: an unknown engine, an address without Ray, or Ray is not installed.
    """
    if name not in ENGINES:
        raise InputError(f"The engine '{name}' is unknown", did_you_mean(name, ENGINES))
    if name == "local":
        if address:
            raise InputError("A Ray address is given, and the engine is local", "Say --engine ray")
        yield Local()
        return
    ray = _ray()
    begun = not ray.is_initialized()
    if begun:
        _begin(ray, address)
    try:
        _be_quiet()
        yield Ray()
    finally:
        if begun:
            ray.shutdown()


def _ray() -> Any:
    # Read when Ray is imported: nothing is told to anybody, and nothing is drawn over our bars.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(
            "The engine ray needs Ray Data, which is not installed",
            "pip install 'loratelier[ray]'",
        ) from error
    return ray


def _begin(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(include_dashboard=False, num_cpus=os.cpu_count(), **quiet)
    except ConnectionError as error:
        raise InputError(f"There is no Ray cluster at {address} ({error})") from error
    cpus = ray.cluster_resources().get("CPU", 0)
    remark(f"Ray {ray.__version__}: {cpus:g} CPUs")


def _be_quiet() -> None:
    import logging

    from ray.data import DataContext

    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _write(folder: Path, items: Iterable[Any]) -> int:
    """Write pickled items into files of a few megabytes; return how many there are."""
    numbers: list[int] = []
    pickles: list[bytes] = []
    count = size = 0
    for item in items:
        numbers.append(count)
        pickles.append(pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL))
        size += len(pickles[-1])
        count += 1
        if len(numbers) == _ITEMS or size > _BYTES:
            _flush(folder, numbers, pickles)
            size = 0
    if numbers:
        _flush(folder, numbers, pickles)
    return count


def _flush(folder: Path, numbers: list[int], pickles: list[bytes]) -> None:
    table = pa.table({"number": pa.array(numbers, pa.int64()), "item": pa.array(pickles, _DATA)})
    pq.write_table(table, folder / f"{numbers[0]:012d}.parquet")
    numbers.clear()
    pickles.clear()


_DATA = pa.large_binary()
_made: dict[bytes, Callable[[Any], Any]] = {}


def _work(batch: pa.Table, make: bytes) -> pa.Table:
    """Apply the function to a batch, in a worker; a refusal travels as a result."""
    if make not in _made:
        _made.clear()  # the function of an earlier stage, and its model, are not needed again
        _made[make] = pickle.loads(make)()
    function = _made[make]
    results = [pickle.dumps(_tried(function, pickle.loads(item.as_py()))) for item in batch["item"]]
    return pa.table({"number": batch["number"], "item": pa.array(results, _DATA)})


def _tried(function: Callable[[Any], Any], item: Any) -> tuple[Any, InputError | None]:
    try:
        return function(item), None
    except InputError as error:
        return None, error


def _in_order(batches: Iterable[pa.Table], count: int) -> Iterator[Any]:
    """Yield results by their numbers: that Ray keeps an order is not relied upon."""
    waiting: dict[int, bytes] = {}
    wanted = 0
    for batch in batches:
        waiting.update(zip(batch["number"].to_pylist(), batch["item"].to_pylist(), strict=True))
        while wanted in waiting:
            result, refused = pickle.loads(waiting.pop(wanted))
            if refused is not None:
                raise refused
            yield result
            wanted += 1
    if wanted != count:
        raise RuntimeError(f"Ray returned {wanted} of {count} results")
