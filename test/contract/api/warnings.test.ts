// /1.0/warnings (lxd-engine-contract section 1.2)
import { expect, it } from 'vitest';
import { startTestEngine } from '../../fakes/test-engine.ts';

it('are filtered, as addresses and as records', async () => {
  await using test = await startTestEngine();
  const { warnings } = test.engine.context.database;
  for (const name of ['a', 'b']) {
    warnings.raise({ type: 'Some trouble', entityUrl: `/1.0/networks/${name}`, message: name, severity: 'low' });
  }
  warnings.resolve('Some trouble', '/1.0/networks/a');
  const list = async (recursion: number, filter: string) => {
    const url = `/1.0/warnings?recursion=${recursion}&filter=${encodeURIComponent(filter)}`;
    return (await test.app.inject({ method: 'GET', url })).json<{ metadata: unknown[] }>().metadata;
  };
  const { uuid } = warnings.list().find(({ message }) => message === 'b') ?? { uuid: '' };

  for (const recursion of [0, 1]) {
    expect(await list(recursion, 'status eq acknowledged')).toEqual([]);
    expect(await list(recursion, 'status eq resolved')).toHaveLength(1);
  }
  expect(await list(0, 'status eq new')).toEqual([`/1.0/warnings/${uuid}`]);
  expect(await list(1, 'status eq new')).toMatchObject([{ uuid, last_message: 'b' }]);
});
