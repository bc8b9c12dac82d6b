// The snippets of docs/javascript.md and of the README, run as they stand; only the gateway's address is another.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { transform } from 'esbuild';
import { chromium } from 'playwright-core';
import { WebSocket } from 'ws';
import { connect, FanfareError } from '../dist/fanfare.js';
import { COMMON, gateway, HERE } from './support.mjs';
import { PATIENCE_MS, until } from '../../../tests/steady.mjs';

const ROOT = join(HERE, '..');
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

let node;

/** The blocks of a page in one language. */
const blocks = (path, language) => {
  const found = [...readFileSync(join(ROOT, path), 'utf8').matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'gms'))].map(([, text]) => text);
  assert.ok(found.length, `${path} has no ${language}`);
  return found.map((text) => text.replaceAll('http://127.0.0.1:8080', node.http).replaceAll('https://gateway.example', node.http));
};

before(async () => {
  node = await gateway(COMMON);
  await node.start();
});
after(() => node.end());

test('the program for Node', async () => {
  const [program] = blocks('../../docs/javascript.md', 'js').filter((text) => text.startsWith('// lobby.mjs'));
  // From this folder `fanfare-client` is this package, as it is where it was installed.
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { said += text; });
  try {
    await until('both lines', () => (/^delivered to 1$/m.test(said) && /^Bea \{ text: 'hi' \}$/m.test(said)) || child.exitCode !== null);
    assert.equal(child.exitCode, null, said);
  } finally {
    child.kill();
  }
});

test('the fragments', async () => {
  const fragments = blocks('../../docs/javascript.md', 'js').filter((text) => !/^import /m.test(text));
  assert.ok(fragments.length >= 3);
  const AsyncFunction = (async () => {}).constructor;
  for (const fragment of fragments) {
    const client = connect(node.url, { WebSocket, onError: (error) => { throw error; } });
    const lines = [];
    const scope = { connect, FanfareError, WebSocket, client, lobby: client.subscribe('lobby'), console: { log: (...words) => lines.push(words) } };
    try {
      await new AsyncFunction(...Object.keys(scope), fragment)(...Object.values(scope));
      if (fragment.includes('console.log(count')) assert.equal(lines.at(-1)[0], 1, fragment);
    } finally {
      client.close();
    }
  }
});

test('the component and the README are programs', async () => {
  for (const text of blocks('../../docs/javascript.md', 'jsx')) await transform(text, { loader: 'jsx' });
  for (const text of blocks('README.md', 'js')) await transform(text, { loader: 'js', format: 'esm' });
});

test('the page', async () => {
  assert.ok(existsSync(CHROMIUM), `no browser at ${CHROMIUM}: run apt-get install chromium, or set CHROMIUM to one`);
  const [html] = blocks('../../docs/javascript.md', 'html');
  const site = createServer((_, response) => response.setHeader('content-type', 'text/html').end(html));
  await new Promise((done) => site.listen(0, '127.0.0.1', done));
  const browser = await chromium.launch({ executablePath: CHROMIUM, headless: true, timeout: PATIENCE_MS, args: ['--headless', '--no-sandbox', '--disable-gpu'] });
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    await page.goto(`http://127.0.0.1:${site.address().port}/`);
    const shown = () => page.locator('li').allTextContents();
    await until('connected', async () => (await shown()).includes('connected'));
    await page.fill('input', 'hello');
    await page.press('input', 'Enter');
    await until('the message and its receipt', async () => (await shown()).includes('Ann: hello') && (await shown()).includes('delivered to 1'));
    await node.kill();
    await node.start();
    await until('the return and the gap', async () => (await shown()).includes('some messages were missed'));
  } finally {
    await browser.close();
    site.close();
  }
});
