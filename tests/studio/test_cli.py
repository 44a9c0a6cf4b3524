"""``loratelier studio``, as it is started."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from loratelier.kit.errors import InputError
from loratelier.studio import serve_page


def test_it_prints_an_address_with_a_token_and_ends_at_ctrl_c(home):
    command = [sys.executable, "-m", "loratelier", "studio", "--no-browser", "--json"]
    home.mkdir()
    with subprocess.Popen([*command, "--home", str(home)], stdout=subprocess.PIPE) as process:
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline().decode()
        said = json.loads(text)
        where, _, token = said["address"].partition("?token=")
        assert where == f"http://127.0.0.1:{said['port']}/"
        assert len(token) >= 32
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(where)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in (0, 130)


def test_a_taken_port_is_named(home):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"Port {port} is taken"):
            serve_page(port, browser=False, ready=lambda address, port: None)
