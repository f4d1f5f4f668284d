"""Annotators, one a file; the listing of this folder is the list of annotators.

An annotator is a module with

- `annotator(tools) -> call`: `call` takes conversations, responses and the prompts they answer, and gives a score for
  each, higher for what is better: a sequence of numbers, or a dict of such under 'score', and under 'cost' too where a
  cost at or below 0 means safe;
- `NEEDS`, the options without which it cannot work, such as ('reward_model_name_or_path',); absent if there are none;
- `COMPARES`, true where `call` takes pairs of conversations, and gives 1 where the first is better, 0 where the second
  is, 0.5 for a tie and None where it abstains; else absent;
- `KEEPS`, true where it writes down by itself what it has paid for, as it comes; it is then asked for everything at
  once (in online preference learning, for a round at once), by a run of one process, and once more when a killed run
  goes on; else absent;
- `check(config)`, which raises `safe_align.config.UserError` where options are of no use, before anything is written;
  absent if there is nothing to check.

`tools` has

- `config`, all options;
- `scorer('reward')` and `scorer('cost')`, the score models or functions that the options name;
- `journal()`, judgements.jsonl in the output directory, a `safe_align.remote.journal.Journal`, which stays there when
  the run is finished, and which `--overwrite` removes;
- `say(text)`, for a line to the user;
- `summary`, a dict to which it adds what summary.json shall say beside the stage's own.

A file of the user's own with that function, given with `--plugin my_annotator.py`, is
an annotator too: `--annotator my_annotator`.
"""
