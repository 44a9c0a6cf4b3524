"""What every route is handed: the models, the queue, the drafts and the feed."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from loratelier.studio.desk import Desk
from loratelier.studio.draft import Drafts
from loratelier.studio.hub import Hub
from loratelier.studio.queue import Queue


@dataclass(frozen=True)
class Room:
    """The server's state."""

    desk: Desk
    queue: Queue
    drafts: Drafts
    hub: Hub

    def changed(self, what: str, **more: str | int) -> None:
        """Tell every page that something is to be fetched anew."""
        self.hub.tell({"type": "changed", "what": what, **more})


def _room(request: Request) -> Room:
    room: Room = request.app.state.room
    return room


Here = Annotated[Room, Depends(_room)]
