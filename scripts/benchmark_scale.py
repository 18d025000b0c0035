"""The part of scripts/benchmark about size: 200 images at 10 providers, and what one change costs beside that.

A fleet may cost in proportion to its records what is done once (copying them at the start, keeping them), and must
cost in proportion to what has changed at everything else. So the same change is made in three fleets, and the ratio
of the large one to the middle one has a limit.
"""

import contextlib
import statistics
import time

from benchmark_world import World
from world import Trouble, cpu_seconds, memory_of, thread_seconds, wants_processor

SIZES = {"1x1": (1, 1), "20x5": (20, 5), "200x10": (200, 10)}
LARGE = "200x10"
BLOCKS = ["large", "changes"]
# The images that are changed: the same number at each size but the first, so that their records are as warm.
CHANGED = 4
BATCHES = 4
IDLE_SECONDS = 30
ROUND_SECONDS = 4

# Key, words, unit, what has a limit ("ratio": large to middle; "large": the figure itself; "" nothing), the limit.
#
# A change is a request, the build, its uploads, and the removal of the oldest build with its uploads. It is twice as
# much work at ten providers as at five, so it is counted by the builds and uploads that it makes. 1.3 leaves room for
# colder caches and for the few things that read a directory, and none for whatever grows with images or records. The
# builder thread may take somewhat more, because it plans an image as a whole, and that has twice as many uploads.
# Figures "at the large size" are of things that are linear by nature: they must stay small.
FIGURES = [
    ("request", "request to `building` record", "ms", "large", 20),
    ("upload", "`ready` build to each upload", "ms", "", None),
    ("change-cpu", "daemon's CPU for a change", "ms", "", None),
    ("step-cpu", "the same for each build or upload of it", "ms", "ratio", 1.3),
    ("decide-cpu", "of that, the builder thread, which decides", "ms", "ratio", 1.75),
    ("change-packets", "ZooKeeper packets of a change", "", "", None),
    ("step-packets", "the same for each build or upload of it", "", "ratio", 1.1),
    ("round-cpu", "daemon's CPU for a cleanup interval", "ms", "large", 2),
    ("edit-cpu", "daemon's CPU for an edit of one image", "ms", "", None),
    ("edit-kb-cpu", "the same for each KB of the configuration", "ms", "ratio", 1.5),
    ("start", "program start to registered component", "ms", "large", 150),
    ("quiet", "program start to nothing to do", "s", "", None),
    ("start-cpu", "daemon's CPU until then", "s", "large", 1),
    ("start-packets", "ZooKeeper packets until then", "", "", None),
    ("rss", "resident memory after that", "MB", "", None),
    ("pss", "proportional memory (PSS)", "MB", "", None),
    ("anonymous", "anonymous memory", "MB", "large", 8),
    ("packets", "idle: ZooKeeper packets, both ways", "/s", "large", 1),
    ("cpu", "idle: of a core", "%", "large", 0.2),
    ("list", "nodepool image-list", "ms", "large", 800),
    ("builds-list", "nodepool dib-image-list", "ms", "large", 200),
]
CONVERGE = [
    ("converge", "200 images x 10 providers from nothing", "s"),
    ("converge-cpu", "the daemon's CPU", "s"),
    ("converge-cpu-each", "the daemon's CPU for each build or upload", "ms"),
    ("converge-transactions", "ZooKeeper transactions", ""),
    ("converge-rate", "ZooKeeper transactions a second", "/s"),
    ("converge-share", "the same beside a bare loop of creates, with as many in flight as we have workers", "%"),
    ("bare-one", "this ZooKeeper: a bare loop of creates, one after the other", "/s"),
    ("bare-five", "this ZooKeeper: the same with five in flight", "/s"),
]


def names(kind, count):
    return [f"{kind}-{n:03}" for n in range(1, count + 1)]


def measure(subject, blocks):
    """Notes samples under (size, key)."""
    for size, (images, providers) in SIZES.items():
        if size != LARGE and "changes" not in blocks:
            continue
        with World(subject, size, dict.fromkeys(names("image", images), 0), names("fake", providers)) as world:
            Fleet(subject, world, size).measure(blocks)


class Fleet:
    """A world of one size, and what is measured in it."""

    def __init__(self, subject, world, size):
        self.subject, self.world, self.size, self.zookeeper = subject, world, size, subject.zookeeper
        self.steps = 1 + len(world.providers)
        self.records = len(world.images) * self.steps

    def note(self, key, value):
        self.subject.note((self.size, key), value)

    def measure(self, blocks):
        large = self.size == LARGE
        if large:
            self.subject.look("a bare loop of creates")
            for key, in_flight in [("bare-one", 1), ("bare-five", 5)]:
                self.note(key, self.zookeeper.create_rate(in_flight, 3))
        self.subject.look(f"{self.size}: from nothing")
        with self.world.builder() as daemon:
            self.converge(daemon)
            if "changes" in blocks:
                self.subject.look(f"{self.size}: changes")
                self.changes(daemon)
                self.edits(daemon)
        self.subject.look(f"{self.size}: starts on what is there")
        for _ in range(3):
            with self.started() as (daemon, _):
                self.note_memory(daemon)
        if "changes" in blocks:
            self.rounds()
        if large and "large" in blocks:
            with self.started() as (daemon, session):
                self.subject.look(f"{self.size}: listings")
                self.listings()
                self.subject.look(f"{self.size}: idle for {IDLE_SECONDS} s")
                self.idle(daemon, session)

    def converge(self, daemon):
        begun = self.zookeeper.transactions()
        _, component = self.world.component(daemon, set())
        self.session = component.ephemeralOwner
        _, last_upload = self.world.converge(daemon, 600)
        seconds, transactions = last_upload - daemon.begun, self.zookeeper.transactions() - begun
        settle(daemon)
        cpu = cpu_seconds(daemon.pid)
        self.note("converge", seconds)
        self.note("converge-cpu", cpu)
        self.note("converge-cpu-each", 1000 * cpu / self.records)
        self.note("converge-transactions", transactions)
        self.note("converge-rate", transactions / seconds)
        if bare := self.subject.samples.get((self.size, "bare-five")):
            self.note("converge-share", 100 * transactions / seconds / bare[-1])

    def packets(self, session):
        return self.zookeeper.packets_of(session, None)

    def changes(self, daemon):
        """What a change costs once each image has as many builds as are kept, so that the oldest has to go."""
        changed = list(self.world.images)[:CHANGED]
        request = lambda image: self.world.request(image, daemon, self.world.limit(120))
        for image in 2 * changed:
            request(image)
        settle(daemon)
        for _ in range(BATCHES):
            before, packets = cpu_seconds(daemon.pid), self.packets(self.session)
            deciding = thread_seconds(daemon.pid, "builder")
            for image in changed:
                times = request(image)
                self.note("request", times["request"])
                for milliseconds in times["uploads"]:
                    self.note("upload", milliseconds)
                # The removals of one do not wait among the uploads of the next.
                settle(daemon)
            cpu = 1000 * (cpu_seconds(daemon.pid) - before) / len(changed)
            packets = (self.packets(self.session) - packets) / len(changed)
            self.note("change-cpu", cpu)
            self.note("step-cpu", cpu / self.steps)
            deciding = thread_seconds(daemon.pid, "builder") - deciding
            self.note("decide-cpu", 1000 * deciding / len(changed) / self.steps)
            self.note("change-packets", packets)
            self.note("step-packets", packets / self.steps)

    def edits(self, daemon):
        image, taken = next(iter(self.world.images)), "the configuration has changed"
        kilobytes = self.world.config.stat().st_size / 1024
        for number in range(6):
            before, known = cpu_seconds(daemon.pid), daemon.log.read_text().count(taken)
            self.world.edit(image, number)
            deadline = time.monotonic() + 20
            while daemon.log.read_text().count(taken) == known:
                daemon.check()
                if time.monotonic() > deadline:
                    raise Trouble(f"an edit was not taken; the daemon's log: {daemon.log}")
                time.sleep(0.05)
            settle(daemon)
            cpu = 1000 * (cpu_seconds(daemon.pid) - before)
            # The first one finds an allocator and caches that have not seen such a thing.
            if number > 0:
                self.note("edit-cpu", cpu)
                self.note("edit-kb-cpu", cpu / kilobytes)

    @contextlib.contextmanager
    def started(self):
        """A builder that has started, and its session. Notes how long that has taken."""
        known = self.world.components()
        with self.world.builder() as daemon:
            _, component = self.world.component(daemon, known)
            self.note("start", component.ctime - daemon.begun * 1000)
            self.note("quiet", settle(daemon) - daemon.begun)
            self.note("start-cpu", cpu_seconds(daemon.pid))
            self.note("start-packets", self.packets(component.ephemeralOwner))
            yield daemon, component.ephemeralOwner

    def note_memory(self, daemon):
        rss, pss, anonymous, _ = memory_of(daemon.pid)
        for key, value in [("rss", rss), ("pss", pss), ("anonymous", anonymous)]:
            self.note(key, value)

    def rounds(self):
        """The CPU of a cleanup interval, from one that is far too short."""
        used = {}
        for interval in [3600, 0.1]:
            known = self.world.components()
            with self.world.builder("--cleanup-interval", str(interval)) as daemon:
                self.world.component(daemon, known)
                # Rounds that follow each other let it never come to rest.
                time.sleep(3)
                samples = []
                for _ in range(3):
                    before, begun = cpu_seconds(daemon.pid), time.monotonic()
                    time.sleep(ROUND_SECONDS / 3)
                    samples.append((cpu_seconds(daemon.pid) - before) / (time.monotonic() - begun))
                used[interval] = samples
        idle = statistics.median(used[3600])
        for sample in used[0.1]:
            self.note("round-cpu", max(0, 1000 * 0.1 * (sample - idle)))

    def listings(self):
        for command, key, expected in [
            ("image-list", "list", len(self.world.images) * len(self.world.providers)),
            ("dib-image-list", "builds-list", len(self.world.images)),
        ]:
            for _ in range(7):
                wall, _, output = self.world.client(command)
                shown = sum(line.count("| ready") for line in output.splitlines())
                # The images that were changed have more.
                if shown < expected:
                    raise Trouble(f"{command} shows {shown} of {expected}")
                self.note(key, wall)

    def idle(self, daemon, session):
        before = self.packets(session), cpu_seconds(daemon.pid), time.monotonic()
        time.sleep(IDLE_SECONDS)
        after = self.packets(session), cpu_seconds(daemon.pid), time.monotonic()
        packets, cpu, seconds = (new - old for new, old in zip(after, before))
        daemon.check()
        self.note("packets", packets / seconds)
        self.note("cpu", 100 * cpu / seconds)


def settle(daemon, per_second=0.007, window=0.3):
    """Waits until the daemon has done nothing for a moment. Returns the time at which that began."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        daemon.check()
        begun, before = time.time(), cpu_seconds(daemon.pid)
        # On a busy machine one that waits for its turn uses no time either.
        while cpu_seconds(daemon.pid) - before <= per_second * window and not wants_processor(daemon.pid):
            if time.time() - begun >= window:
                return begun
            time.sleep(0.02)
        time.sleep(0.005)
    raise Trouble(f"the daemon does not come to rest; its log: {daemon.log}")


# ---- the tables


def report(samples, number, spread, table):
    """Prints what was measured. Returns whether all limits are kept."""
    median = lambda size, key: statistics.median(samples[size, key]) if samples.get((size, key)) else None
    rows, kept = [], True
    for key, words, unit, limited, limit in FIGURES:
        values = [median(size, key) for size in SIZES]
        if values[-1] is None:
            continue
        ratio = values[-1] / values[-2] if values[-2] else None
        value = {"ratio": ratio, "large": values[-1]}.get(limited)
        shown = {"ratio": f"{limit}x", "large": number(limit, unit) if limit else ""}.get(limited, "")
        ok = value is None or value <= limit
        kept &= ok
        rows.append([
            words, *(number(value, unit) for value in values), f"{ratio:.2f}x" if ratio else "-",
            shown if value is not None else "", "" if value is None else "ok" if ok else "OVER",
            spread(samples[LARGE, key], unit),
        ])
    if rows:
        print("\nSize, and the cost of a change (images x providers; medians):")
        table(["figure", *SIZES, "20x5 to 200x10", "limit", "", f"{LARGE}: min - max"], rows)
    rows = [[words, number(median(LARGE, key), unit)] for key, words, unit in CONVERGE if median(LARGE, key) is not None]
    if rows:
        print("\n200 images x 10 providers from nothing (no limits: ZooKeeper's disk sets the pace):")
        table(["figure", ""], rows)
    return kept
