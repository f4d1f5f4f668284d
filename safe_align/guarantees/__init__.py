"""What a certificate needs beside a bound: clusters, evidence over time, several tests at once, planning, audits."""

from safe_align.guarantees.clusters import cluster_means
from safe_align.guarantees.e_process import EProcess
from safe_align.guarantees.multiplicity import fixed_sequence, holm, step_down
from safe_align.guarantees.planning import plan_num_prompts, plan_num_prompts_betting, plan_num_prompts_binary
from safe_align.guarantees.prediction_powered import Audit, prediction_powered, prediction_powered_betting

__all__ = [
    'Audit',
    'EProcess',
    'cluster_means',
    'fixed_sequence',
    'holm',
    'plan_num_prompts',
    'plan_num_prompts_betting',
    'plan_num_prompts_binary',
    'prediction_powered',
    'prediction_powered_betting',
    'step_down',
]
