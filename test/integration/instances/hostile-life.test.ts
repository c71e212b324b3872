// Containers that do not want to end, want everything there is, or want to be somebody else for the daemon.
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { poll } from '#src/lib/wait.ts';
import { describeWith } from '../support.ts';
import { HOSTILE_DRIVER, TestDaemon } from './daemon-support.ts';
import { HostileGuest, python, TOOLS } from './hostile-support.ts';

const run = promisify(execFile);
const LIMIT_MS = 60_000;
const PROCESSES = 60;
const MEMORY_BYTES = 64 << 20;
const DEEP = 'import os\nos.chdir("/tmp")\nfor _ in range(2500):\n  os.mkdir("dddd")\n  os.chdir("dddd")';

describeWith({ root: true, commands: ['lxc-start', 'busybox', 'python3'] }, 'a container that', () => {
  let daemon: TestDaemon;
  let guest: HostileGuest;
  let outside: string;

  beforeAll(async () => {
    daemon = await TestDaemon.start(HOSTILE_DRIVER);
    outside = await mkdtemp(join(tmpdir(), 'lighter-outside-'));
    await mkdir(join(outside, 'folder'));
    await writeFile(join(outside, 'secret'), 'of the host', { mode: 0o666 });
    await run('chmod', ['-R', 'a+rwX', outside]);
    await daemon.addImage();
    const config = {
      'limits.processes': String(PROCESSES),
      'limits.memory': String(MEMORY_BYTES),
    };
    await daemon.launch('l1', { config, devices: { tools: TOOLS } });
    await daemon.ready('l1');
    guest = new HostileGuest(daemon, 'l1');
  });
  afterAll(async () => {
    await daemon[Symbol.asyncDispose]();
    await rm(outside, { recursive: true, force: true });
  });

  const state = (name: string, action: string, more: object = {}) =>
    daemon.operate('PUT', `/1.0/instances/${name}/state`, { action, timeout: 2, ...more });

  async function untouched(): Promise<void> {
    expect((await readdir(outside)).sort()).toEqual(['folder', 'secret']);
    expect(await readdir(join(outside, 'folder'))).toEqual([]);
    expect(await readFile(join(outside, 'secret'), 'utf8')).toBe('of the host');
    expect((await daemon.call('GET', '/1.0')).status).toBe(200);
  }

  /** A container of its own, for those that do not survive it. */
  async function fresh(name: string, script: string, devices: object = {}): Promise<HostileGuest> {
    await daemon.launch(name, { devices });
    await daemon.ready(name);
    const made = new HostileGuest(daemon, name);
    expect((await made.sh(script)).code).toBe(0);
    return made;
  }

  async function goesAway(name: string): Promise<void> {
    await state(name, 'stop', { force: true });
    await daemon.operate('DELETE', `/1.0/instances/${name}`);
    expect((await daemon.mounts()).filter((path) => path.includes(`/${name}/`))).toEqual([]);
  }

  describe('wants everything', () => {
    it('has only so many processes', async () => {
      const { output } = await guest.sh(
        'i=0; while [ $i -lt 300 ]; do sleep 3 & i=$((i+1)); done 2>&1; ls -d /proc/[0-9]* | wc -l',
      );

      expect(output).toMatch(/fork|resource/iu);
      const { processes } = await daemon.state('l1');
      expect(processes).toBeLessThanOrEqual(PROCESSES);
      await poll(
        async () => ((await daemon.state('l1')).processes < 10 ? true : undefined),
        200,
        AbortSignal.timeout(LIMIT_MS),
      );
      expect(await guest.sh('echo well')).toEqual({ code: 0, output: 'well\n' });
    });

    it('has only so much memory', async () => {
      const before = Date.now();

      const { code } = await guest.exec(python(`a=[bytearray(1<<20) for _ in range(512)]`));

      expect(code).not.toBe(0);
      expect(Date.now() - before).toBeLessThan(LIMIT_MS);
      expect((await daemon.state('l1')).memory.usage).toBeLessThanOrEqual(MEMORY_BYTES);
      expect(await daemon.status('l1')).toBe('Running');
    });

    it('fills no disk with what it prints', async () => {
      const { code } = await guest.sh(
        'yes="$(printf "%01000d" 7)"; i=0; while [ $i -lt 4000 ]; do echo $yes; i=$((i+1)); done >/dev/console',
      );

      expect(code).toBe(0);
      const logs = join(daemon.root, 'logs');
      const { stdout } = await run('du', ['-sb', join(logs, 'l1')]);
      expect(Number(stdout.split('\t')[0])).toBeLessThan(6 << 20);
      expect((await daemon.consoleLog('l1')).length).toBeLessThanOrEqual(2 << 20);
    });

    it('fills no log of the daemon with what its commands print', async () => {
      const { code } = await guest.exec(['sh', '-c', 'head -c 20000000 /dev/zero | tr "\\0" x; exit 3']);

      expect(code).toBe(3);
      expect((await stat(join(daemon.root, 'daemon.log'))).size).toBeLessThan(5 << 20);
    });
  });

  describe('does not want to end', () => {
    it(
      'is killed when its init does not hear',
      async () => {
        await fresh('e1', 'exit 0');
        const pid = (await daemon.state('e1')).pid as number;
        process.kill(pid, 'SIGSTOP');

        await expect(state('e1', 'stop')).rejects.toThrow('Failed shutting down instance');
        await goesAway('e1');
      },
      LIMIT_MS,
    );

    it(
      'is killed though it sleeps in its own freezer',
      async () => {
        await fresh(
          'e2',
          'for d in /sys/fs/cgroup/freezer /sys/fs/cgroup; do [ -d $d ] && mkdir -p $d/cold && break; done; sleep 1000 & for f in $d/cold/tasks $d/cold/cgroup.procs; do echo $! >$f 2>/dev/null && break; done; echo FROZEN >$d/cold/freezer.state 2>/dev/null || echo 1 >$d/cold/cgroup.freeze 2>/dev/null; true',
        );

        await goesAway('e2');
      },
      LIMIT_MS,
    );

    it(
      'is killed when it is paused',
      async () => {
        await fresh('e3', 'exit 0');
        await state('e3', 'freeze');

        await goesAway('e3');
      },
      LIMIT_MS,
    );

    it(
      'goes with folders deeper than any path',
      async () => {
        await fresh('e4', 'exit 0', { tools: TOOLS });
        const deep = python(DEEP);
        expect(await new HostileGuest(daemon, 'e4').exec(deep)).toEqual({ code: 0, output: '' });

        await goesAway('e4');
      },
      LIMIT_MS,
    );

    it(
      'goes with mounts on mounts that it made, and without those of the engine',
      async () => {
        await fresh(
          'e5',
          'mkdir /tmp/m; i=0; while [ $i -lt 50 ]; do mount -t tmpfs t /tmp/m; i=$((i+1)); done; mount --bind / /tmp/m; umount -l /dev/lxd; umount -l /dev; umount -l /sys; true',
        );

        expect((await daemon.call('GET', '/1.0/instances/e5/state')).status).toBe(200);
        await goesAway('e5');
      },
      LIMIT_MS,
    );

    it('does not take its monitor along', async () => {
      const { output } = await guest.sh('kill -9 -1; kill -9 0; for p in $(seq 2 400); do kill -KILL $p; done; true');

      expect(output).toBeDefined();
      expect(await daemon.status('l1')).toBe('Running');
      expect((await guest.sh('true')).code).toBe(0);
    });
  });

  describe('wants to lead the daemon elsewhere', () => {
    const files = (path: string, name = 'l1') => `/1.0/instances/${name}/files?path=${encodeURIComponent(path)}`;

    it(
      'gets no host name written outside, nor a template, when it starts',
      async () => {
        await fresh('w1', `rm /etc/hostname; ln -s ${outside}/secret /etc/hostname`);
        await state('w1', 'restart', { force: true });
        await daemon.ready('w1', 2);

        await untouched();
        await new HostileGuest(daemon, 'w1').sh(
          `rm -r /etc/hostname /tmp/etc; mv /etc /etc2; ln -s ${outside}/folder /etc`,
        );
        await state('w1', 'restart', { force: true });
        await untouched();
        await goesAway('w1');
      },
      LIMIT_MS,
    );

    it.each([
      ['of many users', `yes "user:x:1000:1000::/home/user:/bin/sh" | head -n 200000 >/etc/passwd`],
      ['of one long line', 'head -c 5000000 /dev/zero | tr "\\0" x >/etc/passwd'],
      ['that is a pipe', 'rm /etc/passwd; mkfifo /etc/passwd'],
      ['that is a link to the host', 'rm /etc/passwd; ln -s $OUTSIDE/secret /etc/passwd'],
      ['that is a link to itself', 'rm /etc/passwd; ln -s passwd /etc/passwd'],
      ['that is a directory', 'rm /etc/passwd; mkdir /etc/passwd'],
      [
        'with bytes that are no text',
        'printf "root:\\377:0:0:\\033]0;evil:/../..:/bin/sh\\nuser:x:99999999999:-1::/:/bin/sh\\n" >/etc/passwd',
      ],
    ])(
      'runs commands with a list of users %s, or says why not',
      async (_what, script) => {
        await guest.exec(['sh', '-c', `cp /etc/passwd /tmp/passwd; ${script}`], { environment: { OUTSIDE: outside } });
        try {
          const started = await daemon.call('POST', '/1.0/instances/l1/exec', { command: ['true'], user: 1000 });
          const ended = await daemon.call('GET', `${started.operation}/wait?timeout=20`);

          expect(ended.metadata.status).not.toBe('Running');
          await untouched();
        } finally {
          await guest.exec(['sh', '-c', 'rm -rf /etc/passwd; cp /tmp/passwd /etc/passwd']);
        }
      },
      LIMIT_MS,
    );

    it.each([
      ['a link to the host', 'ln -s $OUTSIDE/folder /tmp/cwd'],
      ['a link to itself', 'ln -s cwd /tmp/cwd'],
    ])('runs commands inside, though their directory is %s', async (_what, script) => {
      await guest.exec(['sh', '-c', `rm -rf /tmp/cwd; ${script}`], { environment: { OUTSIDE: outside } });

      await guest.exec(['sh', '-c', 'touch here'], { cwd: '/tmp/cwd' }).catch(() => undefined); // may be refused

      await untouched();
    });

    it('gives and takes no file of the host by way of links', async () => {
      await guest.exec(['sh', '-c', 'rm -f /tmp/a /tmp/s; ln -s $OUTSIDE /tmp/a; ln -s $OUTSIDE/secret /tmp/s'], {
        environment: { OUTSIDE: outside },
      });

      for (const path of ['/tmp/a/secret', '/tmp/s', '/proc/self/root/tmp/a/secret', `/proc/1/root${outside}/secret`]) {
        expect((await daemon.call('GET', files(path))).text).not.toContain('of the host');
        expect((await daemon.call('POST', files(path), Buffer.from('evil'))).status).toBeGreaterThanOrEqual(400);
      }
      for (const path of ['/tmp/a/folder', '/tmp/a/secret']) {
        expect((await daemon.call('DELETE', files(path))).status).toBeGreaterThanOrEqual(400);
      }
      const made = await daemon.call('POST', files('/tmp/a/new'), undefined, { 'x-lxd-type': 'directory' });
      expect(made.status).toBeGreaterThanOrEqual(400);
      await untouched();
    });
  });

  it('prints escape sequences steers no terminal by the tables of the client', async () => {
    const evil = '\u001B]0;evil\u0007\u001B[2J';
    await daemon.call('PATCH', '/1.0/instances/l1', { config: { 'user.evil': evil }, description: `${evil}d` });
    const cli = join(import.meta.dirname, '../../../bin/lighter.ts');
    const env = {
      PATH: process.env['PATH'] ?? '',
      LIGHTER_DIR: daemon.root,
      HOME: daemon.root,
      LIGHTER_CONF: join(daemon.root, 'conf'),
    };

    const { stdout } = await run(process.execPath, [cli, 'list', '-c', 'nd,user.evil'], { env });

    expect(stdout).toContain(']0;evil');
    expect(Array.from(stdout).filter((character) => character < ' ' && character !== '\n')).toEqual([]);
  });
});
