"""Train segmenters of medical scans from few masks, or none, and say honestly when a simpler way wins.

Public names are imported from where they live: `fewmask.core.volume` (Volume, Mask), `fewmask.data.io`
(read_volume, write_mask), `fewmask.data.cohort` (read_cohort), `fewmask.segmenter.model` (Segmenter),
`fewmask.segmenter.predict` (predict), `fewmask.metrics.score` (score_case). Importing this costs nothing.
"""

__version__ = "0.1.0.dev0"
