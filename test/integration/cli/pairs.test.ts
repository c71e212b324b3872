// What lighter prints beside what lxc prints, on the same engine.
import { parse } from 'yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { StockClient } from '../engine/stock-client.ts';
import { TestDaemon } from '../instances/daemon-support.ts';
import { describeWith } from '../support.ts';
import { InProcess } from './in-process.ts';

const NAME = `cp${process.pid}`;

/** Go prints an empty list where JSON has null, and times without zeros at the end. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (typeof value === 'string') return value.replace(/(\.\d*?)0+Z$/, '$1Z').replace('.Z', 'Z');
  if (typeof value !== 'object' || value === null) return value;
  const fields = Object.entries(value).filter(([, field]) => field !== null && JSON.stringify(field).length > 2);
  return Object.fromEntries(fields.map(([name, field]) => [name, withoutNulls(field)]));
}

describeWith({ root: true, commands: ['lxc', 'lxc-start', 'busybox'] }, 'lighter and lxc', () => {
  let daemon: TestDaemon;
  let stock: StockClient;
  let own: InProcess;

  beforeAll(async () => {
    daemon = await TestDaemon.start();
    stock = await StockClient.for(daemon);
    own = new InProcess(daemon);
    await daemon.addImage();
    const body = { config: { 'user.yes': 'yes', 'user.lines': 'a\nb: c\n', 'user.n': '12', 'user.empty': ' x' } };
    await daemon.operate('POST', '/1.0/instances', { name: NAME, source: { type: 'image', alias: 'bb' }, ...body });
    await daemon.operate('POST', `/1.0/instances/${NAME}/snapshots`, { name: 's0' });
    await stock.run('project', 'create', 'team', '-c', 'limits.instances=3');
    await stock.run('profile', 'create', 'small');
    await stock.run('profile', 'device', 'add', 'small', 'scratch', 'disk', 'source=/tmp', 'path=/scratch');
    await stock.run('storage', 'volume', 'create', 'default', 'data', 'user.a=b');
    await stock.run('storage', 'volume', 'snapshot', 'default', 'data', 'first');
  });
  afterAll(() => daemon[Symbol.asyncDispose]());

  describe('print the same', () => {
    it.each(
      [
        'list',
        'list --format csv -c nsPtSabdefFlp',
        'list --format json',
        'list --format yaml',
        'list --format compact',
        `config show ${NAME}`,
        `config show ${NAME} --expanded`,
        `config show ${NAME}/s0`,
        `config get ${NAME} user.lines`,
        'config get core.https_address',
        'config show',
        `config device show ${NAME}`,
        'profile list',
        'profile show default',
        'profile show small',
        'profile device show small',
        'profile device list small',
        'profile device get small scratch path',
        'profile get small limits.cpu',
        'project list',
        'project list --format yaml',
        'project show team',
        'project info team',
        'project get team limits.instances',
        'storage list',
        'storage show default',
        'storage info default',
        'storage get default source',
        'storage volume list default',
        'storage volume show default data',
        'storage volume show default data/first',
        'storage volume get default data user.a',
        'network list',
        'image list',
        'image list -c lLfFpdats --format csv',
        'image show bb',
        'image info bb',
        'image alias list',
        'image get-property bb os',
        'operation list',
        'warning list',
        'config trust list',
        'config trust list-tokens',
        `info ${NAME}`,
      ].map((line) => [line]),
    )('%s', async (line) => {
      const expected = (await stock.ends(line.split(' '))).stdout.toString();

      const printed = await own.run(...line.split(' '));

      // Texts are quoted in one way or another, and fields may come in another order.
      if (/ show | yaml| json|storage info/.test(`${line} `))
        expect(withoutNulls(parse(printed))).toEqual(withoutNulls(parse(expected)));
      else if (line.startsWith('image info')) expect(printed.split('\n').sort()).toEqual(expected.split('\n').sort());
      else expect(printed).toBe(expected);
    });
  });

  describe('refuse with the same words', () => {
    it.each(
      [
        'config show none',
        `config unset ${NAME} user.none`,
        `config device get ${NAME} none path`,
        `config device get ${NAME} root path`,
        `config device set ${NAME} root size=1GiB`,
        `config device remove ${NAME} root`,
        `config device add small2 x disk`,
        'profile show none',
        'profile delete default',
        'project delete default',
        'storage delete default',
        'storage volume show default none',
        'operation show none',
        'alias remove none',
      ].map((line) => [line]),
    )('%s', async (line) => {
      const expected = await stock.ends(line.split(' '));

      const { code, err } = await own.ends(line.split(' '));

      expect(err).toBe(expected.stderr);
      expect(code).toBe(expected.code);
    });
  });
});
