"""Whether this process is a run or only helps one; known before anything heavy is imported."""

import os
from collections.abc import Mapping


def helper(environment: Mapping[str, str] | None = None) -> bool:
    """Whether this process only helps process 0 of the same run.

    Args:
        environment: where torchrun ("RANK"), srun ("SLURM_PROCID") or Fabric ("LOCAL_RANK") have told the
            process its number; the process's own environment when None.
    """
    told = os.environ if environment is None else environment
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in told:
            return int(told[name]) > 0
    return False
