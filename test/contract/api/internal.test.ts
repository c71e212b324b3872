// /internal/ready, which `lxd waitready` asks
import { expect, it } from 'vitest';
import { startTestEngine } from '../../fakes/test-engine.ts';

it('is unavailable while instances are started', async () => {
  await using test = await startTestEngine();
  const status = async () => (await test.app.inject({ url: '/internal/ready' })).statusCode;
  test.engine.instances.started = false;

  expect(await status()).toBe(503);
  test.engine.instances.started = true;
  expect(await status()).toBe(200);
});

it('collects garbage when asked (LXD has it for looking at leaks)', async () => {
  await using test = await startTestEngine();
  const before = globalThis.gc;
  let collections = 0;
  globalThis.gc = async () => void collections++;
  try {
    const { statusCode } = await test.app.inject({ url: '/internal/gc' });

    expect({ statusCode, collections }).toEqual({ statusCode: 200, collections: 1 });
  } finally {
    globalThis.gc = before;
  }
});
