"""A worker that needs a database and a cache, and gives up without them; it stands for yours."""
import os
import socket
import sys
import time

while True:
    for name in ("DATABASE", "CACHE"):
        host, port = os.environ[name].rsplit(":", 1)
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError as error:
            sys.exit(f"cannot reach {name} at {os.environ[name]}: {error}")
    time.sleep(0.2)
