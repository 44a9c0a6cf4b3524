"""The page: one server on this machine, the built page, and a queue for what takes long."""

from loratelier.studio.app import create_app
from loratelier.studio.run import serve_page

__all__ = ["create_app", "serve_page"]
