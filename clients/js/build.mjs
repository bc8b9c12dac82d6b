// Builds the client: dist/ for npm, and the two files of it that the gateway's binary carries, so that cargo needs no node.
//
//   node build.mjs           writes them
//   node build.mjs --check   fails when they are not what the source makes
//
// The gateway serves fanfare.js as /fanfare.js, and puts fanfare.page.js into its page, which may load no script.

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';

const HERE = dirname(fileURLToPath(import.meta.url));
const ASSETS = resolve(HERE, '../../crates/fanfare-server/src/assets');
const GZIP_BYTES_MAX = 3 * 1024;
const { version, license } = JSON.parse(readFileSync(join(HERE, 'package.json'), 'utf8'));

const banner = `/*! fanfare-client ${version}, ${license} */`;
const bundle = async (options) => {
  const { outputFiles } = await build({
    absWorkingDir: HERE, entryPoints: ['src/fanfare.ts'], bundle: true, minify: true, write: false, target: 'es2022', banner: { js: banner }, ...options,
  });
  return outputFiles[0].text;
};

const served = await bundle({ format: 'esm' });
const paged = await bundle({ format: 'iife', globalName: 'fanfare' });
const assets = [[join(ASSETS, 'fanfare.js'), served], [join(ASSETS, 'fanfare.page.js'), paged]];

if (process.argv.includes('--check')) {
  const read = (path) => { try { return readFileSync(path, 'utf8'); } catch { return ''; } };
  const stale = assets.filter(([path, text]) => read(path) !== text).map(([path]) => path);
  if (stale.length) {
    console.error(`not what clients/js/src makes: ${stale.join(', ')}\n  make them anew with: make js`);
    process.exit(1);
  }
} else {
  for (const [path, text] of assets) writeFileSync(path, text);
}

mkdirSync(join(HERE, 'dist'), { recursive: true });
writeFileSync(join(HERE, 'dist/fanfare.js'), served);
const types = spawnSync(process.execPath, [join(HERE, 'node_modules/typescript/bin/tsc'), '--project', HERE], { stdio: 'inherit' });
if (types.status !== 0) process.exit(types.status ?? 1);

const bytes = gzipSync(served, { level: 9 }).length;
console.log(`fanfare.js: ${served.length} bytes, ${bytes} with gzip (at most ${GZIP_BYTES_MAX})`);
if (bytes > GZIP_BYTES_MAX) process.exit(1);
