// Tokens for new clients, and when they end.
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { endOf } from '#src/engine/server/expiry.ts';
import { startTestEngine, type TestEngine } from '../../fakes/test-engine.ts';

const NOW = new Date('2024-01-31T12:00:00Z');

let test: TestEngine;
beforeEach(async () => {
  test = await startTestEngine();
  vi.useFakeTimers({ now: NOW, toFake: ['Date'] });
});
afterEach(async () => {
  vi.useRealTimers();
  await test[Symbol.asyncDispose]();
});

async function newToken(): Promise<{ readonly secret: string; readonly expiresAt: string }> {
  await test.engine.config.update({ 'core.https_address': '127.0.0.1:8443' });
  const body = { token: true, name: 'laptop' };
  const answer = await test.app.inject({ method: 'POST', url: '/1.0/certificates', body });
  return answer.json<{ metadata: { metadata: { secret: string; expiresAt: string } } }>().metadata.metadata;
}

describe('a token', () => {
  it('serves once', async () => {
    const { secret, expiresAt } = await newToken();
    vi.setSystemTime('2034-01-01T00:00:00Z');

    expect(expiresAt).toBe('0001-01-01T00:00:00Z');
    expect(test.engine.certificates.useToken(secret)).toMatchObject({ name: 'laptop' });
    expect(test.engine.certificates.useToken(secret)).toBeUndefined();
  });

  it.each([
    ['2024-01-31T12:59:59Z', 'laptop'],
    ['2024-01-31T13:00:00Z', undefined],
  ])('that lasts an hour from noon, at %s, is good for %s', async (time, name) => {
    await test.engine.config.update({ 'core.remote_token_expiry': '1H' });
    const { secret, expiresAt } = await newToken();
    vi.setSystemTime(time);

    expect(expiresAt).toBe('2024-01-31T13:00:00.000Z');
    expect(test.engine.certificates.useToken(secret)?.name).toBe(name);
  });

  it.each(['1', '1h', 'H', '1H,2M', ' ', '9999999y'])('cannot last "%s"', async (span) => {
    await expect(test.engine.config.update({ 'core.remote_token_expiry': span })).rejects.toMatchObject({
      kind: 'invalid',
    });
    expect(test.engine.config.view()).toEqual({});
  });
});

it.each([
  ['30M', '2024-01-31T12:30:00.000Z'],
  ['1d 2H', '2024-02-01T14:00:00.000Z'],
  ['2w', '2024-02-14T12:00:00.000Z'],
  ['2m', '2024-03-31T12:00:00.000Z'],
  ['1y', '2025-01-31T12:00:00.000Z'],
])('%s after noon of 31 January is %s', (span, end) => {
  expect(endOf(span, NOW).toISOString()).toBe(end);
});
