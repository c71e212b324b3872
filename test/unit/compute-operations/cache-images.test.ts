// Images made ready before anybody builds from them.
import { expect, it } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import { buildArgs, ComputeHarness, instanceOf } from '#test/fakes/compute-harness.ts';

it('says of each image what became of it, and a build fetches none that is there', async () => {
  await using harness = new ComputeHarness();
  harness.glance.addActive('image-1', { hashAlgorithm: 'sha512', hashValue: 'hash' });
  harness.glance.addActive('disk', { diskFormat: 'vmdk', checksum: 'other' });
  harness.glance.addActive('broken', { checksum: 'broken' });
  harness.glance.contents.set('broken', new AppError('unavailable', 'the transfer broke'));
  harness.glance.addQueued('queued');

  const ids = ['image-1', 'disk', 'broken', 'queued', 'absent'];
  const first = await harness.send('cache_images', { image_ids: ids });
  const second = await harness.send('cache_images', { image_ids: ['image-1'] });
  const before = harness.glance.requests.length;
  const instance = instanceOf();
  await harness.build(instance, buildArgs(instance));

  expect(first).toEqual({
    'image-1': 'cached',
    disk: 'unsupported',
    broken: 'error',
    queued: 'error',
    absent: 'error',
  });
  expect(second).toEqual({ 'image-1': 'existing' });
  expect(harness.glance.requests.slice(before)).toEqual([]);
  expect(harness.row(instance)['vm_state']).toBe('active');
});
