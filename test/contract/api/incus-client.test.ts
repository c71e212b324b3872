// What Incus' client needs to be answered differently from LXD's.
import { afterEach, describe, expect, it } from 'vitest';
import { startTestEngine, type TestEngine } from '../../fakes/test-engine.ts';

const INCUS = { 'user-agent': 'Incus 6.0.4 (Linux; x86_64; 6.1.0)' };
const LXD = { 'user-agent': 'LXD 5.0.2 (Linux; x86_64; 6.1.0)' };

let test: TestEngine;
afterEach(() => test[Symbol.asyncDispose]());

async function configFor(headers: Record<string, string>): Promise<Record<string, unknown>> {
  const answer = await test.app.inject({ url: '/1.0', headers });
  return answer.json<{ metadata: { config: Record<string, unknown> } }>().metadata.config;
}

describe('the password of the server', () => {
  it('is a text for Incus, and stays when that comes back', async () => {
    test = await startTestEngine();
    await test.engine.config.update({ 'core.trust_password': 'right' });

    expect(await configFor(LXD)).toEqual({ 'core.trust_password': true });
    const config = await configFor(INCUS);
    expect(config).toEqual({ 'core.trust_password': 'true' });

    const payload = { config: { ...config, 'user.a': 'true' } };
    const put = await test.app.inject({ method: 'PUT', url: '/1.0', headers: INCUS, payload });
    expect(put.statusCode).toBe(200);
    expect(await configFor(LXD)).toEqual({ 'core.trust_password': true, 'user.a': 'true' });
    expect(await test.engine.config.isTrustPassword('right')).toBe(true);
  });
});
