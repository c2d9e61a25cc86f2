"""A SLURM of two nodes on this machine, with daemons, ports and a folder of its own."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
NODES = ("n1", "n2")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort={ports[0]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=1
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=8000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=8000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=2
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
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        key = self.folder / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        host = socket.gethostname().split(".")[0]
        text = CONFIGURATION.format(
            host=host, folder=self.folder, ports=[_port() for _ in range(3)]
        )
        (self.folder / "slurm.conf").write_text(text)
        munge = {"socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        munge |= {"key-file": "key", "seed-file": "seed"}
        options = [f"--{option}={self.folder / name}" for option, name in munge.items()]
        self("munged", "--force", *options)
        self("slurmctld", "-c")
        for node in NODES:
            self("slurmd", "-N", node)
        self.wait(lambda: self("sinfo", "-h", "-N", "-p", "main", "-t", "idle").count("\n") == 2)
        return self

    def __exit__(self, *_):
        self("scancel", "-u", "root")
        self.wait(lambda: not self("squeue", "-h").strip())
        for name in (*(f"slurmd-{node}" for node in NODES), "slurmctld", "munged"):
            file = self.folder / f"{name}.pid"
            number = file.read_text().strip()
            subprocess.run(["kill", number])
            self.wait(lambda number=number: not Path("/proc", number).exists())

    def __call__(self, *words):
        """A command's output."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def fail(self, node):
        """The node goes down, with all that its jobs run there, and comes back."""
        self._signal(node, signal.SIGSTOP)  # nothing there answers SLURM's signals
        self("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        self._signal(node, signal.SIGKILL)
        self("scontrol", "update", f"NodeName={node}", "State=RESUME")

    @contextlib.contextmanager
    def closed(self):
        """No job begins inside."""
        nodes = f"NodeName={','.join(NODES)}"
        self("scontrol", "update", nodes, "State=DRAIN", "Reason=test")
        yield
        self("scontrol", "update", nodes, "State=RESUME")

    def _signal(self, node, number):
        """To all processes of jobs on the node."""
        mine = {f"SLURMD_NODENAME={node}", f"SLURM_CONF={self.environment['SLURM_CONF']}"}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mine <= set((process / "environ").read_text(errors="replace").split("\0")):
                    os.kill(int(process.name), number)

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
