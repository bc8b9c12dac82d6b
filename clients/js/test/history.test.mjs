// Recovery against a real gateway: what was missed follows, in order and once; where it cannot, that is said.

import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { WebSocket } from 'ws';
import { closeAll, enter, freshRoom, gateway, open, PAST } from './support.mjs';
import { until } from '../../../tests/steady.mjs';

let node;

before(async () => {
  node = await gateway(PAST);
  await node.start();
});
afterEach(closeAll);
after(() => node.end());

test('resume: what was missed comes first, in order and once', async () => {
  const room = freshRoom('past:');
  const client = open(node);
  const inside = await enter(client, room);
  for (let n = 1; n <= 3; n += 1) await node.publish(room, n);
  await until('three', () => inside.heard.length === 3);
  assert.match(inside.position, /^[0-9a-f]{16}:3$/);
  client.close();
  for (let n = 4; n <= 6; n += 1) await node.publish(room, n);
  client.connect();
  await until('the return', () => inside.back.length === 2);
  await node.publish(room, 7);
  await until('all', () => inside.heard.length >= 7);
  assert.deepEqual([inside.heard, inside.back[1].recovered, inside.gaps], [[1, 2, 3, 4, 5, 6, 7], true, []]);

  // Another client, from a position that it was given.
  const late = await enter(open(node), room, { since: inside.position.replace(/:.*/, ':5') });
  await until('two', () => late.heard.length >= 2);
  assert.deepEqual(late.heard, [6, 7]);
});

test('history is what was said, and where the room stands', async () => {
  const room = freshRoom('past:');
  const inside = await enter(open(node), room);
  for (let n = 1; n <= 3; n += 1) await inside.publish({ n });
  const { messages, epoch, offset } = await inside.history();
  assert.deepEqual([messages.map(({ message, offset }) => [message, offset]), offset], [[[{ n: 1 }, 1], [{ n: 2 }, 2], [{ n: 3 }, 3]], 3]);
  const some = await inside.history({ since: `${epoch}:1`, limit: 1 });
  assert.deepEqual(some.messages.map(({ message }) => message), [{ n: 2 }]);
});

test('where history does not reach, the gap is told', async () => {
  const room = freshRoom('short:');
  const client = open(node);
  const inside = await enter(client, room);
  await node.publish(room, 1);
  await until('one', () => inside.heard.length === 1);
  client.close();
  for (let n = 2; n <= 9; n += 1) await node.publish(room, n);
  client.connect();
  await until('the return', () => inside.back.length === 2);
  await node.publish(room, 10);
  await until('the next message', () => inside.heard.includes(10));
  assert.equal(inside.back[1].recovered, false);
  // Heard and announced as missing: together all, and nothing twice.
  const missed = inside.gaps.reduce((sum, { count }) => sum + count, 0);
  assert.equal(inside.heard.length + missed, 10, JSON.stringify(inside));
  assert.equal(new Set(inside.heard).size, inside.heard.length);
});

test('cut off again and again while others publish: every message once, in order', async () => {
  const room = freshRoom('past:');
  const total = 3_000;
  let socket;
  class Cut extends WebSocket {
    constructor(...given) {
      super(...given);
      socket = this;
    }
  }
  // Cuts in the middle of what arrives: at messages that a seeded generator chooses.
  let seed = 7;
  const dice = (sides) => { seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648; return seed % sides; };
  const heard = [];
  const gaps = [];
  let cutAt = 20;
  let cuts = 0;
  const cut = () => {
    cuts += 1;
    // What has arrived and was not read is lost with the connection.
    socket.onmessage = () => {};
    socket.terminate();
  };
  const client = open(node, { WebSocket: Cut, onState: (state) => { if (state === 'waiting') client.connect(); } });
  const inside = await enter(client, room, {
    onMessage: ({ message, offset }) => {
      heard.push(message);
      assert.equal(offset, message);
      if (heard.length === cutAt) {
        cutAt += 1 + dice(60);
        cut();
      }
    },
    // And just before what was missed arrives.
    onSubscribed: () => { if (heard.length && dice(3) === 0) cut(); },
    onGap: (gap) => gaps.push(gap),
  });
  // A room may be cut off for longer than its history; then the test would be another.
  const others = open(node, { waitingMax: 1_000 });
  for (let sent = 0; sent < total;) {
    await Promise.all(Array.from({ length: 100 }, () => others.publish(room, ++sent)));
    await until('the receiver to follow', () => heard.length > sent - 800);
  }
  await until('all of them', () => heard.length >= total);
  await client.ping();
  assert.deepEqual(gaps, []);
  assert.deepEqual(heard, Array.from({ length: total }, (_, n) => n + 1));
  assert.ok(cuts > 50, `${cuts} cuts`);
  assert.match(inside.position, new RegExp(`:${total}$`));
});

test('a gateway that was killed remembers nothing, and that is told', async () => {
  const victim = await gateway(PAST);
  try {
    await victim.start();
    const client = open(victim);
    const inside = await enter(client, 'past:news');
    await inside.publish('before');
    await until('the first', () => inside.heard.length);
    await victim.kill();
    await victim.start();
    await until('the return', () => inside.back.length === 2);
    assert.deepEqual([inside.back[1].recovered, inside.gaps], [false, [{ room: 'past:news' }]]);
  } finally {
    await victim.end();
  }
});
