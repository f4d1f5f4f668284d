"""A certificate checked by anyone: its bytes, costs and arithmetic, the models' content, and that prompts are new."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safe_align.config import UserError
from safe_align.evaluate.certification.audit import labels_of
from safe_align.evaluate.certification.certificate import CERTIFIED, Claim, bound_names, hash_of_set, read
from safe_align.evaluate.certification.constraints import Terms, constraints_of
from safe_align.evaluate.certification.costs import STRATUM, hashes_of, read_costs
from safe_align.evaluate.certification.lineage import check_new, trace
from safe_align.functions import is_function
from safe_align.ownership import parent_of

SLACK = 1e-9  # between machines, of the range of the numbers compared


def run_verification(path: str, policy: list[str] | None, cost_models: list[str] | None) -> int:
    """Say whether a certificate is valid.

    Args:
        path: of `certificate.json`; its costs are beside it.
        policy: where the policy is, in a list, if not where it was.
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
        _check_own_bounds(content)
    except UserError as error:
        raise UserError(f'--verify {path}: {error}') from None
    except (KeyError, TypeError, AttributeError):
        pass  # another form, which is told below
    try:
        differences = [*differ(content, place.parent), *_sequence(content, place.parent)]
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


def _check_own_bounds(content: dict[str, Any]) -> None:
    """Ask for a bound that is a file of somebody's own.

    Raises:
        UserError: it is not here.
    """
    for one in content['constraints']:
        if one['bound_file'] is not None and one['claim']['bound'] not in bound_names():
            raise UserError(
                f'rests on the bound {one["claim"]["bound"]}, which is a file of its own, {one["bound_file"]["name"]}; '
                'give that file with --plugin'
            )


def differ(content: dict[str, Any], directory: Path) -> Iterator[str]:
    """In what a certificate's numbers are not those of the costs beside it."""
    try:
        told = content['costs_file']
        text = (directory / told['name']).read_bytes()
        terms = Terms(**content['terms'])
        by_kind = terms.strata_weights is not None or any(one['stratum'] is not None for one in content['constraints'])
        found = read_costs(directory / told['name'], STRATUM if by_kind else None)
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
    told = content['constraints']
    claims = {one['column']: Claim(**one['claim']) for one in told}
    if claims.keys() != set(range(len(found.costs[0]))):
        yield 'the constraints are others'
        return
    for claim in claims.values():
        claim.check(found.most_samples)
    again = constraints_of(claims, found, terms, *labels_of(told[0]))
    if [(one['column'], one['stratum']) for one in told] != [(one['column'], one['stratum']) for one in again]:
        yield 'the constraints are others'
        return
    for number, (one, other) in enumerate(zip(told, again, strict=True), 1):
        yield from _constraint(one, number, other)
    if content['verdict'] != terms.verdict(told):
        yield 'the verdict is another'


def _constraint(one: dict[str, Any], number: int, again: dict[str, Any]) -> Iterator[str]:
    for key, value in again.items():
        if not _agrees(one[key], value):
            yield f'constraint {number}: {key} is another'
    if one['holds'] != (one['value'] <= one['claim']['threshold']):
        yield f'constraint {number}: the bound and the threshold say otherwise'


def _agrees(told: Any, found: Any) -> bool:
    if isinstance(found, dict):
        return told.keys() == found.keys() and all(_agrees(told[key], found[key]) for key in found)
    if isinstance(found, list):
        return len(told) == len(found) and all(map(_agrees, told, found))
    if isinstance(found, float):
        return math.isclose(told, found, rel_tol=SLACK, abs_tol=SLACK)
    return bool(told == found)


def _sequence(content: dict[str, Any], directory: Path) -> Iterator[str]:
    """In what the policies that were tested before this one do not allow for its test."""
    told = content['sequence']
    for number in range(1, told['number'] if told else 1):
        name = f'certificate-{number}.json'
        try:
            before = read((directory / name).read_bytes())
        except (OSError, UserError) as error:
            yield f'{name}, of a policy before this one, cannot be read: {error}'
            continue
        if before['verdict'] != CERTIFIED or before['sequence'] != {**told, 'number': number}:
            yield f'{name} is not of a policy that was certified before this one'
        yield from (f'{name}: {difference}' for difference in differ(before, directory))


def _models(
    content: dict[str, Any], directory: Path, policy: list[str] | None, cost_models: list[str] | None
) -> Iterator[str]:
    """In what the models are not those that were tested, and whether they have seen the prompts."""
    told = {'model_name_or_path': content['policy']}
    told |= {f'cost_model_name_or_path_{one["column"] + 1}': one['cost_model'] for one in content['constraints']}
    moved = dict(zip(told, [*(policy or ['']), *(cost_models or [])], strict=False))
    places: dict[str, str] = {}
    for option, parent in told.items():
        if parent is None:
            continue
        places[option] = moved.get(option) or parent['path']
        if parent_of(option, places[option])['hash'] != parent['hash']:
            there = is_function(places[option]) or Path(places[option]).expanduser().is_dir()
            where = 'has another content' if there else 'is not there'
            yield f'{places[option]} {where}'
            return
    lineage = trace((f'--{option}', place) for option, place in places.items())
    if [(one['hash'], one['num_prompts']) for one in content['lineage']] != [
        (one.hash, one.entry()['num_prompts']) for one in lineage
    ]:
        yield 'the line of models is another'
    hashes = hashes_of(read_costs(directory / content['costs_file']['name']).names)
    if hashes is not None:
        check_new(lineage, hashes)
    if content['prompts']['proved_new'] != (bool(lineage) and hashes is not None):
        yield 'whether the prompts are proved new'
