// The parts of the client that need no engine.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { expandAlias } from '#src/cli/aliases.ts';
import { detachFilter } from '#src/cli/commands/console.ts';
import { clientCertificate, endpointOf } from '#src/cli/connect.ts';
import { parseMap } from '#src/cli/editing.ts';
import { formatYaml } from '#src/cli/format.ts';
import { Remotes } from '#src/cli/remotes.ts';
import { withKeys } from '#src/cli/resource.ts';
import { readToken, tokenText } from '#src/cli/token.ts';
import { parseVolume } from '#src/cli/volume-name.ts';

describe('aliases', () => {
  const aliases = new Map([
    ['ll', 'list -c "n s"'],
    ['list', 'list -c ns46S'],
    ['login', 'exec @ARGS@ -- su -l'],
    ['say', 'exec @1@ -- echo @ARGS@ end'],
    ['image ls', 'image list'],
    ['a', 'b'],
    ['b', 'a'],
  ]);

  it.each([
    [
      ['ll', 'web'],
      ['list', '-c', 'ns46S', '-c', 'n s', 'web'],
    ],
    [
      ['login', 'web'],
      ['exec', 'web', '--', 'su', '-l'],
    ],
    [
      ['say', 'web', 'x', 'y'],
      ['exec', 'web', '--', 'echo', 'x', 'y', 'end'],
    ],
    [
      ['image', 'ls', 'x'],
      ['image', 'list', 'x'],
    ],
    [['a'], ['a']],
    [['other'], ['other']],
  ])('%j', (line, expected) => {
    expect(expandAlias(line, aliases)).toEqual(expected);
  });

  it('tell what they need', () => {
    expect(() => expandAlias(['say'], aliases)).toThrow('needs 1 or more arguments');
  });
});

describe('the console', () => {
  const typed = (...keys: readonly string[]) => {
    const filter = detachFilter();
    return keys.map((text) => filter(Buffer.from(text))?.toString());
  };

  it.each([
    [['abc'], ['abc']],
    [['\u0001q'], [undefined]],
    [
      ['\u0001', 'q'],
      ['', undefined],
    ],
    [['\u0001x'], ['\u0001x']],
    [
      ['\u0001', '\u0001', 'q'],
      ['', '\u0001', 'q'],
    ],
    [
      ['a\u0001', 'b'],
      ['a', '\u0001b'],
    ],
  ])('%j', (keys, passed) => {
    expect(typed(...keys)).toEqual(passed);
  });
});

describe('tokens', () => {
  const token = {
    name: 'me',
    fingerprint: 'ab',
    addresses: ['10.0.0.1:8443'],
    secret: 's',
    expiresAt: '0001-01-01T00:00:00Z',
  };

  it('are read as they are made', () => {
    expect(readToken(tokenText(token))).toEqual({
      name: 'me',
      fingerprint: 'ab',
      addresses: ['10.0.0.1:8443'],
      secret: 's',
    });
  });

  it('run out', () => {
    expect(() => readToken(tokenText({ ...token, expiresAt: '2001-01-01T00:00:00Z' }))).toThrow('expired');
  });

  it.each(['10.0.0.2', 'https://host:8443', '', 'e30='])('%j is none', (text) => {
    expect(readToken(text)).toBeUndefined();
  });
});

describe('volumes', () => {
  it.each([
    ['data', { type: 'custom', name: 'data', snapshot: undefined }],
    ['data/s0', { type: 'custom', name: 'data', snapshot: 's0' }],
    ['container/c1', { type: 'container', name: 'c1', snapshot: undefined }],
    ['custom/data/s0', { type: 'custom', name: 'data', snapshot: 's0' }],
  ])('%s', (text, volume) => {
    expect(parseVolume(text)).toEqual(volume);
  });
});

describe('YAML', () => {
  it('keeps texts of configuration as they are written', () => {
    expect(parseMap('config:\n  a: 0644\n  b: true\n  c: ~\nephemeral: true\nprofiles: [x]\n')).toEqual({
      config: { a: '0644', b: 'true', c: '~' },
      ephemeral: true,
      profiles: ['x'],
    });
  });

  it.each(['- a', 'text', '{'])('%s is refused', (text) => {
    expect(() => parseMap(text)).toThrow('Not');
  });

  it('is read back as it was', () => {
    const value = { config: { b: 'yes', a: '12', c: 'x\ny\n', d: '2020-01-01T00:00:00Z', e: '- a: b' } };

    expect(parse(formatYaml(value))).toEqual(value);
    expect(formatYaml(value)).toContain('config:\n  a: "12"\n  b: "yes"\n');
  });
});

it('keys that are set to nothing go', () => {
  expect(withKeys({ a: '1', b: '2' }, { a: '', c: '3' })).toEqual({ b: '2', c: '3' });
  expect(() => withKeys({}, { a: '' })).toThrow("Can't unset key 'a', it's not currently set");
});

describe('remotes', () => {
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'remotes-'));
  });
  afterEach(() => rm(folder, { recursive: true }));

  it('are what lxc wrote, and what it does not know is kept', async () => {
    const content =
      'default-remote: far\nremotes:\n  far:\n    addr: https://10.0.0.1:8443\n    domain: x\n    public: false\n  local:\n    addr: https://evil\n    project: team\naliases:\n  ll: list\nnew: 1\n';
    await writeFile(join(folder, 'config.yml'), content);

    const remotes = await Remotes.load(folder);
    await remotes.setAlias('x', 'y');

    expect(remotes.defaultName).toBe('far');
    expect(remotes.get('local')).toEqual({ addr: 'unix://', public: false, project: 'team' });
    expect(parse(await readFile(join(folder, 'config.yml'), 'utf8'))).toEqual({
      'default-remote': 'far',
      remotes: {
        far: { addr: 'https://10.0.0.1:8443', domain: 'x', public: false },
        local: { addr: 'unix://', public: false, project: 'team' },
      },
      aliases: { ll: 'list', x: 'y' },
      new: 1,
    });
  });

  it.each(['[]', 'remotes: 1', 'remotes: {a: {}}', '{'])('%s is refused', async (text) => {
    await writeFile(join(folder, 'config.yml'), text);

    await expect(Remotes.load(folder)).rejects.toThrow('Cannot read');
  });

  it('have a way to them', async () => {
    const remotes = await Remotes.load(folder);
    await remotes.set('far', { addr: 'https://10.0.0.1:8443', public: false });
    await remotes.set('socket', { addr: 'unix:///run/x.socket', public: false });

    expect(await endpointOf(remotes, 'local', '/s')).toEqual({ kind: 'unix', socketPath: '/s' });
    expect(await endpointOf(remotes, 'socket', '/s')).toEqual({ kind: 'unix', socketPath: '/run/x.socket' });
    const endpoint = await endpointOf(remotes, 'far', '/s');
    expect(endpoint).toMatchObject({ kind: 'https', url: 'https://10.0.0.1:8443' });
    expect(await clientCertificate(folder)).toEqual(
      expect.objectContaining({ certificate: endpoint.kind === 'https' ? endpoint.clientCertificate : '' }),
    );
    await expect(endpointOf(remotes, 'images', '/s')).rejects.toThrow('image server');
  });
});
