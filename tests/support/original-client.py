"""The original's client, loaded once: its program takes seconds to import the drivers, whatever it is asked.

  original-client.py SOCKET

Says `ready`, and then runs the client for each connection in a child of its own, which begins where the program does
after its imports. A connection sends a folder and the arguments, with NUL between them, and is answered with the status
of the child as `waitpid` has it; what the client wrote is in FOLDER/stdout and FOLDER/stderr.
"""

import os
import socket
import sys

from nodepool.cmd import nodepoolcmd
from nodepool.driver import Drivers

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
            for name, stream in [("stdout", 1), ("stderr", 2)]:
                os.dup2(os.open(os.path.join(folder, name), os.O_CREAT | os.O_WRONLY), stream)
            sys.argv = ["nodepool", *arguments]
            sys.exit(nodepoolcmd.main())
        connection.sendall(str(os.waitpid(child, 0)[1]).encode())
