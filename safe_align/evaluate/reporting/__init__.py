"""The report: what output directories hold, as one page of HTML that needs nothing else."""
