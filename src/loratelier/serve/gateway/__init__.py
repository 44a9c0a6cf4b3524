"""One policy in front of vLLM, SGLang or our own servers."""

from loratelier.serve.gateway.server import Gated, GatewaySettings

__all__ = ["Gated", "GatewaySettings"]
