"""Judges of two answers to one prompt, one a file; the listing of this folder is the list of judges.

A judge is a module with

- `judge(tools) -> call`: `call` takes comparisons and gives for each 'candidate' or 'baseline', whichever is better,
  'tie', or 'unscored' where it cannot say; or a dict with that under 'verdict', and under other keys what else its row
  in comparisons.jsonl shall hold. A comparison has `turns` (user, assistant, ..., user), the texts `candidate` and
  `baseline`, and `reference`, the answer that is known to be right, or None. It may be given no comparisons;
- `NEEDS`, the options without which it cannot work, such as ('reward_model_name_or_path',), and `READS`, those that it
  reads if they are given; absent if there are none;
- `NEEDS_REFERENCE`, true where it can say nothing without a reference; else absent;
- `KEEPS`, true where it writes down by itself what it has paid for, as it comes; it is then asked for everything at
  once, by a run of one process, and once more when a killed run goes on; else absent;
- `check(config)`, which raises `safe_align.config.UserError` where options are of no use, before anything is written;
  absent if there is nothing to check.

`tools` has

- `config`, all options;
- `scores(kind, answers)`, the scores of answers, each a pair of turns and text, by the 'reward' or 'cost' model or
  function that the options name: a list of numbers;
- `journal()`, judgements.jsonl in the output directory, a `safe_align.remote.journal.Journal`, which stays there when
  the run is finished, and which `--overwrite` removes;
- `say(text)`, for a line to the user, and `done(count)`, for the bar of a judge that KEEPS;
- `summary`, a dict to which it adds what summary.json shall say of it, such as the 'model' that judged.

A file of the user's own with that function, given with `--plugin my_judge.py`, is a judge too: `--judge my_judge`.
"""
