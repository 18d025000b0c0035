"""The ZooKeeper ensemble of scripts/soak: three servers that can be killed, frozen and started again, and calls that
always go to one of them that is well.

Knows of no builder.
"""

import contextlib
import os
import random
import signal
import socket
import time

from kazoo.client import KazooClient
from kazoo.exceptions import (
    ConnectionLoss,
    NodeExistsError,
    NoNodeError,
    SessionExpiredError,
)
from kazoo.handlers.threading import KazooTimeoutError
from world import Process, Trouble, four_letters, zookeeper_command

TICK_MS = 500
CALL_SECONDS = 3
CHROOT = "/soak"


class Unavailable(Exception):
    """No server could answer."""


def quiet_ports(count):
    """Ports that nobody listens on, below the kernel's range for outgoing connections: a port of a killed server must not
    be taken by one before its restart."""
    found = []
    while len(found) < count:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


class Server:
    """One server of the ensemble, and a client that talks to this one only."""

    def __init__(self, folder, number, port):
        self.folder, self.number, self.port = folder, number, port
        self.process = None
        # Set while it is killed or frozen: nobody asks it.
        self.faulty = False
        # Nothing starts again once the run is over.
        self.closed = False
        self.client = KazooClient(
            hosts=f"127.0.0.1:{port}{CHROOT}", timeout=20,
            connection_retry={"max_tries": -1, "delay": 0.05, "backoff": 1.5, "max_delay": 0.3},
        )

    def start(self):
        if self.closed:
            return
        self.process = Process(zookeeper_command(self.folder, ["zookeeper", "slf4j-simple"]), self.folder / "zookeeper.log")

    def kill(self):
        self.faulty = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.process.wait()

    def freeze(self):
        self.faulty = True
        self.process.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.process.send_signal(signal.SIGCONT)
        self.faulty = False

    def ask(self, word):
        """The answer to a four-letter word; empty if there is none."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 2) as connection:
            return four_letters(connection, word)
        return ""

    def role(self):
        """`leader`, `follower`, or None while it does not serve."""
        modes = [line.split()[1] for line in self.ask("srvr").splitlines() if line.startswith("Mode:")]
        return modes[0] if modes else None

    def is_whole(self):
        """Whether it leads two followers that are in step."""
        return "zk_synced_followers\t2" in self.ask("mntr")


class Ensemble:
    """Three servers."""

    def __init__(self, folder):
        ports = quiet_ports(9)
        self.servers = []
        for number in (1, 2, 3):
            own = folder / f"zookeeper-{number}"
            (own / "data").mkdir(parents=True)
            (own / "data" / "myid").write_text(f"{number}\n")
            lines = [
                # A follower and its leader let go of each other after two silent seconds.
                f"tickTime={TICK_MS}", "initLimit=20", "syncLimit=4", f"minSessionTimeout={TICK_MS}", "maxSessionTimeout=60000",
                f"dataDir={own}/data", "clientPortAddress=127.0.0.1", f"clientPort={ports[number - 1]}",
                "admin.enableServer=false", "4lw.commands.whitelist=*", "maxClientCnxns=0", "forceSync=no",
            ]
            lines += [f"server.{n}=127.0.0.1:{ports[2 + n]}:{ports[5 + n]}" for n in (1, 2, 3)]
            (own / "zoo.cfg").write_text("\n".join(lines) + "\n")
            self.servers.append(Server(own, number, ports[number - 1]))

    def start(self):
        for server in self.servers:
            server.start()
        self.wait_until_whole(60)
        first = KazooClient(hosts=f"127.0.0.1:{self.servers[0].port}")
        first.start(30)
        first.ensure_path(CHROOT)
        first.stop()
        first.close()
        for server in self.servers:
            server.client.start(30)

    def heal(self):
        for server in self.servers:
            server.thaw()
            if server.process.process.poll() is not None:
                server.start()
        self.wait_until_whole(60)

    def wait_until_whole(self, seconds):
        """Until all three serve as one, and our clients have found them."""
        deadline = time.monotonic() + seconds
        while not any(server.is_whole() for server in self.servers):
            if time.monotonic() > deadline:
                raise Trouble(f"the ensemble does not come together; logs: {self.servers[0].folder.parent}/zookeeper-*")
            time.sleep(0.1)
        for server in self.servers:
            server.faulty = False

    def takes_writes(self, seconds):
        """Whether a write of ours succeeds within so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(Unavailable):
                self.create("/written")
                self.call("set", "/written", b"")
                return True
            time.sleep(0.1)
        return False

    def restart(self):
        """Kills and starts all three, as the operator of an ensemble that hangs would."""
        for server in self.servers:
            server.kill()
        for server in self.servers:
            server.start()
            server.faulty = False

    def leader(self):
        return next((server for server in self.servers if not server.faulty and server.role() == "leader"), None)

    def server_of(self, session):
        """The server that a session is connected to."""
        for server in self.servers:
            if not server.faulty and f"sid={session:#x}," in server.ask("cons"):
                return server
        return None

    def close(self):
        for server in self.servers:
            server.closed = True
            if server.process:
                server.kill()
        for server in self.servers:
            with contextlib.suppress(Exception):
                server.client.stop()

    # -- calls

    def clients(self):
        """Those that are connected to a server that is well."""
        return [server.client for server in self.servers if not server.faulty and server.client.connected]

    def call(self, name, *arguments, **options):
        """The result of a call of kazoo's, by the first server that answers. Other errors than an unreachable server
        are the caller's."""
        for client in self.clients():
            with contextlib.suppress(ConnectionLoss, SessionExpiredError, KazooTimeoutError, TimeoutError):
                return getattr(client, f"{name}_async")(*arguments, **options).get(timeout=CALL_SECONDS)
        raise Unavailable

    def fresh(self, path):
        """A record as the leader has it: data and stat, or None."""
        for client in self.clients():
            with contextlib.suppress(ConnectionLoss, SessionExpiredError, KazooTimeoutError, TimeoutError):
                client.sync_async(path).get(timeout=CALL_SECONDS)
                try:
                    return client.get_async(path).get(timeout=CALL_SECONDS)
                except NoNodeError:
                    return None
        raise Unavailable

    def create(self, path):
        """Makes a znode with its parents. Whether it was made; False if it was there."""
        try:
            self.call("create", path, makepath=True)
        except NodeExistsError:
            return False
        return True

    def tree(self, root):
        """All znodes below a path: path to data and stat. Not at one moment: level by level."""
        for client in self.clients():
            with contextlib.suppress(ConnectionLoss, SessionExpiredError, KazooTimeoutError, TimeoutError):
                return read_tree(client, root)
        raise Unavailable


def read_tree(client, root):
    found, level = {}, [root]
    while level:
        asked = [(path, client.get_async(path), client.get_children_async(path)) for path in level]
        level = []
        for path, node, children in asked:
            try:
                found[path] = node.get(timeout=CALL_SECONDS)
                level += [f"{path}/{name}" for name in children.get(timeout=CALL_SECONDS)]
            except NoNodeError:
                found.pop(path, None)
    return found
