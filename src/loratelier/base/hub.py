"""Bases of the Hugging Face hub: from the local cache, and from the network when one was named."""

from pathlib import Path

from loratelier.base.folder import check_folder
from loratelier.base.quiet import reason
from loratelier.kit.errors import InputError
from loratelier.kit.progress import remark

# Weights as safetensors, the config, the tokenizer. Code and pickles are never fetched.
_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_UNWANTED = ["consolidated*", "*/*"]
_PATIENCE = 10.0  # seconds to wait for the hub's first answer


def fetch(name: str) -> Path:
    """Return the folder of a hub model, from the cache or fetched.

    Raises:
        InputError: it is not in the cache and the hub has no such model, guards it, or cannot be
            reached.
    """
    cached = in_cache(name)
    if cached:
        return cached
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    offline = (
        f"The base '{name}' is not on this machine and the hub cannot be reached",
        f"Connect once and run `loratelier bases fetch {name}`, or give a folder or a GGUF file",
    )
    if constants.HF_HUB_OFFLINE:
        raise InputError(*offline)
    _require_network(offline)
    remark(f"Fetching {name} from the Hugging Face hub")
    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=_WANTED,
                ignore_patterns=_UNWANTED,
                etag_timeout=_PATIENCE,
            )
        )
    except GatedRepoError as error:
        raise InputError(
            f"The hub guards '{name}'", "Accept its terms on its page, then `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(f"The hub has no model '{name}'", "Check the spelling") from error
    except Exception as error:  # the network and the disk fail in too many ways to name them
        raise InputError(
            f"'{name}' could not be fetched from the hub ({reason(error)})",
            "Run it again: what has come stays",
        ) from error


def in_cache(name: str) -> Path | None:
    """Return the folder of a hub model that is whole in the local cache, else None.

    One whose fetching was stopped half way counts as missing, so that it is fetched to the end.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                name, local_files_only=True, allow_patterns=_WANTED, ignore_patterns=_UNWANTED
            )
        )
        check_folder(folder)
    except (LocalEntryNotFoundError, HFValidationError, OSError, InputError):
        return None
    return folder


def _require_network(offline: tuple[str, str]) -> None:
    """Find out in seconds that there is no network: the hub's client would retry for minutes."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception as error:  # whatever the client raises, the hub did not answer
        raise InputError(*offline) from error


def cached_models() -> dict[str, int]:
    """Return the hub models in the local cache that have weights: name -> bytes on disk."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return {}
    models = (repo for repo in repositories if repo.repo_type == "model")
    return {repo.repo_id: repo.size_on_disk for repo in models if in_cache(repo.repo_id)}
