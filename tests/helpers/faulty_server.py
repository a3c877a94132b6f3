"""Loopback server with the OpenAI chat API that fails on request, and can crash and restart."""

import contextlib
import hashlib
import json
import socket
import ssl
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_WORDS = (
    "light crowd corner window morning colour detail phrase caption gesture street table water shadow garden letter "
    "season market bridge candle river paper kitchen station mirror pocket ladder blanket harbour button feather "
    "engine valley lantern carpet orchard basket chimney meadow pencil"
).split()


def answer(body, **changes):
    """Build a completion that passes the gate and depends on the messages and the seed only."""
    seed = f"{json.dumps(body['messages'])} {body.get('seed')}".encode()
    numbers = hashlib.sha512(seed).digest()[:20]
    text = f"It shows {' '.join(_WORDS[number % len(_WORDS)] for number in numbers)}."
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | changes
    usage = {"prompt_tokens": 90, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 60}}
    return {"choices": [choice], "usage": usage, "system_fingerprint": "build-1"}


class BusyServer(ThreadingHTTPServer):
    """HTTP server for clients that open many connections at once."""

    daemon_threads = True
    request_queue_size = 256  # with the default of 5, connections are reset on a busy machine


class FaultyServer:
    """Context manager of a server whose replies come from `script(number, body)`.

    The script returns `None` for a good answer, `(status, headers, body)`, or `"reset"`, `"hang"` or `"crash"`;
    `number` counts the requests from 0. A body is bytes, a string, or an object that is sent as JSON. After a crash,
    connections are refused until `restart`.

    Args:
        script: replies to POST requests.
        pages: replies `(status, headers, body)` to GET requests by path; others get the result of the health check.
        certificate: file with the certificate and key of an https server.

    Attributes:
        url: address, the same after a restart.
        requests, headers: bodies and headers of all chat requests, in order of arrival.
        paths: paths of all requests.
        healthy: result of the health check.
        crashes: number of crashes.
    """

    def __init__(self, script=lambda number, body: None, pages=None, certificate=None):
        self.script, self.crashes, self.down, self.healthy = script, 0, True, True
        self.pages, self._certificate = pages or {}, certificate
        self.requests, self.headers, self.paths = [], [], []
        self._lock, self._released, self._connections = threading.Lock(), threading.Event(), set()
        self._port = 0
        self.restart()
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self._port}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._released.set()
        self.crash()

    def restart(self):
        with self._lock:
            if not self.down:
                return
            self._http = BusyServer(("127.0.0.1", self._port), _handler(self))
            self._port = self._http.server_port
            if self._certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self._certificate)
                self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
            self.down = False
            threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True).start()

    def crash(self):
        """Refuse connections and reset the open ones, as when the process is killed."""
        with self._lock:
            if self.down:
                return
            self.down = True
            self.crashes += 1
            # In this order: a socket closed while a thread waits on it still accepts connections, and its file
            # descriptor may be reused by the next server.
            self._http.shutdown()
            self._http.server_close()
            for connection in list(self._connections):
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
        socket.socket(fileno=connection.detach()).close()  # file objects of the connection would keep it open


def _handler(server):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            super().setup()
            with server._lock:
                server._connections.add(self.connection)
                if server.down:  # accepted during the crash
                    reset(self.connection)

        def finish(self):
            server._connections.discard(self.connection)
            with contextlib.suppress(OSError, ValueError):
                super().finish()

        def handle(self):
            with contextlib.suppress(OSError, ValueError):
                super().handle()

        def do_GET(self):
            server.paths.append(self.path)
            self._send(*server.pages.get(self.path, (200 if server.healthy else 503, {}, {})))

        def do_POST(self):
            server.paths.append(self.path)
            server.headers.append(dict(self.headers))
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            reply = server.reply(body)
            if reply == "crash":
                server.crash()
            elif reply == "hang":
                server._released.wait()
            if isinstance(reply, str):
                self.close_connection = True
                reset(self.connection)
            else:
                self._send(*reply)

        def _send(self, status, headers, body):
            content = (
                body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
            )
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    return Handler
