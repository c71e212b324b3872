// npm run test:kernel [SET|FILE…]: tests on another kernel, in a machine that is booted for it: storage drivers on OpenZFS and the device
// mapper, containers under cgroup v2 and AppArmor.
import { existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { execFileSync, spawn } from 'node:child_process';
import { tmpdir } from 'node:os';
import { basename, dirname, join, sep } from 'node:path';
import { ROOT, runTools } from './tool.ts';
import { closingLine, type Counts, countsOf, NONE } from './vitest-run.ts';

const ZFS = ['zfs', 'zfs-pools', 'zfs-crash', 'zfs-limits', 'zfs-attributes'].map((name) => `storage/${name}`);
const LVM = ['lvm', 'lvm-pools', 'lvm-crash'].map((name) => `storage/${name}`);
/** What another kernel shows; what any kernel shows is not among them, since everything takes ten times as long there. */
const SETS: Readonly<Record<string, readonly string[]>> = {
  zfs: [...ZFS, 'instances/zfs'],
  lvm: LVM,
  storage: [...ZFS, 'instances/zfs', ...LVM, 'storage/runtime'],
  streams: ['backups/optimized', 'migration/streams'],
  iscsi: ['host/iscsi'],
  tpm: ['devices/tpm'],
  limits: ['limits/limits', 'limits/kernel-limits', 'nics/rates'],
  containers: [
    'runtime/lxc',
    'limits/limits',
    'limits/kernel-limits',
    'nics/rates',
    'security/apparmor',
    'security/system-calls',
    'devices/device-access',
    'devices/hot-plug',
    'instances/hostile-kernel',
    'instances/hostile-life',
    'instances/hostile-exec',
  ],
};
const DEFAULT_SET = 'storage';
/** In the directory that both machines see. */
const CACHES = 'caches';
const ARCHIVE = 'files.tar';
/** The daemon in one file, which starts in a fraction of the time, as deep as it expects itself to lie. */
const DAEMON = 'daemon/a/b/c/lighterd.js';
/** What it looks for beside itself. */
const WORKERS = ['lib/yaml-worker', 'host/container-mount-worker', 'host/shift-worker', 'host/served/locate-root'];
const SERVERS = ['attach-server', 'forward-server', 'system-call-server'];
/** Tools that no test runs. */
const UNUSED = ['@biomejs', '@oxlint', '@oxlint-tsgolint', '@typescript', 'knip', 'typescript'];
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

interface Job {
  /** node_modules, wherever that really is. */
  readonly packages: string;
  /** A directory that both machines see. */
  readonly scratch: string;
  readonly files: readonly string[];
}

/** What is translated and compiled here need not be there, which takes minutes. */
function vitestArgs({ scratch, files }: Omit<Job, 'packages'>): readonly string[] {
  const cache = [
    '--experimental.fsModuleCache',
    `--experimental.fsModuleCachePath=${join(scratch, CACHES, 'modules')}`,
  ];
  return ['run', '--project', 'integration', ...cache, ...files];
}

const compiledIn = (scratch: string): string => join(scratch, CACHES, 'compiled');
const daemonIn = (scratch: string): string => join(scratch, CACHES, DAEMON);

/** Everything of it but the daemon itself. */
function linkDaemon({ scratch, packages }: Job): void {
  const beside = dirname(daemonIn(scratch));
  const root = join(beside, '../../..');
  mkdirSync(beside, { recursive: true });
  mkdirSync(join(root, 'bin'));
  symlinkSync(packages, join(root, 'node_modules'));
  symlinkSync(join(ROOT, 'package.json'), join(dirname(beside), 'package.json'));
  for (const worker of WORKERS) symlinkSync(join(ROOT, 'src', `${worker}.ts`), join(beside, `${basename(worker)}.js`));
  for (const server of SERVERS) symlinkSync(join(ROOT, 'bin', `${server}.ts`), join(root, 'bin', `${server}.js`));
}

/** Of what runs, as it is to lie on the other machine's disk. */
function archive({ scratch, packages }: Job): void {
  const unused = ['.git', ...UNUSED.map((name) => `node_modules/${name}`)].map((name) => `--exclude=${name}`);
  const paths = [ROOT, ...elsewhere(packages), join(scratch, CACHES)].map((path) => path.slice(1));
  execFileSync('tar', ['-C', '/', ...unused, '-cf', join(scratch, ARCHIVE), ...paths]);
}

/** Packages of a work tree that has no own. */
function elsewhere(packages: string): readonly string[] {
  return packages.startsWith(ROOT + sep) ? [] : [packages];
}

async function prepare(job: Job): Promise<void> {
  const daemon = daemonIn(job.scratch);
  const folder = ['-d', dirname(daemon), '--entryFileNames', basename(daemon)];
  linkDaemon(job);
  const isReady = await runTools(
    [
      // here, where nothing of them runs: integration tests were not asked for
      { name: 'translation', argv: ['vitest', ...vitestArgs(job)], env: { INTEGRATION: '' } },
      {
        name: 'daemon',
        argv: ['rolldown', join(ROOT, 'bin', 'lighterd.ts'), '--platform', 'node', '-e', 'koffi', ...folder],
      },
      { name: 'compilation', argv: ['node', daemon, '--warm'], env: { NODE_COMPILE_CACHE: compiledIn(job.scratch) } },
    ],
    { quiet: true },
  );
  if (!isReady) throw new Error('the tests cannot be prepared');
  archive(job);
}

/**
 * All that runs lies on the machine's own disk: a shared folder answers so slowly that a daemon with its hundreds of modules needs minutes to
 * start, and what an emulator runs from there may be older than what it reads.
 */
function command({ packages, ...job }: Job, report: string): string {
  const bind = (path: string): string => `mount --bind "$copy"${quoted(path)} ${quoted(path)}`;
  const reporters = ['--reporter=verbose', '--reporter=json', `--outputFile.json=${report}`];
  const node = join(packages, `node-linux-${process.arch}`, 'bin', 'node');
  const vitest = [node, join(packages, 'vitest', 'vitest.mjs'), ...vitestArgs(job), ...reporters];
  const environment = {
    INTEGRATION: '1',
    REQUIRE_INTEGRATION: '1',
    REQUIRE_KERNEL: '1',
    NODE_NO_WARNINGS: '1',
    LIGHTERD_ENTRY: daemonIn(job.scratch),
    LIGHTERD_COMPILE_CACHE: compiledIn(job.scratch),
    LIGHTERVISOR_TIME_FACTOR: process.env['LIGHTERVISOR_TIME_FACTOR'] ?? DEFAULT_FACTOR,
  };
  return [
    'set -e',
    'copy=$(mktemp -d /var/tmp/lightervisor-XXXXXX)',
    `tar -C "$copy" -xf ${quoted(join(job.scratch, ARCHIVE))}`,
    ...[ROOT, ...elsewhere(packages), join(job.scratch, CACHES)].map(bind),
    `cd ${quoted(ROOT)}`,
    ...Object.entries(environment).map(([name, value]) => `export ${name}=${quoted(value)}`),
    `exec ${vitest.map(quoted).join(' ')}`,
  ].join('\n');
}

async function run(lab: string, files: readonly string[]): Promise<Counts> {
  const packages = realpathSync(join(ROOT, 'node_modules'));
  const scratch = mkdtempSync(join(tmpdir(), 'lightervisor-kernel-'));
  const report = join(scratch, 'report.json');
  const job = { packages, scratch, files };
  mkdirSync(join(scratch, CACHES));
  const shares = [scratch, ...elsewhere(packages)];
  try {
    await prepare(job);
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
