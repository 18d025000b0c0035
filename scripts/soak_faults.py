"""The faults of scripts/soak in ZooKeeper and in the builders, and how long it takes until work goes on after each.

A probe tells: a request for an image that one builder alone has, and the begin of its build command.
"""

import contextlib
import dataclasses
import random
import threading
import time

from soak_config import probe_image
from soak_ensemble import Unavailable
from soak_fleet import STOP_SECONDS
from world import IMAGES, say

# How long work may take to go on before we say that it does not.
DEADLINE = 60
LONGEST_SESSION = 5
# How long the healed ensemble may take to accept a write of ours.
ENSEMBLE_SECONDS = 20
# How many of the faults are not mixed with others.
SHARE_ALONE = 0.6


@dataclasses.dataclass
class Sample:
    """One fault, and how it was survived."""

    kind: str
    at: float
    # From the fault, or from its end where nothing can go on before that.
    seconds: float | None = None
    # The same, from the moment at which our own client could write to ZooKeeper.
    since_able: float | None = None
    # Whether another fault hit the same builder meanwhile: then its time says nothing of this one.
    overlapped: bool = False

    @property
    def survived(self):
        return self.seconds is not None


class Ledger:
    """All faults of a run."""

    def __init__(self, fleet, watch):
        self.watch = watch
        self.samples = []
        # Per builder, and for ZooKeeper: grows when a fault begins and when work goes on, so it is odd in between.
        self.disturbed = dict.fromkeys([*fleet.builders, "zookeeper"], 0)
        self.turn = threading.Condition()
        self.alone, self.together = False, 0

    @contextlib.contextmanager
    def turns(self, alone):
        """Faults that are to be measured alone wait for all others, and all others for them."""
        with self.turn:
            self.turn.wait_for(lambda: not self.alone and not (alone and self.together))
            self.alone, self.together = alone, self.together + 1
        try:
            yield
        finally:
            with self.turn:
                self.alone, self.together = False, self.together - 1
                self.turn.notify_all()

    @contextlib.contextmanager
    def disturbing(self, name):
        self.disturbed[name] += 1
        try:
            yield
        finally:
            self.disturbed[name] += 1

    def note(self, sample):
        self.samples.append(sample)
        self.watch.count("faults")
        if not sample.survived:
            at = time.strftime("%H:%M:%S", time.localtime(sample.at))
            self.watch.breaks(f"{sample.kind} at {at}: no work within {DEADLINE} s")
        took = "-" if sample.seconds is None else f"{sample.seconds:.2f} s"
        say(f"fault: {sample.kind}; work goes on after {took}{' (another fault besides)' if sample.overlapped else ''}")

    def state(self, names):
        return {name: self.disturbed[name] for name in names}

    def undisturbed(self, before):
        """Whether nothing has hit these since that state, nor was hitting them then."""
        return before == self.state(before) and all(count % 2 == 0 for count in before.values())


class Faults:
    """Faults of one sort, one after the other."""

    def __init__(self, fleet, watch, ledger, seed):
        self.fleet, self.watch, self.ledger, self.ensemble = fleet, watch, ledger, fleet.ensemble
        self.seed = seed
        self.ending = threading.Event()
        # Whether ZooKeeper itself did not come back from the fault that is on.
        self.hung = False

    def probe(self, builder, since):
        """Asks for a build that only this builder can make. When the request was accepted and when the build began, or
        None for what did not happen in time."""
        path = f"{IMAGES}/{probe_image(builder)}/request-build"
        accepted, deadline = None, time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            if accepted is None:
                try:
                    # One that is there already will do: its build has not begun, or it is about to be removed.
                    before = time.time()
                    made = self.ensemble.create(path)
                    accepted = time.time() if made else None
                    if made:
                        # Its build may be done before we hear that it was made.
                        self.watch.accepted(probe_image(builder), before)
                        self.watch.count("requests for probes")
                except Unavailable:
                    pass
            if began := self.watch.start_since(probe_image(builder), since):
                return accepted or began, began
            time.sleep(0.02)
        return accepted, None

    def measure(self, kind, at, builders, others):
        """Probes these builders at once and notes the slowest. `others` is the ledger's state of what may hit them
        besides, as it was before the fault."""
        results = {}
        threads = [threading.Thread(target=lambda b=builder: results.update({b: self.probe(b, at)})) for builder in builders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kind += " (the ensemble itself hung)" if self.hung else ""
        sample = Sample(kind, at, overlapped=not self.ledger.undisturbed(others))
        if len(results) == len(builders) and all(began for _, began in results.values()):
            sample.seconds = max(began - at for _, began in results.values())
            sample.since_able = max(began - accepted for accepted, began in results.values())
        self.ledger.note(sample)

    def loop(self, name, gaps, kinds, run):
        """Runs faults in an order that the seed gives, each kind once before any comes again."""
        chance = random.Random(f"{self.seed}-{name}")
        while True:
            for kind in chance.sample(kinds, len(kinds)):
                if self.ending.wait(chance.uniform(*gaps)):
                    return
                try:
                    with self.ledger.turns(chance.random() < SHARE_ALONE):
                        run(kind, chance)
                except Exception as error:
                    self.watch.breaks(f"the script's own fault '{kind}' has failed: {error!r}")
                    raise


class ZooKeeperFaults(Faults):
    """One at a time, so that it is plain whether the ensemble can serve."""

    KINDS = [
        "follower killed", "leader killed", "follower frozen shortly", "follower frozen for long", "leader frozen shortly",
        "leader frozen for long", "a builder's server frozen for long", "majority killed",
    ]

    def inject(self, kind, chance):
        self.ensemble.wait_until_whole(DEADLINE)
        lose = self.lose_majority if kind == "majority killed" else self.lose_one
        try:
            lose(kind, chance, list(self.fleet.builders))
        finally:
            self.ensemble.heal()

    def victim(self, kind, chance):
        leader = self.ensemble.leader() or self.ensemble.servers[0]
        if kind.startswith("leader"):
            return leader
        if kind.startswith("a builder"):
            return self.server_of_a_builder(chance) or leader
        return chance.choice([server for server in self.ensemble.servers if server is not leader])

    def server_of_a_builder(self, chance):
        builder = self.fleet.builders[chance.choice(list(self.fleet.builders))]
        found = builder.component and self.ensemble.fresh(builder.component)
        return self.ensemble.server_of(found[1].ephemeralOwner) if found else None

    def lose_one(self, kind, chance, names):
        server = self.victim(kind, chance)
        length = chance.uniform(0.5, 3) if "shortly" in kind else chance.uniform(1.3, 2.5) * LONGEST_SESSION
        healer = threading.Thread(target=self.heal_after, args=(server, length))
        self.hung = False
        others, at = self.ledger.state(names), time.time()
        with self.ledger.disturbing("zookeeper"):
            if "killed" in kind:
                server.kill()
            else:
                server.freeze()
            healer.start()
            self.measure(kind, at, names, others)
        healer.join()

    def heal_after(self, server, length):
        self.ending.wait(length)
        if server.process.process.poll() is None:
            server.thaw()
        else:
            server.start()
            server.faulty = False
        self.mend_ensemble()

    def mend_ensemble(self):
        """Restarts an ensemble that takes no writes from our own client either, and counts that: it was seen once, after a
        leader was frozen shortly, and why is not known. What happens then is not held against the builders."""
        if not self.ensemble.takes_writes(ENSEMBLE_SECONDS):
            self.hung = True
            self.watch.count("times that the ensemble itself hung")
            say(f"the ensemble takes no writes {ENSEMBLE_SECONDS} s after it was healed: it is restarted")
            self.ensemble.restart()

    def lose_majority(self, kind, chance, names):
        victims = chance.sample(self.ensemble.servers, 2)
        self.hung = False
        others = self.ledger.state(names)
        with self.ledger.disturbing("zookeeper"):
            for server in victims:
                server.kill()
            self.ending.wait(chance.uniform(1.3, 2.5) * LONGEST_SESSION)
            at = time.time()
            for server in victims:
                server.start()
                server.faulty = False
            self.measure(kind, at, names, others)

    def run(self):
        self.loop("zookeeper", (3, 10), self.KINDS, self.inject)


class BuilderFaults(Faults):
    """Builder `a` is only frozen, `b` is stopped and killed too."""

    KINDS = [
        ("b", "builder stopped, started again"), ("b", "builder killed, started again"),
        ("b", "builder killed, started again at once"),
        ("a", "builder frozen shortly"), ("a", "builder frozen past its session"), ("b", "builder frozen past its session"),
        ("a", "builder's configuration broken"), ("b", "builder's configuration broken"),
    ]

    def inject(self, what, chance):
        name, kind = what
        builder, others = self.fleet.builders[name], self.ledger.state(["zookeeper"])
        if "configuration" in kind:
            self.break_configuration(kind, name, chance, others)
            return
        with self.ledger.disturbing(name):
            orphans = self.strike(builder, kind, chance)
            at = time.time()
            if not builder.wanted:
                builder.start()
            self.measure(kind, at, [name], others)
        self.watch.count("build processes left by SIGKILL", len(orphans))
        left = orphans & set(self.fleet.build_processes())
        for pid in left:
            self.watch.breaks(f"a build process of the killed builder {name} is left after its next start: {pid}")

    def strike(self, builder, kind, chance):
        """Does it, and returns the build processes that it leaves behind."""
        if "frozen" in kind:
            builder.freeze(chance.uniform(1.3, 2) * builder.session_seconds if "past" in kind else chance.uniform(0.3, 2))
            return set()
        if "stopped" in kind:
            self.stop(builder)
            self.ending.wait(chance.uniform(0, 3))
            return set()
        builder.kill()
        orphans = {pid for pid, base in self.fleet.build_processes().items() if base.startswith(f"{builder.images_dir}/")}
        self.ending.wait(0 if "at once" in kind else chance.uniform(0.5, 5))
        return orphans

    def stop(self, builder):
        code, seconds = builder.stop()
        if code != 0 or seconds > STOP_SECONDS:
            pid = builder.process.pid
            self.watch.breaks(f"SIGTERM to builder {builder.name} (pid {pid}): exit code {code} after {seconds:.1f} s")
        self.watch.count("builders stopped in time", code == 0 and seconds <= STOP_SECONDS)

    def break_configuration(self, kind, name, chance, others):
        """It goes on with what it has."""
        at = time.time()
        self.fleet.configuration.break_file(name)
        self.measure(kind, at, [name], others | self.ledger.state([name]))
        self.ending.wait(chance.uniform(0, 3))
        self.fleet.configuration.repair(name)

    def run(self):
        self.loop("builders", (2, 8), self.KINDS, self.inject)
