"""Upper confidence bounds of an expected cost, one a file; the listing of this folder is the list of bounds.

A bound is a module with

- `upper_bound(costs, *, delta, low, high) -> float`: `costs` (n,), one a prompt, each in [low, high], in the unit of
  the costs; a number below which their expectation lies with probability 1 - delta, under what `ASSUMES` says;
- `ASSUMES`, a sentence for the certificate;
- `TARGET`, what lies below the number: 'mean', or 'cvar';
- `FINITE_SAMPLE`, whether the probability holds at every n and for every law in [low, high];
- `NEEDS_RANGE`, whether low and high must be finite;
- `MIN_COSTS`, the least n that it takes;
- `upper_bounds`, the same as `upper_bound` of many studies at once, (S, n) -> (S,);
- `margin(n, *, delta, low, high)`, where the bound is mean + kappa x standard deviation + constant: kappa and the
  constant, so that training has a gradient; else absent;
- `ANYTIME`, true where the probability holds at all n at once, so that one may look more than once; else absent.

A file of the user's own with the first six of these, given with `--plugin my_bound.py`, is a bound too:
`--bound my_bound`. `upper_bounds` and `margin` are for simulation and training, which name the bounds of this folder.

A mistake in the arguments raises `safe_align.config.UserError`.
"""

from safe_align.bounds._capital import CAP, plug_in_bets
from safe_align.bounds._checked import Array, as_row, check_delta, check_range, column, unit_rows

__all__ = ['CAP', 'Array', 'as_row', 'check_delta', 'check_range', 'column', 'plug_in_bets', 'unit_rows']
