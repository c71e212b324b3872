// Bootstraps the pinned Node and the npm packages with whatever Node (18 or newer) is there, then runs one task.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const tasks = {
  up: 'test/openstack/up.ts',
  down: 'test/openstack/down.ts',
  tempest: 'test/openstack/tempest/run.ts',
  test: 'scripts/test.ts',
  check: 'scripts/check.ts',
  static: 'scripts/check.ts --static',
  integration: 'scripts/integration.ts',
  faults: 'scripts/faults.ts',
  'cloud-init': 'scripts/cloud-init.ts',
  kernel: 'scripts/kernel.ts',
  fix: 'scripts/fix.ts',
  generate: 'scripts/generate.ts',
  bench: 'test/bench/bench.ts',
};

// not `npm ci`: it insists on optional packages of foreign platforms, which a mirror need not have; versions and checksums are
// the lockfile's all the same
const INSTALL = ['install', '--no-save', '--engine-strict=false', '--no-audit', '--no-fund', '--loglevel=error'];

function installPackages() {
  const digest = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex');
  const stamp = join(root, 'node_modules', '.lightervisor-lock');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === digest) return;
  console.log('==> installing npm packages (first run, or the lockfile changed)');
  const { status } = spawnSync('npm', INSTALL, {
    cwd: root,
    stdio: 'inherit',
  });
  if (status !== 0) {
    console.error('npm install failed; is an npm registry reachable? (npm ping tells)');
    process.exit(status ?? 1);
  }
  writeFileSync(stamp, digest);
}

function scriptOf(name) {
  const [file, ...flags] = tasks[name].split(' ');
  return [join(root, file), ...flags];
}

const [task, ...args] = process.argv.slice(2);
if (!Object.hasOwn(tasks, task)) {
  console.error(`usage: node scripts/run.mjs ${Object.keys(tasks).join('|')}`);
  process.exit(2);
}
installPackages();
const node = join(root, 'node_modules', `node-linux-${process.arch}`, 'bin', 'node');
const env = { ...process.env, PATH: `${dirname(node)}:${process.env.PATH}`, NODE_NO_WARNINGS: '1' };
const child = spawnSync(node, [...scriptOf(task), ...args], { cwd: root, stdio: 'inherit', env });
process.exit(child.status ?? (child.signal ? 128 : 1));
