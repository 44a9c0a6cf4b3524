"""A server of the API in a thread, over a real socket."""

import threading
import time
from contextlib import contextmanager

from openai import OpenAI

from loratelier.serve.api.app import Api, make_app
from loratelier.serve.api.choosing import Chooser
from loratelier.serve.api.generating import Bounds
from loratelier.serve.api.keys import Keys
from loratelier.serve.api.listening import listen, make_server, url_of
from loratelier.serve.api.wardrobe import Wardrobe


def make_api(base, engine, *, policies=(), keys=None, fill=True, **more):
    wardrobe = Wardrobe(base, engine, "tiny")
    chooser = Chooser(wardrobe, policies, base)
    if fill:
        wardrobe.fill(chooser.policy())
    bounds = Bounds(base.context, len(base.tokenizer), 32, 60.0)
    return Api(engine, wardrobe, chooser, Keys(keys), bounds, **more)


@contextmanager
def running(app, **more):
    """The app's address while it is served."""
    started = threading.Event()
    socket = listen("127.0.0.1", 0)
    server = make_server(app, started=started.set, grace=1, **more)
    thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield url_of(socket)
    finally:
        server.should_exit = True
        thread.join(10)
        socket.close()


@contextmanager
def serving(base, engine, **more):
    api = make_api(base, engine, **more)
    with running(make_app(api)) as url:
        yield url


def client(url, key="none"):
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=20)


def eventually(check, seconds=5):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(0.02)
    return False


def ask_for(openai, model="tiny", text="Hello", **more):
    messages = [{"role": "user", "content": text}]
    return openai.chat.completions.create(model=model, messages=messages, **more)
