"""Games of any two sides are counted in one way."""

from __future__ import annotations

from safe_align.evaluate.gpt4_summary import summarise as by_corner
from safe_align.evaluate.statistics import score_rate
from safe_align.evaluate.tally import Tally, table
from safe_align.evaluate.verdicts import summarise as by_candidate

GAMES = [  # prompt, who won, both answers, category
    ('a', 'one', 'x', ' ', 'odd'), ('a', 'tie', 'xxx', '', 'odd'), ('b', 'two', 'x', 'yyyy', None),
    ('c', 'nobody', 'x', 'y', 'even'), ('d', 'one', 'xx', 'y', 'even'),
]  # fmt: skip


def games(one: str, two: str, nobody: str, answer: str = '{}') -> list[dict]:
    names = {'one': one, 'two': two, 'nobody': nobody, 'tie': 'tie'}
    return [
        {'prompt_id': prompt, 'verdict': names[won], answer.format(one): first, answer.format(two): second,
         'category': kind, 'reason': None, 'red_first': None}
        for prompt, won, first, second, kind in GAMES
    ]  # fmt: skip


def test_both_stages_say_the_same_of_the_same_games():
    mine = by_candidate(games('candidate', 'baseline', 'unscored'))
    theirs = by_corner(games('blue', 'red', 'unscored', '{}_answer'))
    names = {
        'num_comparisons': 'num_pairs', 'wins': 'blue_wins', 'losses': 'red_wins', 'win_rate': 'blue_win_rate',
        'candidate_characters': 'blue_characters', 'baseline_empty': 'red_empty',
    }  # fmt: skip
    same = ('num_prompts', 'ties', 'unscored', 'p_value', 'length_controlled')
    for name, other in {**names, **dict.fromkeys(same)}.items():
        assert mine[name] == theirs[other or name], name
    assert mine['win_rate'] == {**score_rate([0.75, 0, 1]).told(), 'n': 3}
    assert (mine['num_prompts'], mine['baseline_empty'], mine['p_value']) == (4, 2, 1.0)
    assert mine['candidate_characters']['value'] == (2 + 1 + 1 + 2) / 4
    assert [one['category'] for one in mine['categories']] == ['even', 'odd']


def test_a_table_has_a_line_for_all_and_for_each_kind():
    tally = Tally(games('one', 'two', 'nobody'), 'one', 'two')
    told = {name: {'rate': one.win_rate(), 'p': one.p_value(), 'won': one.count['one']}
            for name, one in {'all': tally, **tally.categories()}.items()}  # fmt: skip
    kinds = [{'category': name, **told[name]} for name in ('even', 'odd')]
    lines = table({**told['all'], 'categories': kinds}, 'rate', {'won': 'wins', 'rate': 'win rate', 'p': 'p'})
    assert lines[0].split() == ['n', 'wins', 'win', 'rate', 'p']
    assert lines[1].split() == ['all', '3', '2', *str(score_rate([0.75, 0, 1])).split(), '1']
    assert [line.split() for line in lines[2:]] == [['even', '1', '1', '1.000', *str(score_rate([1])).split()[1:], '1'],
                                                    ['odd', '1', '1', '0.750', '1']]  # fmt: skip
