"""Measures of output: how fast, how evenly and for how much CPU time it gets into files."""
import os
import shutil
import time

from cage import Noise, now_ns, supervisor_side
from measures import LINE, median
from subjects import Keepd

STAMP = 28  # bytes of a time stamp and its space
TAI = 26  # the same of s6-log


class Capture:
    """A program behind a pipe that writes its input to files."""

    def __init__(self, name, command, files, needs=None):
        self.name, self.command, self.files, self.needs = name, command, files, needs

    def found(self):
        return not self.needs or shutil.which(self.needs)


def captures(helpers):
    """The limits and the peers for lines as they are."""
    def folder(d):
        return [str(p) for p in [*sorted(d.glob("@*")), d / "current"] if p.exists()]

    def single(d):
        return [str(d / "out.log")]
    return [Capture("limit", lambda d: f"cat > {d}/out.log", single),
            Capture("splice", lambda d: f"{helpers}/spliceloop {d}/out.log", single),
            Capture("s6-log", lambda d: f"s6-log -b n40 s99000000 {d}/log", lambda d: folder(d / "log"), "s6-log"),
            Capture("svlogd", lambda d: f"mkdir {d}/log; echo s99000000 > {d}/log/config; svlogd -b 65536 {d}/log",
                    lambda d: folder(d / "log"), "svlogd"),
            Capture("multilog", lambda d: f"multilog s16777215 n40 {d}/log", lambda d: folder(d / "log"), "multilog")]


def stampers():
    return [Capture("limit", lambda d: f"s6-log -b n40 s99000000 t {d}/log",
                    lambda d: [str(p) for p in [*sorted((d / "log").glob("@*")), d / "log/current"] if p.exists()], "s6-log")]


def blast(bench, subjects, mode, total, extra=0, form="raw"):
    """`total` bytes of lines through each subject: {name: [result, …]}"""
    lines = total // LINE

    def once(subject):
        with bench.run(Keepd if subject is Keepd else None, bench.disk) as run:
            os.sync()
            argv = [str(x) for x in (bench.helpers / "benchblast", run.stamps.path, 0, lines, mode, LINE)]
            if subject is Keepd:
                run.subject.form = form
                run.subject.configure([("blast", argv)])
                run.launch(run.subject.start_argv(), run.subject.env())
                return flow(run, lambda: run.subject.log_files("blast"), lines, extra)
            run.launch(["/bin/sh", "-c", f"{' '.join(argv)} | {{ {subject.command(run.root)}; }}"],
                       {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
            return flow(run, lambda: subject.files(run.root), lines, TAI if extra else 0)

    return bench.turns([*(s for s in subjects if s.found()), Keepd], bench.opt.log_rounds, once)


def flow(run, files, lines, extra):
    total = lines * (LINE + extra)
    run.wait_stamps(1, 60)
    time.sleep(1)
    noise, cpu = Noise(run.cage), run.cage.cpu_s()
    run.stamps.set(4, now_ns())  # opens the gate
    have, changed = 0, time.monotonic()
    while have < total * 0.99 and time.monotonic() < changed + 30:
        time.sleep(0.004)
        try:
            size = sum(os.stat(f).st_size for f in files())
        except OSError:
            continue  # renamed under our eyes
        if size != have:
            have, changed = size, time.monotonic()
    if have < total * 0.99:
        raise TimeoutError(f"{have:,} of {total:,} bytes had reached the files 30 s after the last one did")
    seconds = (now_ns() - run.stamps.get(1)[0]) / 1e9
    cpu = run.cage.cpu_s() - cpu - run.stamps.get(3)[0] / 1e9
    return dict(mb_per_s=lines * LINE / 1e6 / seconds, cpu_s_per_gb=cpu / (lines * LINE / 1e9), foreign_cores=noise.cores())


def flat(bench, total):
    """PSS of keepd while `total` bytes of lines go through it, rotated at 95 MiB into memory, where they go fastest."""
    with bench.run(Few) as run:
        run.subject.configure([("blast", [str(x) for x in (bench.helpers / "benchblast", run.stamps.path, 0, total // LINE, "block", LINE)])])
        run.launch(run.subject.start_argv(), run.subject.env())
        run.wait_stamps(1, 60)
        run.stamps.set(4, now_ns())  # opens the gate
        pss, began = [], time.monotonic()
        while not run.stamps.get(2)[0]:
            time.sleep(0.2)
            pss.append(supervisor_side(run.cage)["pss_kib"])
        tenth = max(len(pss) // 10, 1)
        return dict(gb=total / 1e9, seconds=time.monotonic() - began, pss_kib=median(pss[1:tenth + 1]), pss_end_kib=median(pss[-tenth:]),
                    pss_most_kib=max(pss))


class Few(Keepd):
    """keepd that keeps few files."""

    keep = 4


def paced(bench, subjects, where, n, bytes, tick_us, seconds):
    """`n` services that write `bytes` every `tick_us` to files in `where`, under each subject: {name: [result, …]}.
    The limit is a `cat > file` behind each of them, with nobody in between to share or to be unfair."""
    def once(subject):
        with bench.run(subject if subject is Keepd else None, where) as run:
            argv = [[str(x) for x in (bench.helpers / "benchpace", run.stamps.path, i, n + i, bytes, tick_us, seconds)] for i in range(n)]
            os.sync()
            if subject is Keepd:
                run.subject.configure([(f"pace{i:04d}", a) for i, a in enumerate(argv)])
                run.launch(run.subject.start_argv(), run.subject.env())
            else:
                script = "".join(f"{' '.join(a)} | cat > {run.root}/{i} &\n" for i, a in enumerate(argv))
                run.launch(["/bin/sh", "-c", script + "wait"], {"PATH": "/usr/bin:/bin"})
            run.wait_stamps(n, 60)
            return pace(run, n, bytes, tick_us, seconds)

    return bench.turns(subjects, 1, once)


def pace(run, n, bytes, tick_us, seconds):
    time.sleep(2)
    noise, before, began = Noise(run.cage), keepd_cpu(run), time.monotonic()
    time.sleep(max(seconds - 5, 1))
    cpu = (keepd_cpu(run) - before) / (time.monotonic() - began)
    deadline = time.monotonic() + 60
    while not all(run.stamps.get(n + i)[0] for i in range(n)):
        if time.monotonic() > deadline:
            raise TimeoutError("some writers did not end")
        time.sleep(0.05)
    waits = sorted(run.stamps.get(n + i)[0] / 1e6 for i in range(n))
    return dict(longest_wait_ms=waits[-1], median_wait_ms=waits[n // 2], core_percent=cpu * 100, foreign_cores=noise.cores())


def keepd_cpu(run):
    """Seconds of processor time of keepd's own processes."""
    ticks = 0
    for pid in run.cage.pids():
        try:
            if os.readlink(f"/proc/{pid}/exe").endswith("/keepd"):
                fields = open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")
