"""A SLURM of one node, with daemons, ports and a folder of its own."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=1
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """Why it cannot be started here, or nothing."""
    gone = [name for name in DAEMONS if shutil.which(name) is None]
    if gone:
        return f"SLURM is not installed ({', '.join(gone)} missing; Debian: slurm-wlm)"
    return "" if os.geteuid() == 0 else "only root may start SLURM's daemons"


class Slurm:
    """The daemons run from ``__enter__`` to ``__exit__``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self):
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        host = socket.gethostname().split(".")[0]
        text = CONFIGURATION.format(host=host, folder=self.folder, ports=(_port(), _port()))
        (self.folder / "slurm.conf").write_text(text)
        munge = {"socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        munge |= {"key-file": "key", "seed-file": "seed"}
        options = [f"--{option}={self.folder / name}" for option, name in munge.items()]
        self("munged", "--force", *options)
        self("slurmctld", "-c")
        self("slurmd")
        self.wait(lambda: "idle" in self("sinfo", "-h"))
        return self

    def __exit__(self, *_):
        self("scancel", "-u", "root")
        self.wait(lambda: not self("squeue", "-h").strip())
        for name in reversed(DAEMONS):
            file = self.folder / f"{name}.pid"
            number = file.read_text().strip()
            subprocess.run(["kill", number])
            self.wait(lambda number=number: not Path("/proc", number).exists())

    def __call__(self, *words):
        """A command's output."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def wait(self, done, seconds=300):
        """Until ``done()``."""
        end = time.monotonic() + seconds
        while not done():
            logs = "".join(p.read_text(errors="replace")[-800:] for p in self.folder.glob("*.log"))
            assert time.monotonic() < end, logs
            time.sleep(0.3)


def _port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
