// lighter snapshot, restore, copy, move, rename, rebuild: what they ask of the engine.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCli } from '#src/cli/program.ts';
import { FakeLxd } from '#test/fakes/fake-lxd.ts';
import { FakeTerminal } from '#test/fakes/fake-terminal.ts';

let server: FakeLxd;
let err: string;

async function lighter(line: string): Promise<number> {
  const terminal = new FakeTerminal({ socketPath: server.socketPath });
  const code = await runCli(line.split(' '), terminal);
  err = terminal.errors;
  return code;
}

beforeEach(async () => {
  server = await FakeLxd.start();
  server.addInstance('web', { 'user.owner': 'alice' });
  server.snapshots.set('web', ['old']);
});

afterEach(async () => server[Symbol.asyncDispose]());

describe('posting', () => {
  it.each([
    ['snapshot web', '/snapshots', { name: '', stateful: false }],
    ['snapshot web s1 --stateful', '/snapshots', { name: 's1', stateful: true }],
    ['snapshot web --no-expiry', '/snapshots', { name: '', stateful: false, expires_at: '0001-01-01T00:00:00Z' }],
    ['rename web db', '', { name: 'db', instance_only: false }],
    ['move web db', '', { name: 'db', instance_only: false }],
    ['move local:web -s fast', '', { name: 'web', pool: 'fast', migration: true, instance_only: false }],
    [
      'mv web db --target-project p --instance-only',
      '',
      { name: 'db', project: 'p', migration: true, instance_only: true },
    ],
    ['move web/old web/new', '/snapshots/old', { name: 'new' }],
    ['rebuild web --empty', '/rebuild', { source: { type: 'none' } }],
  ])('%s', async (line, path, body) => {
    expect(await lighter(line)).toBe(0);

    expect(server.posted).toEqual([{ path: `/1.0/instances/web${path}`, body }]);
  });

  it('replaces a snapshot where it may', async () => {
    expect(await lighter('snapshot web old --reuse')).toBe(0);

    expect(server.requests).toContain('DELETE /1.0/instances/web/snapshots/old');
    expect(server.posted).toHaveLength(1);
  });

  it.each([
    ['move web', 'You must specify a destination instance name'],
    ['move web/old db/new', 'parent must be the same'],
    ['copy web/old x --refresh', '--refresh can only be used with instances'],
    ['copy web/old x --instance-only', "--instance-only can't be passed"],
    ['snapshot web/old x', 'Invalid instance name'],
    ['copy web x -d eth0', 'Bad device override syntax'],
  ])('refuses %s', async (line, complaint) => {
    expect(await lighter(line)).toBe(1);

    expect(err).toContain(complaint);
    expect(server.posted).toEqual([]);
  });
});

it('restores', async () => {
  expect(await lighter('restore web old')).toBe(0);

  expect(server.requests).toContain('PUT /1.0/instances/web');
});

it('copies with what the command line changes', async () => {
  expect(await lighter('copy web web2 -c user.a=b -s fast')).toBe(0);

  expect(server.instances.get('web2')?.config).toMatchObject({ 'user.a': 'b' });
  expect(server.instances.get('web2')?.devices).toEqual({ root: { type: 'disk', path: '/', pool: 'fast' } });
});
