"""OpenAI-compatible servers on loopback: a scripted one that fails in every way on command, and a real one."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from forks import Forks, kill, wait_for

MODEL = 'scripted'


@dataclass
class Reply:
    """What is sent: `body` as it is, or as JSON; None hangs up half way."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    type: str = 'application/json'


@dataclass
class Asked:
    """A request as it came in; names of headers are in small letters."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    time: float

    @property
    def text(self) -> str:
        """Of the last message."""
        return self.body['messages'][-1]['content']


def chat(text: str | None, finish: str = 'stop', log_probs: list[float] | None = None, **more) -> Reply:
    """An answer to messages."""
    content = None if log_probs is None else [{'token': 't', 'logprob': one} for one in log_probs]
    choice = {'index': 0, 'message': {'role': 'assistant', 'content': text}, 'finish_reason': finish}
    return _answer({**choice, 'logprobs': content and {'content': content}, **more})


def completion(text: str, finish: str = 'stop', log_probs: list[float] | None = None, **more) -> Reply:
    """An answer to a prompt."""
    listed = None if log_probs is None else {'tokens': ['t'] * len(log_probs), 'token_logprobs': log_probs}
    return _answer({'index': 0, 'text': text, 'finish_reason': finish, 'logprobs': listed, **more})


def error(status: int, message: str, **headers: str) -> Reply:
    """What OpenAI says of a mistake."""
    return Reply({'error': {'message': message, 'type': 'x', 'code': None}}, status, headers)


def _answer(choice: dict[str, Any]) -> Reply:
    usage = {'prompt_tokens': 7, 'completion_tokens': 3, 'total_tokens': 10}
    return Reply({'id': 'x', 'object': 'x', 'created': 0, 'model': MODEL, 'choices': [choice], 'usage': usage})


class _Server(ThreadingHTTPServer):
    daemon_threads, block_on_close = True, False
    request_queue_size = 128  # connections that may come at once: of more than 5 some are reset otherwise

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # who asked was killed
            super().handle_error(request, client_address)


class Scripted:
    """A server whose answers are `script(request, n)`, n being how many came before; a context that ends it."""

    def __init__(self, script: Callable[[Asked, int], Reply], models: Reply | None = None) -> None:
        self.script, self.asked, self.delivered, self.lock = script, [], [], threading.Lock()
        self.models = models or Reply({'object': 'list', 'data': [{'id': MODEL}, {'id': 'other'}]})
        self.under_way, self.most_under_way, self.stopping = 0, 0, threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_GET(self) -> None:
                outer.send(self, outer.models)

            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, *args) -> None:
                pass

        self.server = _Server(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.server.server_port}/v1'
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_) -> None:
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        content = handler.rfile.read(length := int(handler.headers['Content-Length']))
        if len(content) < length:  # who asked was killed as it did
            handler.close_connection = True
            return
        body = json.loads(content)
        with self.lock:
            headers = {name.lower(): value for name, value in handler.headers.items()}
            asked = Asked(handler.path, body, headers, time.monotonic())
            self.asked.append(asked)
            number = len(self.asked) - 1
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            reply = self.script(asked, number)
            self.stopping.wait(reply.delay)
        finally:
            with self.lock:
                self.under_way -= 1
        if self.send(handler, reply):
            with self.lock:
                self.delivered.append(asked)

    def send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> bool:
        """Whether somebody took it."""
        content = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        data = b'x' * 1000 if reply.body is None else content.encode('utf-8', 'surrogatepass')
        try:
            handler.send_response(reply.status)
            handler.send_header('Content-Type', reply.type)
            handler.send_header('Content-Length', str(len(data)))
            for name, value in reply.headers.items():
                handler.send_header(name.replace('_', '-'), value)
            handler.end_headers()
            if reply.body is None:
                handler.wfile.write(b'{"cho')
                handler.wfile.flush()
                handler.connection.shutdown(socket.SHUT_RDWR)
                handler.close_connection = True
                return False
            handler.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True
            return False
        return True


@contextlib.contextmanager
def served(stages: Forks, folder: Path):
    """`transformers serve`, a real server of other people, with the model in `folder`; its URL."""
    port = free_port()
    where = ('--host', '127.0.0.1', '--port', port, '--device', 'cpu')
    stage = stages.start('transformers.cli.transformers', 'serve', folder, *where, HF_HUB_OFFLINE='1')
    try:
        wait_for(lambda: _listens(port), stage, 120)
        yield f'http://127.0.0.1:{port}/v1'
    finally:
        kill([stage])


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(('127.0.0.1', port)) == 0


def free_port() -> int:
    """A port on loopback at which nobody listens."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]
