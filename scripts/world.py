"""What scripts/benchmark and scripts/soak share: processes, ZooKeeper's command line and commands, output.

Knows of no figure and no fault.
"""

import contextlib
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import time

IMAGES = "/nodepool/images"
BUILDERS = "/nodepool/components/builder"


class Trouble(Exception):
    """Something does not work as it must for the script to go on."""


def say(text):
    seconds = int(time.monotonic() - STARTED)
    print(f"[{seconds // 60:2}:{seconds % 60:02}] {text}", flush=True)


STARTED = time.monotonic()


# ---- processes


def cpu_seconds(pid):
    """User and system time of a process with all its threads, ended ones too, and without its children."""
    return time.clock_gettime((~pid << 3) | 2)


def thread_seconds(pid, name):
    """The same of the threads with this name, as the scheduler counts it."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        # A thread may end meanwhile.
        with contextlib.suppress(OSError):
            if (task / "comm").read_text().strip() == name:
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def wants_processor(pid):
    """Whether a thread of the process runs, or would if others let it."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            if (task / "stat").read_text().rsplit(")", 1)[1].split()[0] == "R":
                return True
    return False


def memory_of(pid):
    """VmRSS, PSS and anonymous memory in MB (of 1024 x 1024), and threads."""
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    pss = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    kilobytes = [int(status["VmRSS"].split()[0]), pss, int(status["RssAnon"].split()[0])]
    return [number / 1024 for number in kilobytes] + [int(status["Threads"])]


class Process:
    """A process of ours, with its output in a file; ended with the `with` block."""

    def __init__(self, argv, log, stop_signal=signal.SIGTERM, env=None):
        self.argv, self.log, self.stop_signal = argv, log, stop_signal
        with open(log, "ab") as output:
            self.begun = time.time()
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=env
            )
        self.pid = self.process.pid

    def check(self):
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace").splitlines()[-25:]
            raise Trouble("\n".join(tail + [f"{self.argv[0]} has ended ({self.process.returncode}); its log: {self.log}"]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(12)
            except subprocess.TimeoutExpired:
                pass
        # What it may have left in its group, too.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


def own_environment():
    """Ours without what somebody may have set for Nodepool."""
    foreign = ("NODEPOOL_", "STATSD_", "DIB_", "FAKE_DIB_", "PYTHON", "BENCHMARK_", "SOAK_")
    return {key: value for key, value in os.environ.items() if not key.startswith(foreign)}


# ---- ZooKeeper


def zookeeper_command(folder, jars):
    """Runs the server that <folder>/zoo.cfg configures, from Debian's package, as scripts/quickstart has it."""
    return [
        "java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:-UsePerfData", f"-Djava.io.tmpdir={folder}",
        "-Dzookeeper.jmx.log4j.disable=true", "-Dzookeeper.preAllocSize=16384",
        "-cp", ":".join(f"/usr/share/java/{jar}.jar" for jar in jars),
        "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(folder / "zoo.cfg"),
    ]


def four_letters(connection, word):
    """The answer to a four-letter word on an open connection."""
    connection.settimeout(5)
    connection.sendall(word.encode())
    answer = b""
    # ZooKeeper ends without a goodbye in TLS.
    with contextlib.suppress(ssl.SSLEOFError):
        while chunk := connection.recv(1 << 16):
            answer += chunk
    return answer.decode()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def close(client):
    client.stop()
    client.close()


# ---- output


def table(header, rows):
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    line = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    show = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
    print("\n".join([line, show(header), line, *map(show, rows), line]), flush=True)
