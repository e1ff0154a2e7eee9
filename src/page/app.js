// The task board page. It uses nothing but `fetch` and `EventSource`, as any page could.
//
// The road of a change: a gesture becomes a `change` that is laid over the board at once and sent
// to the gateway; the gateway answers with the position of the event it caused; when the stream
// has told that position, the change is dropped, because the truth contains it. What others do
// comes by the same stream. So there are three things, and only one of them is drawn:
//
//   truth    the board exactly as the stream told it, at `truth.position`
//   changes  own changes that the stream has not told yet, and the place a dragged card hovers over
//   view     truth with the changes laid over it; drawn at most once per animation frame

const BOARD_ID = new URLSearchParams(location.search).get('board') || 'board-1';
const BOARD_PATH = `/boards/${encodeURIComponent(BOARD_ID)}`;

/** Cards drawn of a long list: its beginning, and its end, where new tasks arrive. */
const HEAD_CARDS_MAX = 150;
const TAIL_CARDS_MAX = 50;
const MORE_CARDS = 200;
/** More changes than this in one frame are a flood: moving cards would only blur. */
const ANIMATED_CHANGES_MAX = 20;
const ACTIVITY_ENTRIES_MAX = 50;
const WATCHING_POLL_MILLISECONDS = 5_000;
const WRITE_TIMEOUT_MILLISECONDS = 10_000;
/** How often a write without an answer is sent in all, and a move that others were faster than. */
const WRITE_TRIES_MAX = 4;
const WRITE_AGAIN_MILLISECONDS = 700;
const CATCH_UP_MILLISECONDS = 3_000;
const TOAST_MILLISECONDS = 6_000;
/** A finger that rests this long wants to drag; one that moves earlier wants to scroll. */
const LONG_PRESS_MILLISECONDS = 320;
const MOUSE_SLOP_PIXELS = 5;
const TOUCH_SLOP_PIXELS = 10;

const element = (id) => document.getElementById(id);
const boardElement = element('board');
const reducedMotion = matchMedia('(prefers-reduced-motion: reduce)');

// ---- Truth: the board as the stream told it -------------------------------------------------

/** `{ name, position, lists: Map(id → { id, title, tasks }), tasks: Map(id → task) }`; null until
    the first snapshot. Invariant: a task is in exactly the list it names. */
let truth = null;

function readPosition(id) {
  const [seq, epoch = ''] = id.split('-');
  return { seq: Number(seq), epoch };
}

function truthFromSnapshot(snapshot, position) {
  const lists = new Map(snapshot.lists.map(({ id, title, tasks }) => [id, { id, title, tasks }]));
  const tasks = new Map(snapshot.lists.flatMap((list) => list.tasks.map((task) => [task.id, task])));
  return { name: snapshot.name, position, lists, tasks };
}

function takeTask(id) {
  const task = truth.tasks.get(id);
  if (!task) return;
  const { tasks } = truth.lists.get(task.listId);
  tasks.splice(tasks.lastIndexOf(task), 1);
  truth.tasks.delete(id);
}

/** `index` is the task's place at the moment of its event; the tasks below it make room. */
function placeTask(task) {
  takeTask(task.id);
  const list = truth.lists.get(task.listId);
  if (!list) return;
  list.tasks.splice(task.index, 0, task);
  truth.tasks.set(task.id, task);
}

/** What each event does to the truth; the answer is the line for the activity log. */
const entries = {
  task_created({ task }) {
    placeTask(task);
    return `Added “${task.title}” to ${listTitle(task.listId)}`;
  },
  task_updated({ task }) {
    const known = truth.tasks.get(task.id);
    const before = known?.title;
    if (known) Object.assign(known, { title: task.title, updatedAt: task.updatedAt });
    return `Renamed “${before ?? task.id}” to “${task.title}”`;
  },
  task_moved({ task, fromListId }) {
    placeTask(task);
    return fromListId === task.listId
      ? `Moved “${task.title}” within ${listTitle(task.listId)}`
      : `Moved “${task.title}” from ${listTitle(fromListId)} to ${listTitle(task.listId)}`;
  },
  task_deleted({ taskId }) {
    const title = truth.tasks.get(taskId)?.title ?? taskId;
    takeTask(taskId);
    return `Deleted “${title}”`;
  },
  list_created({ list }) {
    if (!truth.lists.has(list.id)) truth.lists.set(list.id, { id: list.id, title: list.title, tasks: [] });
    return `Added the list ${list.title}`;
  },
};

const listTitle = (id) => truth?.lists.get(id)?.title ?? id;

// ---- Stream: where the truth comes from -----------------------------------------------------

const stateWords = {
  connecting: 'Connecting', live: 'Live', reconnecting: 'Reconnecting',
  'catching-up': 'Catching up', stopped: 'Stopped',
};

let source = null;
/** From `pagehide` to `pageshow` there is no stream: in the back/forward cache it would go on unread,
    and hold one of the six connections that HTTP/1.1 has for all pages of this origin. */
let away = false;
let reopening = 0;
let state = 'connecting';
let node = '';
let lastEventId = '';

function openStream() {
  clearTimeout(reopening);
  source?.close();
  if (away) return;
  // The greeting by its name: nobody else can publish an event that is called so, while an unnamed one
  // that looks like it comes from whoever may publish. All named events that the page hears are the
  // gateway's own; of the unnamed ones only the id counts.
  const query = new URLSearchParams({ snapshot: 'true', connected: 'event' });
  // Only what is in the truth can be continued; a page without it wants a snapshot anyway.
  if (truth) query.set('lastEventId', lastEventId);
  source = new EventSource(`${BOARD_PATH}/events?${query}`);
  source.onmessage = (event) => told(event.lastEventId);
  source.onerror = interrupted;
  source.addEventListener('connected', greeted);
  source.addEventListener('snapshot', snapshotCame);
  source.addEventListener('reset', resetCame);
  for (const type of Object.keys(entries)) source.addEventListener(type, entryCame);
}

function greeted(event) {
  node = JSON.parse(event.data).node;
  log(`Connected to ${node}`, 'of-stream');
  // A resumed stream goes on with what was missed and sends no snapshot; a fresh one does.
  setState(truth ? 'live' : 'catching-up');
  pollWatching();
}

function snapshotCame(event) {
  const position = readPosition(event.lastEventId);
  truth = truthFromSnapshot(JSON.parse(event.data), position);
  // Whatever was answered before is in the snapshot, or was lost with the log that knew it.
  changes = changes.filter(({ told: at }) => !at || (at.epoch === position.epoch && at.seq > position.seq));
  told(event.lastEventId);
  const count = truth.tasks.size;
  log(`The board as of ${event.lastEventId}: ${count} ${count === 1 ? 'task' : 'tasks'}`, 'of-stream');
  setState('live');
  showMessage('');
  changedInFrame = Infinity; // everything is new, so nothing moves
}

function resetCame(event) {
  const { reason } = JSON.parse(event.data);
  const reasons = {
    trimmed: 'what this page missed is no longer kept',
    lost: 'the log this page followed is gone',
    unreadable: 'the last event id could not be read',
  };
  log(`Reset: ${reasons[reason] ?? reason}. A snapshot follows.`, 'of-stream');
  setState('catching-up');
}

function entryCame(event) {
  if (!truth) return;
  const data = JSON.parse(event.data);
  const position = readPosition(event.lastEventId);
  if (position.epoch === truth.position.epoch && position.seq <= truth.position.seq) return;
  const taskId = data.taskId ?? data.task?.id;
  const own = changes.some((change) => change.taskId === taskId);
  log(entries[event.type](data));
  truth.position = position;
  told(event.lastEventId);
  changedInFrame += 1;
  if (!own && changedInFrame <= ANIMATED_CHANGES_MAX) fresh.add(taskId);
}

function told(id) {
  lastEventId = id;
  drawSoon();
}

/** A browser comes back by itself, except after a status that is not 200; then we look why. It says so
    with an event that carries no message: one that does was published, before types like its own
    were the gateway's. */
function interrupted(event) {
  if (event instanceof MessageEvent) return told(event.lastEventId);
  if (state === 'live' || state === 'catching-up') log('The connection was lost', 'of-stream');
  setState(truth ? 'reconnecting' : 'connecting');
  if (source.readyState === EventSource.CLOSED) lookWhyAndReopen();
}

async function lookWhyAndReopen() {
  const gone = await fetch(BOARD_PATH).then(
    (response) => (response.body?.cancel(), response.status === 404),
    () => false,
  );
  // Spread, so that many pages do not come back in the same moment.
  if (!gone) return (reopening = setTimeout(openStream, 1_000 + Math.random() * 3_000));
  truth = null;
  setState('stopped');
  log(`There is no board ${BOARD_ID}`, 'of-stream');
  showMessage(`There is no board “${BOARD_ID}”. `, { text: 'Go to the first board', href: '/' });
}

function pageLeft() {
  away = true;
  source.close();
}

/** Back out of the cache, with everything as it was: the stream goes on after the last id. */
function pageShown({ persisted }) {
  if (!persisted || state === 'stopped') return;
  away = false;
  setState(truth ? 'reconnecting' : 'connecting');
  openStream();
}

function setState(next) {
  if (state !== next) {
    // Said aloud only when something is wrong or is well again, not on the way there.
    if (next === 'reconnecting' || next === 'stopped') announce(stateWords[next]);
    if (next === 'live' && state !== 'connecting') announce('Live');
  }
  state = next;
  drawSoon();
}

// ---- Changes: what this page did and the stream has not told yet ----------------------------

/** `{ kind, taskId, …, told }`; `told` is the position of its event, once the gateway answered. */
let changes = [];
/** When this page last changed a card: task id → `updatedAt` of the answer. */
const ownUpdates = new Map();
/** Own writes go out one after the other, so that they arrive in the order they were made. */
let lastWrite = Promise.resolve();

/** Sends a write; the answer's thing and the position of its event, or an error in plain words. */
const write = (method, path, body) => inOrder(() => send(method, path, body));

function inOrder(sending) {
  const sent = lastWrite.then(sending);
  lastWrite = sent.catch(() => {});
  return sent;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Not secret, only unique. */
const newKey = () => `${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;

/** Without an answer the same request goes out again, which its key makes safe. A board that is
    made takes no key; its id does the same. */
async function send(method, path, body, headers = {}) {
  if (body) headers = { ...headers, 'Content-Type': 'application/json' };
  const repeatable = method !== 'DELETE' && path !== '/boards';
  if (repeatable) headers['Idempotency-Key'] = newKey();
  for (let tries = 1; ; tries += 1) {
    const signal = AbortSignal.timeout(WRITE_TIMEOUT_MILLISECONDS);
    const response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) }).catch(() => null);
    if ((!response || response.status === 503) && repeatable && tries < WRITE_TRIES_MAX) {
      response?.body?.cancel();
      await pause(WRITE_AGAIN_MILLISECONDS * tries * (0.5 + Math.random()));
      continue;
    }
    if (!response) throw new Error('The gateway did not answer: the change may not have been saved.');
    const answer = await response.json().catch(() => null); // a deletion answers without a body
    const position = readPosition(response.headers.get('Last-Event-ID') ?? '0');
    if (response.ok) return { answer, position };
    const { title = `Status ${response.status}`, detail } = answer ?? {};
    throw Object.assign(new Error(detail ? `${title}: ${detail}.` : `${title}.`), { status: response.status, position });
  }
}

/** Moves a card unless somebody else changed it since it looked as in `seen`. The gateway refuses if
    anything on the board changed; if it was not this card, the move goes out again on top of that. */
async function sendMove(taskId, place, seen) {
  for (let tries = 1; tries <= WRITE_TRIES_MAX; tries += 1) {
    const task = truth?.tasks.get(taskId);
    // A card that this page made or changed may be ahead of the stream.
    if (task && task.updatedAt !== seen && task.updatedAt !== ownUpdates.get(taskId)) {
      throw new Error(`Somebody else changed “${task.title}” meanwhile: it stays in ${listTitle(task.listId)}.`);
    }
    try {
      const result = await send('PATCH', `${taskPath(taskId)}/move`, place, { 'If-Match': `"${lastEventId}"` });
      ownUpdates.set(taskId, result.answer.updatedAt);
      return result;
    } catch (error) {
      if (error.status !== 412) throw error;
      await caughtUp(error.position);
    }
  }
  throw new Error('The board changes too fast: try again.');
}

/** Until the stream has told what others did, or for so long. */
async function caughtUp({ seq }) {
  const until = Date.now() + CATCH_UP_MILLISECONDS;
  while (Date.now() < until && !(truth?.position.seq >= seq)) await pause(20);
}

/** Shows a change at once and sends it; takes it back if it is refused. */
async function makeChange(change, sending) {
  changes.push(change);
  drawSoon();
  try {
    change.told = (await inOrder(sending)).position;
    return true;
  } catch (error) {
    changes = changes.filter((other) => other !== change);
    tellError(error);
    return false;
  } finally {
    drawSoon();
  }
}

async function createTask(listId, title) {
  const { answer, position } = await write('POST', '/tasks', { title, listId });
  // Usually the stream was faster. If it is away, the card must not wait for it.
  ownUpdates.set(answer.id, answer.updatedAt);
  changes.push({ kind: 'create', taskId: answer.id, task: answer, told: position });
  drawSoon();
  return answer;
}

const taskPath = (taskId) => `/tasks/${encodeURIComponent(taskId)}`;

const updatedAt = (taskId) => truth?.tasks.get(taskId)?.updatedAt;

/** `seen` is the `updatedAt` of the card as it was when the move began. */
function moveTask(taskId, listId, index, seen = updatedAt(taskId)) {
  return makeChange({ kind: 'move', taskId, listId, index }, () => sendMove(taskId, { listId, index }, seen));
}

function renameTask(taskId, title) {
  return makeChange({ kind: 'rename', taskId, title }, async () => {
    const result = await send('PATCH', taskPath(taskId), { title });
    ownUpdates.set(taskId, result.answer.updatedAt);
    return result;
  });
}

async function deleteTask(taskId) {
  const at = locate(currentView(), taskId);
  if (!at) return;
  const { title } = at.task;
  announce(`Deleted “${title}”`);
  if (!(await makeChange({ kind: 'delete', taskId }, () => send('DELETE', taskPath(taskId))))) return;
  toast(`Deleted “${title}”`, {
    action: 'Undo',
    onAction: () => createTask(at.listId, title).then(
      (task) => at.index < task.index && moveTask(task.id, at.listId, at.index),
      tellError,
    ),
  });
}

/** What is to be seen: list id → tasks in order. */
function currentView() {
  const view = new Map();
  if (!truth) return view;
  const position = truth.position;
  changes = changes.filter(({ told: at }) => !at || at.seq > position.seq);
  const laid = drag ? [...changes, drag.change] : changes;
  for (const { id, tasks } of truth.lists.values()) view.set(id, laid.length ? tasks.slice() : tasks);
  for (const change of laid) layOver(view, change);
  return view;
}

function layOver(view, change) {
  const at = locate(view, change.taskId);
  if (change.kind === 'create') {
    if (!at) view.get(change.task.listId)?.push(change.task);
    return;
  }
  if (!at) return; // somebody deleted it meanwhile
  const from = view.get(at.listId);
  if (change.kind === 'rename') {
    from[at.index] = { ...at.task, title: change.title };
  } else if (change.kind === 'delete') {
    from.splice(at.index, 1);
  } else if (view.has(change.listId)) {
    from.splice(at.index, 1);
    view.get(change.listId).splice(change.index, 0, at.task);
  }
}

function locate(view, taskId) {
  for (const [listId, tasks] of view) {
    const index = tasks.findIndex((task) => task.id === taskId);
    if (index >= 0) return { listId, index, task: tasks[index] };
  }
  return null;
}

// ---- Drawing: the view becomes cards, at most once per frame --------------------------------

/** List id → its elements, how many cards of its beginning are drawn, and the card that Tab reaches. */
const columns = new Map();
/** Task id → card. A card stays the same element wherever its task goes. */
const cards = new Map();
/** Tasks that somebody else changed since the last frame. */
const fresh = new Set();
let changedInFrame = 0;
let frameDue = 0;
/** True while elements change places, which takes the focus away without anybody wanting it. */
let drawing = false;
let revealAfterDraw = null;

function drawSoon() {
  frameDue ||= requestAnimationFrame(draw);
}

function draw() {
  frameDue = 0;
  drawStatus();
  drawActivity();
  const view = currentView();
  if (drag && !locate(view, drag.change.taskId)) endDrag(false);
  const animated = changedInFrame <= ANIMATED_CHANGES_MAX && !reducedMotion.matches;
  const before = animated ? measureCards() : null;
  const focus = rememberFocus();
  drawing = true;
  drawColumns(view);
  restoreFocus(focus);
  drawing = false;
  reveal();
  if (before) animateCards(before);
  for (const id of fresh) highlight(cards.get(id));
  fresh.clear();
  changedInFrame = 0;
}

function drawColumns(view) {
  for (const [listId, column] of columns) {
    if (!view.has(listId) || column.title !== listTitle(listId)) {
      column.root.remove();
      columns.delete(listId);
    }
  }
  const kept = keptTaskIds();
  const wantedIds = new Set();
  const wanted = new Map();
  for (const [listId, tasks] of view) {
    const column = columns.get(listId) ?? makeColumn(listId);
    wanted.set(column, elementsOf(column, tasks, kept, wantedIds));
  }
  for (const [taskId, card] of cards) {
    if (wantedIds.has(taskId)) continue;
    card.remove();
    cards.delete(taskId);
  }
  for (const [column, elements] of wanted) {
    arrange(column.tasks, elements);
    chooseTabStop(column, elements);
  }
  element('add-list').hidden = !truth;
  setText(element('board-name'), truth?.name ?? 'Task board');
  document.title = truth ? `${truth.name} · Fantail` : 'Fantail';
}

function makeColumn(listId) {
  const root = element('list-template').content.firstElementChild.cloneNode(true);
  const [heading, tasks, form] = ['h2', '.tasks', 'form'].map((part) => root.querySelector(part));
  root.dataset.listId = listId;
  heading.textContent = listTitle(listId);
  root.setAttribute('aria-label', listTitle(listId));
  tasks.setAttribute('aria-label', `Tasks in ${listTitle(listId)}`);
  form.elements.title.setAttribute('aria-label', `Add a task to ${listTitle(listId)}`);
  form.addEventListener('submit', (event) => submitTitle(event, (title) => addTask(listId, title)));
  const more = element('more-template').content.firstElementChild.cloneNode(true);
  const column = { root, tasks, more, title: listTitle(listId), headMax: HEAD_CARDS_MAX, tabStop: null };
  more.firstElementChild.addEventListener('click', () => {
    column.headMax += MORE_CARDS;
    drawSoon();
  });
  columns.set(listId, column);
  boardElement.insertBefore(root, element('add-list'));
  return column;
}

/** What somebody holds or edits stays in sight, wherever a flood of others carries it. */
function keptTaskIds() {
  const focused = document.activeElement?.closest('.card')?.dataset.taskId;
  return [focused, drag?.change.taskId, editing?.taskId, revealAfterDraw].filter(Boolean);
}

/** Cards for the beginning and the end of a list, and between them a row for the rest. */
function elementsOf(column, tasks, kept, wantedIds) {
  setText(column.root.querySelector('.count'), tasks.length.toLocaleString('en'));
  column.root.querySelector('.empty').hidden = tasks.length > 0;
  const tailStart = Math.max(column.headMax, tasks.length - TAIL_CARDS_MAX);
  const middle = tasks.slice(column.headMax, tailStart);
  const shown = middle.filter((task) => kept.includes(task.id));
  const elements = tasks.slice(0, column.headMax).map(cardOf);
  const hidden = middle.length - shown.length;
  if (hidden > 0) {
    const some = `Show ${Math.min(hidden, MORE_CARDS)} more`;
    setText(column.more.firstElementChild, hidden > MORE_CARDS ? `${some} of ${hidden.toLocaleString('en')}` : some);
    elements.push(column.more);
  } else {
    column.more.remove();
  }
  elements.push(...shown.map(cardOf), ...tasks.slice(tailStart).map(cardOf));
  for (const { dataset } of elements) if (dataset.taskId) wantedIds.add(dataset.taskId);
  return elements;
}

function cardOf(task) {
  let card = cards.get(task.id);
  if (!card) {
    card = element('card-template').content.firstElementChild.cloneNode(true);
    card.dataset.taskId = task.id;
    cards.set(task.id, card);
  }
  const title = card.firstElementChild;
  if (title.textContent !== task.title) {
    title.textContent = task.title;
    card.querySelector('[data-do=rename]').setAttribute('aria-label', `Rename ${task.title}`);
    card.querySelector('[data-do=delete]').setAttribute('aria-label', `Delete ${task.title}`);
  }
  return card;
}

/** Brings `wanted` into order with few moves: what moves loses focus and running animations. */
function arrange(parent, wanted) {
  let next = parent.firstElementChild;
  const members = new Set(wanted);
  for (const child of wanted) {
    // What belongs to another list now leaves when that list is arranged; step over it.
    while (next && !members.has(next)) next = next.nextElementSibling;
    if (child === next) {
      next = next.nextElementSibling;
    } else if (next && next.nextElementSibling === child) {
      // One card went down: take it out here, instead of lifting all those that follow it.
      next.remove();
      next = child.nextElementSibling;
    } else {
      parent.insertBefore(child, next);
    }
  }
}

/** Tab reaches one card of each list, arrow keys the others: a board is not 600 tab stops. */
function chooseTabStop(column, elements) {
  if (!elements.some((card) => card.dataset.taskId === column.tabStop)) {
    column.tabStop = elements[0]?.dataset.taskId ?? null;
  }
  for (const card of elements) {
    const tabIndex = card.dataset.taskId === column.tabStop ? 0 : -1;
    if (card.dataset.taskId && card.tabIndex !== tabIndex) card.tabIndex = tabIndex;
  }
}

function rememberFocus() {
  const focused = document.activeElement;
  const item = focused?.closest('.card, .more');
  if (!item) return null;
  const { listId } = item.closest('.list').dataset;
  return { focused, item, listId, index: [...item.parentElement.children].indexOf(item) };
}

/** The focus stays on its card, or on the row that shows more. If that is gone, what is there now gets
    it; if nothing is, the place to add a task. */
function restoreFocus(focus) {
  if (!focus) return;
  const { focused, item, listId, index } = focus;
  if (focused.isConnected) {
    if (document.activeElement !== focused) focused.focus({ preventScroll: true });
    return;
  }
  if (editing?.card === item) {
    editing = null;
    toast('Somebody deleted the task meanwhile.');
  }
  const column = columns.get(listId);
  const rest = column?.tasks.children ?? [];
  const there = rest[Math.min(index, rest.length - 1)];
  const neighbour = there?.matches('.more') ? there.firstElementChild : there;
  // A finger that deletes does not want the keyboard on the screen.
  const emptied = used === 'touch' ? column?.tasks : column?.root.querySelector('.add input');
  (neighbour ?? emptied ?? element('add-list').elements.title).focus({ preventScroll: true });
}

function reveal() {
  cards.get(revealAfterDraw)?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  revealAfterDraw = null;
}

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function showMessage(text, link) {
  const message = element('message');
  message.hidden = !text;
  message.textContent = text;
  if (link) message.append(Object.assign(document.createElement('a'), { textContent: link.text, href: link.href }));
}

// ---- Motion: cards glide from where they were to where they are (first, last, invert, play) -

const GLIDE = { duration: 220, easing: 'cubic-bezier(0.2, 0.8, 0.2, 1)' };

function measureCards() {
  const before = new Map();
  for (const [id, card] of cards) {
    before.set(id, { rect: card.getBoundingClientRect(), tasks: card.parentElement });
    card.glide?.cancel(); // after measuring: it goes on from where it is to be seen now
  }
  return before;
}

function animateCards(before) {
  if (before.size === 0) return; // the first picture
  const clips = new Map([...columns.values()].map(({ tasks }) => [tasks, tasks.getBoundingClientRect()]));
  const inSight = (rect, tasks) => rect.bottom > clips.get(tasks)?.top && rect.top < clips.get(tasks)?.bottom;
  // All are measured before any is animated, or the browser would lay out the page for each.
  const glides = [];
  for (const [id, card] of cards) {
    if (card.classList.contains('is-drop-place')) continue; // it lands with what was dragged
    const rect = card.getBoundingClientRect();
    const tasks = card.parentElement;
    const was = before.get(id) ?? { rect, tasks };
    const moved = was.rect.left !== rect.left || was.rect.top !== rect.top;
    const seen = inSight(rect, tasks) && inSight(was.rect, was.tasks);
    if (seen && (moved || !before.has(id))) glides.push({ card, was, rect, moved });
  }
  for (const { card, was, rect, moved } of glides) {
    if (!moved) {
      card.glide = card.animate([{ opacity: 0, transform: 'translateY(6px)' }, {}], GLIDE);
    } else if (was.tasks === card.parentElement) {
      const shift = `translate(${was.rect.left - rect.left}px, ${was.rect.top - rect.top}px)`;
      card.glide = card.animate([{ transform: shift }, {}], GLIDE);
    } else {
      flyAcross(card, was.rect, rect);
    }
  }
}

/** A list cuts off what leaves it, so between lists a copy flies and the card waits unseen. */
function flyAcross(card, from, to) {
  const ghost = makeGhost(card, to);
  card.glide = card.animate([{ opacity: 0 }, { opacity: 0 }], GLIDE);
  const at = ({ left, top }) => ({ transform: `translate(${left}px, ${top}px)` });
  ghost.animate([at(from), at(to)], GLIDE).onfinish = () => ghost.remove();
  card.glide.oncancel = () => ghost.remove();
}

function makeGhost(card, { width, height, left, top }) {
  const ghost = card.cloneNode(true);
  ghost.classList.remove('is-fresh', 'is-drop-place');
  ghost.classList.add('ghost');
  ghost.removeAttribute('data-task-id'); // there is one card per task, whoever looks
  ghost.inert = true;
  Object.assign(ghost.style, { width: `${width}px`, height: `${height}px`, transform: `translate(${left}px, ${top}px)` });
  document.body.append(ghost);
  return ghost;
}

function highlight(card) {
  if (!card || card.classList.contains('is-fresh')) return;
  card.classList.add('is-fresh');
  card.addEventListener('animationend', () => card.classList.remove('is-fresh'), { once: true });
}

// ---- Dragging: one road for mouse, pen and finger -------------------------------------------

/** A pointer is down on a card and has not said yet whether it drags. */
let press = null;
/** A card follows the pointer; `change` is the move that a drop would make, laid over the view. */
let drag = null;

function pressed(event) {
  const card = event.target.closest('.card');
  if (!card || event.button !== 0 || !event.isPrimary || drag) return;
  if (event.target.closest('button, .is-edited')) return;
  const { pointerId, pointerType, clientX: x, clientY: y } = event;
  press = { card, pointerId, x, y, touch: pointerType !== 'mouse' };
  if (press.touch) press.timer = setTimeout(startDrag, LONG_PRESS_MILLISECONDS);
}

function pointerMoved(event) {
  if (drag?.pointerId === event.pointerId) {
    Object.assign(drag, { x: event.clientX, y: event.clientY });
  } else if (press?.pointerId === event.pointerId) {
    const distance = Math.hypot(event.clientX - press.x, event.clientY - press.y);
    if (press.touch && distance > TOUCH_SLOP_PIXELS) release();
    if (press && !press.touch && distance > MOUSE_SLOP_PIXELS) {
      startDrag();
      Object.assign(drag ?? {}, { x: event.clientX, y: event.clientY });
    }
  }
}

function pointerGone(event) {
  release();
  if (drag?.pointerId === event.pointerId) endDrag(event.type === 'pointerup');
}

function release() {
  clearTimeout(press?.timer);
  press = null;
}

function startDrag() {
  const { card, pointerId, x, y, touch } = press;
  release();
  const taskId = card.dataset.taskId;
  const at = locate(currentView(), taskId);
  if (!at || !card.isConnected) return;
  const rect = card.getBoundingClientRect();
  drag = {
    pointerId, card, x, y,
    grip: { x: x - rect.left, y: y - rect.top },
    origin: at,
    seen: updatedAt(taskId),
    change: { kind: 'move', taskId, listId: at.listId, index: at.index },
    ghost: makeGhost(card, rect),
  };
  drag.ghost.classList.add('is-lifted');
  card.classList.add('is-drop-place');
  boardElement.classList.add('is-dragging');
  // All that follows comes to the board, even if the card changes places beneath the pointer.
  boardElement.setPointerCapture(pointerId);
  if (touch) navigator.vibrate?.(12);
  requestAnimationFrame(dragFrame);
}

function dragFrame() {
  if (!drag) return;
  const { x, y, grip, ghost, change } = drag;
  ghost.style.transform = `translate(${x - grip.x}px, ${y - grip.y}px)`;
  const column = columnNear(x);
  scrollAtEdges(column, x, y);
  const place = dropPlace(column, y);
  if (place.listId !== change.listId || place.index !== change.index) {
    Object.assign(change, place);
    drawSoon();
  }
  requestAnimationFrame(dragFrame);
}

function columnNear(x) {
  const distance = ({ root }) => {
    const { left, right } = root.getBoundingClientRect();
    return Math.max(left - x, x - right, 0);
  };
  return [...columns.values()].reduce((best, column) => (distance(column) < distance(best) ? column : best));
}

/** Below the last card whose middle is above the pointer. Measured by layout, not by what is to be
    seen: cards that glide out of the way must not be met half-way. */
function dropPlace({ root, tasks: list }, y) {
  const top = list.getBoundingClientRect().top - list.scrollTop;
  let above = null;
  for (const card of list.querySelectorAll('.card')) {
    if (card === drag.card) continue;
    if (top + card.offsetTop + card.offsetHeight / 2 > y) break;
    above = card.dataset.taskId;
  }
  const { listId } = root.dataset;
  const others = currentView().get(listId).filter((task) => task.id !== drag.change.taskId);
  return { listId, index: above ? others.findIndex((task) => task.id === above) + 1 : 0 };
}

function scrollAtEdges({ tasks }, x, y) {
  const edge = 56;
  const speed = (at, start, end) => (at < start + edge ? at - start - edge : at > end - edge ? at - end + edge : 0) / 5;
  const list = tasks.getBoundingClientRect();
  const board = boardElement.getBoundingClientRect();
  tasks.scrollTop += Math.max(-14, Math.min(14, speed(y, list.top, list.bottom)));
  boardElement.scrollLeft += Math.max(-14, Math.min(14, speed(x, board.left, board.right)));
}

function endDrag(drop) {
  const { card, ghost, origin, seen, change, pointerId } = drag;
  drag = null;
  if (boardElement.hasPointerCapture(pointerId)) boardElement.releasePointerCapture(pointerId);
  boardElement.classList.remove('is-dragging');
  if (drop && (change.listId !== origin.listId || change.index !== origin.index)) {
    moveTask(change.taskId, change.listId, change.index, seen);
    announceMove(change.taskId);
  }
  drawSoon();
  const land = () => {
    ghost.remove();
    card.classList.remove('is-drop-place');
  };
  card.focus({ preventScroll: true });
  revealAfterDraw = change.taskId;
  if (!card.isConnected || reducedMotion.matches) return land();
  // After the drawing above, which puts a cancelled card back to its place.
  requestAnimationFrame(() => {
    const { left, top } = card.getBoundingClientRect();
    const flight = ghost.animate({ transform: `translate(${left}px, ${top}px)` }, { ...GLIDE, duration: 160 });
    flight.onfinish = flight.oncancel = land;
  });
}

// ---- Keys, forms and inline editing ---------------------------------------------------------

/** What was used last: `keys`, `mouse` or `touch`; the help is about that. Until anything was, what
    the device seems to have: many have both. */
let used;

function use(what) {
  used = what;
  document.documentElement.dataset.used = what;
}

/** Keys on the screen type into fields, too; those that do not are real ones. */
function noticeKey({ key, target }) {
  if (key === 'Tab' || !target.closest?.('input, textarea, select')) use('keys');
}

/** The title that is being edited: `{ taskId, card, field }`. */
let editing = null;

function keyPressed(event) {
  const card = event.target;
  if (!card.classList?.contains('card')) return;
  const taskId = card.dataset.taskId;
  const step = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
  if (step && !event.shiftKey && !event.metaKey) {
    (event.altKey || event.ctrlKey ? moveByKey : focusByKey)(taskId, ...step);
  } else if (event.altKey || event.ctrlKey || event.metaKey) {
    return;
  } else if (event.key === 'Enter' || event.key === 'F2') {
    startEditing(card);
  } else if (event.key === 'Delete' || event.key === 'Backspace') {
    deleteTask(taskId);
  } else {
    return;
  }
  event.preventDefault();
}

function moveByKey(taskId, across, down) {
  const view = currentView();
  const at = locate(view, taskId);
  if (!at) return; // gone since the last frame
  const listIds = [...view.keys()];
  const listId = listIds[listIds.indexOf(at.listId) + across];
  const last = across ? view.get(listId)?.length : view.get(at.listId).length - 1;
  const index = across ? Math.min(at.index, last) : at.index + down;
  if (!listId || index < 0 || index > last) return announce('It cannot go further that way');
  revealAfterDraw = taskId;
  moveTask(taskId, listId, index);
  announceMove(taskId);
}

function focusByKey(taskId, across, down) {
  const order = [...columns.values()];
  const from = order.findIndex(({ tasks }) => tasks.contains(cards.get(taskId)));
  const index = [...order[from].tasks.querySelectorAll('.card')].indexOf(cards.get(taskId));
  // Sideways, an empty list is stepped over: there is no card to stand on.
  for (let to = from + across; order[to]; to += across) {
    const there = order[to].tasks.querySelectorAll('.card');
    const card = there[across ? Math.min(index, there.length - 1) : index + down];
    card?.focus();
    if (card || !across) return;
  }
}

function announceMove(taskId) {
  const view = currentView();
  const at = locate(view, taskId);
  if (at) announce(`“${at.task.title}” is in ${listTitle(at.listId)}, ${at.index + 1} of ${view.get(at.listId).length}`);
}

function startEditing(card) {
  if (editing) endEditing(true);
  const taskId = card.dataset.taskId;
  const field = document.createElement('textarea');
  field.value = card.querySelector('.title').textContent;
  field.rows = 1;
  field.maxLength = 1000;
  field.setAttribute('aria-label', `New title of ${field.value}`);
  editing = { taskId, card, field, before: field.value };
  card.classList.add('is-edited');
  card.append(field);
  const fit = () => {
    field.style.height = 'auto';
    field.style.height = `${field.scrollHeight}px`;
  };
  field.addEventListener('input', fit);
  field.addEventListener('keydown', editingKeyPressed);
  field.addEventListener('blur', () => {
    // Another window in front, or a card that changes places, does not end an edit.
    if (!drawing && document.activeElement !== field) endEditing(true);
  });
  field.focus();
  field.select();
  fit();
}

function editingKeyPressed(event) {
  if (event.isComposing || (event.key !== 'Enter' && event.key !== 'Escape')) return;
  event.preventDefault();
  const { card } = editing;
  endEditing(event.key === 'Enter');
  card.focus({ preventScroll: true });
}

function endEditing(save) {
  if (!editing) return;
  const { taskId, card, field, before } = editing;
  editing = null; // first: removing the field takes its focus, which asks for the end again
  card.classList.remove('is-edited');
  field.remove();
  const title = field.value.replace(/\s+/g, ' ').trim(); // a title is one line
  if (save && title && title !== before) renameTask(taskId, title);
}

/** Empties the field at once, so that the next title can be typed, and gives it back if refused. */
async function submitTitle(event, send) {
  event.preventDefault();
  const field = event.target.elements.title;
  const title = field.value;
  if (!title.trim()) return;
  field.value = '';
  try {
    await send(title);
  } catch (error) {
    field.value ||= title;
    tellError(error);
  }
}

async function addTask(listId, title) {
  const task = await createTask(listId, title);
  revealAfterDraw = task.id;
  announce(`Added “${task.title}” to ${listTitle(listId)}`);
}

const addList = (title) => write('POST', `${BOARD_PATH}/lists`, { title });

function clicked(event) {
  const button = event.target.closest('.card button');
  const card = button?.closest('.card');
  if (button?.dataset.do === 'rename') startEditing(card);
  if (button?.dataset.do === 'delete') deleteTask(card.dataset.taskId);
}

// ---- Status, activity, toasts ---------------------------------------------------------------

let watching = null;
/** Newest first. */
let activity = [];
let activityChanged = false;

function drawStatus() {
  const badge = element('state');
  badge.dataset.state = state;
  setText(badge, stateWords[state]);
  setText(element('node'), node || '–');
  element('node').title = node;
  setText(element('last-event-id'), lastEventId && truth ? lastEventId : '–');
  setText(element('watching'), watching === null ? '–' : String(watching));
}

function log(text, kind = '') {
  activity.unshift({ text, kind, at: new Date() });
  activity.length = Math.min(activity.length, ACTIVITY_ENTRIES_MAX);
  activityChanged = true;
  drawSoon();
}

function drawActivity() {
  if (!activityChanged) return;
  activityChanged = false;
  element('activity').replaceChildren(...activity.map(({ text, kind, at }) => {
    const [item, time, words] = ['li', 'time', 'span'].map((name) => document.createElement(name));
    item.className = kind;
    time.dateTime = at.toISOString();
    time.textContent = at.toLocaleTimeString('en-GB');
    words.textContent = text;
    item.append(time, words);
    return item;
  }));
}

/** How many watch is nice to know and no more: when it cannot be asked, a dash is the answer. */
async function pollWatching() {
  if (document.hidden) return;
  try {
    const path = `/admin/connections?topic=${encodeURIComponent(BOARD_ID)}`;
    const response = await fetch(path, { signal: AbortSignal.timeout(WATCHING_POLL_MILLISECONDS) });
    watching = response.ok ? ((await response.json()).boards?.[BOARD_ID] ?? 0) : null;
  } catch {
    watching = null;
  }
  drawSoon();
}

function announce(text) {
  element('announcer').textContent = text;
}

function toast(text, { error = false, action, onAction } = {}) {
  const box = document.createElement('div');
  box.className = error ? 'toast is-error' : 'toast';
  box.setAttribute('role', error ? 'alert' : 'status');
  box.append(Object.assign(document.createElement('span'), { textContent: text }));
  if (action) {
    const button = Object.assign(document.createElement('button'), { type: 'button', textContent: action });
    button.addEventListener('click', () => (removeToast(box), onAction()));
    box.append(button);
  }
  box.addEventListener('focusin', ({ relatedTarget }) => (box.cameFrom ??= relatedTarget));
  element('toasts').append(box);
  while (element('toasts').childElementCount > 3) removeToast(element('toasts').firstElementChild);
  // Somebody who has come to it with the keyboard may take as long as it takes.
  const fade = () => (box.matches(':focus-within') ? setTimeout(fade, TOAST_MILLISECONDS) : box.remove());
  setTimeout(fade, TOAST_MILLISECONDS);
}

/** The focus goes back to where it came from, or to a card. */
function removeToast(box) {
  const held = box.matches(':focus-within');
  box.remove();
  if (!held) return;
  const back = box.cameFrom?.isConnected ? box.cameFrom : boardElement.querySelector('.card[tabindex="0"], .add input');
  back?.focus({ preventScroll: true });
}

const tellError = (error) => toast(error.message, { error: true });

function toggleLog(open) {
  element('log').classList.toggle('is-collapsed', !open);
  element('log-toggle').setAttribute('aria-expanded', String(open));
}

// ---- Boards ---------------------------------------------------------------------------------

async function offerBoards() {
  const boards = await fetch('/boards').then((response) => (response.ok ? response.json() : []), () => []);
  if (boards.length < 2) return;
  const options = boards.map(({ id, name }) => new Option(name, id, false, id === BOARD_ID));
  if (!boards.some(({ id }) => id === BOARD_ID)) options.unshift(new Option('Choose a board', '', true, true));
  element('boards').replaceChildren(...options);
  element('picker').hidden = false;
  element('board-name').classList.add('unseen');
}

const goToBoard = (id) => location.assign(`/?${new URLSearchParams({ board: id })}`);

async function submitBoard(event) {
  event.preventDefault();
  const form = event.target;
  const lists = ['To do', 'Doing', 'Done'].map((title) => ({ title }));
  form.inert = true; // one board, however often Enter is pressed
  try {
    goToBoard((await write('POST', '/boards', { name: form.elements.name.value, lists })).answer.id);
  } catch (error) {
    form.inert = false;
    form.elements.name.focus();
    element('board-form-error').textContent = error.message;
  }
}

// ---- Start ----------------------------------------------------------------------------------

boardElement.addEventListener('pointerdown', pressed);
boardElement.addEventListener('click', clicked);
boardElement.addEventListener('keydown', keyPressed);
boardElement.addEventListener('dblclick', (event) => {
  const card = event.target.closest('.card');
  if (card && !event.target.closest('button, .is-edited')) startEditing(card);
});
boardElement.addEventListener('focusin', (event) => {
  const taskId = event.target.closest('.card')?.dataset.taskId;
  const column = columns.get(event.target.closest('.list')?.dataset.listId);
  if (taskId && column && column.tabStop !== taskId) {
    column.tabStop = taskId;
    drawSoon();
  }
});
addEventListener('pagehide', pageLeft);
addEventListener('pageshow', pageShown);
addEventListener('pointerdown', ({ pointerType }) => use(pointerType === 'mouse' ? 'mouse' : 'touch'), true);
addEventListener('keydown', noticeKey, true);
use(matchMedia('(hover: none)').matches ? 'touch' : 'mouse');
addEventListener('pointermove', pointerMoved);
addEventListener('pointerup', pointerGone);
addEventListener('pointercancel', pointerGone);
addEventListener('keydown', (event) => event.key === 'Escape' && drag && endDrag(false));
// While a finger drags, the browser must neither scroll nor open its menu.
boardElement.addEventListener('touchmove', (event) => drag && event.preventDefault(), { passive: false });
boardElement.addEventListener('contextmenu', (event) => (drag || press?.touch) && event.preventDefault());

element('add-list').addEventListener('submit', (event) => submitTitle(event, addList));
element('boards').addEventListener('change', (event) => event.target.value && goToBoard(event.target.value));
element('new-board').addEventListener('click', () => {
  element('board-form-error').textContent = '';
  element('board-dialog').showModal();
});
element('board-form-cancel').addEventListener('click', () => element('board-dialog').close());
element('board-form').addEventListener('submit', submitBoard);
element('log-toggle').addEventListener('click', () => toggleLog(element('log').classList.contains('is-collapsed')));
toggleLog(innerWidth > 1080);

setInterval(pollWatching, WATCHING_POLL_MILLISECONDS);
document.addEventListener('visibilitychange', pollWatching);

/** For tests, read only. */
window.fantail = Object.freeze({
  get state() { return state; },
  get node() { return node; },
  get lastEventId() { return lastEventId; },
});

offerBoards();
openStream();
