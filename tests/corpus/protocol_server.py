"""A server of OpenAI's chat protocol on this machine, over a real socket, with faults on order.

A writer turns a request's messages into an answer; faults are what single requests meet instead of
it. All requests are kept as they came.
"""

import json
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-test-0123456789abcdef"


def completion(text, messages=(), finish="stop", usage=True):
    """The document of a whole answer; a word is a token."""
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "writer",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
            }
        ],
    }
    if usage:
        inside = sum(len(each["content"].split()) for each in messages)
        outside = len(text.split())
        document["usage"] = {
            "prompt_tokens": inside,
            "completion_tokens": outside,
            "total_tokens": inside + outside,
        }
    return document


def error(message, code=None, param=None):
    return {"error": {"message": message, "type": "error", "code": code, "param": param}}


def status(code, document=None, **headers):
    """A fault: an answer with that status, headers by name with '_' for '-'."""

    def fault(handler, _):
        body = json.dumps(document or error(f"fault {code}")).encode()
        handler.answer(code, body, {k.replace("_", "-"): v for k, v in headers.items()})

    return fault


def says(text, **more):
    """A fault: a whole answer of the protocol with this text, whatever was asked."""

    def fault(handler, request):
        document = completion(text, request["messages"], **more)
        handler.answer(200, json.dumps(document).encode())

    return fault


def body(data):
    """A fault: these bytes with status 200."""
    return lambda handler, _: handler.answer(200, data)


def hang_up(handler, request):
    """A fault: half of the body, then the connection is gone."""
    data = json.dumps(completion("half of this never comes", request["messages"])).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.wfile.flush()
    handler.close_connection = True


def reset(handler, _):
    """A fault: the connection is reset before a word."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def dribble(seconds):
    """A fault: a byte now and then, so that no single read takes long."""

    def fault(handler, _):
        handler.send_response(200)
        handler.end_headers()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                handler.wfile.write(b" ")
                handler.wfile.flush()
            except OSError:
                return
            time.sleep(0.05)
        handler.close_connection = True

    return fault


@dataclass
class Seen:
    """A request as it came."""

    at: float
    headers: dict
    body: dict


@dataclass
class Server:
    """``faults`` are met by the next requests, one each; ``always`` by every one after them."""

    writer: object
    key: str = ""
    faults: deque = field(default_factory=deque)
    always: object = None
    wait: float = 0.0
    seen: list = field(default_factory=list)
    most_at_once: int = 0

    def __enter__(self):
        self._now = 0
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        serve = self._http.serve_forever
        threading.Thread(target=serve, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def prompts(self):
        return [each.body["messages"] for each in self.seen]

    def _handler(server):
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def answer(self, code, data, headers=None):
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def do_POST(self):
                length = int(self.headers["Content-Length"])
                request = json.loads(self.rfile.read(length))
                with server._lock:
                    server.seen.append(Seen(time.monotonic(), dict(self.headers), request))
                    server._now += 1
                    server.most_at_once = max(server.most_at_once, server._now)
                    fault = server.faults.popleft() if server.faults else server.always
                try:
                    self.respond(request, fault)
                finally:
                    with server._lock:
                        server._now -= 1

            def respond(self, request, fault):
                given = self.headers.get("Authorization")
                if self.path != "/v1/chat/completions":
                    self.answer(404, json.dumps(error("no such path")).encode())
                elif server.key and given != f"Bearer {server.key}":
                    words = f"Incorrect API key provided: {given}"
                    self.answer(401, json.dumps(error(words, "invalid_api_key")).encode())
                elif fault:
                    fault(self, request)
                else:
                    time.sleep(server.wait)
                    text = server.writer(request["messages"])
                    document = completion(text, request["messages"])
                    self.answer(200, json.dumps(document).encode())

        return Handler
