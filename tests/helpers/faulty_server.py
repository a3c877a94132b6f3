"""An OpenAI-compatible server on loopback that fails as it is told to, and can die and come back."""

import contextlib
import hashlib
import json
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_WORDS = (
    "light crowd corner window morning colour detail phrase caption gesture street table water shadow garden letter "
    "season market bridge candle river paper kitchen station mirror pocket ladder blanket harbour button feather "
    "engine valley lantern carpet orchard basket chimney meadow pencil"
).split()


def answer(body, **changes):
    """A completion that passes the gate; the same question has the same answer, another seed another one."""
    seed = f"{json.dumps(body['messages'])} {body.get('seed')}".encode()
    numbers = hashlib.sha512(seed).digest()[:20]
    text = f"It shows {' '.join(_WORDS[number % len(_WORDS)] for number in numbers)}."
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | changes
    usage = {"prompt_tokens": 90, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 60}}
    return {"choices": [choice], "usage": usage, "system_fingerprint": "build-1"}


class BusyServer(ThreadingHTTPServer):
    """Takes connections as fast as a client of many threads opens them, and never waits for its own threads."""

    daemon_threads = True
    request_queue_size = 256  # the default of 5 resets connections that come faster than a busy machine takes them


class FaultyServer:
    """`script(number, body)` gives the reply to the request of that number (from 0): `None` for a good answer,
    `(status, headers, body)`, or `"reset"`, `"hang"`, `"die"`. A dead server refuses connections until `restart`.

    Attributes:
        url: the same before and after a death.
        requests: bodies of all chat requests, in the order of arrival.
        deaths: how often it died.
    """

    def __init__(self, script=lambda number, body: None):
        self.script, self.requests, self.deaths, self.dead = script, [], 0, True
        self.healthy, self.headers, self.paths = True, [], []
        self._lock, self._released, self._open = threading.Lock(), threading.Event(), set()
        self._port = 0
        self.restart()
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._released.set()
        self.die()

    def restart(self):
        with self._lock:
            if not self.dead:
                return
            self._http = BusyServer(("127.0.0.1", self._port), _handler(self))
            self._port = self._http.server_port
            self.dead = False
            threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True).start()

    def die(self):
        """As a process that is killed: the port is refused at once, every open connection is reset."""
        with self._lock:
            if self.dead:
                return
            self.dead = True
            self.deaths += 1
            # In this order: a socket that is closed under the thread that waits at it goes on taking connections, and
            # its number may be that of the next server's.
            self._http.shutdown()
            self._http.server_close()
            for connection in list(self._open):
                reset(connection)

    def reply(self, body):
        with self._lock:
            number = len(self.requests)
            self.requests.append(body)
        return self.script(number, body) or (200, {}, answer(body))


def reset(connection):
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
        socket.socket(fileno=connection.detach()).close()  # the files made of it would keep it open


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            super().setup()
            with server._lock:
                server._open.add(self.connection)
                if server.dead:  # accepted in the last moment
                    reset(self.connection)

        def finish(self):
            server._open.discard(self.connection)
            with contextlib.suppress(OSError, ValueError):
                super().finish()

        def handle(self):
            with contextlib.suppress(OSError, ValueError):
                super().handle()

        def do_GET(self):
            server.paths.append(self.path)
            self._send(200 if server.healthy else 503, {}, {})

        def do_POST(self):
            server.paths.append(self.path)
            server.headers.append(dict(self.headers))
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = server.reply(body)
            if reply == "die":
                server.die()
            elif reply == "hang":
                server._released.wait()
            if isinstance(reply, str):
                self.close_connection = True
                reset(self.connection)
            else:
                self._send(*reply)

        def _send(self, status, headers, body):
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    return Handler
