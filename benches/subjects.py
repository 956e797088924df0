"""What is measured: the bare loop that is the physical limit, keepd, and the peers that are installed here.

To add a supervisor: subclass Subject, write `configure`, `start_argv` and, where it has a listing,
`status_argv` and `count_up`; add the class to PEERS.
"""
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path


class Subject:
    name = "?"
    most = 10_000  # services it can hold
    settle = 2.0  # seconds of running after which a killed service is restarted without a penalty
    logs = True  # captures output into files that it rotates

    def __init__(self, root, helpers):
        self.root, self.helpers = root, helpers

    def configure(self, services):
        """`services`: (name, argv) pairs. Writes whatever the supervisor wants to read."""
        raise NotImplementedError

    def start_argv(self):
        raise NotImplementedError

    def status_argv(self):
        return None

    def count_up(self, text):
        raise NotImplementedError

    def env(self):
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.root), "LANG": "C.UTF-8"}

    def status(self):
        done = subprocess.run(self.status_argv(), env=self.env(), cwd=self.root, text=True, timeout=120,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.stdout

    def stop(self, pid):
        """Begins an orderly stop; the caller waits for the last process."""
        os.kill(pid, signal.SIGTERM)

    def write(self, path, text, mode=0o644):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)


class Limit(Subject):
    """posix_spawn in a loop, waitpid, posix_spawn again: what no supervisor can beat."""

    name = "limit"
    settle = 0.2
    logs = False

    def configure(self, services):
        self.services = services

    def start_argv(self):
        _, (program, stamps, *_) = self.services[0]
        return [self.helpers / "spawnloop", program, stamps, len(self.services)]


class Keepd(Subject):
    name = "keepd"
    bin = None  # the folder of keepd and keepctl, set by the entry program
    form = "raw"  # how lines stand in the files
    keep = 40  # rotated files
    more = ""  # further lines of each service

    @classmethod
    def found(cls):
        return True

    def configure(self, services):
        r = self.root
        text = [f'[daemon]\nruntime-dir = "{r}/run"\nstate-dir = "{r}/state"\nlog-dir = "{r}/log"\n'
                'max-concurrent-starts = 1000\nrestart-budget = { starts = 1000000, within = "1m" }\n'
                f'[api]\nsocket = "{r}/run/api.sock"\n']
        for name, argv in services:
            command = ", ".join(f'"{a}"' for a in argv)
            # The backoff, the breaker and the host's budget are out of the way: the bare loop has none either.
            text.append(f'[service.{name}]\ncommand = [{command}]\nuser = "root"\nrestart = "always"\n'
                        f'backoff = {{ delay = "0ms", jitter = 0.0 }}\nbreaker = {{ failures = 1000000 }}\n'
                        f'logs = {{ compress = "none", max-size = "95MiB", keep = {self.keep}, max-total = "64GiB", on-full = "block", format = "{self.form}" }}\n{self.more.format(root=r)}')
        self.write(r / "keepd.toml", "".join(text))

    def log_files(self, name):
        """Oldest first: rotated names sort by age, and the one being written comes last."""
        folder = self.root / "log" / name
        rotated = sorted(p for p in folder.glob("*.log"))
        return [str(p) for p in [*rotated, folder / "current"] if p.exists()]

    def start_argv(self):
        return [self.bin / "keepd", "--config", self.root / "keepd.toml"]

    def ctl(self, *words):
        return [self.bin / "keepctl", "--socket", self.root / "run/api.sock", *words]

    def status_argv(self):
        return self.ctl("status")

    def count_up(self, text):
        return len(re.findall(r"\brunning\b", text))


class Boxed(Keepd):
    """keepd with every key of the sandbox."""

    name = "boxed"
    more = ('sandbox = {{ private-tmp = true, read-only = "strict", hide-home = true, '
            'private-devices = true, private-network = true, syscalls = "service" }}\n')


class Supervisord(Subject):
    name = "supervisord"

    @classmethod
    def found(cls):
        return shutil.which("supervisord") and shutil.which("supervisorctl")

    def configure(self, services):
        r = self.root
        (r / "log").mkdir()
        text = [f"[supervisord]\nnodaemon=true\nuser=root\nlogfile={r}/supervisord.log\npidfile={r}/pid\nchildlogdir={r}\n"
                f"minfds={max(1024, len(services) * 3 + 64)}\n[unix_http_server]\nfile={r}/sock\n[rpcinterface:supervisor]\n"
                "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
                f"[supervisorctl]\nserverurl=unix://{r}/sock\n"]
        for name, argv in services:
            text.append(f"[program:{name}]\ncommand={' '.join(argv)}\nautorestart=true\nstartsecs=0\nstartretries=1000000\n"
                        f"redirect_stderr=true\nstdout_logfile={r}/log/{name}\nstdout_logfile_maxbytes=100000000\n")
        self.write(r / "supervisord.conf", "".join(text))

    def start_argv(self):
        return [shutil.which("supervisord"), "-c", self.root / "supervisord.conf"]

    def status_argv(self):
        return [shutil.which("supervisorctl"), "-c", self.root / "supervisord.conf", "status"]

    def count_up(self, text):
        return len(re.findall(r" RUNNING ", text))


class Dinit(Subject):
    name = "dinit"
    logs = False  # the service writes straight into its file; nothing rotates it

    @classmethod
    def found(cls):
        return shutil.which("dinit") and shutil.which("dinitctl")

    def configure(self, services):
        (self.root / "log").mkdir()
        boot = ["type = internal\n"]
        for name, argv in services:
            self.write(self.root / "dinit.d" / name,
                       f"type = process\ncommand = {' '.join(argv)}\nrestart = true\nsmooth-recovery = true\nrestart-delay = 0\n"
                       f"restart-limit-count = 0\nlogfile = {self.root}/log/{name}\n")
            boot.append(f"waits-for = {name}\n")
        self.write(self.root / "dinit.d/boot", "".join(boot))

    def start_argv(self):
        return [shutil.which("dinit"), "-u", "-q", "-d", self.root / "dinit.d", "-p", self.root / "sock", "boot"]

    def status_argv(self):
        return [shutil.which("dinitctl"), "-u", "-p", self.root / "sock", "list"]

    def count_up(self, text):
        return len(re.findall(r"^\[\{?\+\}?.*\] (?!boot)", text, re.M))


class Tree(Subject):
    """A folder of service folders, each with an executable `run` and a logger of its own."""

    logger = ""

    def prepare_log(self, folder):
        folder.mkdir(parents=True)

    def configure(self, services):
        self.scan = self.root / "scan"
        for name, argv in services:
            folder, log = self.scan / name, self.root / "log" / name
            self.write(folder / "run", "#!/bin/sh\nexec 2>&1\nexec " + " ".join(argv) + "\n", 0o755)
            self.prepare_log(log)
            self.write(folder / "log/run", f"#!/bin/sh\nexec {self.logger.format(log)}\n", 0o755)


class Runit(Tree):
    name = "runit"
    most = 1000
    logger = "svlogd {}"

    @classmethod
    def found(cls):
        return all(map(shutil.which, ("runsvdir", "svlogd", "sv")))

    def prepare_log(self, folder):
        super().prepare_log(folder)
        (folder / "config").write_text("s100000000\nn20\n")

    def configure(self, services):
        super().configure(services)
        old = self.scan.stat().st_mtime - 60  # runsvdir holds a folder back that was changed this second
        os.utime(self.scan, (old, old))

    def start_argv(self):
        return [shutil.which("runsvdir"), "-P", self.scan]

    def status_argv(self):
        return [shutil.which("sv"), "status", *sorted(self.scan.iterdir())]

    def count_up(self, text):
        return len(re.findall(r"^run: ", text, re.M))

    def stop(self, pid):
        os.kill(pid, signal.SIGHUP)


PEERS = (Supervisord, Dinit, Runit)
