"""A web server that needs a database and a cache; it stands for yours."""
import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def unreachable():
    for name in ("DATABASE", "CACHE"):
        host, port = os.environ[name].rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError as error:
            return f"cannot reach {name} at {os.environ[name]}: {error}"
    return None


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        trouble = None if self.path == "/alive" else unreachable()
        body = (trouble or "all well").encode() + b"\n"
        self.send_response(503 if trouble else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
