"""A judge as a process of its own, which counts what it was asked and what it has answered.

It prints its URL; for each line that comes in, a line with its counts; it ends with its input.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / 'tests'))

from servers import Asked, Reply, Scripted, chat

VERDICTS = ('[[A]]', '[[B]]', '[[C]]', 'I cannot say.')
SLOWEST = 0.15  # seconds that an answer takes at most


def judge(asked: Asked, _: int) -> Reply:
    """The same verdict on the same question whenever it is asked, after a while that depends on the question too."""
    digest = hashlib.blake2b(asked.text.encode(), digest_size=8).digest()
    reply = chat(f'Because. {VERDICTS[digest[0] % len(VERDICTS)]}')
    return Reply(reply.body, delay=SLOWEST * digest[1] / 255)


def main() -> None:
    """Serve."""
    with Scripted(judge) as server:
        print(server.url, flush=True)
        for _ in sys.stdin:
            with server.lock:
                begun, delivered = (Counter(one.text for one in some) for some in (server.asked, server.delivered))
            counts = {
                'begun': begun.total(), 'begun_twice': begun.total() - len(begun), 'delivered': delivered.total(),
                'paid_twice': delivered.total() - len(delivered),
            }  # fmt: skip
            print(json.dumps(counts), flush=True)


if __name__ == '__main__':
    main()
