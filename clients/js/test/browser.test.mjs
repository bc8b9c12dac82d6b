// The client in Chromium, as a page of another origin gets it from the gateway: `import` of /fanfare.js, the browser's own WebSocket.
//
// CHROMIUM names the browser (default /usr/bin/chromium).

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { COMMON, gateway } from './support.mjs';
import { PATIENCE_MS, until } from '../../../tests/steady.mjs';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

let browser;
let site;
let node;
let page;

before(async () => {
  assert.ok(existsSync(CHROMIUM), `no browser at ${CHROMIUM}: run apt-get install chromium, or set CHROMIUM to one`);
  browser = await chromium.launch({
    executablePath: CHROMIUM, headless: true, timeout: PATIENCE_MS,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync'],
  });
  site = createServer((_, response) => response.setHeader('content-type', 'text/html').end('<!DOCTYPE html><title>app</title>'));
  await new Promise((done) => site.listen(0, '127.0.0.1', done));
  node = await gateway(`${COMMON}\n[drain]\ngrace_ms = 0\nwindow_ms = 0\nretry_ms = 1000\n`);
  await node.start();
  page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
  await page.evaluate(async ([script, url, token, timeoutMs]) => {
    const { connect } = await import(script);
    const seen = { states: [], ends: [], heard: [], gaps: [], back: [], errors: [] };
    const client = connect(url, {
      token, timeoutMs, onState: (state) => seen.states.push(state), onDisconnect: (end) => seen.ends.push(end), onError: (error) => seen.errors.push(String(error)),
      onDrain: () => { seen.drainedAt = Date.now(); },
    });
    const room = client.subscribe('staff:page', {
      onMessage: ({ message }) => seen.heard.push(message), onGap: (gap) => seen.gaps.push(gap),
      onSubscribed: (it) => { seen.back.push(it.recovered); seen.backAt = Date.now(); },
    });
    Object.assign(window, { client, room, seen });
    await room.ready;
  }, [`${node.http}/fanfare.js`, node.url, node.token('--user', 'ann', '--room', 'staff:*', '--publish'), PATIENCE_MS]);
});

after(async () => {
  await browser?.close();
  site?.close();
  await node?.end();
});

const seen = () => page.evaluate(() => ({ ...window.seen, state: window.client.state }));

test('a page of another origin imports /fanfare.js, connects with a token, publishes and hears', async () => {
  const receipt = await page.evaluate(() => window.room.publish({ text: 'from a page' }));
  assert.equal(receipt.delivered, 1);
  await until('the message', async () => (await seen()).heard.length);
  assert.deepEqual((await seen()).heard, [{ text: 'from a page' }]);
  assert.equal(await page.evaluate(() => window.client.welcome.user), 'ann');
  assert.ok(await page.evaluate(() => window.client.ping()) >= 0);
});

test('kill -9 and a restart: the page comes back, tells the gap, and sends what waited', async () => {
  await node.kill();
  await until('the loss to be noticed', async () => (await seen()).state !== 'connected');
  assert.equal((await seen()).ends[0].code, 1006);
  const waits = page.evaluate(() => window.room.publish('while it was away'));
  await node.start();
  assert.equal((await waits).delivered, 1);
  const { back, gaps, heard, errors } = await seen();
  assert.deepEqual([back, gaps, heard.at(-1), errors], [[true, false], [{ room: 'staff:page' }], 'while it was away', []]);
});

test('a network that comes back is noticed at once', async () => {
  await node.kill();
  await until('the loss to be noticed', async () => (await seen()).state === 'waiting');
  await node.start();
  // Far into the back-off: a timer would take many seconds.
  const before = (await seen()).back.length;
  await page.evaluate(() => window.dispatchEvent(new Event('online')));
  await until('the return', async () => (await seen()).back.length > before);
});

test('a drain: back not before retry_ms', async () => {
  const before = (await seen()).back.length;
  assert.equal(await node.drain(), 0);
  const { ends } = await seen();
  assert.equal(ends.at(-1).code === 1006 ? ends.at(-2).code : ends.at(-1).code, 1012);
  await node.start();
  await until('the return', async () => (await seen()).back.length > before);
  const { drainedAt, backAt } = await seen();
  assert.ok(backAt - drainedAt >= 1_000, `came back after ${backAt - drainedAt} ms`);
});

test('a token that does not hold: stopped, with the code and the reason', async () => {
  const end = await page.evaluate(async ([script, url]) => {
    const { connect } = await import(script);
    return new Promise((done) => connect(url, { token: 'no.good.token', onDisconnect: done }));
  }, [`${node.http}/fanfare.js`, node.url]);
  assert.deepEqual([end.code, end.retryMs], [4401, null]);
  assert.notEqual(end.reason, '');
});
