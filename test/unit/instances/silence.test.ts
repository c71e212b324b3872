// The note of a paused instance that answers nobody; what it does to the network is in test/integration/nics/silence.test.ts.
import { expect, it } from 'vitest';
import { type InstancesUnderTest, newInstance, startInstances } from './engine-support.ts';

const NOTE = 'volatile.lighter.silent';

/** c1 runs; what is done in its network fails, as a fake's init has none. */
async function running(config: Readonly<Record<string, string>>): Promise<InstancesUnderTest> {
  const under = await startInstances();
  await under.done(under.instances.create('default', { ...newInstance('c1'), config }).operation);
  await under.change('c1', { action: 'start' });
  return under;
}

const recordOf = ({ instances }: InstancesUnderTest) => instances.get('default', 'c1').record;
const statusOf = ({ instances }: InstancesUnderTest) => instances.get('default', 'c1').status;

it('one that cannot be silenced is paused all the same, without a note', async () => {
  await using under = await running({ 'lighter.pause.silent': 'true' });

  await under.change('c1', { action: 'freeze' });

  expect(statusOf(under)).toBe('Frozen');
  expect(recordOf(under).config).not.toHaveProperty(NOTE);
  await under.change('c1', { action: 'unfreeze' });
});

it('one whose network cannot be given back stays paused; a forced stop works', async () => {
  await using under = await running({});
  await under.change('c1', { action: 'freeze' });
  const { id, config } = recordOf(under);
  under.engine.context.database.instances.update(id, { config: { ...config, [NOTE]: 'true' } });

  await expect(under.change('c1', { action: 'unfreeze' })).rejects.toThrow('a forced stop still works');
  expect(statusOf(under)).toBe('Frozen');

  await under.change('c1', { action: 'stop', force: true });
  expect(recordOf(under).config).not.toHaveProperty(NOTE);
});
