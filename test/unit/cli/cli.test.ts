// The command line as its user sees it, on an engine in memory.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCli } from '#src/cli/program.ts';
import { poll } from '#src/lib/wait.ts';
import { FakeLxd } from '#test/fakes/fake-lxd.ts';
import { FakeTerminal } from '#test/fakes/fake-terminal.ts';

let server: FakeLxd;
let out: string;
let err: string;
let terminal: FakeTerminal;

async function lighter(
  line: string,
  options: { readonly signal?: AbortSignal; readonly input?: string } = {},
): Promise<number> {
  terminal = new FakeTerminal({ socketPath: server.socketPath, ...options });
  const code = await runCli(line === '' ? [] : line.split(' '), terminal);
  out = terminal.output;
  err = terminal.errors;
  return code;
}

beforeEach(async () => {
  server = await FakeLxd.start();
});

afterEach(async () => server[Symbol.asyncDispose]());

describe('list', () => {
  beforeEach(() => {
    server.addInstance('web10', { 'user.owner': 'alice' });
    server.addInstance('web2', { 'user.owner': 'bob' });
    server.addInstance('db', {});
    server.setStatus('web2', 'Running');
  });

  it('prints the table of lxc', async () => {
    await lighter('list');

    expect(out).toBe(`+-------+---------+-----------------+------+-----------+-----------+
| NAME  |  STATE  |      IPV4       | IPV6 |   TYPE    | SNAPSHOTS |
+-------+---------+-----------------+------+-----------+-----------+
| db    | STOPPED |                 |      | CONTAINER | 0         |
+-------+---------+-----------------+------+-----------+-----------+
| web2  | RUNNING | 10.0.0.5 (eth0) |      | CONTAINER | 0         |
+-------+---------+-----------------+------+-----------+-----------+
| web10 | STOPPED |                 |      | CONTAINER | 0         |
+-------+---------+-----------------+------+-----------+-----------+
`);
  });

  it.each([
    ['list -f csv -c ns', 'db,STOPPED\nweb2,RUNNING\nweb10,STOPPED\n'],
    ['list -f csv -c n,s,user.owner:OWNER web', 'web2,RUNNING,bob\nweb10,STOPPED,alice\n'],
    ['list -f compact -c ns db', '  NAME   STATE   \n  db    STOPPED  \n'],
    ['list -f csv -c n web', 'web2\nweb10\n'],
    ['list -f csv -c n web.*0', 'web10\n'],
    ['list -f csv -c n status=running', 'web2\n'],
    ['list -f csv -c n u.owner=ali.*', 'web10\n'],
    ['list -f csv -c n web u.owner=bob', 'web2\n'],
    ['list -f csv -c nmNpu web2', 'web2,796.00KiB,3,4242,2s\n'],
    ['list -f csv -c n,user.owner:O:2 web10', 'web10,al\n'],
    ['ls -f csv --fast db', 'db,STOPPED,x86_64,2026/01/02 03:04 UTC,,CONTAINER\n'],
  ])('%s', async (line, expected) => {
    expect(await lighter(line)).toBe(0);

    expect(out).toBe(expected);
  });

  it('gives machines the whole objects', async () => {
    await lighter('list -f json db');

    expect(JSON.parse(out)).toMatchObject([{ name: 'db', status: 'Stopped', state: { pid: 0 } }]);
  });

  it.each([
    ['list -c nZ', "Error: Unknown column shorthand char 'Z' in 'nZ'\n"],
    ['list -f xml', 'Error: Invalid format "xml"; one of table, compact, csv, json, yaml\n'],
    ['list web[', 'Error: Not a regular expression: web[\n'],
  ])('%s is an error', async (line, message) => {
    expect(await lighter(line)).toBe(1);

    expect(err).toBe(message);
  });
});

describe('instances', () => {
  beforeEach(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'cli-'));
    await writeFile(join(folder, 'image.tar'), 'content');
    await lighter(`image import ${join(folder, 'image.tar')} --alias deb os=Debian`);
    await rm(folder, { recursive: true });
  });

  it('are created and started from an image', async () => {
    expect(await lighter('launch deb web -c limits.cpu=2 -p base -p extra')).toBe(0);

    expect(out).toBe('Creating web\nStarting web\n');
    expect(server.instances.get('web')).toMatchObject({
      status: 'Running',
      config: { 'limits.cpu': '2' },
      profiles: ['base', 'extra'],
    });
  });

  it('override a device of a profile', async () => {
    await lighter('init deb web -d root,size=20GiB');

    expect(server.instances.get('web')?.devices).toEqual({
      root: { type: 'disk', path: '/', pool: 'default', size: '20GiB' },
    });
  });

  it('get a name from the engine when none was given', async () => {
    await lighter('launch local:deb --no-profiles');

    expect(out).toBe('Creating the instance\nInstance name is: clever-name\nStarting clever-name\n');
    expect(server.instances.get('clever-name')?.profiles).toEqual([]);
  });

  it('say nothing with --quiet', async () => {
    await lighter('--quiet launch deb web');

    expect(out).toBe('');
  });

  it('start, stop, restart and go', async () => {
    await lighter('init deb web');

    expect(await lighter('start web')).toBe(0);
    expect(await lighter('restart web --force')).toBe(0);
    expect(await lighter('pause web')).toBe(0);
    expect(server.instances.get('web')?.status).toBe('Frozen');
    expect(await lighter('start web')).toBe(0);
    expect(server.instances.get('web')?.status).toBe('Running');
    expect(await lighter('stop web --timeout 5')).toBe(0);
    expect(await lighter('delete web')).toBe(0);
    expect(server.instances.size).toBe(0);
  });

  it('are not deleted while they run, unless by force', async () => {
    await lighter('launch deb web');

    expect(await lighter('delete web')).toBe(1);
    expect(err).toBe('Error: The instance is currently running, stop it first or pass --force\n');

    expect(await lighter('delete -f web')).toBe(0);
    expect(server.instances.size).toBe(0);
  });

  it('are stopped all at once', async () => {
    for (const name of ['a', 'b']) await lighter(`launch deb ${name}`);
    await lighter('init deb c');

    expect(await lighter('stop --all')).toBe(0);

    expect([...server.instances.values()].map(({ status }) => status)).toEqual(['Stopped', 'Stopped', 'Stopped']);
  });

  it('that fail are told one by one', async () => {
    await lighter('init deb a');

    expect(await lighter('start a b')).toBe(1);

    expect(err).toBe('error: b: Instance not found\nError: Some instances failed to start\n');
    expect(server.instances.get('a')?.status).toBe('Running');
  });

  it.each([
    ['launch', 'Error: An image is needed, or --empty\n'],
    ['launch none web', 'Error: Image not found: none\nlighter image list shows what is there.\n'],
    ['launch nowhere:deb web', 'Error: The remote "nowhere" doesn\'t exist\n'],
    ['launch deb web -c limits', 'Error: Bad key=value pair: limits\n'],
    ['start', 'Error: An instance name is needed, or --all\n'],
    ['stop a --all', 'Error: Both --all and instance name given\n'],
    ['start none', 'Error: Instance not found\n'],
  ])('%s is an error', async (line, message) => {
    expect(await lighter(line)).toBe(1);

    expect(err).toBe(message);
  });

  it('show themselves', async () => {
    await lighter('launch deb web');

    await lighter('info web');

    expect(out).toContain('Name: web\nStatus: RUNNING\nType: container\nArchitecture: x86_64\nPID: 4242\n');
    expect(out).toContain('        inet:  10.0.0.5/24 (global)\n');
  });

  it('show what they printed', async () => {
    await lighter('launch deb web');

    await lighter('console --show-log web');

    expect(out).toBe('\nConsole log:\n\nbooted web\n\n');
  });
});

describe('config', () => {
  beforeEach(() => {
    server.addInstance('web', { 'limits.cpu': '2' });
  });

  it.each([
    ['config set web limits.cpu=3 user.a=b=c', { 'limits.cpu': '3', 'user.a': 'b=c' }],
    ['config set web limits.cpu 4', { 'limits.cpu': '4' }],
    ['config unset web limits.cpu', {}],
  ])('%s', async (line, config) => {
    expect(await lighter(line)).toBe(0);

    expect(server.instances.get('web')?.config).toEqual(config);
  });

  it('gets keys of instances and of the engine', async () => {
    await lighter('config get web limits.cpu');
    expect(out).toBe('2\n');

    await lighter('config get core.https_address');
    expect(out).toBe('[::]:8443\n');

    await lighter('config get web no.such');
    expect(out).toBe('\n');
  });

  it('shows what can be set', async () => {
    await lighter('config show web');

    expect(out).toBe(
      'architecture: x86_64\nconfig:\n  limits.cpu: "2"\ndevices: {}\nephemeral: false\nprofiles: []\nstateful: false\ndescription: ""\n',
    );
  });

  it('refuses to unset what is not set', async () => {
    expect(await lighter('config unset web user.none')).toBe(1);

    expect(err).toBe("Error: Can't unset key 'user.none', it's not currently set\n");
  });
});

describe('everything else', () => {
  it('version', async () => {
    await lighter('version');

    expect(out).toBe('Client version: 1.2.3\nServer version: 5.0.2\n');
  });

  it('version without an engine', async () => {
    await server.shutDown();

    expect(await lighter('version')).toBe(0);
    expect(out).toBe('Client version: 1.2.3\nServer version: unreachable\n');

    await server.listen();
  });

  it('says where the engine is looked for when there is none', async () => {
    await server.shutDown();

    expect(await lighter('list')).toBe(1);
    expect(err).toContain('LIGHTER_DIR');

    await server.listen();
  });

  it('storage, networks and profiles', async () => {
    await lighter('storage list -f csv');
    expect(out).toBe('default,zfs,,,0,CREATED\n');

    await lighter('storage info default');
    expect(out).toContain('  space used: 10.00GiB\n  total space: 100.00GiB\n');
    expect(out).toContain('  instances:\n  - c1\n');

    await lighter('network list -f csv');
    expect(out).toBe('lxdbr0,bridge,YES,10.0.0.1/24,,,0,CREATED\n');

    await lighter('profile list -f csv');
    expect(out).toBe('default,Default,0\n');
  });

  it('query', async () => {
    await lighter('query /1.0/profiles');
    expect(JSON.parse(out)).toMatchObject([{ name: 'default' }]);

    server.addInstance('web', {});
    const code = await lighter('query -X PUT --wait -d - /1.0/instances/web/state', { input: '{"action":"start"}' });
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ status: 'Success' });
    expect(server.instances.get('web')?.status).toBe('Running');

    expect(await lighter('query -d {no /1.0')).toBe(1);
    expect(err).toBe('Error: --data is not JSON\n');
  });

  it('image list and aliases', async () => {
    server.images.set('abcdef1234567890', {
      fingerprint: 'abcdef1234567890',
      metadata: undefined,
      content: Buffer.alloc(2 * 1024 * 1024),
      filename: 'x',
      properties: { description: 'Debian, 12' },
    });
    await lighter('image alias create deb abcdef');
    await lighter('image list -f csv -c lfpdatsu');
    expect(out).toBe('deb,abcdef123456,no,"Debian, 12",x86_64,CONTAINER,2.00MB,"Nov 23, 2026 at 1:10pm (UTC)"\n');

    await lighter('image info deb');
    expect(out).toContain('Fingerprint: abcdef1234567890\nSize: 2.00MB\n');

    expect(await lighter('image delete deb')).toBe(0);
    expect(server.images.size).toBe(0);

    expect(await lighter('image delete deb')).toBe(1);
    expect(err).toBe('Error: Image not found: deb\n');
  });

  it('monitor prints events until it is interrupted', async () => {
    const interrupted = new AbortController();
    const ended = lighter('monitor --type lifecycle --pretty', { signal: interrupted.signal });
    await poll(() => (server.streamCount === 1 ? true : undefined), 5, AbortSignal.timeout(5000));

    server.lifecycle('instance-started', '/1.0/instances/web');
    await poll(() => (terminal.output === '' ? undefined : true), 5, AbortSignal.timeout(5000));
    interrupted.abort();

    expect(await ended).toBe(0);
    expect(out).toMatch(/^\S+ \[lifecycle\] instance-started \/1\.0\/instances\/web\n$/);
  });

  it('help teaches', async () => {
    expect(await lighter('--help')).toBe(0);
    expect(out).toContain('lighter launch debian web');
    expect(out).toContain('LIGHTER_DIR');

    expect(await lighter('list --help')).toBe(0);
    expect(out).toContain('u.owner=alice');
  });

  it.each([
    ['bogus', "Error: unknown command 'bogus'"],
    ['list --bogus', "Error: unknown option '--bogus'"],
    ['info a b', 'Error: too many arguments'],
    ['stop --timeout x c1', 'It must be a number of seconds.'],
  ])('%s is refused', async (line, message) => {
    expect(await lighter(line)).toBe(1);

    expect(err).toContain(message);
  });
});
