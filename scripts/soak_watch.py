"""What scripts/soak watches all the time: builders that end, panics, two builds of an image at a time, ready builds
without files, requests that are lost. Counts everything on the way.
"""

import collections
import dataclasses
import threading
import time

from soak_ensemble import Unavailable
from soak_fleet import Log
from soak_records import Snapshot, missing_files
from world import say

PERIOD = 1.0
# How long after a sign of trouble it is judged: what explains it may be read later.
PATIENCE = 3.0


@dataclasses.dataclass
class Request:
    """A build that was asked for, and accepted."""

    image: str
    made: float
    fulfilled: bool = False
    # Since when its znode is known to be gone without a build.
    missed: float = 0.0


@dataclasses.dataclass
class Overlap:
    """A build that began while a process of another one of the same image lived."""

    image: str
    at: float
    build: str
    builder: str
    older: str
    older_builder: str


class Watch(threading.Thread):
    """The thread that watches, until it is told to end."""

    def __init__(self, fleet):
        super().__init__(daemon=True)
        self.fleet = fleet
        self.ending = threading.Event()
        self.lock = threading.RLock()
        self.logs = {name: Log(builder.log) for name, builder in fleet.builders.items()}
        self.journal_offset = 0
        # Build id to when its command began, and image to the time of its newest start.
        self.started, self.newest_start = {}, {}
        # Image to the times at which builds of it became ready.
        self.ready = collections.defaultdict(list)
        self.counts = collections.Counter()
        self.broken = []
        self.snapshot, self.seen = None, 0.0
        self.requests, self.overlaps, self.doomed = [], [], {}
        self.reported = set()
        self.looked = 0

    # -- what others tell and ask

    def breaks(self, what):
        """Notes a broken invariant, once."""
        with self.lock:
            if what not in self.reported:
                self.reported.add(what)
                self.broken.append(what)
                self.counts["invariants broken"] += 1
                say(f"BROKEN: {what}")

    def count(self, what, number=1):
        with self.lock:
            self.counts[what] += number

    def accepted(self, image, made):
        with self.lock:
            self.requests.append(Request(image, made))

    def start_since(self, image, since):
        """When a build of the image has begun after that time; reads the journal first."""
        self.read_journal()
        at = self.newest_start.get(image, 0)
        return at if at >= since else None

    def waiting_requests(self):
        with self.lock:
            return [request for request in self.requests if not request.fulfilled]

    # -- the thread

    def run(self):
        while not self.ending.wait(PERIOD):
            try:
                self.look()
            except Unavailable:
                self.count("looks without a server")
            except Exception as error:
                self.breaks(f"the watch itself has failed: {error!r}")
                raise

    def look(self):
        self.look_at_processes()
        self.read_journal()
        self.read_logs()
        begun = time.time()
        snapshot = Snapshot(self.fleet.ensemble.tree("/nodepool"))
        self.note_ready(snapshot)
        self.look_at_files(snapshot)
        self.look_at_overlaps(snapshot)
        self.look_at_requests(snapshot, begun)
        self.snapshot, self.seen = snapshot, begun
        self.looked += 1

    def fresh_snapshot(self, seconds=30):
        """A snapshot that was begun after this call; None if there was none in time."""
        asked, deadline = time.time(), time.monotonic() + seconds
        while self.seen < asked:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.05)
        return self.snapshot

    def look_at_processes(self):
        for builder in self.fleet.builders.values():
            if builder.has_ended():
                code = builder.process.process.returncode
                self.breaks(f"builder {builder.name} (pid {builder.process.pid}) has ended by itself with {code}")
                builder.start()

    def read_journal(self):
        with self.lock, open(self.fleet.base / "journal") as journal:
            journal.seek(self.journal_offset)
            for line in journal:
                if not line.endswith("\n"):
                    break
                self.journal_offset += len(line)
                self.note_start(*line.split())

    def note_start(self, at, what, image, build, builder, _pid, older):
        at = float(at)
        self.started[build] = at
        self.newest_start[image] = max(at, self.newest_start.get(image, 0))
        self.counts["builds started"] += 1
        if what == "overlap":
            older, _, older_builder = older.partition("/")
            self.overlaps.append(Overlap(image, at, build, builder, older, older_builder))

    def read_logs(self):
        with self.lock:
            for name, log in self.logs.items():
                for at, message, values in log.read():
                    self.note_message(name, at, message, values)

    def note_message(self, name, at, message, values):
        counted = {
            "the build is ready": "builds ready", "the build is removed": "builds removed",
            "the build was cancelled": "builds cancelled", "the upload is ready": "uploads ready",
            "the upload failed": "uploads failed", "the upload is deleted": "uploads deleted",
            "the ZooKeeper session was lost": "sessions lost", "the build command failed": "builds failed",
            "the build command left no file": "builds failed", "the build took too long and was ended": "builds timed out",
        }
        if message.startswith("the ZooKeeper session was lost"):
            message = "the ZooKeeper session was lost"
            self.fleet.builders[name].lost = at
        if message in counted:
            self.counts[counted[message]] += 1
        if message == "the build is ready" and "image" in values:
            self.ready[values["image"]].append(at)
        if message == "registered":
            self.fleet.builders[name].component = values.get("component")
        if "panicked" in message or "this is a bug" in message:
            self.breaks(f"builder {name} says: {message} {values}")

    # -- the invariants

    def note_ready(self, snapshot):
        with self.lock:
            for build in snapshot.builds.values():
                if build.state == "ready" and build.record["state_time"] not in self.ready[build.image]:
                    self.ready[build.image].append(build.record["state_time"])

    def look_at_files(self, snapshot):
        for build in snapshot.builds.values():
            if build.state != "ready" or not missing_files(build, self.fleet):
                continue
            missing = missing_files(build, self.fleet)
            # A deletion marks the record before it removes a file.
            found = self.fleet.ensemble.fresh(build.path)
            if found and b'"ready"' in found[0]:
                self.breaks(f"{build.path} is ready, but its builder has no {missing}")

    def look_at_overlaps(self, snapshot):
        for overlap in [overlap for overlap in self.overlaps if overlap.at + PATIENCE < time.time()]:
            self.overlaps.remove(overlap)
            older = self.fleet.builders.get(overlap.older_builder)
            began = self.started.get(overlap.older, overlap.at)
            if older and (older.frozen or older.lost >= began):
                # Nothing can end the process of a builder that is dead or frozen; its result must not count.
                self.count("builds beside one whose builder had lost its session")
                self.doomed[overlap.older] = overlap
            else:
                self.count("doubled builds")
                self.breaks(f"two builds of {overlap.image} at a time: {overlap}")
        for build in snapshot.builds.values():
            if build.id in self.doomed and build.state == "ready":
                self.breaks(f"{build.path} is ready although its lock was lost: {self.doomed[build.id]}")

    def look_at_requests(self, snapshot, begun):
        with self.lock:
            for request in self.waiting_requests():
                if request.image in snapshot.requests or begun < request.made:
                    request.missed = 0.0
                elif any(at >= request.made for at in self.ready[request.image]):
                    request.fulfilled = True
                    self.counts["requests fulfilled"] += 1
                    # As in the original: a build takes all requests with it that are there at its end.
                    self.counts["requests that joined a running build"] += self.newest_start.get(request.image, 0) < request.made
                elif not request.missed:
                    request.missed = begun
                elif begun > request.missed + PATIENCE:
                    request.fulfilled = True
                    self.counts["requests lost"] += 1
                    self.breaks(f"a request for {request.image} of {request.made:.3f} is gone without a build")
