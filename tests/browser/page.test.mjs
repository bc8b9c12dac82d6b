// The demo page of a real gateway in a real browser.
//
//   npm ci && npm test
//
// FANFARE_BIN   the binary to start, seen from this folder (default ../../target/debug/fanfare)
// CHROMIUM      the browser                     (default /usr/bin/chromium)
// SCREENSHOTS=1 writes the pictures of docs/images instead of throwing them away
//
// Most cases talk to the gateway that the binary starts. The last ones put a scripted WebSocket in its place, for what a
// healthy gateway does not do on request: draining, gaps, refusals.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { PATIENCE_MS, freePorts, until } from '../steady.mjs';

const HERE = dirname(fileURLToPath(import.meta.url));
const FANFARE = resolve(HERE, process.env.FANFARE_BIN ?? '../../target/debug/fanfare');
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const DESKTOP = { width: 1280, height: 800 };
const PHONE = { width: 360, height: 740 };

const scratch = mkdtempSync(join(tmpdir(), 'fanfare-page-'));
const pictures = process.env.SCREENSHOTS === '1' ? resolve(HERE, '../../docs/images') : scratch;

let browser;
let gateway;
/** What `windowOf` opened in the running case: closed and audited after it. */
let windows = [];

// The gateway -------------------------------------------------------------------------------------------------------

/** Starts `fanfare dev` and waits until it has printed where it listens. */
async function startGateway(listen) {
  // Every FANFARE_ variable would have to be one of its configuration's keys; FANFARE_BIN is not.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('FANFARE_')));
  const child = spawn(FANFARE, ['dev', '--listen', listen, '--admin', '127.0.0.1:0'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let printed = '';
  const exited = new Promise((done) => {
    child.once('exit', (code, signal) => done(signal ?? code));
    // A binary that cannot be started never exits.
    child.once('error', (error) => done(error.code));
  });
  const ready = new Promise((done, fail) => {
    const read = (chunk) => {
      printed += chunk;
      const page = printed.match(/\bpage\b\S*\s+(http:\/\/[\w.:[\]-]+)/i);
      const api = printed.match(/\bapi\b\S*\s+(http:\/\/[\w.:[\]-]+)/i);
      if (page && api) done({ page: page[1], api: api[1] });
    };
    // Both streams are read for as long as the gateway lives: a full pipe would stop it.
    child.stdout.setEncoding('utf8').on('data', read);
    child.stderr.setEncoding('utf8').on('data', read);
    exited.then((how) => fail(new Error(`${FANFARE} dev ended with ${how} before it printed page and api:\n${printed}`)));
    setTimeout(() => fail(new Error(`${FANFARE} dev printed no page and api within ${PATIENCE_MS} ms:\n${printed}`)), PATIENCE_MS).unref();
  });
  const kill = async () => {
    child.kill('SIGKILL');
    await exited;
  };
  try {
    return { ...(await ready), kill };
  } catch (error) {
    await kill();
    throw error;
  }
}

/** One line of text into a room by HTTP, as curl would. */
async function publish(room, text) {
  const response = await fetch(`${gateway.api}/api/publish?room=${encodeURIComponent(room)}`, {
    method: 'POST', headers: { 'content-type': 'text/plain' }, body: text,
  });
  assert.equal(response.status, 200, await response.clone().text());
  return response.json();
}

// Windows -----------------------------------------------------------------------------------------------------------

/** A browser window of its own (no shared storage), with a record of what it asks for and complains about. */
async function windowOf(query = '', { allow = [], script, ...options } = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, ...options });
  const page = await context.newPage();
  const seen = { requests: [], errors: [], allow, context };
  windows.push(seen);
  context.on('request', (request) => seen.requests.push(request.url()));
  page.on('websocket', (socket) => seen.requests.push(socket.url()));
  page.on('console', (line) => { if (['error', 'warning'].includes(line.type())) seen.errors.push(line.text()); });
  page.on('pageerror', (error) => seen.errors.push(String(error)));
  page.on('dialog', (dialog) => { seen.errors.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.setDefaultTimeout(PATIENCE_MS);
  if (script) await page.routeWebSocket(/\/ws(\?|$)/, script);
  const response = await page.goto(`${gateway.page}/${query}`);
  assert.equal(response.status(), 200);
  return page;
}

/** Waits until the text of `#id` matches. The words of #status contain one another, hence whole-text patterns. */
async function shows(page, id, pattern) {
  try {
    await page.waitForFunction(([id, source, flags]) => new RegExp(source, flags).test(document.querySelector(id).textContent),
      [id, pattern.source, pattern.flags]);
  } catch (error) {
    const text = await page.locator(id).textContent();
    throw new Error(`${id} does not show ${pattern}; it shows: ${JSON.stringify(text)}`, { cause: error });
  }
}

const status = (page, word) => shows(page, '#status', new RegExp(`^${word}$`));

/** Connected, and the room has answered: what is published from here on arrives. */
async function inRoom(page) {
  await status(page, 'connected');
  await shows(page, '#user-count', /^\d+$/);
}

async function say(page, text) {
  await page.fill('#message', text);
  await page.click('#send');
}

async function picture(page, name) {
  mkdirSync(pictures, { recursive: true });
  await page.screenshot({ path: join(pictures, name) });
}

/** A room nobody else uses. */
let rooms = 0;
const freshRoom = () => `case-${++rooms}`;

before(async () => {
  assert.ok(existsSync(CHROMIUM), `no browser at ${CHROMIUM}: run apt-get install chromium, or set CHROMIUM to one`);
  assert.ok(existsSync(FANFARE), `no gateway at ${FANFARE}: run cargo build, or set FANFARE_BIN to one`);
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    timeout: PATIENCE_MS,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
  gateway = await startGateway(`127.0.0.1:${(await freePorts(1))[0]}`);
});

// Every case, whatever it is about, must leave the origin alone and the browser's console clean.
afterEach(async () => {
  const origin = new URL(gateway.page).host;
  const audited = windows;
  windows = [];
  for (const { context } of audited) await context.close();
  for (const { requests, errors, allow } of audited) {
    const strangers = requests.filter((url) => !url.startsWith('data:') && new URL(url).host !== origin);
    assert.deepEqual(strangers, [], 'requests that left the page\'s origin');
    assert.deepEqual(errors.filter((text) => !allow.some((pattern) => pattern.test(text))), [], 'complaints in the browser\'s console');
  }
});

after(async () => {
  await browser?.close();
  await gateway?.kill();
  rmSync(scratch, { recursive: true, force: true });
});

// With a real gateway -----------------------------------------------------------------------------------------------

test('the page is one document under a policy that lets nothing else run', async () => {
  const response = await fetch(`${gateway.page}/`);
  assert.match(response.headers.get('content-type'), /^text\/html\b.*utf-8/i);
  const policy = response.headers.get('content-security-policy') ?? '';
  assert.match(policy, /default-src 'none'/);
  assert.doesNotMatch(policy.match(/script-src[^;]*/)?.[0] ?? "'unsafe-inline'", /'unsafe-inline'/);
  const html = await response.text();
  const forbidden = [/<\w+\b[^>]*\bsrc\s*=/i, /@import/, /[\s:(]url\(/, /\son\w+\s*=\s*["']/, /\sstyle\s*=\s*["']/,
    /innerHTML|outerHTML|insertAdjacentHTML|document\.write/];
  assert.deepEqual(forbidden.flatMap((pattern) => html.match(pattern)?.[0] ?? []), []);
});

test('two windows talk to each other and count each other', async () => {
  const room = freshRoom();
  const ann = await windowOf(`?room=${room}&name=ann`);
  const bea = await windowOf(`?room=${room}&name=bea`);
  await inRoom(ann);
  await inRoom(bea);
  await say(ann, 'hello bea');
  await shows(bea, '#log', /ann: hello bea/);
  await shows(ann, '#log', /ann: hello bea/);
  await bea.fill('#message', 'hello ann');
  await bea.press('#message', 'Enter');
  await shows(ann, '#log', /bea: hello ann/);
  await shows(bea, '#log', /bea: hello ann.*delivered 2/);
  assert.equal(await bea.inputValue('#message'), '');
  await shows(ann, '#user-count', /^2$/);
  await shows(bea, '#user-count', /^2$/);
  await shows(ann, '#latency', /^[\d.]+ m?s$/);
  await bea.click('#leave');
  await status(bea, 'disconnected');
  await shows(ann, '#user-count', /^1$/);
});

test('a page without presets waits, and Send joins first', async () => {
  const room = freshRoom();
  const page = await windowOf();
  await status(page, 'disconnected');
  assert.match(await page.inputValue('#name'), /^[a-z]+-\d\d$/);
  await page.fill('#room', 'no good');
  await page.press('#room', 'Enter');
  await shows(page, '#notice-text', /no spaces/);
  await status(page, 'disconnected');
  await page.fill('#room', room);
  await page.fill('#name', 'cat');
  await say(page, 'first');
  await shows(page, '#log', /cat: first/);
  await inRoom(page);
  assert.equal(new URL(page.url()).search, `?room=${room}`, 'the address can be given to somebody else');
  await page.reload();
  await inRoom(page);
  assert.equal(await page.inputValue('#name'), 'cat', 'a reload keeps the name');
});

test('changing the room while connected moves over', async () => {
  const [first, second] = [freshRoom(), freshRoom()];
  const page = await windowOf(`?room=${first}&name=dan`);
  await inRoom(page);
  await say(page, 'in the first');
  await shows(page, '#log', /in the first/);
  await page.fill('#room', second);
  await page.press('#room', 'Enter');
  await inRoom(page);
  await say(page, 'in the second');
  await shows(page, '#log', /^dan: in the second/);
  assert.equal((await publish(second, 'anyone?')).delivered, 1);
  // Two connections have no order between them: the first may be let go a moment later.
  await until('the first room to be left', async () => (await publish(first, 'anyone?')).delivered === 0);
});

test('the console echoes, measures, and tells how a connection closed', async () => {
  const page = await windowOf();
  assert.match(await page.inputValue('#console-url'), /^ws:\/\/.*\/echo$/);
  assert.ok(await page.isDisabled('#console-send'));
  await page.click('#console-connect');
  await shows(page, '#console-status', /^connected$/);
  await page.fill('#console-message', 'über <b>wire</b>');
  await page.press('#console-message', 'Enter');
  await shows(page, '#console-log', /→\s*über <b>wire<\/b>.*←\s*über <b>wire<\/b>\s*[\d.]+ m?s/s);
  await shows(page, '#console-latency', /^[\d.]+ m?s$/);
  assert.match(await page.locator('#console-log time').first().textContent(), /^\d\d:\d\d:\d\d\.\d{3}$/);
  await page.click('#console-disconnect');
  await shows(page, '#console-log', /closed 1000 normal.*1 sent, 1 received/);
  await shows(page, '#console-status', /^disconnected$/);
  // Connecting again and again must not leave anything behind.
  for (let round = 2; round <= 4; round += 1) {
    await page.click('#console-connect');
    await shows(page, '#console-status', /^connected$/);
    await page.click('#console-disconnect');
    await shows(page, '#console-status', /^disconnected$/);
    assert.equal(await page.locator('#console-log .line', { hasText: 'closed 1000' }).count(), round);
  }
});

test('the console says when an address is wrong or nobody is there', async () => {
  const page = await windowOf('', { allow: [/WebSocket connection to .* failed/] });
  await page.fill('#console-url', 'ftp://example.org/');
  await page.click('#console-connect');
  await shows(page, '#console-log', /not a WebSocket URL/);
  await page.fill('#console-url', '/no/such/path');
  await page.click('#console-connect');
  await shows(page, '#console-log', /closed 1006 no connection was made/);
});

test('a message published by HTTP appears', async () => {
  const room = freshRoom();
  const page = await windowOf(`?room=${room}&name=eva`);
  await inRoom(page);
  assert.equal((await publish(room, 'deployed in 3 s')).delivered, 1);
  await shows(page, '#log', /server: deployed in 3 s/);
});

test('a room name and messages beyond ASCII', async () => {
  const room = 'café-大厅-🎺';
  const page = await windowOf(`?room=${encodeURIComponent(room)}&name=${encodeURIComponent('Zoë')}`);
  await inRoom(page);
  assert.equal(await page.inputValue('#room'), room);
  await say(page, 'γειά 👩‍👩‍👧 שלום');
  await shows(page, '#log', /Zoë: γειά 👩‍👩‍👧 שלום/);
  assert.equal((await publish(room, '你好')).delivered, 1);
  await shows(page, '#log', /server: 你好/);
});

test('the browser and the gateway compress what they say to each other', async () => {
  const room = freshRoom();
  const page = await windowOf();
  const long = JSON.stringify(Array.from({ length: 200 }, (_, n) => ({ n, text: 'über the wire' })));
  const { extensions, texts } = await page.evaluate(async ([room, long]) => {
    const socket = new WebSocket(`ws://${location.host}/room/${room}`);
    const next = (event) => new Promise((done, fail) => {
      socket.addEventListener(event, done, { once: true });
      socket.addEventListener('close', ({ code, reason }) => fail(new Error(`closed ${code} ${reason}`)), { once: true });
    });
    await next('open');
    const texts = [];
    for (const message of ['short', long]) {
      socket.send(JSON.stringify({ name: 'publish', message }));
      texts.push(JSON.parse((await next('message')).data).message);
    }
    return { extensions: socket.extensions, texts };
  }, [room, long]);
  assert.match(extensions, /^permessage-deflate; server_no_context_takeover; client_no_context_takeover/);
  assert.deepEqual(texts, ['short', long]);
});

test('markup from strangers stays text', async () => {
  const room = freshRoom();
  const attack = '<img src=x onerror="window.broken=1"><script>window.broken=1</script>';
  const name = '<b>mal</b>';
  const page = await windowOf(`?room=${room}&name=${encodeURIComponent(name)}`);
  await inRoom(page);
  await say(page, attack);
  await page.waitForFunction((text) => document.querySelector('#log').textContent.includes(text), `${name}: ${attack}`);
  assert.equal((await publish(room, attack)).delivered, 1);
  await page.waitForFunction((text) => document.querySelector('#log').textContent.includes(text), `server: ${attack}`);
  await shows(page, '#user-count', /^1$/);
  assert.equal(await page.locator('#log img, #log script, #log b, #users b').count(), 0);
  assert.equal(await page.evaluate(() => window.broken), undefined);
});

test('a room closed by the operator is told in words and not entered again', async () => {
  const room = freshRoom();
  const page = await windowOf(`?room=${room}&name=fay`);
  await inRoom(page);
  const response = await fetch(`${gateway.api}/api/rooms/${room}`, { method: 'DELETE' });
  assert.ok(response.ok, `${response.status}`);
  await status(page, 'disconnected');
  await shows(page, '#notice-text', /4410 room closed/);
  assert.ok(await page.isHidden('#retry'));
  await page.click('#join');
  await inRoom(page);
});

test('a killed gateway is noticed, and the page comes back when it does', async () => {
  const room = freshRoom();
  const page = await windowOf(`?room=${room}&name=gus`, { allow: [/WebSocket connection to .* failed/] });
  await inRoom(page);
  await gateway.kill();
  await status(page, '(disconnected|connecting)');
  await shows(page, '#log', /Disconnected: 1006/);
  await page.locator('#retry').waitFor();
  gateway = await startGateway(new URL(gateway.page).host);
  await inRoom(page);
  await say(page, 'back again');
  await shows(page, '#log', /Connected again.*gus: back again.*delivered 1/s);
});

test('an EventSource hears the room, and again after the gateway was killed', async () => {
  const room = freshRoom();
  // A connection that breaks is reported; coming back is the browser's own doing.
  const page = await windowOf('', { allow: [/ERR_|Failed to load resource/] });
  await page.evaluate((path) => {
    window.heard = [];
    const source = new EventSource(path);
    const keep = ({ type, data, lastEventId }) => window.heard.push({ type, id: lastEventId, ...JSON.parse(data) });
    source.onmessage = keep;
    for (const type of ['subscribed', 'close']) source.addEventListener(type, keep);
  }, `/room/${room}/sse`);
  const heard = async (count) => {
    await page.waitForFunction((count) => window.heard.length >= count, count);
    return page.evaluate(() => window.heard);
  };
  const [first] = await heard(1);
  assert.deepEqual([first.type, first.recovered, first.id], ['subscribed', true, `${first.epoch}:0`]);
  await publish(room, 'one\n\ndata: two');
  const [, one] = await heard(2);
  assert.deepEqual([one.type, one.message, one.id], ['message', 'one\n\ndata: two', `${first.epoch}:1`]);
  await gateway.kill();
  gateway = await startGateway(new URL(gateway.page).host);
  // It asks for what follows the last id; the room's life is another one, so that is gone, and said to be.
  const [, , again] = await heard(3);
  assert.deepEqual([again.type, again.recovered, again.id], ['subscribed', false, `${again.epoch}:0`]);
  assert.notEqual(again.epoch, first.epoch);
  await publish(room, 'three');
  const told = await heard(4);
  assert.deepEqual(told.slice(3).map(({ type, message }) => [type, message]), [['message', 'three']]);
});

test('a phone shows everything without scrolling sideways', async () => {
  const room = freshRoom();
  const page = await windowOf(`?room=${room}&name=hal`, { viewport: PHONE, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
  await inRoom(page);
  await say(page, `a very long word ${'x'.repeat(200)}`);
  await shows(page, '#log', /hal: a very long word/);
  for (const view of ['#view-console', '#view-chat']) {
    await page.tap(view);
    const wide = await page.evaluate(() => [document.documentElement, document.body, ...document.querySelectorAll('.log')]
      .filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.id || box.tagName));
    assert.deepEqual(wide, [], `wider than the window in ${view}`);
    assert.equal(await page.evaluate(() => innerWidth), PHONE.width);
  }
  for (const id of ['#room', '#name', '#message', '#send', '#log', '#status']) {
    const box = await page.locator(id).boundingBox();
    assert.ok(box && box.x >= 0 && box.y >= 0 && box.x + box.width <= PHONE.width && box.y + box.height <= PHONE.height, id);
  }
  // With a keyboard up, about this much is left.
  await page.setViewportSize({ width: PHONE.width, height: 400 });
  await page.focus('#message');
  const [field, log] = [await page.locator('#message').boundingBox(), await page.locator('#log').boundingBox()];
  assert.ok(field.y + field.height <= 400 && log.height >= 150, 'log and field stay in sight above a keyboard');
});

test('every control has a name and is reached by Tab', async () => {
  const page = await windowOf(`?room=${freshRoom()}&name=ida`);
  await inRoom(page);
  await page.focus('#room');
  const order = [];
  for (let step = 0; step < 20 && !order.includes('console-message'); step += 1) {
    order.push(await page.evaluate(() => document.activeElement.id));
    await page.keyboard.press('Tab');
  }
  for (const id of ['room', 'name', 'leave', 'log', 'message', 'send', 'console-url', 'console-connect', 'console-log']) {
    assert.ok(order.includes(id), `${id} is not reached: ${order}`);
  }
  const nameless = await page.evaluate(() => [...document.querySelectorAll('button, input')]
    .filter((it) => !(it.textContent.trim() || it.getAttribute('aria-label') || it.labels?.length)).map((it) => it.id));
  assert.deepEqual(nameless, []);
});

test('light and dark differ, and both are readable', async () => {
  const grounds = [];
  for (const colorScheme of ['light', 'dark']) {
    const room = freshRoom();
    const page = await windowOf(`?room=${room}&name=joe-${colorScheme}`, { colorScheme });
    await inRoom(page);
    await say(page, 'can you read this?');
    await shows(page, '#log', /can you read this.*delivered/);
    grounds.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
    const poor = await page.evaluate(poorContrast, ['h1', 'h2', 'label', '#status', '#latency', '#send', '#leave', '#log .said', '#log .name', '#log .receipt', '#log time', '#user-count', '.tagline', '#console-paths button', '#console .empty p']);
    assert.deepEqual(poor, [], `contrast below 4.5 in ${colorScheme}`);
  }
  assert.notEqual(grounds[0], grounds[1]);
});

/** Runs in the page: which of the selectors have text with less than 4.5 : 1 (WCAG 2.2, 1.4.3) against its ground. */
function poorContrast(selectors) {
  const channels = (color) => color.match(/[\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => {
    const [lr, lg, lb] = [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * lr + 0.7152 * lg + 0.0722 * lb;
  };
  const ground = (box) => {
    for (; box; box = box.parentElement) {
      const color = channels(getComputedStyle(box).backgroundColor);
      if ((color[3] ?? 1) === 1) return color;
    }
    return [255, 255, 255];
  };
  return selectors.flatMap((selector) => {
    const box = document.querySelector(selector);
    if (!box) return [`${selector} is missing`];
    const [a, b] = [luminance(channels(getComputedStyle(box).color)), luminance(ground(box))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    return ratio < 4.5 ? [`${selector} ${ratio.toFixed(2)}`] : [];
  });
}

// With a scripted gateway -------------------------------------------------------------------------------------------

/**
 * A WebSocket that answers commands as the contract says, with the room `r`. `opened(socket, n)` is called for the n-th
 * connection, from 1; `refuse` has the last word on a command by returning true.
 */
function scripted(opened, refuse = () => false) {
  let connections = 0;
  return (socket) => {
    const ofRoom = ['message', 'joined'];
    const send = (event) => socket.send(JSON.stringify(ofRoom.includes(event.name) ? { ...event, room: 'r' } : event));
    socket.onMessage((text) => {
      const { name, id, message } = JSON.parse(text);
      if (refuse({ name, id, message }, send)) return;
      if (name === 'subscribe') send({ name: 'subscribed', room: 'r', epoch: '00000000000000aa', offset: 0, recovered: true, id });
      if (name === 'ping') send({ name: 'pong', id });
      if (name === 'presence') send({ name: 'presence', count: 1, members: [{ user: 'kim' }], id });
      if (name === 'publish') {
        send({ name: 'ack', delivered: 3, dropped: 1, evicted: 0, id });
        send({ name: 'message', message, user: 'kim' });
      }
    });
    connections += 1;
    send({ name: 'welcome', connection: '0-0-1', heartbeat_ms: 25_000, node: 'scripted' });
    opened({ send, close: (code, reason) => socket.close({ code, reason }) }, connections);
  };
}

test('drain: the page moves when it is told to', async () => {
  const script = scripted((socket, n) => { if (n === 1) socket.send({ name: 'drain', retry_ms: 300 }); });
  const page = await windowOf('?room=r&name=kim', { script });
  await shows(page, '#log', /leaving service; reconnecting in 300 ms.*Connected again/s);
  await status(page, 'connected');
});

test('closes that mean "come back" are followed by a return', async () => {
  const codes = [[1012, 'node is leaving service, reconnect'], [4508, 'queued 9 bytes, 1 messages'], [4500, 'node overloaded']];
  const script = scripted((socket, n) => { if (codes[n - 1]) socket.close(...codes[n - 1]); });
  const page = await windowOf('?room=r&name=kim', { script });
  await shows(page, '#log', /4500 node overloaded/);
  await shows(page, '#log', /4508 slow consumer – queued 9 bytes, 1 messages/);
  await status(page, 'connected');
});

test('closes that mean "fix something first" stop the page and say what to do', async () => {
  let connections = 0;
  const script = scripted((socket, n) => { connections = n; socket.close(4401, 'the token has expired'); });
  const page = await windowOf('?room=r&name=kim', { script });
  await shows(page, '#notice-text', /4401 token missing, wrong or expired – the token has expired\. Open this page with \?token=/);
  await status(page, 'disconnected');
  assert.equal(connections, 1);
  assert.ok(await page.isVisible('#join'));
});

test('what was lost, refused or never confirmed is said', async () => {
  let socket;
  const refuse = ({ name, id, message }, send) => {
    if (name === 'presence') return send({ name: 'error', code: 'unknown_command', message: 'presence is off', id }) || true;
    if (message?.text === 'no') return send({ name: 'error', code: 'not_allowed', message: 'not here', id }) || true;
    return message?.text === 'silence';
  };
  const page = await windowOf('?room=r&name=kim', { script: scripted((it) => { socket = it; }, refuse) });
  await status(page, 'connected');
  await shows(page, '#user-count', /^–$/);
  await say(page, 'yes');
  await shows(page, '#log', /kim: yes delivered 3, lost 1/);
  await say(page, 'no');
  await shows(page, '#log', /Not sent: no \(not here\)/);
  socket.send({ name: 'gap', room: 'r', from: 4, to: 6, count: 3 });
  await shows(page, '#log', /3 messages were not delivered to you/);
  socket.send({ name: 'message', message: { temperature: 21.5, unit: '°C' } });
  await shows(page, '#log', /server: \{"temperature":21\.5,"unit":"°C"\}/);
  socket.send({ name: 'message', message: { user: 'kim', text: 'it is me' }, user: 'eve' });
  await shows(page, '#log', /kim: it is me\s+signed in as eve/);
  socket.send({ name: 'constructor' });
  socket.send({ name: 'joined', room: 'r', user: 'lou' });
  await shows(page, '#log', /lou joined/);
  await say(page, 'silence');
  socket.close(4410, 'room closed');
  await shows(page, '#log', /Not confirmed: silence.*4410 room closed/s);
});

test('the log keeps its last 500 lines and lets a reader stay where he reads', async () => {
  let socket;
  const page = await windowOf('?room=r&name=kim', { script: scripted((it) => { socket = it; }) });
  await status(page, 'connected');
  const tell = (from, to) => { for (let n = from; n <= to; n += 1) socket.send({ name: 'message', message: `line ${n}.` }); };
  tell(1, 600);
  await shows(page, '#log', /line 600\./);
  assert.equal(await page.locator('#log .line').count(), 500);
  assert.match(await page.locator('#log .line').first().textContent(), /line 101\./);
  const fromEnd = () => page.evaluate(() => { const log = document.querySelector('#log'); return log.scrollHeight - log.clientHeight - log.scrollTop; });
  await until('the log to follow the newest line', async () => await fromEnd() < 2);
  await page.evaluate(() => { document.querySelector('#log').scrollTop = 2000; });
  await page.waitForFunction(() => document.querySelector('#log').scrollTop === 2000);
  tell(601, 610);
  await shows(page, '#log', /line 610\./);
  assert.ok(await fromEnd() > 1000, 'the log stays where it is read');
  await page.click('#newest');
  await until('the newest line', async () => await fromEnd() < 2);
});

// Pictures ----------------------------------------------------------------------------------------------------------

test('the pictures of the documentation', async () => {
  const room = 'launch';
  const desktop = await windowOf(`?room=${room}&name=Nora`, { colorScheme: 'light', deviceScaleFactor: 2 });
  const phone = await windowOf(`?room=${room}&name=Sam`, { colorScheme: 'dark', viewport: PHONE, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
  await inRoom(desktop);
  await inRoom(phone);
  const talk = [
    [desktop, 'Nora', 'Morning! Is the new build out?'],
    [phone, 'Sam', 'Rolling out now, eu-west first 🎺'],
    [desktop, 'Nora', 'Then I keep an eye on the receipts.'],
    [null, 'server', 'deploy 1482: 3 of 8 nodes drained'],
    [phone, 'Sam', 'Nobody has noticed a thing so far.'],
    [null, 'server', 'deploy 1482: done, 0 messages lost'],
    [desktop, 'Nora', 'That is how I like it.'],
  ];
  for (const [who, name, text] of talk) {
    if (who) await say(who, text);
    else await publish(room, text);
    for (const page of [desktop, phone]) await page.waitForFunction((line) => document.querySelector('#log').textContent.includes(line), `${name}: ${text}`);
  }
  await desktop.click('#console-connect');
  for (const text of ['hello', '{"name":"ping"}']) {
    await desktop.fill('#console-message', text);
    await desktop.press('#console-message', 'Enter');
    await desktop.waitForFunction((text) => [...document.querySelectorAll('#console-log .in')].some((line) => line.textContent.includes(text)), text);
  }
  await desktop.click('#console-disconnect');
  await shows(desktop, '#console-log', /closed 1000/);
  for (const page of [desktop, phone]) {
    await shows(page, '#user-count', /^2$/);
    await shows(page, '#latency', /\d/);
  }
  await picture(desktop, 'page-light.png');
  await picture(phone, 'page-phone-dark.png');
  assert.ok(existsSync(join(pictures, 'page-light.png')) && existsSync(join(pictures, 'page-phone-dark.png')));
});
