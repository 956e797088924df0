"""A cgroup around each thing that is measured, and what the kernel says about the processes in it.

CPU time, the list of processes and their end all come from the kernel, never from the supervisor under test.
"Supervisor side" is every process in the cage that is not one of the benchmark's own services.
"""
import mmap
import os
import select
import struct
import time
from pathlib import Path

OURS = {"benchsvc", "benchblast", "cat", "sh"}
SLOTS = 8192
LAUNCH_SLOT = SLOTS - 1


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def cgroup2_mount():
    """The cgroup2 mount of a unified or hybrid host, or None."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


class Stamps:
    """The shared file into which each service writes (CLOCK_MONOTONIC ns, pid) as its first act."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.write_bytes(b"\0" * 16 * SLOTS)
        with open(self.path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 0)

    def get(self, slot):
        return struct.unpack_from("<QQ", self.map, slot * 16)

    def set(self, slot, ns):
        struct.pack_into("<QQ", self.map, slot * 16, ns, 0)

    def all(self, n):
        return struct.unpack_from(f"<{2 * n}Q", self.map, 0)[::2]


class Cage:
    """A cgroup v2. Supervisors may make cgroups of their own below it, so everything here is recursive."""

    serial = 0

    def __init__(self):
        Cage.serial += 1
        self.dir = cgroup2_mount() / f"keepd-bench-{os.getpid()}-{Cage.serial}"
        self.dir.mkdir()

    def pids(self):
        found = []
        for folder, _, _ in os.walk(self.dir):
            try:
                found += [int(p) for p in Path(folder, "cgroup.procs").read_text().split()]
            except OSError:
                continue  # removed under our eyes
        return found

    def empty(self):
        return "populated 0" in (self.dir / "cgroup.events").read_text()

    def wait_empty(self, timeout):
        """Whether the last process was gone in time; the kernel wakes us, so the wait costs nothing."""
        deadline = time.monotonic() + timeout
        with open(self.dir / "cgroup.events") as events:
            poller = select.poll()
            poller.register(events, select.POLLPRI)
            while True:
                events.seek(0)
                if "populated 0" in events.read():
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                poller.poll(left * 1e3)

    def cpu_s(self):
        return int((self.dir / "cpu.stat").read_text().split()[1]) / 1e6

    def close(self):
        (self.dir / "cgroup.kill").write_text("1")
        self.wait_empty(30)
        deadline = time.monotonic() + 5
        while self.dir.exists():
            for folder, _, _ in os.walk(self.dir, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    if time.monotonic() > deadline:
                        raise
            time.sleep(0.01)


def fields(text):
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def supervisor_side(cage):
    """Sums over the processes in the cage that are not ours, and how many descriptors each of them holds."""
    total = dict(processes=0, threads=0, pss_kib=0, rss_kib=0, peak_rss_kib=0, wakeups=0, descriptors=[])
    for pid in cage.pids():
        proc = Path(f"/proc/{pid}")
        try:
            if (proc / "comm").read_text().strip() in OURS:
                continue
            roll, status = fields((proc / "smaps_rollup").read_text()), fields((proc / "status").read_text())
            total["pss_kib"] += int(roll["Pss"].split()[0])
            total["rss_kib"] += int(roll["Rss"].split()[0])
            total["peak_rss_kib"] += int(status["VmHWM"].split()[0])
            total["processes"] += 1
            total["descriptors"].append(len(os.listdir(proc / "fd")))
            for task in (proc / "task").iterdir():
                total["threads"] += 1
                total["wakeups"] += int(fields((task / "status").read_text())["voluntary_ctxt_switches"])
        except (OSError, KeyError):
            continue
    return total


class Noise:
    """How many cores others kept busy meanwhile: a ratio taken beside a busy neighbour deserves less trust."""

    def __init__(self, cage):
        self.cage = cage
        self.before = self.sample()

    def sample(self):
        ticks = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), busy, self.cage.cpu_s(), time.process_time()

    def cores(self):
        seconds, busy, caged, me = (b - a for a, b in zip(self.before, self.sample()))
        return round(max(0.0, busy - caged - me) / seconds, 2) if seconds > 0.02 else None
