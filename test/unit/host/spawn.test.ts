// What a program gets that is started by posix_spawn(3): everything else of commands is in process.test.ts.
import { closeSync, openSync, readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';
import { spawnProgram, type SpawnRequest } from '#src/host/spawn.ts';

const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';

function request(argv: SpawnRequest['argv'], more: Partial<SpawnRequest> = {}): SpawnRequest {
  return { argv, env: { PATH }, cwd: '/', withRelay: false, ...more };
}

async function outputOf(argv: SpawnRequest['argv'], more: Partial<SpawnRequest> = {}): Promise<string> {
  const program = spawnProgram(request(argv, more));
  const said = text(program.stdout);
  expect(await program.exit).toBe(0);
  return said;
}

describe('spawnProgram', () => {
  it('passes its descriptors on and no others', async () => {
    const file = openSync('/etc/hostname', 'r');
    const open = await outputOf(['ls', '-l', '/proc/self/fd']);
    closeSync(file);

    expect(open.match(/ \d+ -> socket:/g)).toEqual([' 0 -> socket:', ' 1 -> socket:', ' 2 -> socket:']);
    expect(open).not.toContain('/etc/hostname');
  });

  it('ignores and blocks no signal, whatever Node does', async () => {
    const status = await outputOf(['cat', '/proc/self/status']);

    expect(signals(status, 'SigIgn')).toBe(0n);
    expect(signals(status, 'SigBlk')).toBe(0n);
    expect(signals(readFileSync('/proc/self/status', 'utf8'), 'SigIgn')).not.toBe(0n);
  });

  it('makes it the leader of a session', async () => {
    const program = spawnProgram(request(['cat', '/proc/self/stat']));
    const [, , , , group, session] = (await text(program.stdout)).replace(/\(.*\)/, 'x').split(' ');

    expect([Number(group), Number(session)]).toEqual([program.pid, program.pid]);
    await program.exit;
  });

  it('looks for a program in the PATH that it gets', async () => {
    const program = spawnProgram(request(['true'], { env: { PATH: '/proc/self/no-such' } }));

    expect(program.pid).toBeUndefined();
    await expect(program.exit).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('says that a directory is not there', async () => {
    await expect(spawnProgram(request(['true'], { cwd: '/no/such' })).exit).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('refuses what a program would see only half of', () => {
    expect(() => spawnProgram(request(['echo', 'a\0b']))).toThrow('null byte');
    expect(() => spawnProgram(request(['echo'], { env: { PATH, A: 'a\0b' } }))).toThrow('null byte');
  });

  it('tells an exit code from a signal', async () => {
    const killed = spawnProgram(request(['sleep', '60']));
    process.kill(killed.pid as number, 'SIGKILL');

    expect(await spawnProgram(request(['sh', '-c', 'exit 7'])).exit).toBe(7);
    expect(await killed.exit).toBeNull();
  });

  it('reaps many that end at the same time, and leaks no descriptor', async () => {
    const count = (): number => readDescriptors().length;
    await outputOf(['true']);
    const before = count();

    const programs = Array.from({ length: 50 }, () => spawnProgram(request(['true'])));
    const codes = await Promise.all(programs.map(({ exit }) => exit));
    await Promise.all(programs.map(({ stdout, stderr }) => Promise.all([text(stdout), text(stderr)])));
    for (const { stdin } of programs) stdin.destroy();
    await new Promise((resolve) => setTimeout(resolve, 50));

    expect(codes).toEqual(Array.from({ length: 50 }, () => 0));
    expect(count()).toBe(before);
    for (const { pid } of programs) expect(() => readFileSync(`/proc/${pid}/stat`)).toThrow('ENOENT');
  });

  it('puts descriptors that are low already where they belong', async () => {
    const low = openSync('/etc/passwd', 'r');

    const said = await outputOf(['cat'], { input: low });

    closeSync(low);
    expect(said).toBe(readFileSync('/etc/passwd', 'utf8'));
  });
});

/** Of a process, without the two that glibc keeps to itself. */
function signals(status: string, field: string): bigint {
  const mask = new RegExp(`^${field}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1] ?? 'missing';
  return BigInt(`0x${mask}`) & ~0x1_8000_0000n;
}

function readDescriptors(): readonly string[] {
  return process.getBuiltinModule('node:fs').readdirSync('/proc/self/fd');
}
