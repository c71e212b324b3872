// A whole Debian with systemd as an unprivileged instance: boots, is told its name, obeys a clean stop, starts as fast as liblxc lets it.
import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { debianSystemdRoot } from '../images.ts';
import { describeWith } from '../support.ts';
import { run, TestDaemon } from './daemon-support.ts';

const ROUNDS = 7;

describeWith({ root: true, commands: ['lxc-start', 'mmdebstrap', 'tar'] }, 'Debian with systemd', () => {
  let daemon: TestDaemon;
  let scratch: string;

  beforeAll(async () => {
    const root = await debianSystemdRoot();
    scratch = await mkdtemp(join(tmpdir(), 'debian-image-'));
    const metadata = { architecture: process.arch === 'arm64' ? 'aarch64' : 'x86_64', creation_date: 1 };
    await writeFile(join(scratch, 'metadata.yaml'), JSON.stringify(metadata));
    const image = join(scratch, 'debian.tar');
    const rename = ['--transform', 's,^debian-systemd,rootfs,'];
    const where = ['-C', dirname(root), 'debian-systemd', '-C', scratch, 'metadata.yaml'];
    await run('tar', ['-cf', image, '--numeric-owner', ...rename, ...where]);
    daemon = await TestDaemon.start();
    const upload = await daemon.call('POST', '/1.0/images', await readFile(image), {
      'content-type': 'application/octet-stream',
    });
    const ended = await daemon.call('GET', `${upload.operation}/wait?timeout=300`);
    const target = ended.metadata.metadata.fingerprint;
    await daemon.call('POST', '/1.0/images/aliases', { name: 'bb', target });
  }, 1_200_000);

  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    await rm(scratch, { recursive: true, force: true });
  });

  it('boots without a failed unit, under its own name', async () => {
    await daemon.launch('deb');
    const login = async () => ((await daemon.consoleLog('deb')).includes('deb login:') ? true : undefined);
    await poll(login, 100, AbortSignal.timeout(60_000));
    const { pid } = await daemon.state('deb');

    const inside = (...argv: string[]) =>
      execFileSync('nsenter', ['-t', String(pid), '-a', ...argv])
        .toString()
        .trim();

    expect(inside('systemctl', '--failed', '--no-legend')).toBe('');
    expect(inside('hostname')).toBe('deb');
    expect(inside('cat', '/proc/self/uid_map')).toMatch(/^0\s+[1-9]\d+/);
  });

  it('obeys a clean stop', async () => {
    await daemon.operate('PUT', '/1.0/instances/deb/state', { action: 'stop', timeout: 30 });

    expect(await daemon.status('deb')).toBe('Stopped');
  });

  it('starts in little more time than lxc-start alone takes, and stops at once', async () => {
    const ours: number[] = [];
    const raw: number[] = [];
    const stops: number[] = [];
    const lxc = ['-n', 'deb-raw', '-P', scratch];
    for (let round = 0; round < ROUNDS; round++) {
      ours.push(await timed(() => daemon.operate('PUT', '/1.0/instances/deb/state', { action: 'start' })));
      if (round === 0) await writeRawConfig();
      stops.push(await timed(() => daemon.operate('PUT', '/1.0/instances/deb/state', { action: 'stop', force: true })));
      raw.push(await timed(() => run('lxc-start', [...lxc, '-d', '-f', join(scratch, 'raw.conf')])));
      await run('lxc-stop', [...lxc, '-k']);
    }

    // Medians of turns taken one after the other, on a machine that does other things too: what the engine adds of its own.
    expect(median(ours) - median(raw)).toBeLessThan(80);
    expect(median(stops)).toBeLessThan(400);
  });

  /** What the daemon wrote, on a copy of the same tree that needs no mount. */
  async function writeRawConfig(): Promise<void> {
    const config = await readFile(join(daemon.root, 'logs/deb/lxc.conf'), 'utf8');
    const [, uid = ''] = /^lxc\.idmap = u 0 (\d+)/m.exec(config) ?? [];
    const root = join(scratch, 'raw-root');
    await run('cp', ['-a', await debianSystemdRoot(), root]);
    await run('chown', ['-R', '-h', `${uid}:${uid}`, root]);
    await run('chmod', ['711', scratch]);
    const raw = config
      .replace(/^lxc\.rootfs\.path = .*$/m, `lxc.rootfs.path = dir:${root}`)
      .replace(/^lxc\.rootfs\.options = .*$/m, '')
      .replace(/^lxc\.mount\.auto = shmounts:.*$/m, '')
      .replace(/^lxc\.(log\.file|console\.logfile) = .*$/gm, '');
    await writeFile(join(scratch, 'raw.conf'), raw);
  }
});

async function timed(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

function median(values: readonly number[]): number {
  return values.toSorted((left, right) => left - right)[Math.floor(values.length / 2)] ?? 0;
}
