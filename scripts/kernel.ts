// npm run test:kernel [SET|FILE…]: tests on another kernel, in a machine that is booted for it: storage drivers on OpenZFS and the device
// mapper, containers under cgroup v2 and AppArmor.
import { existsSync, mkdtempSync, readdirSync, realpathSync, rmSync, statSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join, sep } from 'node:path';
import { ROOT, runTool } from './tool.ts';
import { closingLine, type Counts, countsOf, NONE } from './vitest-run.ts';

const SETS: Readonly<Record<string, readonly string[]>> = {
  storage: ['zfs', 'zfs-pools', 'zfs-crash', 'lvm', 'lvm-pools', 'lvm-crash', 'runtime'].map(
    (name) => `storage/${name}`,
  ),
  containers: [
    'runtime/lxc',
    'limits/limits',
    'limits/kernel-limits',
    'security/system-calls',
    'devices/hot-plug',
    'instances/hostile-kernel',
    'instances/hostile-life',
    'instances/hostile-exec',
  ],
};
const DEFAULT_SET = 'storage';
/** An emulated machine is slow. */
const DEFAULT_FACTOR = '4';
const DEFAULT_LIMIT_SECONDS = '14400';

const HELP = `LIGHTERVISOR_KERNEL_LAB is not set: the path of a program that runs a command on another kernel.
It is called as

    PROGRAM -t SECONDS --share DIRECTORY … DIRECTORY -- COMMAND

boots a machine (QEMU, for one), gives it these directories at the same paths, runs COMMAND there by a shell as root, passes on what it
prints and its exit status, and ends the machine. See CONTRIBUTING.md for what must be in it.`;

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Programs and libraries for Node: what is to be executed, and not only read. */
function executables(packages: string): readonly string[] {
  const architecture = `linux-${process.arch}`;
  const modules = readdirSync(packages, { recursive: true, encoding: 'utf8' }).filter(
    (path) =>
      path.endsWith('.node') && path.includes(architecture) && !path.includes('musl') && !path.includes('oxlint'),
  );
  return [join(packages, `node-${architecture}`, 'bin', 'node'), ...modules.map((path) => join(packages, path))];
}

interface Job {
  /** node_modules, wherever that really is. */
  readonly packages: string;
  /** A directory that both machines see. */
  readonly scratch: string;
  readonly files: readonly string[];
}

/** What is translated here need not be there, which takes minutes. */
function vitestArgs({ scratch, files }: Omit<Job, 'packages'>): readonly string[] {
  const cache = ['--experimental.fsModuleCache', `--experimental.fsModuleCachePath=${join(scratch, 'modules')}`];
  return ['run', '--project', 'integration', ...cache, ...files];
}

/**
 * Executables lie in the machine's own memory: what an emulator runs from a shared folder may be older than what it reads there, since it
 * does not see that another process filled the page.
 */
function command({ packages, ...job }: Job, report: string): string {
  const copies = executables(packages).map((path, index) => {
    const copy = `/run/lightervisor/${index}`;
    return `cp ${quoted(path)} ${copy} && mount --bind ${copy} ${quoted(path)}`;
  });
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const node = join(packages, `node-linux-${process.arch}`, 'bin', 'node');
  const vitest = [node, join(packages, 'vitest', 'vitest.mjs'), ...vitestArgs(job), ...reporters];
  const environment = {
    INTEGRATION: '1',
    REQUIRE_INTEGRATION: '1',
    REQUIRE_KERNEL: '1',
    NODE_NO_WARNINGS: '1',
    LIGHTERVISOR_TIME_FACTOR: process.env['LIGHTERVISOR_TIME_FACTOR'] ?? DEFAULT_FACTOR,
  };
  return [
    'set -e',
    `cd ${quoted(ROOT)}`,
    'mkdir -p /run/lightervisor',
    ...copies,
    ...Object.entries(environment).map(([name, value]) => `export ${name}=${quoted(value)}`),
    `exec ${vitest.map(quoted).join(' ')}`,
  ].join('\n');
}

async function run(lab: string, files: readonly string[]): Promise<Counts> {
  const packages = realpathSync(join(ROOT, 'node_modules'));
  const scratch = mkdtempSync(join(tmpdir(), 'lightervisor-kernel-'));
  const report = join(scratch, 'report.json');
  const job = { packages, scratch, files };
  const shares = [scratch, ...(packages.startsWith(ROOT + sep) ? [] : [packages])];
  try {
    // here, where nothing of them runs: integration tests were not asked for
    await runTool(
      { name: 'translation', argv: ['vitest', ...vitestArgs(job)], env: { INTEGRATION: '' } },
      { quiet: true },
    );
    const limit = process.env['LIGHTERVISOR_KERNEL_LIMIT'] ?? DEFAULT_LIMIT_SECONDS;
    const args = ['-t', limit, ...shares.flatMap((share) => ['--share', share]), ROOT, '--'];
    const child = spawn(lab, [...args, command(job, report)], { stdio: ['ignore', 'inherit', 'inherit'] });
    const code = await new Promise<number>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (exitCode) => resolve(exitCode ?? 1));
    });
    return countsOf(report, code);
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

/** Of a set, or the file itself. */
function filesOf(name: string): readonly string[] {
  return SETS[name]?.map((file) => `test/integration/${file}.test.ts`) ?? [name];
}

async function main(files: readonly string[]): Promise<void> {
  const lab = process.env['LIGHTERVISOR_KERNEL_LAB'] ?? '';
  if (lab === '' || !existsSync(lab) || !statSync(lab).isFile()) {
    console.error(lab === '' ? HELP : `LIGHTERVISOR_KERNEL_LAB=${lab}: there is no such program`);
    process.exitCode = 2;
    return;
  }
  const known = files.length > 0 ? files.flatMap(filesOf) : filesOf(DEFAULT_SET);
  const counts = known.length === 0 ? NONE : await run(lab, known);
  console.log(closingLine(counts));
  if (counts.failed > 0 || counts.passed === 0) process.exitCode = 1;
}

await main(process.argv.slice(2));
