"""The original's client, loaded once: its program takes seconds to import the drivers, whatever it is asked.

  original-client.py SOCKET

Says `ready`, and then runs the client for each connection in a child of its own, which begins where the program does
after its imports. A connection sends a folder and the arguments, with NUL between them, and is answered with the status
of the child as `waitpid` has it; FOLDER/stdin is what the client reads, and what it wrote is in FOLDER/stdout and
FOLDER/stderr.

`alien-image-list` of 11.0.0 opens no provider and so never finds an image. Here each provider has those that our local
driver keeps in the folder `store` beside the configuration; the rest of the command is its own.
"""

import glob
import json
import os
import socket
import sys

from nodepool.cmd import nodepoolcmd
from nodepool.driver import Drivers
from nodepool.launcher import NodePool


class Store:
    """A provider manager and its adapter, as far as the client uses them."""

    def __init__(self, pool):
        self.adapter = self
        self.folder = os.path.join(os.path.dirname(pool.configfile), "store")

    def _listImages(self):
        images = []
        for path in glob.glob(os.path.join(self.folder, "*.json")):
            with open(path) as file:
                images.append(json.load(file))
        return images


NodePool.getProviderManager = lambda pool, _name: Store(pool)
Drivers.load()
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as request:
        folder, *arguments = request.read().decode().split("\0")
        child = os.fork()
        if not child:
            for stream, name in enumerate(["stdin", "stdout", "stderr"]):
                os.dup2(os.open(os.path.join(folder, name), os.O_CREAT | (os.O_WRONLY if stream else 0)), stream)
            sys.argv = ["nodepool", *arguments]
            sys.exit(nodepoolcmd.main())
        connection.sendall(str(os.waitpid(child, 0)[1]).encode())
