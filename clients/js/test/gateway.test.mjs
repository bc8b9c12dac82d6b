// The client in Node against a real gateway, with the WebSocket of `ws` (Node 20 has none) and, where there is one, Node's own.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, afterEach, before, test } from 'node:test';
import { FanfareError } from '../dist/fanfare.js';
import { closeAll, COMMON, enter, forge, freshRoom, gateway, open } from './support.mjs';
import { TooSlow, until, withDeadline } from '../../../tests/steady.mjs';

let node;

before(async () => {
  node = await gateway(COMMON);
  await node.start();
});
afterEach(closeAll);
after(() => node.end());

test('publish, receive, receipt; noSelf; unsubscribe', async () => {
  const room = freshRoom();
  const [ann, bea] = [open(node), open(node)];
  const [annIn, beaIn] = [await enter(ann, room), await enter(bea, room)];
  const message = { text: 'hëllo 👋', list: [1, null, { deep: true }] };
  const receipt = await annIn.publish(message);
  assert.deepEqual([receipt.delivered, receipt.dropped, receipt.evicted], [2, 0, 0]);
  await until('both to hear it', () => annIn.heard.length && beaIn.heard.length);
  assert.deepEqual([annIn.heard, beaIn.heard], [[message], [message]]);
  assert.equal((await ann.publish(room, 'others', { noSelf: true })).delivered, 1);
  beaIn.unsubscribe();
  await bea.ping();
  assert.equal((await annIn.publish('alone')).delivered, 1);
  await until('her own', () => annIn.heard.length === 2);
  assert.deepEqual([annIn.heard.at(-1), beaIn.heard], ['alone', [message, 'others']]);
  assert.ok(await ann.ping() >= 0);
});

test('a backend\'s messages, presence, joined and left', async () => {
  const room = freshRoom('people:');
  const said = [];
  const zoe = open(node, { name: 'Zoë' });
  const inside = await enter(zoe, room, { onJoined: ({ user }) => said.push(`+${user}`), onLeft: ({ user }) => said.push(`-${user}`) });
  const kim = open(node, { name: 'kim' });
  const other = await enter(kim, room);
  await until('kim to be seen', () => said.includes('+kim'));
  const { count, members } = await inside.presence();
  assert.deepEqual([count, members.map(({ user }) => user).sort()], [2, ['Zoë', 'kim']]);
  assert.equal(zoe.welcome.user, 'Zoë');
  other.leave();
  await until('kim to be missed', () => said.includes('-kim'));
  await node.publish(room, { from: 'backend' });
  await until('the backend', () => inside.heard.length);
  assert.deepEqual(inside.heard, [{ from: 'backend' }]);
});

test('a guest is the same one in another tab, and nobody else takes his name', async () => {
  const ivy = open(node, { name: 'ivy' });
  await until('ivy to be let in', () => ivy.welcome);
  const tab = open(node, { name: 'ivy', guestToken: ivy.welcome.token });
  await until('her other tab', () => tab.welcome?.user === 'ivy');
  const other = open(node, { name: 'ivy' });
  await until('the other to be sent away', () => other.state === 'stopped');
  assert.deepEqual([other.ends.at(-1).code, other.ends.at(-1).reason], [4409, 'name taken']);
  const room = freshRoom('people:');
  const inside = await enter(tab, room);
  const page = await inside.presence({ limit: 1 });
  assert.deepEqual([page.members.map(({ user }) => user), page.next], [['ivy'], undefined]);
  // A token of another gateway is forgotten, and the name alone counts.
  const stranger = open(node, { name: 'jo', guestToken: forge({ sub: 'jo', guest: '1', exp: 2e9 }, 'f'.repeat(32)) });
  await until('the stranger to be let in', () => stranger.welcome?.user === 'jo');
});

test('a thousand publications at once: all answered, all in order', async () => {
  const client = open(node);
  const inside = await enter(client, freshRoom());
  const receipts = await Promise.all(Array.from({ length: 1_000 }, (_, n) => inside.publish(n)));
  assert.ok(receipts.every(({ delivered }) => delivered === 1));
  await until('all of them', () => inside.heard.length === 1_000);
  assert.deepEqual(inside.heard, Array.from({ length: 1_000 }, (_, n) => n));
});

test('refusals carry the gateway\'s code', async () => {
  const client = open(node);
  const room = freshRoom();
  await assert.rejects(client.presence(room), ({ code, sent }) => code === 'not_subscribed' && sent);
  await assert.rejects(client.publish('staff:1', 1), ({ code }) => code === 'not_allowed');
  await assert.rejects(client.publish('no good', 1), ({ code }) => code === 'bad_room');
  const refused = [];
  const staff = client.subscribe('staff:1', { onError: (error) => refused.push(error) });
  await assert.rejects(staff.ready, FanfareError);
  assert.equal(refused[0].code, 'not_allowed');
  client.subscribe('staff:1', { onError() {} });
  assert.equal(client.state, 'connected');
});

test('a token opens what it grants, and an expired one is replaced without a message lost', async () => {
  const mint = (ttl) => node.token('--user', 'ann', '--room', 'staff:*', '--publish', '--ttl', ttl);
  const fixed = open(node, { token: mint('1h') });
  const inside = await enter(fixed, 'staff:1');
  assert.equal((await inside.publish('in')).delivered, 1);
  assert.equal(fixed.welcome.user, 'ann');
  // The gateway grants a token 30 s beyond its end; this one's is nearly over.
  await withDeadline(2, async (seconds) => {
    let asked = 0;
    const old = forge({ sub: 'ann', exp: Math.floor(Date.now() / 1000) - 30 + seconds, rooms: { 'staff:*': ['subscribe', 'publish'] } });
    const renewed = open(node, { getToken: async () => (asked++ === 0 ? old : mint('1h')) });
    const staff = await enter(renewed, 'staff:1');
    if (asked > 1) throw new TooSlow('the first token was over before it was brought');
    await until('the first token to expire', () => renewed.ends.length);
    assert.equal(renewed.ends[0].code, 4401);
    await until('the return', () => staff.back.length === 2);
    assert.deepEqual([staff.back[1].recovered, asked], [true, 2]);
    await inside.publish('still there');
    await until('the next message', () => staff.heard.includes('still there'));
  });
});

test('4401: a token that does not hold stops the client, with the reason', async () => {
  const client = open(node, { token: forge({ sub: 'ann', exp: 4e9 }, 'another secret that is long enough') });
  const waits = client.publish('a', 1);
  await assert.rejects(waits, ({ code }) => code === 'closed');
  assert.equal(client.state, 'stopped');
  assert.deepEqual([client.ends.length, client.ends[0].code, client.ends[0].retryMs], [1, 4401, null]);
  assert.match(client.ends[0].reason, /signature/);
});

test('a room closed for all ends its subscription and nothing else', async () => {
  const [room, other] = [freshRoom(), freshRoom()];
  const client = open(node);
  let closed = 0;
  await enter(client, room, { onClosed: () => { closed += 1; } });
  const stays = await enter(client, other);
  await node.closeRoom(room);
  await until('the end of the room', () => closed);
  assert.equal((await stays.publish(1)).delivered, 1);
  const again = await enter(client, room);
  assert.equal((await again.publish(1)).delivered, 1);
});

test('kill -9 and a restart on the same port: the client comes back, subscribes again, and tells the gap', async () => {
  const victim = await gateway(COMMON);
  try {
    await victim.start();
    const client = open(victim);
    const inside = await enter(client, 'news');
    await inside.publish('before');
    await until('the first', () => inside.heard.length);
    await victim.kill();
    await until('the loss to be noticed', () => client.state !== 'connected');
    assert.equal(client.ends[0].code, 1006);
    assert.ok(client.ends[0].retryMs >= 0 && client.ends[0].retryMs <= 500);
    const waits = inside.publish('while it was away');
    await victim.start();
    assert.equal((await waits).delivered, 1);
    await until('the return', () => client.state === 'connected' && inside.back.length === 2);
    // Rooms of another life: what was said in between is not known, and that is said.
    assert.deepEqual(inside.back.map(({ recovered }) => recovered), [true, false]);
    assert.deepEqual(inside.gaps, [{ room: 'news' }]);
    await victim.publish('news', 'after');
    await until('the last', () => inside.heard.includes('after'));
    assert.deepEqual(inside.heard, ['before', 'while it was away', 'after']);
    assert.deepEqual(client.states, ['connected', 'waiting', ...client.states.slice(2, -1), 'connected']);
  } finally {
    await victim.end();
  }
});

test('a publication on its way when the gateway is killed is rejected as sent, and not repeated', async () => {
  const victim = await gateway(COMMON);
  try {
    await victim.start();
    const client = open(victim);
    const inside = await enter(client, 'news');
    await victim.kill();
    // The client may know already, or not yet; either way each promise settles, and nothing arrives twice.
    const fates = await Promise.allSettled([client.publish('news', 1), Promise.resolve().then(() => victim.start())]);
    const { status, value, reason } = fates[0];
    if (status === 'rejected') assert.deepEqual([reason.code, reason.sent], ['connection_lost', true]);
    else assert.equal(value.delivered, 1);
    await until('the return', () => inside.back.length === 2);
    await client.ping();
    assert.deepEqual(inside.heard, status === 'rejected' ? [] : [1]);
  } finally {
    await victim.end();
  }
});

test('a drain: told, closed 1012, and back not before retry_ms', async () => {
  const victim = await gateway(`${COMMON}\n[drain]\ngrace_ms = 0\nwindow_ms = 0\nretry_ms = 1500\n`);
  try {
    await victim.start();
    const drains = [];
    const client = open(victim, { onDrain: ({ retry_ms }) => drains.push([retry_ms, Date.now()]) });
    const inside = await enter(client, 'news');
    const exit = victim.drain();
    await until('the drain', () => client.state === 'waiting');
    assert.equal(await exit, 0);
    // Each client is told a time of its own, so that they do not come back together.
    const [told] = drains[0];
    assert.ok(told >= 1_500 && told <= 2_250, `told ${told} ms`);
    assert.equal(client.ends[0].code, 1012);
    await victim.start();
    await until('the return', () => inside.back.length === 2);
    const took = Date.now() - drains[0][1];
    assert.ok(took >= told, `came back after ${took} ms`);
  } finally {
    await victim.end();
  }
});

test('a subscriber that missed messages where there is no history is told how many', async () => {
  const room = freshRoom();
  const client = open(node);
  // Somebody stays, so that the room lives on.
  await enter(open(node), room);
  const inside = await enter(client, room);
  await node.publish(room, 1);
  await until('one', () => inside.heard.length === 1);
  client.close();
  client.connect();
  await until('the return', () => inside.back.length === 2);
  assert.deepEqual([inside.back[1].recovered, inside.gaps], [true, []], 'nothing was missed');
  client.close();
  for (let n = 2; n <= 4; n += 1) await node.publish(room, n);
  client.connect();
  await until('the second return', () => inside.back.length === 3);
  assert.equal(inside.back[2].recovered, false);
  assert.deepEqual(inside.gaps, [{ room, from: 2, to: 4, count: 3 }]);
});

test('Node\'s own WebSocket', async () => {
  // Node 22 has it; Node 20 behind a flag that later ones still take.
  const script = `
    import { connect } from ${JSON.stringify(new URL('../dist/fanfare.js', import.meta.url).href)};
    const client = connect(${JSON.stringify(node.url)}, { token: ${JSON.stringify(node.token('--user', 'ann', '--room', 'staff:*', '--publish'))} });
    const heard = new Promise((done) => client.subscribe('staff:own', { onMessage: done }));
    const { delivered } = await client.publish('staff:own', 'from within');
    const { user, message } = await heard;
    console.log(user, message, delivered);
    client.close();`;
  const child = spawn(process.execPath, ['--no-warnings', '--experimental-websocket', '--input-type=module', '--eval', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text) => { said += text; });
  const status = await new Promise((done) => child.once('exit', done));
  assert.deepEqual([said, status], ['ann from within 1\n', 0]);
});
