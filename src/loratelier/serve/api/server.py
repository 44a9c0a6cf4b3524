"""The server's life: from the store to a port, and to a graceful end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from loratelier.base import Base, load_base
from loratelier.serve.api.app import Api, make_app
from loratelier.serve.api.choosing import Chooser
from loratelier.serve.api.face import Writer
from loratelier.serve.api.generating import Bounds
from loratelier.serve.api.keys import Keys
from loratelier.serve.api.limits import Limits
from loratelier.serve.api.listening import listen, make_server, require_keys, run, url_of
from loratelier.serve.api.wardrobe import Wardrobe
from loratelier.serve.library import Library


@dataclass(frozen=True)
class ServeSettings:
    """How a server is run.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        policies: the first is what ``auto`` means.
        key_file: who may ask; without it everyone.
        admin_key: opens the admin paths; without it they are not there.
        model: what the base is called; without it by its own name.
        default_tokens: the most tokens of an answer that says nothing of it.
        seconds: the longest that an answer may take.
        grace: seconds that running answers get when the server is stopped.
        limits: of bodies and writes.
        connections: the most at a time.
        libraries: those that requests may look into.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    policies: tuple[Path, ...] = ()
    key_file: Path | None = None
    admin_key: str | None = None
    model: str | None = None
    default_tokens: int = 512
    seconds: float = 600.0
    grace: float = 20.0
    limits: Limits = field(default_factory=Limits)
    connections: int = 1024
    libraries: tuple[str, ...] = ()


class Served:
    """A server that has its base, its engine and its adapters, and a port of its own.

    Args:
        base: the base, or where it comes from.
        settings: how it is run.
        engine: makes what writes.
    """

    def __init__(
        self, base: Base | str, settings: ServeSettings, engine: Callable[[Base], Writer]
    ) -> None:
        keys = Keys() if settings.key_file is None else Keys.load(settings.key_file)
        require_keys(settings.host, keys)
        self._settings = settings
        libraries = {name: Library.open(name) for name in settings.libraries}
        # First, because a port that is taken is known at once and a base takes its time.
        self.socket = listen(settings.host, settings.port)
        try:
            self.base = load_base(base) if isinstance(base, str) else base
            self.engine = engine(self.base)
            wardrobe = Wardrobe(self.base, self.engine, settings.model or self.base.name)
            chooser = Chooser(wardrobe, settings.policies, self.base)
            wardrobe.fill(chooser.policy())
        except BaseException:
            self.socket.close()
            raise
        bounds = Bounds(
            self.base.context,
            len(self.base.tokenizer),
            settings.default_tokens,
            settings.seconds,
        )
        self.api = Api(
            self.engine,
            wardrobe,
            chooser,
            keys,
            bounds,
            settings.admin_key,
            settings.limits,
            libraries=libraries,
        )

    @property
    def url(self) -> str:
        """Where it answers."""
        return url_of(self.socket)

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Answer until SIGTERM or Ctrl-C; running answers then have ``grace`` seconds left."""
        self.engine.start()
        try:
            server = make_server(
                make_app(self.api),
                started=started,
                stop=self.engine.stop,
                grace=self._settings.grace,
                connections=self._settings.connections,
            )
            run(server, self.socket)
        finally:
            self.engine.stop(0)
