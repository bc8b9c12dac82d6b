// What the tests in JavaScript share, so that none of them fails because of the machine: how long they wait, and which ports they give to what they start.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';

/** The longest a test waits for anything. It is there so that a test that hangs fails and says at what: no machine that runs the tests at all may be too slow for it. */
export const PATIENCE_MS = 60_000;

/** For a whole case, which waits for several things. */
export const CASE_MS = 5 * PATIENCE_MS;

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Waits until `holds` gives something, and gives that. */
export async function until(what, holds) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await holds();
    if (found) return found;
    assert.ok(Date.now() < end, `waited ${PATIENCE_MS} ms for ${what}`);
    await pause(10);
  }
}

/** A deadline that somebody else sets was not kept, and the machine may be why: the case has shown nothing. */
export class TooSlow extends Error {}

/**
 * Runs a case with a deadline of so many seconds; where it throws [TooSlow], with four and with sixteen times as many. So what is asserted holds on every
 * machine, and is asserted on a quick one within the first.
 */
export async function withDeadline(first_s, body) {
  for (const seconds of [first_s, 4 * first_s]) {
    try {
      return await body(seconds);
    } catch (error) {
      if (!(error instanceof TooSlow)) throw error;
      console.error(`too slow for a deadline of ${seconds} s: ${error.message}`);
    }
  }
  return body(16 * first_s);
}

const LOWEST_PORT = 10_000;
const given = new Set();

/**
 * Ports that nobody listens on, and that the kernel gives to nobody of itself: a program that is started on one, or again on the same one, finds it free.
 * Where the kernel gives all there are it is asked for one.
 */
export async function freePorts(count) {
  let first = 0;
  try {
    first = Number(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s/)[0]);
  } catch {
    // Another system.
  }
  const ports = [];
  while (ports.length < count) {
    const wanted = first > LOWEST_PORT + 5_000 ? LOWEST_PORT + Math.floor(Math.random() * (first - LOWEST_PORT)) : 0;
    const server = createServer();
    const port = await new Promise((done) => server.once('error', () => done(0)).listen(wanted, '127.0.0.1', () => done(server.address().port)));
    if (!port) continue;
    await new Promise((done) => server.close(done));
    if (given.has(port)) continue;
    given.add(port);
    ports.push(port);
  }
  return ports;
}
