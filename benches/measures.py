"""The measures. Each takes its limit in the same session, turn and turn about, because machines are noisy."""
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from cage import LAUNCH_SLOT, Cage, Noise, Stamps, now_ns, supervisor_side
from subjects import Boxed, Keepd, Limit

LINE = 100  # bytes of a log line


class Run:
    """One subject with its cage, its stamps and its scratch folder; nothing of it is left afterwards."""

    def __init__(self, where, helpers, subject):
        self.root = Path(tempfile.mkdtemp(prefix="run-", dir=where))
        self.root.chmod(0o755)
        self.helpers = helpers
        self.subject = subject(self.root, helpers) if subject else None
        self.stamps = Stamps(self.root / "stamps")
        self.cage = Cage()
        self.proc = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.cage.close()
        if self.proc:
            self.proc.wait()
        said = self.root / "out"
        if kind and said.exists():
            words = said.read_text(errors="replace")[-1500:].strip()
            print("    its last words:", words.replace("\n", "\n      "), flush=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def service(self, i):
        return f"svc{i:04d}", [str(self.helpers / "benchsvc"), str(self.stamps.path), str(i)]

    def launch(self, argv, env, descriptors=None):
        """Execs `argv` inside the cage, and stamps the instant of that exec."""
        def limits():
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

        with open(self.root / "out", "w") as out:
            self.proc = subprocess.Popen(
                [self.helpers / "launch", self.stamps.path, str(LAUNCH_SLOT), self.cage.dir / "cgroup.procs", *map(str, argv)],
                env=env, cwd=self.root, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                preexec_fn=limits)

    def start(self, n, descriptors=None, timeout=300):
        """Launches the subject with `n` services; milliseconds until the last one's first instruction."""
        self.subject.configure([self.service(i) for i in range(n)])
        os.sync()  # what an earlier run left to be written must not cost this one
        time.sleep(0.5)
        self.launch(self.subject.start_argv(), self.subject.env(), descriptors)
        return self.wait_stamps(n, timeout)

    def wait_stamps(self, n, timeout):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            at = self.stamps.all(n)
            if all(at):
                return (max(at) - self.stamps.get(LAUNCH_SLOT)[0]) / 1e6
            if self.proc.poll() is not None:
                raise RuntimeError(f"it ended with status {self.proc.returncode} while services were being started")
            time.sleep(0.004)
        raise TimeoutError(f"only {sum(map(bool, self.stamps.all(n)))} of {n} services were up after {timeout} s")

    def stop(self, timeout=120):
        """Milliseconds from the request until no process is left."""
        began = now_ns()
        self.subject.stop(self.proc.pid)
        if not self.cage.wait_empty(timeout):
            raise TimeoutError(f"{len(self.cage.pids())} processes were left {timeout} s after the request to stop")
        return (now_ns() - began) / 1e6

    def kill_one(self, slot, timeout=20):
        """Milliseconds from SIGKILL to the successor's first instruction."""
        old, pid = self.stamps.get(slot)
        began = now_ns()
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            at, new = self.stamps.get(slot)
            if at > began and new != pid:
                return (at - began) / 1e6
            time.sleep(0.0005)
        raise TimeoutError(f"service {slot} was not started again within {timeout} s of being killed")


def median(xs):
    return statistics.median(xs) if xs else None


class Bench:
    """What was asked for on the command line, and the results so far."""

    def __init__(self, opt, helpers, disk, fast):
        self.opt, self.helpers, self.disk, self.fast = opt, helpers, disk, fast

    def run(self, subject, where=None):
        return Run(where or self.fast, self.helpers, subject)

    def turns(self, subjects, rounds, once):
        """`once(subject)` for each subject in turn, `rounds` times: {subject's name: [result, …]}"""
        results = {s.name: [] for s in subjects}
        for _ in range(rounds):
            for s in subjects:
                results[s.name].append(once(s))
        return results

    # ------------------------------------------------------------------ start, stop, memory, status
    def many(self, subjects):
        """Start and stop of all services; memory and `status` on the way."""
        n = self.opt.services

        def once(subject):
            with self.bench_start(subject, n) as (run, result):
                if subject is not Limit:
                    time.sleep(3)  # what starting has allocated for a moment is given back
                    side = supervisor_side(run.cage)
                    result |= dict(pss_kib=side["pss_kib"], processes=side["processes"])
                    result |= self.status(run, n)
                else:
                    time.sleep(0.5)
                noise = Noise(run.cage)
                result |= dict(stop_ms=run.stop(), foreign_cores_stop=noise.cores())
            return result

        return self.turns([Limit, *(s for s in subjects if s.most >= n)], self.opt.rounds, once)

    def bench_start(self, subject, n):
        """A started run and the first part of its result, as a context manager."""
        outer = self

        class Started:
            def __enter__(self):
                self.run = outer.run(subject)
                try:
                    noise = Noise(self.run.cage)
                    wall = self.run.start(n)
                    return self.run, dict(start_ms=wall, cpu_ms=self.run.cage.cpu_s() * 1e3, foreign_cores=noise.cores())
                except BaseException as e:
                    self.run.__exit__(type(e))
                    raise

            def __exit__(self, *exc):
                self.run.__exit__(*exc)

        return Started()

    def status(self, run, n):
        subject = run.subject
        up = subject.count_up(subject.status())
        if up < n:
            raise RuntimeError(f"`status` lists {up} of {n} services as running")
        times = []
        budget = time.monotonic() + 20
        while len(times) < self.opt.status_reps and (len(times) < 3 or time.monotonic() < budget):
            began = now_ns()
            subject.status()
            times.append((now_ns() - began) / 1e6)
        return dict(status_ms=median(times))

    # ------------------------------------------------------------------ restart
    def restart(self, subjects):
        kills, rnd = self.opt.kills, random.Random(1)

        def once(subject):
            with self.run(subject) as run:
                run.start(kills)
                time.sleep(subject.settle + 0.5)
                noise, times = Noise(run.cage), []
                for slot in range(kills):
                    times.append(run.kill_one(slot))
                    time.sleep(rnd.uniform(0.01, 0.08))
                return dict(median_ms=median(times), all_ms=times, foreign_cores=noise.cores())

        return self.turns([Limit, *subjects], self.opt.rounds, once)

    def boxed(self):
        """What the sandbox adds to a launch: the same restart with all of it and with none."""
        return self.restart([Keepd, Boxed])

    # ------------------------------------------------------------------ few services: memory, idle
    def few(self, subjects):
        def once(subject):
            with self.run(subject) as run:
                run.start(self.opt.few)
                time.sleep(10)  # past the first rotation checks, reset-after and the like: what follows is idle
                before, cpu, began = supervisor_side(run.cage), run.cage.cpu_s(), time.monotonic()
                time.sleep(self.opt.idle)
                seconds, after, cpu = time.monotonic() - began, supervisor_side(run.cage), run.cage.cpu_s() - cpu
                return dict(pss_kib=after["pss_kib"], processes=after["processes"], seconds=seconds, cpu_ms=cpu * 1e3,
                            wakeups_per_s=(after["wakeups"] - before["wakeups"]) / seconds)

        return self.turns(subjects, 1, once)

    # ------------------------------------------------------------------ descriptors
    def descriptors(self):
        n, limit = self.opt.crowd, self.opt.crowd * 4
        with self.run(Keepd) as run:
            run.start(n, descriptors=limit, timeout=600)
            run.subject.status()
            held = sorted(supervisor_side(run.cage)["descriptors"], reverse=True)
            return dict(services=n, limit=limit, held=held, per_service=[h / n for h in held])

    # ------------------------------------------------------------------ logs
    def logs(self):
        """64 KiB writes of 100-byte lines through `cat > file` and through keepd, which rotates at 95 MiB."""
        lines = self.opt.log_bytes // LINE

        def cat(run):
            file = run.root / "out.log"
            argv = [self.helpers / "benchblast", run.stamps.path, "0", lines, "block", LINE]
            run.launch(["/bin/sh", "-c", f"{' '.join(map(str, argv))} | cat > {file}"], {"PATH": "/usr/bin:/bin"})
            return lambda: [str(file)] if file.exists() else []

        def keepd(run):
            argv = [str(x) for x in (self.helpers / "benchblast", run.stamps.path, 0, lines, "block", LINE)]
            run.subject.configure([("blast", argv)])
            run.launch(run.subject.start_argv(), run.subject.env())
            return lambda: run.subject.log_files("blast")

        def once(subject):
            with self.run(Keepd if subject is Keepd else None, self.disk) as run:
                os.sync()
                return self.blast(run, (keepd if subject is Keepd else cat)(run), lines)

        return self.turns([Limit, Keepd], self.opt.log_rounds, once)

    def blast(self, run, files, lines):
        total = lines * LINE
        run.wait_stamps(1, 60)
        time.sleep(1)
        noise, cpu = Noise(run.cage), run.cage.cpu_s()
        run.stamps.set(4, now_ns())  # opens the gate
        have, changed = 0, time.monotonic()
        while have < total and time.monotonic() < changed + 30:
            time.sleep(0.004)
            try:
                size = sum(os.stat(f).st_size for f in files())
            except OSError:
                continue  # renamed under our eyes
            if size != have:
                have, changed = size, time.monotonic()
        if have < total:
            raise TimeoutError(f"{have:,} of {total:,} bytes had reached the files 30 s after the last one did")
        seconds = (now_ns() - run.stamps.get(1)[0]) / 1e9
        # The writer sleeps after its last byte; its own CPU time is its own business.
        cpu = run.cage.cpu_s() - cpu - run.stamps.get(3)[0] / 1e9
        checked = subprocess.run([self.helpers / "logcheck", str(lines), str(LINE), *files()], stdout=subprocess.PIPE,
                                 text=True, check=True)
        return dict(mb_per_s=total / 1e6 / seconds, cpu_s_per_gb=cpu / (total / 1e9), foreign_cores=noise.cores(),
                    files=len(files()), check=json.loads(checked.stdout))
