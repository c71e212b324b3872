// Commands on the real machine: small ones that every system has.
import { mkdtemp, rm, stat, symlink, writeFile, readFile, mkdir, chmod, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { CommandError } from '#src/host/command-error.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { kindOf } from '#src/lib/errors.ts';

const host = new LinuxHost();
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lighter-host-'));
});

afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function rejection(work: Promise<unknown>): Promise<CommandError> {
  const error: unknown = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof CommandError) return error;
  throw new Error(`not a CommandError: ${String(error)}`);
}

/** A process that is dead may still wait for init to take notice (state Z). */
async function isAlive(pid: number): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return status !== '' && !/\) [ZX] /.test(status);
}

describe('run', () => {
  it('gives output, errors and exit status', async () => {
    const result = await host.run(['sh', '-c', 'echo out; echo err >&2; exit 3'], { okExitCodes: [0, 3] });

    expect(result).toEqual({ stdout: 'out\n', stderr: 'err\n', exitCode: 3 });
  });

  it('passes arguments as they are', async () => {
    expect((await host.run(['printf', '%s|', '$HOME', 'a b', '; rm x', '*'])).stdout).toBe('$HOME|a b|; rm x|*|');
  });

  it('rejects with what was run, how it ended and what it said', async () => {
    const error = await rejection(host.run(['sh', '-c', 'echo broken >&2; exit 4']));

    expect([error.argv[0], error.exitCode, error.stderr, error.kind]).toEqual(['sh', 4, 'broken\n', 'internal']);
    expect(error.message).toContain('exit status 4: broken');
  });

  it('rejects when the program does not exist', async () => {
    const error = await rejection(host.run(['/no/such/program']));

    expect(error.exitCode).toBeNull();
    expect(error.message).toContain('ENOENT');
  });

  it('gives a clean environment and the root directory', async () => {
    const { stdout } = await host.run(['sh', '-c', 'env; pwd'], { env: { EXTRA: 'x' } });

    const names = stdout
      .split('\n')
      .filter((line) => line.includes('='))
      .map((line) => line.split('=')[0]);
    const ours = new Set(names).difference(new Set(['PWD', 'OLDPWD', 'SHLVL', '_']));
    expect(ours).toEqual(new Set(['EXTRA', 'LC_ALL', 'PATH']));
    expect(stdout.endsWith('\n/\n')).toBe(true);
  });

  it.each([
    ['text', 'hello'],
    ['bytes', Buffer.from('hello')],
    ['a stream', Readable.from(['hel', 'lo'])],
  ])('feeds %s', async (_what, input) => {
    expect((await host.run(['cat'], { input })).stdout).toBe('hello');
  });

  it('feeds a file', async () => {
    await writeFile(join(folder, 'in'), 'from a file');

    expect((await host.run(['cat'], { inputFile: join(folder, 'in') })).stdout).toBe('from a file');
  });

  it('does not mind a program that reads nothing of a large input', async () => {
    expect((await host.run(['true'], { input: Buffer.alloc(4 * 2 ** 20) })).exitCode).toBe(0);
  });

  it('kills the program when its input breaks off', async () => {
    async function* broken(): AsyncGenerator<string> {
      yield 'half';
      await delay(10);
      throw new Error('the source broke');
    }

    expect((await rejection(host.run(['cat'], { input: Readable.from(broken()) }))).message).toContain(
      'the source broke',
    );
  });

  it('kills the program when its input is closed before its end', async () => {
    const input = new PassThrough();
    input.write('half');
    setTimeout(() => input.destroy(), 50);

    const error = await rejection(host.run(['sh', '-c', 'cat; echo as if that were all'], { input }));

    expect(error.exitCode).toBeNull();
  });

  it('kills the whole process group on abort, before it rejects', async () => {
    const stop = new AbortController();
    const script = `sleep 60 & echo $! > ${folder}/child; echo $$ > ${folder}/self; wait`;
    const work = rejection(host.run(['sh', '-c', script], { signal: stop.signal }));
    for (let tries = 0; tries < 100 && (await readdir(folder)).length < 2; tries++) await delay(20);

    stop.abort(new Error('enough'));
    const error = await work;

    expect([error.exitCode, error.kind]).toEqual([null, 'unavailable']);
    expect(error.message).toContain('enough');
    expect(await isAlive(Number(await readFile(`${folder}/self`, 'utf8')))).toBe(false);
    expect(await isAlive(Number(await readFile(`${folder}/child`, 'utf8')))).toBe(false);
  });

  it('kills at the time limit', async () => {
    const error = await rejection(host.run(['sleep', '60'], { timeoutMs: 50 }));

    expect(error.message).toContain('timed out after 50 ms');
  });

  it('starts nothing with a signal that is aborted already', async () => {
    await expect(host.run(['touch', join(folder, 'made')], { signal: AbortSignal.abort() })).rejects.toThrow('abort');

    expect(await readdir(folder)).toEqual([]);
  });

  it('does not wait for a program that went into the background with our pipes', async () => {
    const started = performance.now();

    const { stdout } = await host.run(['sh', '-c', 'setsid sleep 30 & echo $!']);

    process.kill(Number(stdout));
    expect(performance.now() - started).toBeLessThan(9000);
  });
});

describe('start', () => {
  it('streams in and out', async () => {
    const command = host.start(['cat']);

    command.stdin.end('streamed');

    expect(await text(command.stdout as Readable)).toBe('streamed');
    expect(await command.done).toEqual({ exitCode: 0, stderr: '' });
  });

  it('keeps what an ended program said for a reader who takes his time', async () => {
    const command = host.start(['head', '--bytes=500000', '/dev/zero']);
    let bytes = 0;
    let waits = 1;
    const slow = new Writable({
      highWaterMark: 1,
      write(piece: Buffer, _encoding, done) {
        bytes += piece.length;
        // the program ends meanwhile: what is left is less than a socket takes
        setTimeout(done, bytes > 350_000 && waits-- > 0 ? 3000 : 0);
      },
    });

    await pipeline(command.stdout, slow);

    expect(bytes).toBe(500_000);
    expect(await command.done).toEqual({ exitCode: 0, stderr: '' });
  });

  it('ends with what an ended program said when it is aborted, though nobody takes it', async () => {
    const stop = new AbortController();
    const command = host.start(['head', '--bytes=100000', '/dev/zero'], { signal: stop.signal });
    const pieces = (command.stdout as Readable)[Symbol.asyncIterator]();
    await pieces.next();
    setTimeout(() => stop.abort(new Error('enough')), 100);

    expect((await rejection(command.done)).message).toContain('enough');
  });

  it('keeps it for one who begins late', async () => {
    const command = host.start(['head', '--bytes=1000', '/dev/zero']);
    await delay(2500);

    expect(await text(command.stdout as Readable)).toHaveLength(1000);
    expect(await command.done).toMatchObject({ exitCode: 0 });
  });

  it('rejects done as run() does', async () => {
    expect((await rejection(host.start(['sh', '-c', 'exit 9']).done)).exitCode).toBe(9);
  });
});

describe('files', () => {
  it('replaces a file in one step and leaves nothing else', async () => {
    const path = join(folder, 'file');
    await writeFile(path, 'old');

    await host.writeFile(path, 'new', { mode: 0o600 });

    expect(await host.readFile(path)).toBe('new');
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(await readdir(folder)).toEqual(['file']);
  });

  it('replaces a link, not what it points to', async () => {
    await writeFile(join(folder, 'target'), 'untouched');
    await symlink('target', join(folder, 'link'));

    await host.writeFile(join(folder, 'link'), 'new');

    expect(await readFile(join(folder, 'target'), 'utf8')).toBe('untouched');
  });

  it('says not_found for what is absent, and [] for an absent directory', async () => {
    const absent = join(folder, 'absent');

    expect(await host.readFile(absent).catch(kindOf)).toBe('not_found');
    expect(await host.status(absent).catch(kindOf)).toBe('not_found');
    expect(await host.exists(absent)).toBe(false);
    expect(await host.list(absent)).toEqual([]);
  });

  it('makes directories with parents and exact modes, and fresh ones only when they are new', async () => {
    const path = join(folder, 'a', 'b');

    await host.makeDirectory(path, { mode: 0o711 });
    await host.makeDirectory(path, { mode: 0o700 });

    expect((await stat(path)).mode & 0o777).toBe(0o711);
    expect(await host.makeDirectory(path, { fresh: true }).catch(kindOf)).toBe('conflict');
    expect(await host.makeDirectory(join(folder, 'x', 'y'), { fresh: true }).catch(kindOf)).toBe('not_found');
  });

  it('does not rename over a directory with something in it', async () => {
    await host.makeDirectory(join(folder, 'a'));
    await host.makeDirectory(join(folder, 'b', 'full'));

    expect(await host.rename(join(folder, 'a'), join(folder, 'b')).catch(kindOf)).toBe('conflict');
  });

  it('exchanges two directories', async () => {
    await host.makeDirectory(join(folder, 'a', 'of-a'));
    await host.makeDirectory(join(folder, 'b', 'of-b'));

    await host.exchange(join(folder, 'a'), join(folder, 'b'));

    expect(await readdir(join(folder, 'a'))).toEqual(['of-b']);
  });
});

describe('removeTree', () => {
  it('removes links, not what they point to', async () => {
    await mkdir(join(folder, 'kept', 'sub'), { recursive: true });
    await writeFile(join(folder, 'kept', 'file'), 'x');
    await mkdir(join(folder, 'tree'));
    await symlink(join(folder, 'kept'), join(folder, 'tree', 'link'));
    await symlink(join(folder, 'kept'), join(folder, 'top'));

    await host.removeTree(join(folder, 'tree'));
    await host.removeTree(join(folder, 'top'));

    expect((await readdir(join(folder, 'kept'))).sort()).toEqual(['file', 'sub']);
    expect(await readdir(folder)).toEqual(['kept']);
  });

  it('removes directories without permissions, and accepts what is absent', async () => {
    await mkdir(join(folder, 'tree', 'closed'), { recursive: true });
    if (process.getuid?.() === 0) await chmod(join(folder, 'tree', 'closed'), 0);

    await host.removeTree(join(folder, 'tree'));
    await host.removeTree(join(folder, 'tree'));

    expect(await readdir(folder)).toEqual([]);
  });

  it('starts no program for what is absent or empty, and one for a link that leads nowhere', async () => {
    const run = vi.spyOn(host, 'run');
    using _spy = { [Symbol.dispose]: () => run.mockRestore() };
    await symlink(join(folder, 'nowhere'), join(folder, 'link'));
    await mkdir(join(folder, 'empty'));

    await host.removeTree(join(folder, 'absent'));
    await host.removeTree(join(folder, 'empty'));
    const startedForNothing = run.mock.calls.length;
    await host.removeTree(join(folder, 'link'));

    expect(startedForNothing).toBe(0);
    expect(await readdir(folder)).toEqual([]);
  });

  it.each(['/', 'relative', '//', '/a/..'])('refuses %s', async (path) => {
    expect(await host.removeTree(path).catch(kindOf)).toBe('invalid');
  });
});
