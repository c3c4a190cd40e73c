#!/bin/bash
# One fewmask run on a SLURM cluster: one process per GPU, on one machine or several.
#
#     sbatch docs/scaling/slurm.sh gan --cohort my_scans --out runs/gan gan.images=2000000
#
# Change the lines below to your cluster's: partition, GPUs, hours. Without GPUs: sbatch --gpus-per-node=0
# --export=ALL,FEWMASK_DEVICE=cpu docs/scaling/slurm.sh ...
#SBATCH --job-name=fewmask
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=fewmask-%j.log

# --signal: 300 s before the time is up every process gets SIGUSR1. fewmask then finishes the update, writes a
# checkpoint and leaves with exit code 75; the job puts itself into the queue again, and the same command goes
# on where it stopped. The same happens when the cluster takes the machine away (SIGTERM).
set -u
AGAIN=75
FEWMASK=${FEWMASK:-fewmask}

# The batch script itself must outlive the signals that it gets as well, to read fewmask's exit code.
trap 'echo "signal: waiting for the checkpoint"' USR1 TERM

machines=${SLURM_NNODES:-1}
per_machine=${SLURM_NTASKS_PER_NODE:-1}
many=("device=${FEWMASK_DEVICE:-cuda}")
[ "$per_machine" -gt 1 ] && many+=("devices=$per_machine")
[ "$machines" -gt 1 ] && many+=("machines=$machines")

# The words of the command come last: where both name a setting, they win.
# --wait=0: helpers leave early, and the run goes on. --kill-on-bad-exit: no process waits for a dead one.
srun --wait=0 --kill-on-bad-exit=1 $FEWMASK run "${@:1:1}" "${many[@]}" "${@:2}" &
run=$!
wait "$run"
code=$?
while kill -0 "$run" 2>/dev/null; do # a signal ended the waiting, not the run
    wait "$run"
    code=$?
done

if [ "$code" -eq "$AGAIN" ] || [ "$code" -eq $((128 + 10)) ] || [ "$code" -eq $((128 + 15)) ]; then
    echo "stopped by the cluster: queued again"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
