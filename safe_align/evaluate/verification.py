"""A certificate checked by anyone: its bytes, costs and arithmetic, the models' content, and that prompts are new."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from safe_align.config import UserError
from safe_align.evaluate.certificate import CERTIFIED, NOT_CERTIFIED, Claim, certify, hash_of_set, read
from safe_align.evaluate.costs import Costs, hashes_of, read_costs
from safe_align.evaluate.lineage import check_new, trace
from safe_align.ownership import parent_of

SLACK = 1e-9  # between machines, of the range of the numbers compared


def run_verification(path: str, policy: str | None, cost_models: list[str] | None) -> int:
    """Say whether a certificate is valid.

    Args:
        path: of `certificate.json`; its costs are beside it.
        policy: where the policy is, if not where it was.
        cost_models: where the cost models are, if not where they were.

    Raises:
        UserError: the certificate does not agree with what is there; it says in what.
    """
    place = Path(path).expanduser()
    try:
        content = read(place.read_bytes())
    except OSError as error:
        raise UserError(f'--verify {path}: cannot be read: {error.strerror}') from error
    except UserError as error:
        raise UserError(f'--verify {path}: not valid: {error}') from None
    try:
        differences = [*differ(content, place.parent)]
        differences = differences or [*_models(content, place.parent, policy, cost_models)]
    except UserError as error:
        differences = [str(error)]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        differences = [f'it has another form ({type(error).__name__}: {error})']
    if differences:
        raise UserError(f'--verify {path}: not valid: {"; ".join(differences)}')
    print(f'{path} is valid: {content["verdict"]}')
    for one in content['lineage']:
        if one['hash'] is None:
            print(f'not checked: {one["path"]}, which was no directory, has no content hash')
    return 0


def differ(content: dict[str, Any], directory: Path) -> Iterator[str]:
    """In what a certificate's numbers are not those of the costs beside it."""
    try:
        told = content['costs_file']
        text = (directory / told['name']).read_bytes()
        found = read_costs(directory / told['name'])
    except (OSError, UserError) as error:
        yield f'its costs cannot be read: {error}'
        return
    if hashlib.sha256(text).hexdigest() != told['sha256']:
        yield f'{told["name"]} is not what was written'
    names = found.names
    if (content['prompts']['num'], content['prompts']['hash']) != (len(names), hash_of_set(names)):
        yield 'the prompts are others'
    if content['num_responses'] != len(found.prompts) or content['samples_per_prompt'] != found.most_samples:
        yield 'the number of responses is another'
    if len(content['constraints']) != len(found.costs[0]):
        yield 'the number of constraints is another'
        return
    for number, one in enumerate(content['constraints'], 1):
        yield from _constraint(one, number, found)
    holds = all(one['holds'] for one in content['constraints'])
    if content['verdict'] != (CERTIFIED if holds else NOT_CERTIFIED):
        yield 'the verdict is another'


def _constraint(one: dict[str, Any], number: int, found: Costs) -> Iterator[str]:
    claim = Claim(**one['claim'])
    claim.check(found.most_samples)
    again = certify(claim, found.prompts, np.array(found.costs)[:, number - 1])
    for key, value in again.items():
        if not _agrees(one[key], value):
            yield f'constraint {number}: {key} is another'
    if one['holds'] != (one['value'] <= claim.threshold):
        yield f'constraint {number}: the bound and the threshold say otherwise'


def _agrees(told: Any, found: Any) -> bool:
    if isinstance(found, list):
        return len(told) == len(found) and all(map(_agrees, told, found))
    if isinstance(found, float):
        return math.isclose(told, found, rel_tol=SLACK, abs_tol=SLACK)
    return bool(told == found)


def _models(
    content: dict[str, Any], directory: Path, policy: str | None, cost_models: list[str] | None
) -> Iterator[str]:
    """In what the models are not those that were tested, and whether they have seen the prompts."""
    told = {'model_name_or_path': content['policy']}
    told |= {f'cost_model_name_or_path_{n}': one['cost_model'] for n, one in enumerate(content['constraints'], 1)}
    moved = dict(zip(told, [policy, *(cost_models or [])], strict=False))
    places: dict[str, str] = {}
    for option, parent in told.items():
        if parent is None:
            continue
        places[option] = moved.get(option) or parent['path']
        if parent_of(option, places[option])['hash'] != parent['hash']:
            where = 'has another content' if Path(places[option]).expanduser().is_dir() else 'is not there'
            yield f'{places[option]} {where}'
            return
    lineage = trace(places)
    if [(one['hash'], one['num_prompts']) for one in content['lineage']] != [
        (one.hash, one.entry()['num_prompts']) for one in lineage
    ]:
        yield 'the line of models is another'
    hashes = hashes_of(read_costs(directory / content['costs_file']['name']).names)
    if hashes is not None:
        check_new(lineage, hashes)
    if content['prompts']['proved_new'] != (bool(lineage) and hashes is not None):
        yield 'whether the prompts are proved new'
