"""The two builders of scripts/soak: their processes, their build command, what they write.

Builder `a` lives from the start to the end, `b` is stopped and killed now and then.
"""

import collections
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

from soak_config import SESSION_SECONDS, Configuration, Stores
from soak_ensemble import Unavailable
from world import Process, Trouble, own_environment

NAMES = ["a", "b"]
STOP_SECONDS = 10

# Runs tests/support/fake-dib.sh, with what once/IMAGE makes of it, and notes when. While it or a child of it lives, it
# holds a lock of the image: whoever starts without it is the second build of that image at this time, and makes a new
# lock, so that a third one is told from the second.
BUILD_COMMAND = r"""#!/bin/sh
build=${DIB_IMAGE_FILENAME##*-}
note() {
    echo "$(date +%s.%N) $1 $DIB_IMAGE_NAME $build $SOAK_BUILDER $$ $2" >>"$SOAK_DIR/journal"
}
mark=$SOAK_DIR/marks/$DIB_IMAGE_NAME
exec 9>>"$mark"
if flock --nonblock 9; then
    echo "$build $SOAK_BUILDER" >"$mark"
    note start -
else
    # Empty at the moment at which the other one writes it.
    older=$(tr ' ' / <"$mark")
    note overlap "${older:-unknown/unknown}"
    exec 9>"$mark.$$"
    flock 9
    echo "$build $SOAK_BUILDER" >&9
    mv "$mark.$$" "$mark"
fi
once=$SOAK_DIR/once/$DIB_IMAGE_NAME
if mv "$once" "$once.$$" 2>/dev/null; then
    . "$once.$$"
    rm "$once.$$"
fi
exec "$SOAK_FAKE_DIB" "$@"
"""

# slog's full format: a date, a level, the message, then `, key: value` pairs.
LOG_LINE = re.compile(r"^([\d-]+ [\d:]+),(\d+) (\w{4}) (?:[\w.]+: )?(.*)$")
PAIR = re.compile(r", ([\w -]+): ")


class Builder:
    """One builder and its directories."""

    def __init__(self, name, fleet):
        self.name, self.fleet = name, fleet
        self.session_seconds = SESSION_SECONDS[name]
        self.dir = fleet.base / name
        self.images_dir, self.log = self.dir / "images", self.dir / "builder.log"
        for folder in ["images", "logs"]:
            (self.dir / folder).mkdir(parents=True)
        self.process = None
        self.wanted = False
        self.frozen = False
        # When its session was last lost, and with it the locks of what was running.
        self.lost = 0.0
        # The znode that it is registered by, as its log says.
        self.component = None

    def start(self):
        """Starts it; its configuration is repaired first, for it would refuse a broken one."""
        if self.fleet.closed:
            return
        self.fleet.configuration.repair(self.name)
        environment = own_environment() | {
            "SOAK_DIR": str(self.fleet.base), "SOAK_BUILDER": self.name, "RUST_BACKTRACE": "1",
            "SOAK_FAKE_DIB": str(self.fleet.fake_dib),
        }
        argv = [
            str(self.fleet.bin / "nodepool-builder"), "-f", "-c", str(self.fleet.configuration.file(self.name)),
            "--build-workers", "9", "--upload-workers", "4", "--cleanup-interval", "2",
        ]
        self.process = Process(argv, self.log, env=environment)
        self.wanted = True

    def stop(self):
        """SIGTERM; returns its exit code and how long it took."""
        self.wanted = False
        begun = time.monotonic()
        self.process.process.terminate()
        try:
            code = self.process.process.wait(STOP_SECONDS + 5)
        except subprocess.TimeoutExpired:
            self.kill()
            code = "none"
        return code, time.monotonic() - begun

    def kill(self):
        """SIGKILL to the process alone, as the kernel would when memory is short."""
        self.wanted = False
        self.process.process.kill()
        self.process.process.wait()
        self.lost = time.time()

    def freeze(self, seconds):
        """Freezes it for so long."""
        # A short one costs no lock, and excuses nothing.
        self.frozen = seconds > self.session_seconds
        self.process.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        if seconds > self.session_seconds:
            self.lost = time.time()
        self.thaw()

    def thaw(self):
        self.process.process.send_signal(signal.SIGCONT)
        self.frozen = False

    def has_ended(self):
        """Whether it is gone although nobody has ended it."""
        return self.wanted and self.process.process.poll() is not None

    def builder_id(self):
        with contextlib.suppress(FileNotFoundError):
            return (self.images_dir / "builder_id.txt").read_text().strip()
        return None

    def figures(self):
        """Resident and proportional memory in MB, threads, and open files by what they are."""
        pid = self.process.pid
        status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        pss = next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        files = collections.Counter()
        for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                files[re.sub(r"\d+", "N", os.readlink(link))] += 1
        return {
            "rss": int(status["VmRSS"].split()[0]) / 1024, "pss": pss / 1024,
            "anonymous": int(status["RssAnon"].split()[0]) / 1024, "threads": int(status["Threads"]),
            "files": sum(files.values()), "kinds": dict(files),
        }


class Log:
    """Reads what a builder adds to its log, and counts its messages."""

    def __init__(self, file):
        self.file, self.offset, self.rest = file, 0, ""
        self.messages = collections.Counter()

    def read(self):
        """The new lines: when, message and its values."""
        with contextlib.suppress(FileNotFoundError), open(self.file, errors="replace") as log:
            log.seek(self.offset)
            text = self.rest + log.read()
            self.offset = log.tell()
            lines = text.split("\n")
            self.rest = lines.pop()
            for line in lines:
                yield self.parse(line)

    def parse(self, line):
        found = LOG_LINE.match(line)
        if not found:
            return 0.0, line, {}
        date, milliseconds, level, rest = found.groups()
        at = time.mktime(time.strptime(date, "%Y-%m-%d %H:%M:%S")) + int(milliseconds) / 1000
        parts = PAIR.split(rest)
        self.messages[level, parts[0]] += 1
        return at, parts[0], dict(zip(parts[1::2], parts[2::2]))


class Fleet:
    """Both builders, their configuration and their stores."""

    def __init__(self, base, bin, ensemble, fake_dib):
        self.base, self.bin, self.ensemble, self.fake_dib = base, bin, ensemble, fake_dib
        for folder in ["marks", "once", "elements"]:
            (base / folder).mkdir()
        (base / "journal").touch()
        command = base / "build-command"
        command.write_text(BUILD_COMMAND)
        command.chmod(0o755)
        self.stores = Stores(base)
        self.configuration = Configuration(base, NAMES, ensemble.servers, self.stores)
        self.builders = {name: Builder(name, self) for name in NAMES}
        self.configuration.write()
        # Nothing starts again once the run is over.
        self.closed = False
        # Heals the store that fails now.
        self.heal_store = None
        self.store_lock = threading.RLock()

    def client(self, *words):
        """Runs `nodepool` and returns its exit code and output."""
        argv = [str(self.bin / "nodepool"), "-c", str(self.configuration.file("a")), *words]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=own_environment(), timeout=60
            )
        except subprocess.TimeoutExpired as late:
            return "none", str(late)
        return done.returncode, done.stdout + done.stderr

    def fail_store(self, kind):
        """Makes the store of `local-bad` fail; False if it does already."""
        with self.store_lock:
            if self.heal_store:
                return False
            self.heal_store = self.stores.fail(kind)
            return True

    def mend_store(self):
        with self.store_lock:
            if self.heal_store:
                self.heal_store()
                self.heal_store = None

    def build_processes(self):
        """Process ids and environments of all that was started to build here."""
        found = {}
        for folder in pathlib.Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    environment = (folder / "environ").read_bytes().split(b"\0")
                    mark = f"DIB_IMAGE_FILENAME={self.base}/".encode()
                    if names := [value.decode() for value in environment if value.startswith(mark)]:
                        found[int(folder.name)] = names[0].split("=", 1)[1]
        return found

    def close(self):
        """Ends all of it, whatever state it is in."""
        self.closed = True
        for builder in self.builders.values():
            builder.wanted = False
            if builder.process and builder.process.process.poll() is None:
                builder.kill()
        for pid in self.build_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(Exception):
            self.mend_store()
        self.stores.close()


def wait_until(look, seconds, what):
    """Asks again and again; a deadline ends it."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(Unavailable):
            if found := look():
                return found
        if time.monotonic() > deadline:
            raise Trouble(f"waited {seconds} s in vain for {what}")
        time.sleep(0.1)
