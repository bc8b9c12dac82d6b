// What is handed out: size, types, and that the gateway carries the build of this source.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { HERE } from './support.mjs';

const ROOT = join(HERE, '..');
const run = (...args) => spawnSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' });
const served = () => readFileSync(join(ROOT, '../../crates/fanfare-server/src/assets/fanfare.js'));

test('the gateway carries the build of this source', () => {
  const { status, stdout, stderr } = run('build.mjs', '--check');
  assert.equal(status, 0, stdout + stderr);
});

test('the build is at most 3 KB with gzip', (context) => {
  const bytes = gzipSync(served(), { level: 9 }).length;
  context.diagnostic(`fanfare.js: ${served().length} bytes, ${bytes} with gzip`);
  assert.ok(bytes <= 3 * 1024, `${bytes} bytes with gzip`);
});

test('no dependency comes along, and the lock file names no registry', () => {
  const { dependencies, peerDependencies, optionalDependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  assert.deepEqual([dependencies, peerDependencies, optionalDependencies], [undefined, undefined, undefined]);
  assert.doesNotMatch(readFileSync(join(ROOT, 'package-lock.json'), 'utf8'), /"resolved"/);
  assert.doesNotMatch(served().toString(), /\b(import|require)\s*[({"']/);
});

test('the types serve a strict program, with the types of browsers and without', () => {
  for (const lib of ['es2022,dom', 'es2022']) {
    const { status, stdout } = run('node_modules/typescript/bin/tsc', '--ignoreConfig', '--noEmit', '--strict', '--target', 'es2022', '--module', 'esnext',
      '--moduleResolution', 'bundler', '--types', '', '--lib', lib, 'test/program.ts');
    assert.equal(status, 0, `with lib ${lib}:\n${stdout}`);
  }
});
