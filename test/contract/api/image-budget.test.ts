// limits.disk of a project holds for its images as well (lxd-engine-contract section 3.6).
import { readdir } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { startTestEngine } from '../../fakes/test-engine.ts';
import { tarOf } from '../../fakes/tar.ts';

const IMAGE = tarOf({ 'metadata.yaml': 'architecture: x86_64\n' });

it('refuses an upload that is more than what its project has left, and keeps nothing of it', async () => {
  await using test = await startTestEngine();
  const make = (name: string, config: object) =>
    test.app.inject({ method: 'POST', url: '/1.0/projects', payload: { name, config } });
  const quota = IMAGE.length - 1;
  await make('small', { 'limits.disk': `${quota}B` });
  await make('exact', { 'limits.disk': `${IMAGE.length}B` });
  await make('shared', { 'limits.disk': '1B', 'features.images': 'false' });
  const upload = async (project: string) => {
    const headers = { 'content-type': 'application/octet-stream' };
    const url = `/1.0/images?project=${project}`;
    return await test.app.inject({ method: 'POST', url, payload: IMAGE, headers });
  };

  const refused = await upload('small');

  expect(refused.statusCode).toBe(500);
  expect(refused.json()).toMatchObject({
    error: expect.stringMatching(`^reached \\d+ bytes, exceeding quota of ${quota}$`),
  });
  expect(await readdir(join(test.root, 'images'))).toEqual([]);
  expect((await upload('exact')).statusCode).toBe(202);
  expect((await upload('shared')).statusCode).toBe(202);
});

it('answers a client that reads only when it has sent everything, and keeps its connection', async () => {
  await using test = await startTestEngine();
  const payload = { name: 'small', config: { 'limits.disk': '100kB' } };
  await test.app.inject({ method: 'POST', url: '/1.0/projects', payload });
  const socketPath = join(test.root, 'budget.socket');
  await test.app.listen({ path: socketPath });
  const headers = { 'content-type': 'application/octet-stream' };
  const sent = Promise.withResolvers<void>();
  const answered = new Promise<number | undefined>((resolve, reject) => {
    const upload = request({ socketPath, method: 'POST', path: '/1.0/images?project=small', headers }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    });
    upload.on('error', reject);
    upload.write(Buffer.alloc(8 << 20));
    upload.end(() => sent.resolve());
  });

  await Promise.all([sent.promise, answered]);

  expect(await answered).toBe(500);
  expect(await readdir(join(test.root, 'images'))).toEqual([]);
});
