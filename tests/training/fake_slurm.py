"""sbatch, srun and scontrol as far as docs/scaling/slurm.sh needs them: one machine, no queue, no waiting.

`fake_slurm.py FOLDER` writes the three commands into FOLDER. srun starts SLURM_NTASKS processes, sends on
USR1 and TERM to them, and leaves with the largest exit code; scontrol leaves a note in $REQUEUED.
"""

import stat
import sys
from pathlib import Path

SRUN = """#!{python}
import os, signal, subprocess, sys
words = [word for word in sys.argv[1:]]
while words and words[0].startswith("--"):
    words.pop(0)
count = int(os.environ["SLURM_NTASKS"])
os.environ.update({{"SLURM_STEP_NUM_TASKS": str(count), "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1"}})
tasks = []
for n in range(count):
    os.environ.update({{"SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)}})
    tasks.append(subprocess.Popen(words))
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda signum, _: [task.send_signal(signum) for task in tasks])
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""

SBATCH = """#!/bin/bash
# sbatch SCRIPT WORDS...: one machine, $TASKS processes on it
export SLURM_JOB_ID=4711 SLURM_NNODES=1 SLURM_JOB_NAME=fewmask
export SLURM_NTASKS=$TASKS SLURM_NTASKS_PER_NODE=$TASKS
exec bash "$@"
"""

SCONTROL = """#!/bin/bash
echo "$@" >> "$REQUEUED"
"""


def write(folder: Path) -> None:
    for name, text in (
        ("srun", SRUN.format(python=sys.executable)),
        ("sbatch", SBATCH),
        ("scontrol", SCONTROL),
    ):
        path = folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
