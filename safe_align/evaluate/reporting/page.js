'use strict';
(() => {
  const data = document.getElementById('answers-data');
  const sources = data ? JSON.parse(data.textContent) : [];
  const browser = document.getElementById('browser');
  const PAGE = 10;

  // Elements are made, and data only ever becomes text.
  const make = (name, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children.filter((child) => child !== null));
    return element;
  };

  const select = (label, options) => {
    const inner = make('select', {}, ...options.map(([value, text]) => make('option', { value }, text)));
    return [make('label', {}, label, inner), inner];
  };

  const isSafe = ([, , cost]) => (cost === null ? null : cost <= 0);

  // 'left', 'right', 'tie' or null: by the verdict of a judge where there is one, else by reward.
  const winner = (row, names, left, right) => {
    if (row.v === names[left]) return 'left';
    if (row.v === names[right]) return 'right';
    if (typeof row.v === 'string') return row.v === 'tie' ? 'tie' : null;
    const gap = row.a[left][1] === null || row.a[right][1] === null ? null : row.a[left][1] - row.a[right][1];
    return gap === null ? null : gap > 0 ? 'left' : gap < 0 ? 'right' : 'tie';
  };

  const scores = ([, reward, cost]) =>
    [['reward', reward], ['cost', cost]].filter(([, value]) => value !== null)
      .map(([name, value]) => `${name} ${value.toFixed(2).replace('-', '\u2212')}`).concat(
        cost === null ? [] : [cost <= 0 ? 'judged safe' : 'judged unsafe']).join(', ');

  const side = (name, answer) => {
    const look = { true: 'safe', false: 'unsafe', null: '' }[isSafe(answer)];
    return make('div', { className: `side ${look}` }, make('strong', {}, name), ' ',
      make('small', {}, scores(answer)), make('p', {}, answer[0] || '(an empty answer)'));
  };

  const card = (row, names, titles, left, right) => {
    const who = { left: `${names[left]} wins`, right: `${names[right]} wins`, tie: 'a tie' };
    const told = [who[winner(row, names, left, right)] || '', row.c || ''];
    for (const n of [left, right]) {
      const safe = isSafe(row.a[n]);
      if (safe !== null) told.push(`${names[n]} ${safe ? 'safe' : 'unsafe'}`);
    }
    const short = row.p.length > 110 ? `${row.p.slice(0, 109)}…` : row.p;
    const details = make('details', { className: 'row' },
      make('summary', {}, short || '(an empty prompt)', ' ', make('small', {}, told.filter(Boolean).join(' · '))));
    details.addEventListener('toggle', () => {  // texts are not on the page before they are asked for
      if (!details.open || details.querySelector('.sides')) return;
      if (short !== row.p) details.append(make('p', { className: 'prompt' }, row.p));
      details.append(make('div', { className: 'sides' },
        side(titles[left], row.a[left]), side(titles[right], row.a[right])));
    });
    return details;
  };

  const browse = () => {
    const form = make('form', {});
    const list = make('div', {});
    const count = make('p', { role: 'status' });
    const previous = make('button', { type: 'button' }, 'Previous');
    const next = make('button', { type: 'button' }, 'Next');
    const search = make('input', { type: 'search' });
    const [sourceLabel, source] = select('Comparison', sources.map((one, n) => [n, one.name]));
    let controls = {};
    let page = 0;

    const found = () => {
      const { players, rows } = sources[source.value];
      const left = Number(controls.left.value);
      const right = Number(controls.right.value);
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const [wantLeft, wantRight] = controls.safety.value.split(',').map((one) => ({ safe: true, unsafe: false }[one]));
      return rows.filter((row) => {
        if (wantLeft !== undefined && isSafe(row.a[left]) !== wantLeft) return false;
        if (wantRight !== undefined && isSafe(row.a[right]) !== wantRight) return false;
        if (controls.winner.value && winner(row, players, left, right) !== controls.winner.value) return false;
        if (controls.category && controls.category.value && row.c !== controls.category.value) return false;
        const text = [row.p, row.a[left][0], row.a[right][0]].join('\n').toLowerCase();
        return words.every((word) => text.includes(word));
      });
    };

    const show = () => {
      const { players, titles } = sources[source.value];
      const rows = found();
      page = Math.max(0, Math.min(page, Math.ceil(rows.length / PAGE) - 1));
      const from = page * PAGE;
      const shown = rows.slice(from, from + PAGE);
      list.replaceChildren(...shown.map((row) =>
        card(row, players, titles, Number(controls.left.value), Number(controls.right.value))));
      count.textContent = rows.length ? `${from + 1} to ${from + shown.length} of ${rows.length} rows` : 'No row fits';
      previous.disabled = page === 0;
      next.disabled = from + PAGE >= rows.length;
    };

    const build = () => {
      const { players, rows } = sources[source.value];
      const names = players.map((name, n) => [n, name]);
      const [leftLabel, left] = select('Left', names);
      const [rightLabel, right] = select('Right', names);
      right.value = '1';
      const relabel = () => {
        const [a, b] = [players[left.value], players[right.value]];
        const [safetyLabel, safety] = select('Safety', [['', 'any'], ['safe,safe', 'both safe'],
          ['safe,unsafe', `${a} safe, ${b} unsafe`], ['unsafe,safe', `${a} unsafe, ${b} safe`],
          ['unsafe,unsafe', 'both unsafe'], ['unsafe,', `${a} unsafe`], [',unsafe', `${b} unsafe`]]);
        const [winnerLabel, winner] = select('Winner', [['', 'any'], ['left', a], ['right', b], ['tie', 'a tie']]);
        const kinds = [...new Set(rows.map((row) => row.c).filter(Boolean))].sort();
        const [categoryLabel, category] = select('Category', [['', 'any'], ...kinds.map((kind) => [kind, kind])]);
        controls = { left, right, safety, winner, category: kinds.length ? category : null };
        form.replaceChildren(...(sources.length > 1 ? [sourceLabel] : []),
          ...(players.length > 2 ? [leftLabel, rightLabel] : []), make('label', {}, 'Search', search),
          safetyLabel, winnerLabel, ...(kinds.length ? [categoryLabel] : []));
      };
      relabel();
      for (const one of [left, right]) one.addEventListener('change', () => { relabel(); one.focus(); });
    };

    const again = (event) => {
      if (event.target === source) { build(); source.focus(); }
      page = 0;
      show();
    };
    form.addEventListener('input', again);
    form.addEventListener('submit', (event) => event.preventDefault());
    previous.addEventListener('click', () => { page -= 1; show(); });
    next.addEventListener('click', () => { page += 1; show(); });
    build();
    show();
    browser.replaceChildren(form, count, list, make('div', { className: 'pages' }, previous, next));
  };

  if (sources.length) browse();

  // A page of a run that goes on loads itself again, but not from under a reader who is in the middle of something.
  const seconds = Number(document.currentScript.dataset.renewed);
  if (seconds) {
    setInterval(() => {
      const busy = document.querySelector('details[open]') || document.querySelector('#browser form :focus');
      if (!busy && !document.hidden) location.reload();
    }, 1000 * seconds);
  }
})();
