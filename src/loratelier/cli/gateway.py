"""``loratelier gateway``: one policy in front of vLLM, SGLang or our own servers."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loratelier.cli.console import Json, err, print_json
from loratelier.kit.errors import InputError

if TYPE_CHECKING:
    from loratelier.serve.gateway import Gated


def register(app: typer.Typer) -> None:
    """Add the verb to the root command."""
    app.command(name="gateway")(_gateway)


def _gateway(
    policy: Annotated[Path, typer.Option(help="What `auto` goes by, and the adapters.")],
    upstream: Annotated[
        list[str], typer.Option(help="A server behind it, http://HOST:PORT; several times.")
    ],
    kind: Annotated[str, typer.Option(help="How the servers behind do it: vllm or sglang.")] = (
        "vllm"
    ),
    model: Annotated[
        str | None, typer.Option(help="What they call the base; untold what they list.")
    ] = None,
    adapters_at: Annotated[
        str | None,
        typer.Option(help="Where they see the store's adapters; untold they are told names."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge the policy's mixtures into the store.")
    ] = False,
    key_file: Annotated[Path | None, typer.Option(help="Who may ask; none: everyone.")] = None,
    upstream_key: Annotated[
        str | None,
        typer.Option(help="Our key at the servers behind.", envvar="LORATELIER_UPSTREAM_KEY"),
    ] = None,
    upstream_admin_key: Annotated[
        str | None,
        typer.Option(
            help="The key that loads adapters there.", envvar="LORATELIER_UPSTREAM_ADMIN_KEY"
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8080,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    every: Annotated[
        float, typer.Option(help="Seconds between two looks at the servers behind.", min=0.1)
    ] = 2,
    timeout: Annotated[
        float, typer.Option(help="Seconds that a server behind may keep silent.", min=1)
    ] = 600,
    grace: Annotated[
        float, typer.Option(help="Seconds for running answers when it is stopped.", min=0)
    ] = 20,
    json: Json = False,
) -> None:
    """Put a policy in front of other servers, until Ctrl-C or SIGTERM."""
    from loratelier.serve.gateway import Gated, GatewaySettings

    if kind not in ("vllm", "sglang"):
        raise InputError(f"There is no kind '{kind}' of server", "Known: vllm, sglang")
    gated = Gated(
        GatewaySettings(
            upstreams=tuple(upstream),
            policy=policy,
            kind="sglang" if kind == "sglang" else "vllm",
            model=model,
            adapters_at=adapters_at,
            merge=merge,
            key_file=key_file,
            upstream_key=upstream_key,
            upstream_admin_key=upstream_admin_key,
            host=host,
            port=port,
            every=every,
            seconds=timeout,
            grace=grace,
        )
    )
    gated.run(lambda: _tell(gated, json))


def _tell(gated: "Gated", json: bool) -> None:
    gateway = gated.gateway
    up = [replica.url for replica in gateway.replicas.all if replica.is_up]
    if json:
        adapters = sorted(gateway.behind.names)
        print_json({"url": gated.url, "pid": os.getpid(), "up": up, "adapters": adapters})
    err.print(f"Gateway at {gated.url}/v1; {len(up)} servers behind it are reached", markup=False)
