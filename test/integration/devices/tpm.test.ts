// A TPM of an instance's own: swtpm behind the kernel's proxy.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { run } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { deviceBench, type DeviceBench } from './devices-support.ts';

const NAME = 'tpm-c1';
/** TPM2_ReadClock: the answer has, at 26, how often the TPM was started. */
const READ_CLOCK = String.raw`\200\001\000\000\000\012\000\000\001\201`;
const ANSWER_BYTES = 35;

function lacks(): string | undefined {
  if (!existsSync('/dev/vtpmx')) spawnSync('modprobe', ['-b', 'tpm_vtpm_proxy'], { stdio: 'ignore' });
  return existsSync('/dev/vtpmx') ? undefined : 'tpm_vtpm_proxy in the kernel';
}

/** Pids of the swtpm of this instance. */
function servers(): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
        return argv[0] === 'swtpm' && argv.some((word) => word.includes(`/${NAME}/`));
      } catch {
        return false; // it has just ended
      }
    })
    .map(Number);
}

describeWith(
  { root: true, commands: ['lxc', 'lxc-start', 'busybox', 'nsenter'], extras: ['swtpm'], lacks },
  'a TPM of an instance',
  () => {
    let bench: DeviceBench;
    beforeAll(async () => {
      bench = await deviceBench();
      await bench.launch(NAME);
    });
    afterAll(async () => {
      await bench[Symbol.asyncDispose]();
      expect(servers()).toEqual([]);
    });

    /** How often it was started, as it says itself. */
    async function starts(path: string): Promise<number> {
      const ask = `exec 3<>${path}; printf '${READ_CLOCK}' >&3; busybox head -c ${ANSWER_BYTES} <&3 | busybox od -An -v -tx1`;
      const bytes = (await bench.inside(NAME, 'sh', '-c', ask)).trim().split(/\s+/);
      expect(bytes).toHaveLength(ANSWER_BYTES);
      return Number.parseInt(bytes.slice(26, 30).join(''), 16);
    }
    const node = (path: string) =>
      bench.inside(NAME, 'stat', '-c', '%u:%g:%a', path).then(
        (text) => text.trim(),
        () => 'none',
      );

    it('is refused without a place in the instance, and with options that are none', async () => {
      const add = (...options: string[]) => bench.lxc('config', 'device', 'add', NAME, 'bad', 'tpm', ...options);
      await expect(add()).rejects.toThrow('A tpm device needs "path"');
      await expect(add('path=/dev/tpm0', 'mode=0600')).rejects.toThrow('Invalid device option "mode"');
      expect(servers()).toEqual([]);
    });

    it('is plugged in, answers, and goes on when the daemon is killed', async () => {
      await bench.lxc('config', 'device', 'add', NAME, 't', 'tpm', 'path=/dev/tpm0', 'pathrm=/dev/tpmrm0');
      expect([await node('/dev/tpm0'), await node('/dev/tpmrm0')]).toEqual(['0:0:660', '0:0:660']);
      const first = await starts('/dev/tpm0');
      expect(await starts('/dev/tpmrm0')).toBe(first);
      const before = servers();
      expect(before).toHaveLength(1);

      await bench.daemon.kill();
      await bench.daemon.boot();

      expect(servers()).toEqual(before);
      expect(await starts('/dev/tpm0')).toBe(first);
    });

    it('is the same one after a restart of the instance, and ends with it', async () => {
      const first = await starts('/dev/tpm0');

      await bench.lxc('stop', '-f', NAME);
      expect(servers()).toEqual([]);
      await bench.lxc('start', NAME);
      await bench.daemon.ready(NAME);

      expect(await starts('/dev/tpm0')).toBeGreaterThan(first);
    });

    it('ends with an instance that ends while there is no daemon', async () => {
      const init = await bench.pid(NAME);
      await bench.daemon.kill();
      process.kill(init, 'SIGKILL');
      await bench.daemon.boot();

      await poll(async () => (servers().length === 0 ? true : undefined), 200, AbortSignal.timeout(60_000));
      await bench.lxc('start', NAME);
      await bench.daemon.ready(NAME);
    });

    it('is swept away when a daemon was killed before it noted that it started it', async () => {
      await bench.lxc('stop', '-f', NAME);
      const state = join(bench.daemon.root, 'instances', NAME, 'tpm.t');
      const files = ['--tpmstate', `dir=${state}`, '--pid', `file=${join(state, 'swtpm.pid')}`];
      await run('swtpm', ['chardev', '--tpm2', '--vtpm-proxy', ...files, '--daemon']);
      expect(servers()).toHaveLength(1);

      await bench.daemon.kill();
      await bench.daemon.boot();

      await poll(async () => (servers().length === 0 ? true : undefined), 200, AbortSignal.timeout(60_000));
      await bench.lxc('start', NAME);
      await bench.daemon.ready(NAME);
    });

    it('is made anew when its process dies', async () => {
      const [pid = 0] = servers();
      const first = await starts('/dev/tpm0');
      process.kill(pid, 'SIGKILL');

      const works = () => starts('/dev/tpm0').catch(() => undefined);
      const later = await poll(works, 200, AbortSignal.timeout(60_000));

      expect(later).toBeGreaterThan(first);
      expect(servers()).not.toContain(pid);
    });

    it('is unplugged, and nothing is left of it with the instance', async () => {
      await bench.lxc('config', 'device', 'remove', NAME, 't');
      expect([await node('/dev/tpm0'), await node('/dev/tpmrm0'), servers()]).toEqual(['none', 'none', []]);

      await bench.lxc('delete', '-f', NAME);

      expect(readdirSync(join(bench.daemon.root, 'instances'))).toEqual([]);
    });
  },
);
